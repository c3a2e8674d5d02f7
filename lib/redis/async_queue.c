#include "core/clock.h"
#include "loop/loop.h"
#include "redis/async_internal.h"

#include <hiredis/async.h>
#include <stdlib.h>
#include <utlist.h>

static void finish(struct pending *pending, enum tally_status status,
                   const struct redisReply *reply)
{
    tally_redis_answered *answered = pending->answered;
    pending->answered = NULL;
    if (answered != NULL)
        answered(status, reply, pending->context);
}

static void on_reply(struct redisAsyncContext *context, void *reply, void *argument)
{
    struct pending *pending = argument;
    struct tally_redis_async *async = pending->async;
    if (async->broken)
        reply = NULL;
    else if (reply == NULL && context == async->context)
        redis_async_close_down(async,
                               context->errstr != NULL ? context->errstr : "connection lost");
    else if (reply != NULL)
        async->heard_us = tally_clock_monotonic_us();
    DL_DELETE(async->pendings, pending);
    finish(pending,
           reply != NULL     ? TALLY_OK
           : async->stopping ? TALLY_STOPPING
                             : TALLY_UNAVAILABLE,
           reply);
    free(pending);
}

static void watch_deadline(struct tally_redis_async *async, int64_t deadline_us)
{
    if (async->earliest_us != 0 && async->earliest_us <= deadline_us)
        return;
    async->earliest_us = deadline_us;
    int64_t delay_us = deadline_us - tally_clock_monotonic_us();
    tally_timer_set(async->deadlines, delay_us > 0 ? delay_us : 0);
}

/* When the connection is given up unless something is heard before; with commands in flight only.
 */
static int64_t patience_ends_us(const struct tally_redis_async *async)
{
    int64_t asked_us = async->pendings->sent_us;
    int64_t silent_since_us = async->heard_us > asked_us ? async->heard_us : asked_us;
    return silent_since_us + async->options.patience_ms * 1000;
}

/* The command is terminated first, since hiredis 0.14 looks for its arguments with strchr(). */
enum tally_status redis_async_queue(struct tally_redis_async *async, struct tally_buffer *command,
                                    int64_t deadline_us, tally_redis_answered *answered,
                                    void *context, struct tally_error *error)
{
    const char *text = tally_buffer_text(command);
    struct pending *pending = command->failed ? NULL : calloc(1, sizeof *pending);
    if (pending == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "Redis command");
    pending->async = async;
    pending->sent_us = tally_clock_monotonic_us();
    pending->deadline_us = deadline_us;
    if (redisAsyncFormattedCommand(async->context, on_reply, pending, text, command->length) !=
        REDIS_OK) {
        free(pending);
        return tally_fail(error, TALLY_UNAVAILABLE, "Redis: connection is closing");
    }
    /* hiredis 0.14 does not report it when it finds no memory for the callback or for the bytes,
     * and from then on replies would go to the wrong commands. */
    bool queued =
        async->context->replies.tail != NULL && async->context->replies.tail->privdata == pending;
    if (queued)
        DL_APPEND(async->pendings, pending);
    else
        free(pending);
    if (!queued || async->context->c.err != 0) {
        /* Not here, where it would call back from inside the call. */
        async->broken = true;
        async->open = false;
        async->earliest_us = 1;
        tally_timer_set(async->deadlines, 0);
        if (queued)
            pending->answered = NULL;
        return tally_fail(error, TALLY_NO_MEMORY, "Redis command");
    }
    pending->answered = answered;
    pending->context = context;
    watch_deadline(async, deadline_us);
    watch_deadline(async, patience_ends_us(async));
    return TALLY_OK;
}

/* The peer is silent, or has not answered its oldest command in time: it is taken for dead. */
static bool overdue(const struct tally_redis_async *async, int64_t now_us)
{
    return now_us >= patience_ends_us(async) ||
           now_us - async->pendings->sent_us >= async->options.timeout_ms * 1000;
}

/* Calls back what is overdue. The list is in the order of sending, not of deadlines, so it is
 * walked whole; that is once a deadline, not once a command. */
void redis_async_on_deadline(void *argument)
{
    struct tally_redis_async *async = argument;
    int64_t now_us = tally_clock_monotonic_us();
    async->earliest_us = 0;
    if (async->broken) {
        redis_async_give_up(async, "out of memory");
        return;
    }
    if (async->pendings != NULL && overdue(async, now_us)) {
        redis_async_give_up(async, "no answer in time");
        return;
    }
    if (async->pendings != NULL)
        watch_deadline(async, patience_ends_us(async));
    for (struct pending *each = async->pendings, *next; each != NULL; each = next) {
        next = each->next;
        int64_t given_up_us = each->sent_us + async->options.timeout_ms * 1000;
        if (each->answered == NULL || each->deadline_us > now_us) {
            watch_deadline(async, each->answered != NULL ? each->deadline_us : given_up_us);
            continue;
        }
        finish(each, TALLY_UNAVAILABLE, NULL);
        watch_deadline(async, given_up_us);
    }
}

enum tally_status tally_redis_async_send(struct tally_redis_async *async,
                                         struct tally_buffer *command, int64_t deadline_us,
                                         tally_redis_answered *answered, void *context,
                                         struct tally_error *error)
{
    if (!async->open)
        return tally_fail(error, TALLY_UNAVAILABLE, "Redis: %s", async->reason);
    return redis_async_queue(async, command, deadline_us, answered, context, error);
}
