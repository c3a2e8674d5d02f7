#include "domain/event.h"

#include "core/clock.h"
#include "core/id.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct type_row {
    const char *text;
    int posts_delta;
    int comments_delta;
};

static const struct type_row types[TALLY_EVENT_TYPE_COUNT] = {
#define X(name, text, posts, comments) [TALLY_EVENT_##name] = {text, posts, comments},
    TALLY_EVENT_LIST(X)
#undef X
};

const char *tally_event_type_text(enum tally_event_type type)
{
    return types[type].text;
}

bool tally_event_type_parse(const char *text, size_t length, enum tally_event_type *type)
{
    for (int i = 0; i < TALLY_EVENT_TYPE_COUNT; i++) {
        if (strlen(types[i].text) == length && memcmp(types[i].text, text, length) == 0) {
            *type = (enum tally_event_type)i;
            return true;
        }
    }
    return false;
}

int tally_event_posts_delta(enum tally_event_type type)
{
    return types[type].posts_delta;
}

int tally_event_comments_delta(enum tally_event_type type)
{
    return types[type].comments_delta;
}

enum header_name {
    HEADER_SPEC,
    HEADER_TYPE,
    HEADER_ID,
    HEADER_SEQUENCE,
    HEADER_TIMELINE,
    HEADER_TIME,
    HEADER_COUNT
};

static const char *const header_names[HEADER_COUNT] = {
    [HEADER_SPEC] = "ce_specversion",  [HEADER_TYPE] = "ce_type",         [HEADER_ID] = "ce_id",
    [HEADER_SEQUENCE] = "ce_sequence", [HEADER_TIMELINE] = "ce_timeline", [HEADER_TIME] = "ce_time",
};

/* Points `found` at each header that Tally reads; the first of several with one name counts. */
static void find_headers(const struct tally_header *headers, size_t count,
                         const struct tally_header *found[HEADER_COUNT])
{
    for (size_t i = 0; i < count; i++) {
        for (int name = 0; name < HEADER_COUNT; name++) {
            if (found[name] == NULL && strcmp(headers[i].name, header_names[name]) == 0)
                found[name] = &headers[i];
        }
    }
}

/* ce_id must be "<user>-<version>", so that a message whose parts contradict each other is poison
 * and not a count for the wrong user. */
static bool id_matches(const struct tally_header *id, const struct tally_event *event)
{
    char expected[48];
    int length =
        snprintf(expected, sizeof expected, "%" PRId64 "-%" PRId64, event->user_id, event->version);
    return id->length == (size_t)length && memcmp(id->value, expected, id->length) == 0;
}

static int64_t header_time_us(const struct tally_header *time)
{
    char text[40];
    if (time->length >= sizeof text)
        return -1;
    memcpy(text, time->value, time->length);
    text[time->length] = '\0';
    return tally_clock_parse(text);
}

static bool value_expected(enum tally_event_type type)
{
    return type == TALLY_EVENT_USER_CREATED || type == TALLY_EVENT_USER_UPDATED;
}

enum tally_status tally_event_decode(struct tally_event *event, const void *key, size_t key_length,
                                     const void *value, size_t value_length,
                                     const struct tally_header *headers, size_t header_count,
                                     struct tally_error *error)
{
    *event = (struct tally_event){.value = value, .value_length = value_length};
    if (key == NULL || !tally_id_parse(key, key_length, &event->user_id)) {
        event->user_id = 0;
        return tally_fail(error, TALLY_INVALID, "the key is not a user id");
    }
    const struct tally_header *found[HEADER_COUNT] = {0};
    find_headers(headers, header_count, found);
    for (int name = 0; name < HEADER_COUNT; name++) {
        if (found[name] == NULL || found[name]->value == NULL)
            return tally_fail(error, TALLY_INVALID, "the header %s is missing", header_names[name]);
    }
    int64_t timeline = 0;
    if (found[HEADER_SPEC]->length != 3 || memcmp(found[HEADER_SPEC]->value, "1.0", 3) != 0)
        return tally_fail(error, TALLY_INVALID, "ce_specversion is not 1.0");
    if (!tally_event_type_parse(found[HEADER_TYPE]->value, found[HEADER_TYPE]->length,
                                &event->type))
        return tally_fail(error, TALLY_INVALID, "ce_type \"%.*s\" is unknown",
                          (int)(found[HEADER_TYPE]->length & 0x7f), found[HEADER_TYPE]->value);
    if (!tally_id_parse(found[HEADER_SEQUENCE]->value, found[HEADER_SEQUENCE]->length,
                        &event->version))
        return tally_fail(error, TALLY_INVALID, "ce_sequence is not a version");
    if (!tally_id_parse(found[HEADER_TIMELINE]->value, found[HEADER_TIMELINE]->length, &timeline) ||
        timeline > INT32_MAX)
        return tally_fail(error, TALLY_INVALID, "ce_timeline is not a timeline");
    event->timeline = (int32_t)timeline;
    if (!id_matches(found[HEADER_ID], event))
        return tally_fail(error, TALLY_INVALID, "ce_id is not the key and ce_sequence");
    event->at_us = header_time_us(found[HEADER_TIME]);
    if (event->at_us < 0)
        return tally_fail(error, TALLY_INVALID, "ce_time is not an RFC 3339 time in UTC");
    if (value_expected(event->type) && value == NULL)
        return tally_fail(error, TALLY_INVALID, "%s has no value",
                          tally_event_type_text(event->type));
    return TALLY_OK;
}

/* Copies a string member of at most `bytes` with its terminator; INVALID on anything else. */
static enum tally_status copy_member(const json_t *object, const char *name, size_t bytes,
                                     char **copy)
{
    const json_t *text = json_object_get(object, name);
    if (!json_is_string(text) || json_string_length(text) >= bytes)
        return TALLY_INVALID;
    *copy = strdup(json_string_value(text));
    return *copy != NULL ? TALLY_OK : TALLY_NO_MEMORY;
}

enum tally_status tally_profile_parse(struct tally_profile *profile, const char *value,
                                      size_t length, struct tally_error *error)
{
    *profile = (struct tally_profile){0};
    json_error_t cause;
    json_t *object = json_loadb(value, length, JSON_REJECT_DUPLICATES, &cause);
    /* jansson gives no reason where there is no memory. */
    if (object == NULL && cause.text[0] == '\0')
        return tally_fail(error, TALLY_NO_MEMORY, "the profile");
    if (!json_is_object(object)) {
        json_decref(object);
        return tally_fail(error, TALLY_INVALID, "the profile is no JSON object");
    }
    const json_t *avatar = json_object_get(object, "avatar");
    enum tally_status status = copy_member(object, "name", TALLY_NAME_BYTES, &profile->name);
    if (status == TALLY_OK)
        status = copy_member(object, "email", TALLY_EMAIL_BYTES, &profile->email);
    if (status == TALLY_OK && avatar != NULL && !json_is_null(avatar))
        status = copy_member(object, "avatar", TALLY_AVATAR_BYTES, &profile->avatar);
    json_decref(object);
    if (status == TALLY_OK)
        return TALLY_OK;
    tally_profile_clear(profile);
    return tally_fail(error, status, "%s",
                      status == TALLY_NO_MEMORY
                          ? "the profile"
                          : "the profile's name, email or avatar is not valid");
}

void tally_profile_clear(struct tally_profile *profile)
{
    free(profile->name);
    free(profile->email);
    free(profile->avatar);
    *profile = (struct tally_profile){0};
}

static void add_header(struct tally_event_headers *headers, const char *name, const char *value)
{
    headers->list[headers->count++] = (struct tally_header){name, value, strlen(value)};
}

void tally_event_encode_headers(struct tally_event_headers *headers,
                                const struct tally_event *event, const char *source,
                                const char *traceparent)
{
    headers->count = 0;
    (void)snprintf(headers->id, sizeof headers->id, "%" PRId64 "-%" PRId64, event->user_id,
                   event->version);
    (void)snprintf(headers->subject, sizeof headers->subject, "%" PRId64, event->user_id);
    (void)snprintf(headers->sequence, sizeof headers->sequence, "%" PRId64, event->version);
    (void)snprintf(headers->timeline, sizeof headers->timeline, "%" PRId32, event->timeline);
    tally_clock_format(event->at_us, headers->time);
    add_header(headers, "ce_specversion", "1.0");
    add_header(headers, "ce_id", headers->id);
    add_header(headers, "ce_type", tally_event_type_text(event->type));
    add_header(headers, "ce_source", source);
    add_header(headers, "ce_subject", headers->subject);
    add_header(headers, "ce_time", headers->time);
    add_header(headers, "ce_sequence", headers->sequence);
    add_header(headers, "ce_timeline", headers->timeline);
    if (event->value != NULL)
        add_header(headers, "content-type", "application/json");
    if (traceparent != NULL && tally_trace_valid(traceparent)) {
        memcpy(headers->parent, traceparent, sizeof headers->parent);
        add_header(headers, "traceparent", headers->parent);
    }
}
