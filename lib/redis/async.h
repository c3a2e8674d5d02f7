/*
 * Redis async: one connection to Redis on an event loop, with every command that is queued in one
 * turn of the loop leaving in one write.
 *
 * It keeps itself connected: connects, authenticates, selects the database and waits for a PONG;
 * reconnects with jittered back-off, which grows until a connection has lasted for some seconds;
 * sends a PING when the connection has been silent; and gives a connection up on which nothing was
 * heard for `patience_ms` with an answer due, or whose oldest command has had none for
 * `timeout_ms`. Between a loss and the next PONG it takes no commands, so that callers fail at once
 * instead of queueing: a circuit breaker, as core/breaker.h describes it. It needs no probe beside
 * the commands: Redis answers them in turn, each within moments, so that its silence is a failure.
 *
 * A connection belongs to the thread that runs its event base. A host name is resolved at each
 * attempt, in that thread.
 */
#ifndef TALLY_REDIS_ASYNC_H
#define TALLY_REDIS_ASYNC_H

#include "core/breaker.h"
#include "core/buffer.h"

#include <stdint.h>

struct event_base;
struct redisReply;
struct tally_redis_async;

/* OK with the reply, which is borrowed for the call and may be an error reply of the command; or
 * UNAVAILABLE with NULL: the connection was lost or the deadline passed, and the command may have
 * been carried out; or STOPPING with NULL from tally_redis_async_free(). */
typedef void tally_redis_answered(enum tally_status status, const struct redisReply *reply,
                                  void *context);

struct tally_redis_async_options {
    const char *url;     /* as redis/url.h reads it; copied */
    int64_t timeout_ms;  /* for connecting, and for the oldest command to be answered; > 0 */
    int64_t patience_ms; /* of silence with an answer due; > 0 */
    /* The connection opened (true) or was lost (false); before the callbacks of lost commands, so
     * that they find it closed. May be NULL. */
    void (*on_change)(bool open, void *context);
    void *context;
};

/* What happened since the start. */
struct tally_redis_async_counts {
    int64_t flushes; /* turns of the loop that wrote */
    int64_t losses;  /* open connections that were lost or given up */
};

/* Starts connecting, which goes on by itself. CONFIG: the URL; NO_MEMORY. */
enum tally_status tally_redis_async_new(struct event_base *base,
                                        const struct tally_redis_async_options *options,
                                        struct tally_redis_async **out,
                                        struct tally_error *error) TALLY_MUST_CHECK;
/* Calls back everything in flight with STOPPING. Not from inside a callback. */
void tally_redis_async_free(struct tally_redis_async **async);

/* Whether commands are taken. */
bool tally_redis_async_open(const struct tally_redis_async *async);
/* Closed while commands are taken, half-open while it is connecting. */
enum tally_breaker_state tally_redis_async_breaker(const struct tally_redis_async *async);
/* Says why it is not open; "" while it is. */
const char *tally_redis_async_reason(const struct tally_redis_async *async);
/* Counts up with every write. A command that was queued in the current turn has not left yet. */
int64_t tally_redis_async_turn(const struct tally_redis_async *async);
struct tally_redis_async_counts tally_redis_async_counts(const struct tally_redis_async *async);

/* Loses the connection on purpose, and connects again: the server is not one to be used. `reason`
 * is what tally_redis_async_reason() says meanwhile. May be called from a command's callback. */
void tally_redis_async_drop(struct tally_redis_async *async, const char *reason);

/* Queues one command, already in the form of the protocol (redis/command.h); copied. It is answered
 * in the order of sending, never from inside this call. `deadline_us` is monotonic; when it passes,
 * the command is called back and its late reply thrown away. UNAVAILABLE where the connection is
 * not open; NO_MEMORY. A failed start never calls back. */
enum tally_status tally_redis_async_send(struct tally_redis_async *async,
                                         struct tally_buffer *command, int64_t deadline_us,
                                         tally_redis_answered *answered, void *context,
                                         struct tally_error *error) TALLY_MUST_CHECK;

#endif
