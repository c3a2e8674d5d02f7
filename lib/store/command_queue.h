/*
 * Command queue: which commands wait, which leave together, and which may not enter. The decisions
 * of the batcher without its connections. Pure; the clock is an argument.
 */
#ifndef TALLY_STORE_COMMAND_QUEUE_H
#define TALLY_STORE_COMMAND_QUEUE_H

#include "store/command.h"

#include <uthash.h>

typedef void tally_command_done(const struct tally_command_outcome *outcome, void *context);

/* A command from its submission to its outcome. */
struct tally_queued {
    const struct tally_command *command; /* borrowed until `done` */
    tally_command_done *done;
    void *context;
    int64_t deadline_us; /* monotonic: to be sent by then, also once it was put back */
    size_t bytes;
    struct tally_queued *prev, *next;
    UT_hash_handle by_key; /* only where the command carries a key */
    char key[];            /* caller, '\n', key */
};

struct tally_command_queue_limits {
    size_t queue_most; /* commands that wait */
    size_t queue_bytes;
    size_t batch_most; /* commands of a batch, > 0 */
    size_t batch_bytes;
};

struct tally_command_queue {
    struct tally_command_queue_limits limits;
    struct tally_queued *waiting; /* oldest first */
    size_t count;
    size_t bytes;
    struct tally_queued *keyed; /* waiting or in flight, by caller and key */
};

void tally_command_queue_init(struct tally_command_queue *queue,
                              const struct tally_command_queue_limits *limits);
/* Frees what is left, without a callback. */
void tally_command_queue_release(struct tally_command_queue *queue);

/* Enters a command, to leave by `deadline_us`. OVERLOADED: full; KEY_IN_USE: the same caller's key
 * waits or is in flight; NO_MEMORY. */
enum tally_status tally_command_queue_enter(struct tally_command_queue *queue,
                                            const struct tally_command *command,
                                            int64_t deadline_us, tally_command_done *done,
                                            void *context,
                                            struct tally_error *error) TALLY_MUST_CHECK;
/* Takes the next batch off the front: the oldest commands up to the bounds, at least one where
 * there is one. Returns how many were written to `batch`, which has room for batch_most. */
size_t tally_command_queue_take(struct tally_command_queue *queue, struct tally_queued **batch);
/* Puts one back at the front, whatever the bounds: it was never sent. */
void tally_command_queue_put_back(struct tally_command_queue *queue, struct tally_queued *queued);
/* Takes the oldest off if its deadline is over at `now_us`; NULL where none is. Put-back commands
 * are older than those behind them, so that the front is always the next to expire. */
struct tally_queued *tally_command_queue_expire(struct tally_command_queue *queue, int64_t now_us);
/* Deadline of the front, or INT64_MAX. */
int64_t tally_command_queue_deadline_us(const struct tally_command_queue *queue);
/* Frees a command that is not waiting, without a callback. */
void tally_queued_forget(struct tally_command_queue *queue, struct tally_queued *queued);
/* Ends a command that is not waiting: forgets its key, calls it back, frees it. */
void tally_queued_finish(struct tally_command_queue *queue, struct tally_queued *queued,
                         const struct tally_command_outcome *outcome);

#endif
