#include "view/apply.h"

#include "redis/command.h"
#include "view/record.h"

#include <string.h>

/* Bounds of one buffer: a call of TALLY_APPLY_USERS_MOST whole profiles. */
enum { ENCODER_LIMIT_BYTES = 64 << 20, SECONDS_OF_DAY = 86400 };

static const char *const personal_fields[] = {
    TALLY_VIEW_USER_POSTS, TALLY_VIEW_USER_COMMENTS, TALLY_VIEW_USER_NAME,
    TALLY_VIEW_USER_EMAIL, TALLY_VIEW_USER_AVATAR,
};
enum { PERSONAL_FIELD_COUNT = sizeof personal_fields / sizeof personal_fields[0] };

void tally_apply_encoder_init(struct tally_apply_encoder *encoder)
{
    tally_buffer_init(&encoder->count_keys, ENCODER_LIMIT_BYTES);
    tally_buffer_init(&encoder->count_values, ENCODER_LIMIT_BYTES);
    tally_buffer_init(&encoder->record_keys, ENCODER_LIMIT_BYTES);
    tally_buffer_init(&encoder->record_values, ENCODER_LIMIT_BYTES);
}

void tally_apply_encoder_release(struct tally_apply_encoder *encoder)
{
    tally_buffer_release(&encoder->count_keys);
    tally_buffer_release(&encoder->count_values);
    tally_buffer_release(&encoder->record_keys);
    tally_buffer_release(&encoder->record_values);
}

static void put_optional(struct tally_buffer *out, bool present, int64_t number)
{
    if (present)
        tally_record_put_number(out, number);
    else
        tally_redis_part(out, "", 0);
}

/* Puts a whole record; returns the number of arguments. */
static size_t put_record(struct tally_buffer *out, const struct tally_apply_user *user)
{
    const size_t count = tally_record_put(out, user);
    size_t removed = 0;
    if (user->state->deleted) {
        tally_record_put_number(out, PERSONAL_FIELD_COUNT);
        for (; removed < PERSONAL_FIELD_COUNT; removed++)
            tally_redis_part_text(out, personal_fields[removed]);
    } else if ((user->parts & TALLY_APPLY_PROFILE) != 0 && user->profile->avatar == NULL) {
        tally_record_put_number(out, 1);
        tally_redis_part_text(out, TALLY_VIEW_USER_AVATAR);
        removed = 1;
    } else {
        tally_record_put_number(out, 0);
    }
    return count + 1 + removed;
}

/* What the four buffers of the encoder hold. */
struct sections {
    size_t counts;           /* users with counts alone */
    size_t records;          /* users with whole records */
    size_t record_arguments; /* arguments of the latter */
};

static struct sections put_users(struct tally_apply_encoder *encoder,
                                 const struct tally_apply *apply)
{
    struct sections sections = {0};
    char key[TALLY_VIEW_KEY_BYTES];
    tally_buffer_clear(&encoder->count_keys);
    tally_buffer_clear(&encoder->count_values);
    tally_buffer_clear(&encoder->record_keys);
    tally_buffer_clear(&encoder->record_values);
    for (size_t i = 0; i < apply->user_count; i++) {
        const struct tally_apply_user *user = &apply->users[i];
        const size_t length =
            tally_view_user_key(key, apply->generation, apply->partition, user->user_id);
        if (user->parts == TALLY_APPLY_COUNTS) {
            tally_redis_part(&encoder->count_keys, key, length);
            tally_record_put_number(&encoder->count_values, user->state->version);
            tally_record_put_number(&encoder->count_values, user->state->posts);
            tally_record_put_number(&encoder->count_values, user->state->comments);
            sections.counts++;
        } else {
            tally_redis_part(&encoder->record_keys, key, length);
            sections.record_arguments += put_record(&encoder->record_values, user);
            sections.records++;
        }
    }
    return sections;
}

static size_t day_size(const struct tally_apply *apply, size_t day)
{
    size_t size = 0;
    for (size_t i = 0; i < apply->user_count; i++)
        size += apply->users[i].day == (int8_t)day;
    return size;
}

static void put_days(const struct tally_apply *apply, struct tally_buffer *out)
{
    tally_record_put_number(out, (int64_t)apply->day_count);
    for (size_t day = 0; day < apply->day_count; day++) {
        tally_record_put_number(out, (int64_t)day_size(apply, day));
        for (size_t i = 0; i < apply->user_count; i++) {
            if (apply->users[i].day == (int8_t)day)
                tally_record_put_number(out, apply->users[i].user_id);
        }
    }
}

static size_t count_days(const struct tally_apply *apply)
{
    size_t members = 0;
    for (size_t i = 0; i < apply->user_count; i++)
        members += apply->users[i].day >= 0;
    return 1 + apply->day_count + members;
}

static void put_fixed_keys(const struct tally_apply *apply, struct tally_buffer *out)
{
    char key[TALLY_VIEW_KEY_BYTES];
    size_t length = tally_view_position_key(key, apply->generation, apply->partition);
    tally_redis_part(out, key, length);
    length = tally_view_totals_key(key, apply->generation, apply->partition);
    tally_redis_part(out, key, length);
    for (size_t day = 0; day < apply->day_count; day++) {
        length = tally_view_active_key(key, apply->generation, apply->partition, apply->days[day]);
        tally_redis_part(out, key, length);
    }
}

enum { FIXED_KEYS = 2, FIXED_ARGUMENTS = 9 };

static void put_fixed_arguments(const struct tally_apply *apply, struct tally_buffer *out)
{
    tally_record_put_number(out, apply->epoch);
    tally_record_put_number(out, apply->from_offset);
    tally_record_put_number(out, apply->to_offset);
    put_optional(out, apply->event_at_ms >= 0, apply->event_at_ms);
    put_optional(out, apply->fresh_at_ms >= 0, apply->fresh_at_ms);
    put_optional(out, apply->totals_changed, apply->totals.users);
    tally_record_put_number(out, apply->totals.posts);
    tally_record_put_number(out, apply->totals.comments);
    tally_record_put_number(out, (int64_t)TALLY_VIEW_ACTIVE_DAYS * SECONDS_OF_DAY);
}

enum tally_status tally_apply_encode(struct tally_apply_encoder *encoder,
                                     const struct tally_apply *apply, struct tally_buffer *out,
                                     struct tally_error *error)
{
    const struct sections sections = put_users(encoder, apply);
    const size_t keys = FIXED_KEYS + apply->day_count + sections.counts + sections.records;
    const size_t arguments = FIXED_ARGUMENTS + count_days(apply) + 1 + 3 * sections.counts + 1 +
                             sections.record_arguments + 1;
    tally_redis_command(out, 3 + keys + arguments);
    tally_redis_part_text(out, "EVALSHA");
    tally_redis_part_text(out, encoder->sha);
    tally_record_put_number(out, (int64_t)keys);
    put_fixed_keys(apply, out);
    tally_buffer_append(out, encoder->count_keys.data, encoder->count_keys.length);
    tally_buffer_append(out, encoder->record_keys.data, encoder->record_keys.length);
    put_fixed_arguments(apply, out);
    put_days(apply, out);
    tally_record_put_number(out, (int64_t)sections.counts);
    tally_buffer_append(out, encoder->count_values.data, encoder->count_values.length);
    tally_record_put_number(out, (int64_t)sections.records);
    tally_buffer_append(out, encoder->record_values.data, encoder->record_values.length);
    put_optional(out, apply->mark_ms > 0, apply->mark_ms);
    if (out->failed || encoder->count_keys.failed || encoder->count_values.failed ||
        encoder->record_keys.failed || encoder->record_values.failed)
        return tally_fail(error, TALLY_NO_MEMORY, "apply call of %zu users", apply->user_count);
    return TALLY_OK;
}

enum tally_status tally_apply_outcome(const redisReply *reply, struct tally_error *error)
{
    if (reply->type == REDIS_REPLY_ERROR)
        return tally_fail(error,
                          tally_redis_error_passes(reply->str) ? TALLY_UNAVAILABLE : TALLY_PROTOCOL,
                          "apply: %s", reply->str);
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0 ||
        reply->element[0]->type != REDIS_REPLY_INTEGER)
        return tally_fail(error, TALLY_PROTOCOL, "apply: the reply is no array of a number");
    if (reply->element[0]->integer == 1)
        return TALLY_OK;
    if (reply->elements < 3 || reply->element[1]->type != REDIS_REPLY_STRING ||
        reply->element[2]->type != REDIS_REPLY_STRING)
        return tally_fail(error, TALLY_PROTOCOL, "apply: the refusal names no position");
    if (reply->element[1]->len == 0)
        return tally_fail(error, TALLY_FENCED, "there is no position");
    return tally_fail(error, TALLY_FENCED, "the position is epoch %s, offset %s",
                      reply->element[1]->str, reply->element[2]->str);
}

int64_t tally_apply_lost_users(const redisReply *reply)
{
    return reply->elements > 1 && reply->element[1]->type == REDIS_REPLY_INTEGER
               ? reply->element[1]->integer
               : 0;
}
