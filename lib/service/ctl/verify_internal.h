/*
 * Verify, inside: the state that its files share: the walk over the users, and the checks that need
 * no walk.
 */
#ifndef TALLY_SERVICE_CTL_VERIFY_INTERNAL_H
#define TALLY_SERVICE_CTL_VERIFY_INTERNAL_H

#include "core/random.h"
#include "service/ctl/verify_model.h"

/* A user whose versions differed at the last look. */
struct verify_pending {
    int64_t id;
    int64_t wanted; /* version that the read model must reach */
    int64_t due_us; /* monotonic; the grace ends */
};

struct verify_run {
    const struct tally_verify_options *options;
    struct tally_verify_result *result;
    struct tally_error *error;
    PGconn *connection;
    struct tally_verify_model model;
    struct verify_pending *pending; /* of options->pending_most + TALLY_RECOUNT_MOST */
    size_t pending_count;
    struct tally_backoff backoff;
    struct tally_random random;
    int64_t last_id;                             /* the walk has read the users up to this one */
    int64_t next_look_us;                        /* monotonic */
    int64_t total;                               /* users to check, for the progress */
    bool summing;                                /* the walk adds up what it counts */
    struct tally_verify_differences differences; /* of the user at hand */
};

void verify_progress(const struct verify_run *run);
/* Tells how far the walk is, after `looked` users or keys; `cursor` is that of the keys, NULL while
 * the users are walked. */
enum tally_status verify_step(const struct verify_run *run, size_t looked,
                              const char *cursor) TALLY_MUST_CHECK;
/* Counts a difference and passes it on. */
void verify_tell(struct verify_run *run, const struct tally_verify_difference *difference);

/* Compares rows that were just read from PostgreSQL with Redis, which is read now. */
enum tally_status verify_first_look(struct verify_run *run,
                                    const struct tally_recount_rows *rows) TALLY_MUST_CHECK;
/* One look at all who are pending. */
enum tally_status verify_look_again(struct verify_run *run) TALLY_MUST_CHECK;

/* Looks through the generation's keys for those of users that do not exist. */
enum tally_status verify_ghosts(struct verify_run *run) TALLY_MUST_CHECK;
/* Compares the totals with what the walk added up, where that can be done. `before` was read before
 * the walk. */
enum tally_status verify_totals(struct verify_run *run,
                                const struct tally_recount_state *before) TALLY_MUST_CHECK;

#endif
