/*
 * Batcher: carries commands to PostgreSQL, many in one transaction.
 *
 * While one batch is in flight, arriving commands gather; the next batch goes out at the end of the
 * loop turn in which a connection is free. There is no timer: an idle service adds no delay, a busy
 * one makes larger batches.
 *
 * A breaker (pg/guard.h) stands before the queue. When it opens, what waits is answered
 * UNAVAILABLE, since it was never sent, and new commands are refused at once; a batch that is on
 * its way keeps its time, since only its answer can tell whether it was done. Everything belongs to
 * the loop's thread.
 */
#ifndef TALLY_STORE_BATCHER_H
#define TALLY_STORE_BATCHER_H

#include "core/breaker.h"
#include "store/command_queue.h"

struct event_base;
struct tally_batcher;

#define TALLY_BATCHER_CONNECTIONS_MOST 16

/* What happened to a batch, for metrics. */
struct tally_batch_report {
    size_t commands;
    int64_t duration_us; /* from sending to the answer */
    bool replayed;       /* an SQL error: its commands are now run one by one */
    bool lost;           /* the session ended under it */
};

struct tally_batcher_options {
    const char *dsn; /* borrowed for the batcher's life */
    size_t connections;
    struct tally_command_queue_limits limits;
    /* Longest wait to be sent, and then for the outcome; where the batch meets an SQL error, for it
     * again from there, one by one. A tenth of it is the longest wait for one lock. */
    int64_t timeout_ms;
    int64_t patience_ms; /* the silence of PostgreSQL that opens the breaker */
    /* A batch has been committed; may be NULL. */
    void (*on_committed)(void *context);
    void (*on_batch)(const struct tally_batch_report *report, void *context); /* may be NULL */
    /* A command failed by an SQL error that is not the client's doing, or a session failed; for the
     * log. May be NULL. */
    void (*on_failure)(const struct tally_error *error, void *context);
    /* The breaker opened or closed; may be NULL. */
    void (*on_breaker)(const struct tally_breaker *breaker, void *context);
    void *context;
};

/* Connects by itself, in the loop. CONFIG: the DSN cannot be read; NO_MEMORY. */
enum tally_status tally_batcher_new(struct event_base *base,
                                    const struct tally_batcher_options *options,
                                    struct tally_batcher **batcher,
                                    struct tally_error *error) TALLY_MUST_CHECK;

/* Submits a command. `command` and its texts are borrowed until `done`, which comes exactly once
 * and never from inside this call. Refused at once, without a callback: OVERLOADED; KEY_IN_USE;
 * UNAVAILABLE while the breaker is open; STOPPING once draining; NO_MEMORY.
 * Outcomes besides those of apply_commands(): UNAVAILABLE, nothing was done; OUTCOME_UNKNOWN, the
 * session was lost after sending, and with an Idempotency-Key the client may safely repeat;
 * INTERNAL, an SQL error, nothing was done. A command that waits too long for a row that somebody
 * else keeps locked is UNAVAILABLE, and not its neighbours in the batch. */
enum tally_status tally_batcher_submit(struct tally_batcher *batcher,
                                       const struct tally_command *command,
                                       tally_command_done *done, void *context,
                                       struct tally_error *error) TALLY_MUST_CHECK;

/* Takes no more commands; `drained` comes once, from the loop, when all have their outcomes. */
void tally_batcher_drain(struct tally_batcher *batcher, void (*drained)(void *context),
                         void *context);
/* Closes at once; commands without outcome get no callback. Not from inside a callback. */
void tally_batcher_free(struct tally_batcher **batcher);

/* For metrics and readiness. */
size_t tally_batcher_waiting(const struct tally_batcher *batcher);
size_t tally_batcher_connections_up(const struct tally_batcher *batcher);
/* While it refuses, commands are refused at once; its `cause` tells why. */
const struct tally_breaker *tally_batcher_breaker(const struct tally_batcher *batcher);

#endif
