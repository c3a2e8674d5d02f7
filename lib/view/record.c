#include "view/record.h"

#include "core/id.h"
#include "redis/command.h"

void tally_record_put_number(struct tally_buffer *out, int64_t number)
{
    char text[1 + TALLY_ID_TEXT_BYTES] = "-";
    const size_t sign = number < 0 ? 1 : 0;
    const size_t length = tally_id_format(number < 0 ? -number : number, text + sign);
    tally_redis_part(out, text, sign + length);
}

/* One name and value of a hash; `text` NULL: the number. */
struct field {
    const char *name;
    const char *text;
    int64_t number;
};

enum { RECORD_FIELDS_MOST = 9 };

/* Fills what is set of a whole record; returns how many. Of a user of whom nothing was applied only
 * the flag is written, so that no reader takes it for a user with no posts. The counts come last
 * where neither flag nor profile follows, by which apply.lua knows a user who was there before. */
static size_t list_fields(const struct tally_apply_user *user,
                          struct field fields[RECORD_FIELDS_MOST])
{
    const struct tally_user_state *state = user->state;
    size_t count = 0;
    if (state->version > 0) {
        fields[count++] = (struct field){TALLY_VIEW_USER_VERSION, NULL, state->version};
        fields[count++] = (struct field){TALLY_VIEW_USER_TIMELINE, NULL, state->timeline};
    }
    if (state->version > 0 && !state->deleted) {
        fields[count++] = (struct field){TALLY_VIEW_USER_POSTS, NULL, state->posts};
        fields[count++] = (struct field){TALLY_VIEW_USER_COMMENTS, NULL, state->comments};
    }
    if (state->deleted)
        fields[count++] = (struct field){TALLY_VIEW_USER_DELETED, NULL, 1};
    if (state->flagged)
        fields[count++] =
            (struct field){TALLY_VIEW_USER_FLAGGED, state->lost ? TALLY_VIEW_LOST : NULL, 1};
    if (!state->deleted && (user->parts & TALLY_APPLY_PROFILE) != 0) {
        fields[count++] = (struct field){TALLY_VIEW_USER_NAME, user->profile->name, 0};
        fields[count++] = (struct field){TALLY_VIEW_USER_EMAIL, user->profile->email, 0};
        if (user->profile->avatar != NULL)
            fields[count++] = (struct field){TALLY_VIEW_USER_AVATAR, user->profile->avatar, 0};
    }
    return count;
}

size_t tally_record_put(struct tally_buffer *out, const struct tally_apply_user *user)
{
    struct field fields[RECORD_FIELDS_MOST];
    const size_t count = list_fields(user, fields);
    tally_record_put_number(out, (int64_t)(2 * count));
    for (size_t i = 0; i < count; i++) {
        tally_redis_part_text(out, fields[i].name);
        if (fields[i].text != NULL)
            tally_redis_part_text(out, fields[i].text);
        else
            tally_record_put_number(out, fields[i].number);
    }
    return 1 + 2 * count;
}
