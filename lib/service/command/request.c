#include "service/command/request.h"

#include "core/id.h"

#include <string.h>

#define AT(member) offsetof(struct tally_command, member)
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Lengths as the checks of schema/postgres/0001_tables.sql have them. */
static const struct tally_field create_user[] = {
    {"name", TALLY_FIELD_LINE, true, false, 1, 200, AT(name)},
    {"email", TALLY_FIELD_EMAIL, true, false, 3, 254, AT(email)},
    {"avatar", TALLY_FIELD_LINE, false, true, 1, 2048, AT(avatar)},
};
static const struct tally_field update_user[] = {
    {"name", TALLY_FIELD_LINE, false, false, 1, 200, AT(name)},
    {"email", TALLY_FIELD_EMAIL, false, false, 3, 254, AT(email)},
    {"avatar", TALLY_FIELD_LINE, false, true, 1, 2048, AT(avatar)},
};
static const struct tally_field create_post[] = {
    {"authorId", TALLY_FIELD_ID, true, false, 1, 19, AT(user_id)},
    {"title", TALLY_FIELD_LINE, false, true, 1, 200, AT(title)},
    {"body", TALLY_FIELD_TEXT, true, false, 1, 50000, AT(body)},
};
static const struct tally_field create_comment[] = {
    {"authorId", TALLY_FIELD_ID, true, false, 1, 19, AT(user_id)},
    {"body", TALLY_FIELD_TEXT, true, false, 1, 10000, AT(body)},
};

const struct tally_body tally_bodies[TALLY_COMMAND_KIND_COUNT] = {
    [TALLY_COMMAND_CREATE_USER] = {create_user, COUNT(create_user), false},
    [TALLY_COMMAND_UPDATE_USER] = {update_user, COUNT(update_user), true},
    [TALLY_COMMAND_CREATE_POST] = {create_post, COUNT(create_post), false},
    [TALLY_COMMAND_CREATE_COMMENT] = {create_comment, COUNT(create_comment), false},
};

/* Code points of valid UTF-8: every byte but the continuations. */
static size_t count_characters(const char *text, size_t length)
{
    size_t count = 0;
    for (size_t i = 0; i < length; i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

static bool has_control(const char *text, size_t length, const char *allowed)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        if ((byte < ' ' && strchr(allowed, byte) == NULL) || byte == 0x7f)
            return true;
    }
    return false;
}

/* What mail servers refuse beyond that is theirs to say: RFC 5321 leaves the local part to them. */
static bool looks_like_email(const char *text)
{
    const char *at = strrchr(text, '@');
    return at != NULL && at != text && at[1] != '\0' && strpbrk(text, " \t<>()[],;:\\\"") == NULL &&
           strchr(text, '@') == at;
}

static enum tally_status check_form(const struct tally_field *field, const char *text,
                                    size_t length, int64_t *id, struct tally_error *error)
{
    switch (field->form) {
    case TALLY_FIELD_ID:
        if (!tally_id_parse(text, length, id))
            return tally_fail(error, TALLY_INVALID, "%s: must be an id, as a string of digits",
                              field->name);
        return TALLY_OK;
    case TALLY_FIELD_EMAIL:
        if (!looks_like_email(text) || has_control(text, length, ""))
            return tally_fail(error, TALLY_INVALID, "%s: must be an e-mail address", field->name);
        return TALLY_OK;
    case TALLY_FIELD_LINE:
        if (has_control(text, length, ""))
            return tally_fail(error, TALLY_INVALID, "%s: must not hold control characters",
                              field->name);
        return TALLY_OK;
    case TALLY_FIELD_TEXT:
        if (has_control(text, length, "\t\n\r"))
            return tally_fail(error, TALLY_INVALID,
                              "%s: must not hold control characters but tabs and line breaks",
                              field->name);
        return TALLY_OK;
    }
    return tally_fail(error, TALLY_INTERNAL, "%s: unknown form", field->name);
}

static void set_text(struct tally_command *command, const struct tally_field *field,
                     const char *text)
{
    *(const char **)(void *)((char *)command + field->offset) = text;
}

static enum tally_status read_text(const struct tally_field *field, const json_t *value,
                                   struct tally_arena *arena, struct tally_command *command,
                                   struct tally_error *error)
{
    const char *text = json_string_value(value);
    size_t length = json_string_length(value);
    size_t characters = count_characters(text, length);
    int64_t id = 0;
    if (characters < field->least || characters > field->most)
        return tally_fail(error, TALLY_INVALID, "%s: must have %zu to %zu characters, not %zu",
                          field->name, field->least, field->most, characters);
    enum tally_status status = check_form(field, text, length, &id, error);
    if (status != TALLY_OK)
        return status;
    if (field->form == TALLY_FIELD_ID) {
        *(int64_t *)(void *)((char *)command + field->offset) = id;
        return TALLY_OK;
    }
    const char *copy = tally_arena_copy(arena, text, length);
    if (copy == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "request body");
    set_text(command, field, copy);
    return TALLY_OK;
}

static enum tally_status read_field(const struct tally_body *body, const struct tally_field *field,
                                    const json_t *object, struct tally_arena *arena,
                                    struct tally_command *command, struct tally_error *error)
{
    const json_t *value = json_object_get(object, field->name);
    if (value == NULL && field->required)
        return tally_fail(error, TALLY_INVALID, "%s: is required", field->name);
    if (value == NULL)
        return TALLY_OK;
    if (json_is_null(value) && field->nullable) {
        if (body->partial)
            set_text(command, field, "");
        return TALLY_OK;
    }
    if (!json_is_string(value))
        return tally_fail(error, TALLY_INVALID, "%s: must be a string%s", field->name,
                          field->nullable ? " or null" : "");
    return read_text(field, value, arena, command, error);
}

/* Text that came from outside is cut, so that the sentence keeps its end. */
static enum tally_status refuse_unknown(const struct tally_body *body, const json_t *object,
                                        struct tally_error *error)
{
    const char *name;
    json_t *value;
    /* jansson's iteration takes a pointer it may write through, but this loop only reads. */
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        size_t known = 0;
        while (known < body->count && strcmp(body->fields[known].name, name) != 0)
            known++;
        if (known == body->count)
            return tally_fail(error, TALLY_INVALID, "%.64s: is no field of this request", name);
    }
    return TALLY_OK;
}

enum tally_status tally_request_read(const json_t *object, struct tally_arena *arena,
                                     struct tally_command *command, struct tally_error *error)
{
    const struct tally_body *body = &tally_bodies[command->kind];
    enum tally_status status = refuse_unknown(body, object, error);
    if (status == TALLY_OK && body->partial && json_object_size(object) == 0)
        return tally_fail(error, TALLY_INVALID, "the body must change at least one field");
    for (size_t i = 0; status == TALLY_OK && i < body->count; i++)
        status = read_field(body, &body->fields[i], object, arena, command, error);
    return status;
}
