/*
 * Recount: what PostgreSQL says about users when their posts and comments are counted one by one;
 * the truth the read model is measured by. Blocking.
 *
 * Every read is one statement and so one snapshot: version, profile and counts belong together.
 */
#ifndef TALLY_STORE_RECOUNT_H
#define TALLY_STORE_RECOUNT_H

#include "core/status.h"

#include <libpq-fe.h>
#include <stdint.h>

/* Users of one read. */
#define TALLY_RECOUNT_MOST 1000
/* Events, counted back from the newest, among which tally_recount_at() looks for those that came
 * after a version; it bounds the cost of a look. */
#define TALLY_RECOUNT_EVENTS 50000

struct tally_recount_user {
    int64_t id;
    int64_t version;
    bool deleted; /* counts mean nothing: what the user wrote is being swept */
    int64_t posts;
    int64_t comments;
    const char *name;   /* borrowed from the rows; NULL of a deleted user */
    const char *email;  /* likewise */
    const char *avatar; /* likewise; NULL: none */
    /* From tally_recount_at() alone: what the events after the asked version changed. */
    int64_t events_after; /* how many were found; all of them where it is version - asked version */
    int64_t posts_after;
    int64_t comments_after;
    bool profile_after; /* the profile was written again */
};

/* The caller clears the rows after each successful read. */
struct tally_recount_rows {
    PGresult *rows; /* owned */
    int count;
};

void tally_recount_clear(struct tally_recount_rows *rows);
/* Row `index` < count. */
void tally_recount_user(const struct tally_recount_rows *rows, int index,
                        struct tally_recount_user *user);

/* The next `limit` users by id above `after_id`; fewer at the end. */
enum tally_status tally_recount_after(PGconn *connection, int64_t after_id, int limit,
                                      struct tally_recount_rows *rows,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* These users, in any order, without those that do not exist; and what came after versions[i] of
 * ids[i]. `count` at most TALLY_RECOUNT_MOST. */
enum tally_status tally_recount_at(PGconn *connection, const int64_t *ids, const int64_t *versions,
                                   size_t count, struct tally_recount_rows *rows,
                                   struct tally_error *error) TALLY_MUST_CHECK;
/* Which of `ids` are no users: moves them to the front and sets `*absent`. */
enum tally_status tally_recount_absent(PGconn *connection, int64_t *ids, size_t count,
                                       size_t *absent, struct tally_error *error) TALLY_MUST_CHECK;
/* About `wanted` users picked at random, at most `most`; ids[] is the caller's. */
enum tally_status tally_recount_sample(PGconn *connection, int64_t wanted, int64_t *ids,
                                       size_t most, size_t *count,
                                       struct tally_error *error) TALLY_MUST_CHECK;

/* Of which of these users no event up to versions[i] waits for the relay: they are in Kafka, or are
 * not kept any more. `count` at most TALLY_RECOUNT_MOST. */
enum tally_status tally_recount_published(PGconn *connection, const int64_t *ids,
                                          const int64_t *versions, size_t count, bool *published,
                                          struct tally_error *error) TALLY_MUST_CHECK;

/* The timeline that the server writes on. */
enum tally_status tally_recount_timeline(PGconn *connection, int32_t *timeline,
                                         struct tally_error *error) TALLY_MUST_CHECK;

/* All users above `after_id` in the order of their ids, in one consistent snapshot however long the
 * reading takes. Posts and comments are grouped and counted in one pass over each, and PostgreSQL
 * merges them with the users in bounded memory. The connection stays in the transaction of that
 * snapshot: it is to be closed behind it. `*users` receives how many there are. */
enum tally_status tally_recount_stream_begin(PGconn *connection, int64_t after_id, int64_t *users,
                                             struct tally_error *error) TALLY_MUST_CHECK;
/* The next `limit` users; fewer at the end. */
enum tally_status tally_recount_stream_next(PGconn *connection, int limit,
                                            struct tally_recount_rows *rows,
                                            struct tally_error *error) TALLY_MUST_CHECK;

struct tally_recount_state {
    int64_t users;      /* rows, deleted ones included */
    int64_t last_event; /* last number that an event was given */
    bool sweeping;      /* something deleted is not swept yet */
    bool quiet;         /* every transaction that had a number up to last_event has ended */
};
enum tally_status tally_recount_state(PGconn *connection, struct tally_recount_state *state,
                                      struct tally_error *error) TALLY_MUST_CHECK;

#endif
