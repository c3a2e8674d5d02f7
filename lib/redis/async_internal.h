/*
 * What async.c (the connection's life) and async_queue.c (its commands, until they are answered)
 * share.
 */
#ifndef TALLY_REDIS_ASYNC_INTERNAL_H
#define TALLY_REDIS_ASYNC_INTERNAL_H

#include "core/random.h"
#include "redis/async.h"
#include "redis/url.h"

struct event_base;
struct redisAsyncContext;
struct tally_timer;

/* One command whose reply is due. Freed when hiredis reports on it, and only then: hiredis holds a
 * pointer to it until then. */
struct pending {
    struct tally_redis_async *async;
    tally_redis_answered *answered; /* NULL once called back */
    void *context;
    int64_t sent_us;
    int64_t deadline_us;
    struct pending *prev, *next; /* in the order of sending */
};

struct tally_redis_async {
    struct event_base *base;
    struct tally_redis_async_options options; /* `url` is not kept */
    struct tally_redis_url url;
    struct redisAsyncContext *context; /* NULL while there is none */
    struct pending *pendings;
    bool open;
    bool broken; /* replies no longer belong to the commands; given up at the next turn */
    bool stopping;
    struct tally_timer *deadlines;
    int64_t earliest_us; /* when `deadlines` fires; 0: not set */
    struct tally_timer *reconnect;
    struct tally_timer *heartbeat;
    int64_t heard_us; /* last reply */
    int64_t begun_us; /* of the attempt to connect */
    int64_t opened_us;
    struct tally_backoff backoff;
    struct tally_random random;
    struct tally_redis_async_counts counts;
    char reason[TALLY_ERROR_TEXT_BYTES];
};

/* Takes note that the connection is no longer usable; the context itself is freed by whoever
 * called. Called for the first sign of a loss, whichever it is, and harmless afterwards. */
void redis_async_close_down(struct tally_redis_async *async, const char *reason);
/* Closes it, and so calls back all that is in flight. */
void redis_async_give_up(struct tally_redis_async *async, const char *reason);
/* Sends whether or not the connection is open: the greeting comes before it is. Else as
 * tally_redis_async_send(). */
enum tally_status redis_async_queue(struct tally_redis_async *async, struct tally_buffer *command,
                                    int64_t deadline_us, tally_redis_answered *answered,
                                    void *context, struct tally_error *error) TALLY_MUST_CHECK;
/* The callback of the timer `deadlines`; `argument` is the connection. */
void redis_async_on_deadline(void *argument);

#endif
