#include "view/generation.h"

#include "redis/command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCAN_COUNT = 1000, PIPELINE = 256 };
static const int64_t DAY_US = 86400LL * 1000 * 1000;

static const char *const role_texts[] = {
    [TALLY_GENERATION_LIVE] = "live",
    [TALLY_GENERATION_BUILDING] = "building",
    [TALLY_GENERATION_KEPT] = "kept",
    [TALLY_GENERATION_DROPPING] = "dropping",
};
enum { ROLES = sizeof role_texts / sizeof role_texts[0] };

const char *tally_generation_role_text(enum tally_generation_role role)
{
    return role_texts[role];
}

/* Of a reply that holds a number as text or integer; 0 for anything else. */
static int64_t number_of(const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_INTEGER)
        return reply->integer;
    return reply->type == REDIS_REPLY_STRING ? strtoll(reply->str, NULL, 10) : 0;
}

/* Runs a command whose reply is one number. */
#define CALL_NUMBER(redis, number, error, ...) \
    take_number(tally_redis_call((redis), &reply, (error), __VA_ARGS__), &reply, (number))

static enum tally_status take_number(enum tally_status status, redisReply **reply, int64_t *number)
{
    if (status != TALLY_OK)
        return status;
    *number = number_of(*reply);
    freeReplyObject(*reply);
    *reply = NULL;
    return TALLY_OK;
}

static enum tally_status lease_lost(struct tally_error *error)
{
    return tally_fail(error, TALLY_FENCED, "another tallyctl has taken over meanwhile");
}

enum tally_status tally_lease_take(struct tally_redis *redis, const char *token, int64_t *left_ms,
                                   struct tally_error *error)
{
    redisReply *reply = NULL;
    *left_ms = 0;
    enum tally_status status = tally_redis_call(
        redis, &reply, error, "SET " TALLY_VIEW_LEASE_KEY " %s NX PX %d", token, TALLY_LEASE_MS);
    if (status != TALLY_OK)
        return status;
    const bool taken = reply->type == REDIS_REPLY_STATUS;
    freeReplyObject(reply);
    reply = NULL;
    if (taken)
        return TALLY_OK;
    status = CALL_NUMBER(redis, left_ms, error, "PTTL " TALLY_VIEW_LEASE_KEY);
    if (status == TALLY_OK && *left_ms <= 0)
        *left_ms = 1; /* it has just gone: the next attempt may take it */
    return status;
}

enum tally_status tally_lease_renew(struct tally_redis *redis, const char *token,
                                    struct tally_error *error)
{
    redisReply *reply = NULL;
    int64_t held = 0;
    enum tally_status status =
        CALL_NUMBER(redis, &held, error,
                    "EVAL %s 2 " TALLY_VIEW_LEASE_KEY " " TALLY_VIEW_LEASE_KEY " %s PEXPIRE %d",
                    tally_script_with_lease, token, TALLY_LEASE_MS);
    return status == TALLY_OK && held == 0 ? lease_lost(error) : status;
}

enum tally_status tally_lease_release(struct tally_redis *redis, const char *token,
                                      struct tally_error *error)
{
    redisReply *reply = NULL;
    int64_t held = 0;
    return CALL_NUMBER(redis, &held, error,
                       "EVAL %s 2 " TALLY_VIEW_LEASE_KEY " " TALLY_VIEW_LEASE_KEY " %s DEL",
                       tally_script_with_lease, token);
}

enum tally_status tally_generation_sealed(struct tally_redis *redis, int64_t *generation,
                                          struct tally_error *error)
{
    redisReply *reply = NULL;
    return CALL_NUMBER(redis, generation, error, "GET " TALLY_VIEW_SEAL_KEY);
}

enum tally_status tally_generation_seal(struct tally_redis *redis, const char *token,
                                        int64_t generation, int64_t for_ms,
                                        struct tally_error *error)
{
    redisReply *reply = NULL;
    int64_t held = 0;
    enum tally_status status = CALL_NUMBER(
        redis, &held, error,
        "EVAL %s 2 " TALLY_VIEW_LEASE_KEY " " TALLY_VIEW_SEAL_KEY " %s SET %lld PX %lld",
        tally_script_with_lease, token, (long long)generation, (long long)for_ms);
    return status == TALLY_OK && held == 0 ? lease_lost(error) : status;
}

enum tally_status tally_generation_unseal(struct tally_redis *redis, const char *token,
                                          struct tally_error *error)
{
    redisReply *reply = NULL;
    int64_t held = 0;
    return CALL_NUMBER(redis, &held, error,
                       "EVAL %s 2 " TALLY_VIEW_LEASE_KEY " " TALLY_VIEW_SEAL_KEY " %s DEL",
                       tally_script_with_lease, token);
}

enum tally_status tally_generation_switch(struct tally_redis *redis, const char *token,
                                          int64_t from, int64_t to, int64_t rest_ms,
                                          struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status =
        tally_redis_call(redis, &reply, error,
                         "EVAL %s 4 " TALLY_VIEW_GENERATION_KEY " " TALLY_VIEW_LEASE_KEY
                         " " TALLY_VIEW_SEAL_KEY " " TALLY_VIEW_OTHERS_KEY " %s %lld %lld %s %lld",
                         tally_script_switch_generation, token, (long long)from, (long long)to,
                         role_texts[TALLY_GENERATION_KEPT], (long long)rest_ms);
    if (status != TALLY_OK)
        return status;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 1)
        status = tally_fail(error, TALLY_PROTOCOL, "switch: the reply is no array");
    else if (number_of(reply->element[0]) != 1)
        status = tally_fail(
            error, number_of(reply->element[0]) == 2 ? TALLY_UNAVAILABLE : TALLY_FENCED,
            "the switch was refused: %s", reply->elements > 1 ? reply->element[1]->str : "");
    freeReplyObject(reply);
    return status;
}

static int by_number(const void *left, const void *right)
{
    const struct tally_generation_entry *a = left;
    const struct tally_generation_entry *b = right;
    return (a->number > b->number) - (a->number < b->number);
}

static bool parse_role(const char *text, enum tally_generation_role *role)
{
    for (int i = 0; i < ROLES; i++) {
        if (strcmp(text, role_texts[i]) == 0) {
            *role = (enum tally_generation_role)i;
            return true;
        }
    }
    return false;
}

enum tally_status tally_generation_list(
    struct tally_redis *redis, struct tally_generation_entry entries[TALLY_GENERATIONS_MOST],
    size_t *count, struct tally_error *error)
{
    int64_t live = 0;
    redisReply *reply = NULL;
    *count = 0;
    enum tally_status status =
        tally_redis_call(redis, &reply, error, "HGETALL " TALLY_VIEW_OTHERS_KEY);
    if (status != TALLY_OK)
        return status;
    /* After the others: a generation that becomes live in between is then listed once. */
    status = tally_generation_read(redis, &live, error);
    for (size_t i = 0; status == TALLY_OK && i + 1 < reply->elements; i += 2) {
        struct tally_generation_entry entry = {.number = number_of(reply->element[i])};
        if (entry.number > 0 && entry.number != live && *count < TALLY_GENERATIONS_MOST - 1 &&
            parse_role(reply->element[i + 1]->str, &entry.role))
            entries[(*count)++] = entry;
    }
    freeReplyObject(reply);
    if (status == TALLY_OK && live != 0)
        entries[(*count)++] = (struct tally_generation_entry){live, TALLY_GENERATION_LIVE};
    qsort(entries, *count, sizeof *entries, by_number);
    return status;
}

enum tally_status tally_generation_note(struct tally_redis *redis, int64_t number,
                                        enum tally_generation_role role, struct tally_error *error)
{
    redisReply *reply = NULL;
    int64_t added = 0;
    return CALL_NUMBER(redis, &added, error, "HSET " TALLY_VIEW_OTHERS_KEY " %lld %s",
                       (long long)number, role_texts[role]);
}

enum tally_status tally_generation_forget(struct tally_redis *redis, int64_t number,
                                          struct tally_error *error)
{
    redisReply *reply = NULL;
    int64_t removed = 0;
    return CALL_NUMBER(redis, &removed, error, "HDEL " TALLY_VIEW_OTHERS_KEY " %lld",
                       (long long)number);
}

enum tally_status tally_generation_prepare(struct tally_redis *redis, int64_t number,
                                           const char *cluster, int32_t partitions,
                                           const int64_t *offsets, struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES], totals[TALLY_VIEW_KEY_BYTES];
    for (int32_t i = 0; i < partitions; i++) {
        redisReply *reply = NULL;
        int64_t created = 0;
        tally_view_position_key(key, number, i);
        tally_view_totals_key(totals, number, i);
        enum tally_status status =
            CALL_NUMBER(redis, &created, error,
                        "EVAL %s 2 %s %s %lld %lld %s %d " TALLY_VIEW_POSITION_FILLED " 0",
                        tally_script_create_position, key, totals, (long long)offsets[i],
                        (long long)TALLY_UNTIL_NEVER, cluster, partitions);
        if (status != TALLY_OK)
            return status;
        if (created != 1)
            return tally_fail(error, TALLY_FENCED, "generation %" PRId64 " exists already", number);
    }
    return TALLY_OK;
}

enum tally_status tally_generation_marks(struct tally_redis *redis, int64_t number,
                                         int32_t partitions, int64_t *marks,
                                         struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES];
    enum tally_status status = TALLY_OK;
    for (int32_t i = 0; i < partitions && status == TALLY_OK; i++) {
        tally_view_position_key(key, number, i);
        status = tally_redis_append(redis, error, "HGET %s " TALLY_VIEW_POSITION_FILLED, key);
    }
    for (int32_t i = 0; i < partitions && status == TALLY_OK; i++) {
        redisReply *reply = NULL;
        status = tally_redis_receive(redis, &reply, error);
        if (status != TALLY_OK)
            break;
        marks[i] = reply->type == REDIS_REPLY_STRING ? number_of(reply) : -1;
        freeReplyObject(reply);
    }
    return status;
}

static enum tally_status append_change(struct tally_redis *redis, int64_t number, int32_t partition,
                                       const struct tally_position_change *change,
                                       struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES], epoch[24] = "";
    const char *words[9] = {"EVAL", tally_script_change_position, "1", key, epoch};
    char until[24], fresh[24];
    int count = 5;
    tally_view_position_key(key, number, partition);
    if (change->epoch >= 0)
        (void)snprintf(epoch, sizeof epoch, "%" PRId64, change->epoch);
    if (change->until >= 0) {
        (void)snprintf(until, sizeof until, "%" PRId64, change->until);
        words[count++] = TALLY_VIEW_POSITION_UNTIL;
        words[count++] = until;
    }
    if (change->fresh_at_ms >= 0) {
        (void)snprintf(fresh, sizeof fresh, "%" PRId64, change->fresh_at_ms);
        words[count++] = TALLY_VIEW_POSITION_FRESH_AT;
        words[count++] = fresh;
    }
    struct tally_buffer command;
    tally_buffer_init(&command, 1 << 16);
    tally_redis_command(&command, (size_t)count + (change->filled ? 2 : 0));
    for (int i = 0; i < count; i++)
        tally_redis_part_text(&command, words[i]);
    if (change->filled) {
        tally_redis_part_text(&command, TALLY_VIEW_POSITION_FILLED);
        tally_redis_part_text(&command, "");
    }
    enum tally_status status =
        command.failed ? tally_fail(error, TALLY_NO_MEMORY, "a change of a position")
                       : tally_redis_append_raw(redis, command.data, command.length, error);
    tally_buffer_release(&command);
    return status;
}

static enum tally_status read_changed(const redisReply *reply, int64_t number, int32_t partition,
                                      struct tally_position_changed *changed,
                                      struct tally_error *error)
{
    if (reply->type == REDIS_REPLY_ERROR)
        return tally_fail(error, TALLY_PROTOCOL, "change position: %s", reply->str);
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2)
        return tally_fail(error, TALLY_PROTOCOL, "change position: the reply is no array");
    if (number_of(reply->element[0]) != 1 || reply->elements < 4)
        return tally_fail(
            error, TALLY_FENCED, "generation %" PRId64 ", partition %d: %s", number, partition,
            reply->element[1]->len == 0 ? "its position is lost" : "another writer has taken over");
    *changed = (struct tally_position_changed){
        .epoch = number_of(reply->element[1]),
        .offset = number_of(reply->element[2]),
        .fresh_at_ms = number_of(reply->element[3]),
    };
    return TALLY_OK;
}

enum tally_status tally_positions_change(struct tally_redis *redis, int64_t number,
                                         int32_t partitions,
                                         const struct tally_position_change *changes,
                                         struct tally_position_changed *changed,
                                         struct tally_error *error)
{
    enum tally_status status = TALLY_OK, outcome = TALLY_OK;
    for (int32_t i = 0; i < partitions && status == TALLY_OK; i++)
        status = append_change(redis, number, i, &changes[i], error);
    for (int32_t i = 0; i < partitions && status == TALLY_OK; i++) {
        redisReply *reply = NULL;
        status = tally_redis_receive(redis, &reply, error);
        if (status != TALLY_OK)
            break;
        struct tally_error why = {0};
        enum tally_status one = read_changed(reply, number, i, &changed[i], &why);
        if (one != TALLY_OK && outcome == TALLY_OK)
            outcome = tally_fail(error, one, "%s", why.text);
        freeReplyObject(reply);
    }
    return status != TALLY_OK ? status : outcome;
}

/* Reads `count` replies; an error among them is a failure. */
static enum tally_status receive_all(struct tally_redis *redis, size_t count,
                                     struct tally_error *error)
{
    enum tally_status outcome = TALLY_OK;
    for (size_t i = 0; i < count; i++) {
        redisReply *reply = NULL;
        enum tally_status status = tally_redis_receive(redis, &reply, error);
        if (status != TALLY_OK)
            return status;
        if (reply->type == REDIS_REPLY_ERROR && outcome == TALLY_OK)
            outcome = tally_fail(error, TALLY_PROTOCOL, "%s", reply->str);
        freeReplyObject(reply);
    }
    return outcome;
}

enum tally_status tally_generation_copy_active(struct tally_redis *redis, int64_t from, int64_t to,
                                               int32_t partitions, int days, int64_t now_us,
                                               struct tally_error *error)
{
    char source[TALLY_VIEW_KEY_BYTES], target[TALLY_VIEW_KEY_BYTES], day[TALLY_DAY_BYTES];
    enum tally_status status = TALLY_OK;
    size_t sent = 0;
    for (int back = 0; back < days && status == TALLY_OK; back++) {
        tally_clock_format_day(now_us - back * DAY_US, day);
        for (int32_t i = 0; i < partitions && status == TALLY_OK; i++) {
            tally_view_active_key(source, from, i, day);
            tally_view_active_key(target, to, i, day);
            status = tally_redis_append(redis, error, "EVAL %s 2 %s %s", tally_script_copy_active,
                                        source, target);
            if (++sent == PIPELINE && status == TALLY_OK) {
                status = receive_all(redis, sent, error);
                sent = 0;
            }
        }
    }
    return status == TALLY_OK ? receive_all(redis, sent, error) : status;
}

static enum tally_status unlink_keys(struct tally_redis *redis, const redisReply *keys,
                                     int64_t *removed, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (size_t i = 0; i < keys->elements && status == TALLY_OK; i++)
        status = tally_redis_append(redis, error, "UNLINK %b", keys->element[i]->str,
                                    keys->element[i]->len);
    if (status == TALLY_OK)
        status = receive_all(redis, keys->elements, error);
    *removed += (int64_t)keys->elements;
    return status;
}

enum tally_status tally_generation_remove(struct tally_redis *redis, int64_t number,
                                          char cursor[TALLY_SCAN_CURSOR_BYTES], int64_t *removed,
                                          struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status =
        tally_redis_call(redis, &reply, error, "SCAN %s MATCH tally:%lld:* COUNT %d", cursor,
                         (long long)number, SCAN_COUNT);
    if (status != TALLY_OK)
        return status;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[0]->type == REDIS_REPLY_STRING &&
        reply->element[1]->type == REDIS_REPLY_ARRAY) {
        (void)snprintf(cursor, TALLY_SCAN_CURSOR_BYTES, "%s", reply->element[0]->str);
        status = unlink_keys(redis, reply->element[1], removed, error);
    } else {
        status = tally_fail(error, TALLY_PROTOCOL, "Redis answered SCAN with something else");
    }
    freeReplyObject(reply);
    return status;
}
