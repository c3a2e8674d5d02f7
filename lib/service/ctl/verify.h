/*
 * Verify: compares the read model with a recount, user by user, while both go on changing.
 *
 * Users are read from PostgreSQL in chunks and then from Redis. Where both have the same version
 * everything else must be the same too. Another version means that events are under way: the user
 * is looked at again, now Redis first, until Redis has at least the version that PostgreSQL had at
 * the first look. A user who is written to all the time may never show equal versions at two
 * moments, so PostgreSQL is then asked for its count at the version that Redis shows: its count
 * now, less what the events after that version changed, all in one snapshot. So a difference is
 * never an event on its way, and an event on its way is waited for only as long as the grace.
 */
#ifndef TALLY_SERVICE_CTL_VERIFY_H
#define TALLY_SERVICE_CTL_VERIFY_H

#include "core/status.h"

#include <stdint.h>

#define TALLY_VERIFY_VALUE_BYTES 80
#define TALLY_VERIFY_CURSOR_BYTES 24

/* One field of one user. Fields: posts, comments, name, email, avatar, deleted, version (the read
 * model did not reach the version within the grace, or is ahead of PostgreSQL), missing (nothing
 * in the read model), ghost (a key whose user does not exist), misplaced (a key in the wrong
 * partition), total users/posts/comments (user_id is 0). */
struct tally_verify_difference {
    int64_t user_id;
    const char *field;
    char expected[TALLY_VERIFY_VALUE_BYTES]; /* cut where longer */
    char found[TALLY_VERIFY_VALUE_BYTES];
    int64_t expected_version; /* of the user in PostgreSQL; 0: there is none */
    int64_t found_version;    /* in the read model; 0: there is none */
};

/* How far a walk has come. */
struct tally_verify_place {
    bool keys;       /* every user is settled, the keys are being looked through for ghosts */
    int64_t user_id; /* every user up to this one is settled */
    char cursor[TALLY_VERIFY_CURSOR_BYTES]; /* of the keys; "" or "0": at their beginning */
};

struct tally_verify_options {
    const char *pg_dsn;
    const char *redis_url;
    int64_t redis_timeout_ms;
    int64_t generation; /* to be checked; 0: the live one */
    int64_t sample;     /* check about so many users, picked at random, alone; 0: everything */
    double
        sample_percent;  /* the same as a share of all users, where `sample` is 0; 0: everything */
    int64_t grace_ms;    /* longest wait for one user's events */
    size_t pending_most; /* users waited for at once; at the bound the walk pauses. > 0 */
    /* Called as they come; may be NULL. */
    void (*on_difference)(void *context, const struct tally_verify_difference *difference);
    /* A user who is equal, but marked as degraded; may be NULL. */
    void (*on_flagged)(void *context, int64_t user_id, int64_t version);
    /* For a walk that is slow and may be interrupted. */
    const struct tally_verify_place *from; /* begin here; NULL: at the beginning */
    int chunk_users; /* users of one read; 0: TALLY_RECOUNT_MOST, which is also the most */
    int64_t look_ms; /* look again at who is in flight every so often while the walk goes on; 0:
                        only at the bound and at the end */
    bool without_totals;
    /* After each read, with how many users or keys it was (0: of users seen before), and where the
     * walk can begin again. May be NULL. Any other status than OK ends the run with it. */
    enum tally_status (*on_step)(void *context, const struct tally_verify_place *place,
                                 size_t looked, struct tally_error *error);
    /* After each chunk and look; `total` is 0 where it is not known. */
    void (*on_progress)(void *context, int64_t checked, int64_t total, size_t pending);
    void *context;
};

/* A larger sample is cut to this: its ids are held in memory. */
#define TALLY_VERIFY_SAMPLE_MOST 1000000

struct tally_verify_result {
    int64_t generation;
    int32_t partitions;
    int64_t population;  /* users there were at the start, deleted ones included */
    int64_t checked;     /* users */
    int64_t equal;       /* of them, at once or in the end */
    int64_t resolved;    /* of the equal, those that were in flight at the first look */
    int64_t differing;   /* users that are not equal */
    int64_t differences; /* fields, keys and totals */
    int64_t flagged;     /* equal, but marked as degraded until repaired */
    int64_t keys;        /* user keys of the generation that were looked at for ghosts */
    int64_t users;       /* living ones in PostgreSQL, their posts and comments */
    int64_t posts;
    int64_t comments;
    bool totals_compared;
    const char *totals_reason; /* why not; static */
};

/* Blocks. `*result` is filled as far as it got. Differences are no failure. UNAVAILABLE: a server
 * cannot be reached; READ_MODEL_INCOMPLETE: there is no read model, or its generation changed on
 * the way; otherwise as the servers fail. */
enum tally_status tally_verify_run(const struct tally_verify_options *options,
                                   struct tally_verify_result *result,
                                   struct tally_error *error) TALLY_MUST_CHECK;

#endif
