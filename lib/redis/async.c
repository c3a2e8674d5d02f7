#include "core/clock.h"
#include "loop/loop.h"
#include "redis/async_events.h"
#include "redis/async_internal.h"
#include "redis/command.h"

#include <hiredis/async.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BACKOFF_FIRST_MS = 20,
    BACKOFF_MOST_MS = 1000,
    HEARTBEAT_US = 500000,
    STEADY_US = 5000000,        /* a connection that lasts so long was no failure */
    COMMAND_LIMIT_BYTES = 4096, /* of the connection's own commands */
};

void redis_async_close_down(struct tally_redis_async *async, const char *reason)
{
    if (async->context == NULL)
        return;
    async->context->data = NULL;
    async->context = NULL;
    bool was_open = async->open;
    async->open = false;
    (void)snprintf(async->reason, sizeof async->reason, "%s", reason);
    tally_timer_cancel(async->heartbeat);
    if (async->stopping)
        return;
    if (was_open && tally_clock_monotonic_us() - async->opened_us >= STEADY_US)
        async->backoff.attempts = 0;
    tally_timer_set(async->reconnect,
                    tally_backoff_next_ms(&async->backoff, &async->random) * 1000);
    if (!was_open)
        return;
    async->counts.losses++;
    if (async->options.on_change != NULL)
        async->options.on_change(false, async->options.context);
}

static void on_connected(const struct redisAsyncContext *context, int status)
{
    struct tally_redis_async *async = context->data;
    if (async != NULL && status != REDIS_OK)
        redis_async_close_down(async, context->c.errstr);
}

static void on_disconnected(const struct redisAsyncContext *context, int status)
{
    struct tally_redis_async *async = context->data;
    if (async != NULL)
        redis_async_close_down(async, status == REDIS_OK ? "connection closed" : context->errstr);
}

void redis_async_give_up(struct tally_redis_async *async, const char *reason)
{
    struct redisAsyncContext *context = async->context;
    if (context == NULL)
        return; /* freeing it calls back what it has not answered, which may end here again */
    bool was_broken = async->broken;
    async->open = async->open || was_broken; /* so that the loss is told */
    redis_async_close_down(async, reason);
    redisAsyncFree(context);
}

static void on_heartbeat_answered(enum tally_status status, const struct redisReply *reply,
                                  void *context)
{
    (void)status;
    (void)reply;
    (void)context;
}

/* A command of the connection's own. */
static enum tally_status queue_words(struct tally_redis_async *async, const char *const *words,
                                     size_t count, int64_t deadline_us,
                                     tally_redis_answered *answered, struct tally_error *error)
{
    struct tally_buffer command;
    tally_buffer_init(&command, COMMAND_LIMIT_BYTES);
    tally_redis_command(&command, count);
    for (size_t i = 0; i < count; i++)
        tally_redis_part_text(&command, words[i]);
    enum tally_status status =
        redis_async_queue(async, &command, deadline_us, answered, async, error);
    tally_buffer_release(&command);
    return status;
}

static const char *const ping[] = {"PING"};

/* An answer that does not come is noticed as any other: by its deadline. */
static void on_heartbeat(void *argument)
{
    struct tally_redis_async *async = argument;
    int64_t now_us = tally_clock_monotonic_us();
    tally_timer_set(async->heartbeat, HEARTBEAT_US);
    if (async->pendings != NULL || now_us - async->heard_us < HEARTBEAT_US)
        return;
    enum tally_status status = queue_words(
        async, ping, 1, now_us + async->options.timeout_ms * 1000, on_heartbeat_answered, NULL);
    (void)status; /* a failure is no news: the next heartbeat tries again */
}

/* The reply to the greeting's commands; an error reply ends the attempt. */
static void on_greeted(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct tally_redis_async *async = argument;
    if (status == TALLY_OK && reply->type == REDIS_REPLY_ERROR)
        redis_async_give_up(async, reply->str);
    else if (status == TALLY_UNAVAILABLE)
        redis_async_give_up(async, "no answer to the greeting");
}

static void on_pong(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct tally_redis_async *async = argument;
    on_greeted(status, reply, argument);
    if (async->context == NULL || async->broken || status != TALLY_OK)
        return;
    async->open = true;
    async->opened_us = tally_clock_monotonic_us();
    async->reason[0] = '\0';
    tally_timer_set(async->heartbeat, HEARTBEAT_US);
    if (async->options.on_change != NULL)
        async->options.on_change(true, async->options.context);
}

/* AUTH and SELECT where the URL asks for them, and PING, which opens the connection. */
static enum tally_status greet(struct tally_redis_async *async, struct tally_error *error)
{
    const struct tally_redis_url *url = &async->url;
    const bool named = url->user[0] != '\0';
    char database[16];
    (void)snprintf(database, sizeof database, "%d", url->database);
    const char *const authenticate[] = {"AUTH", named ? url->user : url->password, url->password};
    const char *const select[] = {"SELECT", database};
    const int64_t deadline_us = async->begun_us + async->options.timeout_ms * 1000;
    enum tally_status status = TALLY_OK;
    if (url->password[0] != '\0')
        status = queue_words(async, authenticate, named ? 3 : 2, deadline_us, on_greeted, error);
    if (status == TALLY_OK && url->database != 0)
        status = queue_words(async, select, 2, deadline_us, on_greeted, error);
    if (status == TALLY_OK)
        status = queue_words(async, ping, 1, deadline_us, on_pong, error);
    return status;
}

static void on_reconnect(void *argument)
{
    struct tally_redis_async *async = argument;
    struct tally_error error = {0};
    async->begun_us = tally_clock_monotonic_us();
    async->heard_us = async->begun_us;
    struct redisAsyncContext *context = redisAsyncConnect(async->url.host, async->url.port);
    if (context == NULL || context->err != 0) {
        (void)snprintf(async->reason, sizeof async->reason, "%s",
                       context != NULL ? context->errstr : "out of memory");
        goto again;
    }
    if (tally_redis_attach(context, async->base, &async->counts.flushes, &error) != TALLY_OK) {
        (void)snprintf(async->reason, sizeof async->reason, "%s", error.text);
        goto again;
    }
    context->data = async;
    async->context = context;
    async->broken = false;
    redisAsyncSetConnectCallback(context, on_connected);
    redisAsyncSetDisconnectCallback(context, on_disconnected);
    if (greet(async, &error) != TALLY_OK)
        redis_async_give_up(async, error.text);
    return;
again:
    if (context != NULL)
        redisAsyncFree(context);
    tally_timer_set(async->reconnect,
                    tally_backoff_next_ms(&async->backoff, &async->random) * 1000);
}

enum tally_status tally_redis_async_new(struct event_base *base,
                                        const struct tally_redis_async_options *options,
                                        struct tally_redis_async **out, struct tally_error *error)
{
    struct tally_redis_async *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "Redis connection");
    made->base = base;
    made->options = *options;
    made->options.url = NULL;
    made->backoff =
        (struct tally_backoff){.first_ms = BACKOFF_FIRST_MS, .most_ms = BACKOFF_MOST_MS};
    tally_random_seed_from_system(&made->random);
    (void)snprintf(made->reason, sizeof made->reason, "connecting");
    enum tally_status status = tally_redis_url_parse(options->url, &made->url, error);
    if (status == TALLY_OK)
        status = tally_timer_new(base, redis_async_on_deadline, made, &made->deadlines, error);
    if (status == TALLY_OK)
        status = tally_timer_new(base, on_reconnect, made, &made->reconnect, error);
    if (status == TALLY_OK)
        status = tally_timer_new(base, on_heartbeat, made, &made->heartbeat, error);
    if (status != TALLY_OK) {
        tally_redis_async_free(&made);
        return status;
    }
    tally_timer_set(made->reconnect, 0);
    *out = made;
    return TALLY_OK;
}

void tally_redis_async_free(struct tally_redis_async **async)
{
    if (*async == NULL)
        return;
    (*async)->stopping = true;
    if ((*async)->context != NULL)
        redis_async_give_up(*async, "stopping");
    tally_timer_free(&(*async)->deadlines);
    tally_timer_free(&(*async)->reconnect);
    tally_timer_free(&(*async)->heartbeat);
    free(*async);
    *async = NULL;
}

void tally_redis_async_drop(struct tally_redis_async *async, const char *reason)
{
    redis_async_give_up(async, reason);
}

bool tally_redis_async_open(const struct tally_redis_async *async)
{
    return async->open;
}

enum tally_breaker_state tally_redis_async_breaker(const struct tally_redis_async *async)
{
    if (async->open)
        return TALLY_BREAKER_CLOSED;
    return async->context != NULL ? TALLY_BREAKER_HALF_OPEN : TALLY_BREAKER_OPEN;
}

const char *tally_redis_async_reason(const struct tally_redis_async *async)
{
    return async->reason;
}

int64_t tally_redis_async_turn(const struct tally_redis_async *async)
{
    return async->counts.flushes;
}

struct tally_redis_async_counts tally_redis_async_counts(const struct tally_redis_async *async)
{
    return async->counts;
}
