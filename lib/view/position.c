#include "view/position.h"

#include "redis/command.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { POSITION_FIELDS = 7, TOTALS_FIELDS = 3, USER_FIELDS = 6 };

/* A decimal number of 0 or more; false for anything else. */
static bool read_number(const redisReply *reply, int64_t *number)
{
    if (reply->type != REDIS_REPLY_STRING || reply->len == 0 || reply->len > 19)
        return false;
    int64_t value = 0;
    for (size_t i = 0; i < reply->len; i++) {
        int digit = reply->str[i] - '0';
        if (digit < 0 || digit > 9 || value > (INT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *number = value;
    return true;
}

/* As read_number(), where an absent value is 0. */
static bool read_optional(const redisReply *reply, int64_t *number)
{
    *number = 0;
    return reply->type == REDIS_REPLY_NIL || read_number(reply, number);
}

static bool is_array(const redisReply *reply, size_t elements)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == elements;
}

static enum tally_status fail_reply(const redisReply *reply, const char *what,
                                    struct tally_error *error)
{
    if (reply->type == REDIS_REPLY_ERROR)
        return tally_fail(error,
                          tally_redis_error_passes(reply->str) ? TALLY_UNAVAILABLE : TALLY_PROTOCOL,
                          "%s: %s", what, reply->str);
    return tally_fail(error, TALLY_PROTOCOL, "%s: what is stored is not valid", what);
}

enum tally_status tally_generation_read(struct tally_redis *redis, int64_t *generation,
                                        struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status =
        tally_redis_call(redis, &reply, error, "GET " TALLY_VIEW_GENERATION_KEY);
    if (status != TALLY_OK)
        return status;
    if (!read_optional(reply, generation))
        status = fail_reply(reply, TALLY_VIEW_GENERATION_KEY, error);
    freeReplyObject(reply);
    return status;
}

/* The time of a mark for this very offset; 0 where there is none. */
static int64_t read_mark(const redisReply *reply, int64_t offset)
{
    if (reply->type != REDIS_REPLY_STRING)
        return 0;
    char *end = NULL;
    const long long at = strtoll(reply->str, &end, 10);
    return *end == ':' && at == offset ? strtoll(end + 1, NULL, 10) : 0;
}

static bool parse_position(const redisReply *reply, struct tally_position *position)
{
    *position = (struct tally_position){0};
    if (!is_array(reply, POSITION_FIELDS))
        return false;
    if (reply->element[0]->type == REDIS_REPLY_NIL && reply->element[1]->type == REDIS_REPLY_NIL)
        return true;
    const redisReply *cluster = reply->element[3];
    int64_t partitions = 0;
    if (!read_number(reply->element[0], &position->epoch) ||
        !read_number(reply->element[1], &position->offset) ||
        !read_number(reply->element[2], &position->until) ||
        !read_number(reply->element[4], &partitions) || partitions > INT32_MAX ||
        !read_optional(reply->element[5], &position->event_at_ms) ||
        cluster->type != REDIS_REPLY_STRING || cluster->len >= sizeof position->cluster)
        return false;
    position->mark_ms = read_mark(reply->element[6], position->offset);
    memcpy(position->cluster, cluster->str, cluster->len);
    position->partitions = (int32_t)partitions;
    position->present = true;
    return true;
}

static bool parse_totals(const redisReply *reply, struct tally_position *position)
{
    struct tally_totals *totals = &position->totals;
    if (!is_array(reply, TOTALS_FIELDS) || !read_optional(reply->element[0], &totals->users) ||
        !read_optional(reply->element[1], &totals->posts) ||
        !read_optional(reply->element[2], &totals->comments))
        return false;
    for (size_t i = 0; i < TOTALS_FIELDS; i++) {
        if (position->present && reply->element[i]->type == REDIS_REPLY_NIL)
            position->totals_lost = true;
    }
    return true;
}

static enum tally_status append_position_read(struct tally_redis *redis, int64_t generation,
                                              int32_t partition, struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES];
    tally_view_position_key(key, generation, partition);
    enum tally_status status =
        tally_redis_append(redis, error,
                           "HMGET %s " TALLY_VIEW_POSITION_EPOCH " " TALLY_VIEW_POSITION_OFFSET
                           " " TALLY_VIEW_POSITION_UNTIL " " TALLY_VIEW_POSITION_CLUSTER
                           " " TALLY_VIEW_POSITION_PARTITIONS " " TALLY_VIEW_POSITION_EVENT_AT
                           " " TALLY_VIEW_POSITION_MARK,
                           key);
    if (status != TALLY_OK)
        return status;
    tally_view_totals_key(key, generation, partition);
    return tally_redis_append(redis, error,
                              "HMGET %s " TALLY_VIEW_TOTALS_USERS " " TALLY_VIEW_TOTALS_POSTS
                              " " TALLY_VIEW_TOTALS_COMMENTS,
                              key);
}

enum tally_status tally_position_read(struct tally_redis *redis, int64_t generation,
                                      const int32_t *partitions, size_t count,
                                      struct tally_position *positions, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (size_t i = 0; i < count && status == TALLY_OK; i++)
        status = append_position_read(redis, generation, partitions[i], error);
    enum tally_status found = TALLY_OK;
    for (size_t i = 0; i < count && status == TALLY_OK; i++) {
        redisReply *position = NULL;
        redisReply *totals = NULL;
        status = tally_redis_receive(redis, &position, error);
        if (status == TALLY_OK)
            status = tally_redis_receive(redis, &totals, error);
        /* Every reply is read even where one is wrong, or the connection could not be used on. */
        if (status == TALLY_OK && !parse_position(position, &positions[i]))
            found = fail_reply(position, "position", error);
        else if (status == TALLY_OK && !parse_totals(totals, &positions[i]))
            found = fail_reply(totals, "totals", error);
        if (position != NULL)
            freeReplyObject(position);
        if (totals != NULL)
            freeReplyObject(totals);
    }
    return status != TALLY_OK ? status : found;
}

static enum tally_status append_claim(struct tally_redis *redis, int64_t generation,
                                      int32_t partition, int64_t raise, struct tally_error *error)
{
    char position[TALLY_VIEW_KEY_BYTES];
    char totals[TALLY_VIEW_KEY_BYTES];
    tally_view_position_key(position, generation, partition);
    tally_view_totals_key(totals, generation, partition);
    return tally_redis_append(redis, error, "EVAL %s 2 %s %s %lld", tally_script_claim_position,
                              position, totals, (long long)raise);
}

enum tally_status tally_position_claim(struct tally_redis *redis, int64_t generation,
                                       const int32_t *partitions, size_t count, int64_t raise,
                                       struct tally_position *positions, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (size_t i = 0; i < count && status == TALLY_OK; i++)
        status = append_claim(redis, generation, partitions[i], raise, error);
    enum tally_status found = TALLY_OK;
    for (size_t i = 0; i < count && status == TALLY_OK; i++) {
        redisReply *reply = NULL;
        status = tally_redis_receive(redis, &reply, error);
        if (status != TALLY_OK)
            break;
        if (!is_array(reply, 2))
            found = fail_reply(reply, "claim", error);
        else if (!parse_position(reply->element[0], &positions[i]))
            found = fail_reply(reply->element[0], "position", error);
        else if (!parse_totals(reply->element[1], &positions[i]))
            found = fail_reply(reply->element[1], "totals", error);
        freeReplyObject(reply);
    }
    return status != TALLY_OK ? status : found;
}

static enum tally_status append_creations(struct tally_redis *redis,
                                          const struct tally_generation *generation,
                                          struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    char key[TALLY_VIEW_KEY_BYTES], totals[TALLY_VIEW_KEY_BYTES];
    for (int32_t i = 0; i < generation->partitions && status == TALLY_OK; i++) {
        tally_view_position_key(key, generation->number, i);
        tally_view_totals_key(totals, generation->number, i);
        status = tally_redis_append(
            redis, error, "EVAL %s 2 %s %s 0 %lld %s %d", tally_script_create_position, key, totals,
            (long long)generation->until[i], generation->cluster, generation->partitions);
    }
    return status;
}

/* Reads `count` replies; the first error among them is the outcome. */
static enum tally_status receive_all(struct tally_redis *redis, int32_t count,
                                     struct tally_error *error)
{
    enum tally_status outcome = TALLY_OK;
    for (int32_t i = 0; i < count; i++) {
        redisReply *reply = NULL;
        enum tally_status status = tally_redis_receive(redis, &reply, error);
        if (status != TALLY_OK)
            return status;
        if (reply->type == REDIS_REPLY_ERROR && outcome == TALLY_OK)
            outcome = fail_reply(reply, "create position", error);
        freeReplyObject(reply);
    }
    return outcome;
}

static enum tally_status remove_positions(struct tally_redis *redis,
                                          const struct tally_generation *generation,
                                          struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    char key[TALLY_VIEW_KEY_BYTES], totals[TALLY_VIEW_KEY_BYTES];
    for (int32_t i = 0; i < generation->partitions && status == TALLY_OK; i++) {
        tally_view_position_key(key, generation->number, i);
        tally_view_totals_key(totals, generation->number, i);
        status = tally_redis_append(redis, error, "EVAL %s 2 %s %s", tally_script_remove_position,
                                    key, totals);
    }
    return status == TALLY_OK ? receive_all(redis, generation->partitions, error) : status;
}

enum tally_status tally_generation_create(struct tally_redis *redis,
                                          const struct tally_generation *generation, int64_t *live,
                                          struct tally_error *error)
{
    enum tally_status status = append_creations(redis, generation, error);
    if (status == TALLY_OK)
        status = receive_all(redis, generation->partitions, error);
    redisReply *reply = NULL;
    if (status == TALLY_OK)
        status = tally_redis_call(redis, &reply, error, "SET " TALLY_VIEW_GENERATION_KEY " %lld NX",
                                  (long long)generation->number);
    if (status != TALLY_OK)
        return status;
    freeReplyObject(reply);
    /* Again, in case the keys were flushed between the two: what is there stays as it is. */
    status = append_creations(redis, generation, error);
    if (status == TALLY_OK)
        status = receive_all(redis, generation->partitions, error);
    if (status == TALLY_OK)
        status = tally_generation_read(redis, live, error);
    /* Where none is live, the keys were flushed, and another writer may be about to make this very
     * number live: whoever begins in the same second takes the same one. */
    if (status == TALLY_OK && *live != 0 && *live != generation->number)
        status = remove_positions(redis, generation, error);
    return status;
}

void tally_user_append_read(struct tally_buffer *out, int64_t generation, int32_t partition,
                            int64_t user_id)
{
    char key[TALLY_VIEW_KEY_BYTES];
    const size_t length = tally_view_user_key(key, generation, partition, user_id);
    tally_redis_command(out, 2 + USER_FIELDS);
    tally_redis_part_text(out, "HMGET");
    tally_redis_part(out, key, length);
    tally_redis_part_text(out, TALLY_VIEW_USER_VERSION);
    tally_redis_part_text(out, TALLY_VIEW_USER_POSTS);
    tally_redis_part_text(out, TALLY_VIEW_USER_COMMENTS);
    tally_redis_part_text(out, TALLY_VIEW_USER_TIMELINE);
    tally_redis_part_text(out, TALLY_VIEW_USER_DELETED);
    tally_redis_part_text(out, TALLY_VIEW_USER_FLAGGED);
}

enum tally_status tally_user_read_reply(const redisReply *reply, struct tally_user_state *state,
                                        struct tally_error *error)
{
    *state = (struct tally_user_state){0};
    int64_t timeline = 0;
    if (!is_array(reply, USER_FIELDS) || !read_optional(reply->element[0], &state->version) ||
        !read_optional(reply->element[1], &state->posts) ||
        !read_optional(reply->element[2], &state->comments) ||
        !read_optional(reply->element[3], &timeline) || timeline > INT32_MAX)
        return fail_reply(reply, "user", error);
    state->timeline = (int32_t)timeline;
    state->deleted = reply->element[4]->type != REDIS_REPLY_NIL;
    state->flagged = reply->element[5]->type != REDIS_REPLY_NIL;
    state->lost = state->flagged && strcmp(reply->element[5]->str, TALLY_VIEW_LOST) == 0;
    return TALLY_OK;
}
