/*
 * History: the events that make up one user's counts, as far as PostgreSQL keeps them, and which of
 * them the relay has published. Blocking.
 *
 * A read is one snapshot: profile version, recount, events and the relay's position belong
 * together.
 */
#ifndef TALLY_STORE_HISTORY_H
#define TALLY_STORE_HISTORY_H

#include "core/status.h"
#include "domain/event.h"

#include <libpq-fe.h>
#include <stdint.h>

/* Events that a history lists at most. */
#define TALLY_HISTORY_EVENTS_MOST 100000

struct tally_history_event {
    int64_t seq;
    int64_t version;
    int64_t at_us; /* wall clock of the write */
    enum tally_event_type type;
    bool published; /* before the relay's position, and so in Kafka at least once */
};

struct tally_history {
    bool found; /* there is such a user; else all that follows is 0 */
    bool deleted;
    int64_t version;
    int64_t posts; /* counted one by one; meaningless of a deleted user */
    int64_t comments;
    /* Of all kept events. */
    int64_t kept;
    int64_t first_version; /* 0: none is kept */
    int64_t last_version;
    int64_t distinct;                  /* versions; fewer than `kept` where one is there twice */
    int64_t posts_kept, comments_kept; /* sums of their deltas */
    int64_t posts_through, comments_through; /* of those up to the version asked for */
    int64_t first_waiting;                   /* lowest version that is not published; 0: none */
    /* The newest of them, by version. */
    struct tally_history_event *events; /* owned */
    size_t event_count;
};

/* Reads user `user_id`, with the sums up to `version` and at most `list_most` <=
 * TALLY_HISTORY_EVENTS_MOST events. The caller releases. PROTOCOL: a row is not what the schema
 * promises. */
enum tally_status tally_history_read(PGconn *connection, int64_t user_id, int64_t version,
                                     size_t list_most, struct tally_history *history,
                                     struct tally_error *error) TALLY_MUST_CHECK;
void tally_history_release(struct tally_history *history);

#endif
