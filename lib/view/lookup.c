#include "view/lookup.h"

#include "view/lookup_internal.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

bool tally_lookup_reply_integer(const struct redisReply *reply, int64_t *value)
{
    if (reply->type == REDIS_REPLY_INTEGER) {
        *value = reply->integer;
        return true;
    }
    if (reply->type != REDIS_REPLY_STRING || reply->len == 0)
        return false;
    bool negative = reply->str[0] == '-';
    int64_t read = 0;
    for (size_t i = negative; i < (size_t)reply->len; i++) {
        int digit = reply->str[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(read, 10, &read) ||
            __builtin_add_overflow(read, digit, &read))
            return false;
    }
    *value = negative ? -read : read;
    return reply->len > (int)negative;
}

enum tally_status tally_lookup_send(struct tally_lookup *lookup, int64_t deadline_us,
                                    tally_redis_answered *answered, void *context,
                                    struct tally_error *error)
{
    if (lookup->command.failed)
        return tally_fail(error, TALLY_NO_MEMORY, "Redis command");
    return tally_redis_async_send(lookup->redis, &lookup->command, deadline_us, answered, context,
                                  error);
}

static void on_redis_change(bool open, void *context)
{
    struct tally_lookup *lookup = context;
    lookup->loaded = false;
    lookup->server.known = false;
    if (open)
        tally_lookup_positions_tick(lookup);
    else
        lookup->tallies.redis_errors++;
}

enum tally_status tally_lookup_new(struct event_base *base,
                                   const struct tally_lookup_options *options,
                                   struct tally_lookup **out, struct tally_error *error)
{
    struct tally_lookup *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "lookup");
    made->base = base;
    made->options = *options;
    made->options.redis_url = NULL;
    tally_buffer_init(&made->command, COMMAND_LIMIT_BYTES);
    tally_buffer_init(&made->fields, COMMAND_LIMIT_BYTES);
    tally_lookup_write_fields(&made->fields);
    const struct tally_redis_async_options redis = {
        .url = options->redis_url,
        .timeout_ms = options->timeout_ms,
        .patience_ms = options->patience_ms,
        .on_change = on_redis_change,
        .context = made,
    };
    enum tally_status status =
        made->fields.failed
            ? tally_fail(error, TALLY_NO_MEMORY, "lookup")
            : tally_timer_new(base, tally_lookup_positions_tick, made, &made->refresh, error);
    if (status == TALLY_OK)
        status = tally_redis_async_new(base, &redis, &made->redis, error);
    if (status != TALLY_OK) {
        tally_lookup_free(&made);
        return status;
    }
    *out = made;
    return TALLY_OK;
}

void tally_lookup_free(struct tally_lookup **lookup)
{
    if (*lookup == NULL)
        return;
    struct tally_lookup *freed = *lookup;
    tally_lookup_waits_release(freed, TALLY_STOPPING);
    /* Every read is in a command's hands, or waits for a round that is. */
    tally_redis_async_free(&freed->redis);
    tally_timer_free(&freed->refresh);
    tally_lookup_positions_release(freed);
    tally_buffer_release(&freed->command);
    tally_buffer_release(&freed->fields);
    free(freed);
    *lookup = NULL;
}

void tally_lookup_health(const struct tally_lookup *lookup, struct tally_lookup_health *health)
{
    *health = lookup->tallies;
    health->connected = tally_redis_async_open(lookup->redis);
    health->generation = lookup->live.number;
    health->partitions = lookup->live.partitions;
    health->in_flight = lookup->in_flight;
    health->waiters = lookup->waiters;
    health->breaker = tally_redis_async_breaker(lookup->redis);
    health->flushes = tally_redis_async_counts(lookup->redis).flushes;
    health->losses = tally_redis_async_counts(lookup->redis).losses;
    struct tally_error error = {0};
    health->complete = tally_lookup_positions_check(lookup, &error) == TALLY_OK;
    for (int32_t i = 0; health->complete && i < lookup->live.partitions; i++) {
        const struct tally_lookup_partition *partition = &lookup->live.list[i];
        if (partition->complete)
            continue;
        health->complete = false;
        if (partition->offset < partition->until)
            (void)tally_fail(&error, TALLY_READ_MODEL_INCOMPLETE,
                             "partition %d is at offset %lld of %lld", (int)i,
                             (long long)partition->offset, (long long)partition->until);
        else
            (void)tally_fail(&error, TALLY_READ_MODEL_INCOMPLETE,
                             "Redis was started or replaced, and the projector has not caught up "
                             "in partition %d since",
                             (int)i);
    }
    memcpy(health->reason, error.text, sizeof error.text);
}
