/*
 * Relay position: which events of the write model have been published, and reading those that have
 * not.
 *
 * A position is a snapshot (pg_snapshot): every event visible in it is published. The next batch is
 * what is visible now and was not then, so that a transaction which commits late is found whatever
 * its sequence number is (the idea of PgQ's ticks, https://wiki.postgresql.org/wiki/PGQ_Tutorial).
 * A backlog larger than a batch is read in pieces: the position then names the snapshot it is on
 * its way to and the last sequence number sent, and no transaction stays open between two pieces.
 * No statement grows with the backlog, but for that of a single transaction.
 *
 * Events of one user are read in the order of their versions: the user's row lock makes version n
 * visible no later than n + 1, and gives it the lower sequence number.
 *
 * One reader leads per database, by a session advisory lock. The server ends the session of a
 * leader that says nothing for as long as it has agreed to, and a standby that of one which takes
 * no rows for as long, so that a stopped process does not block the others; saving checks the epoch
 * it took at its election. A reader belongs to one thread and blocks.
 */
#ifndef TALLY_STORE_RELAY_POSITION_H
#define TALLY_STORE_RELAY_POSITION_H

#include "core/status.h"
#include "domain/event.h"

#include <libpq-fe.h>

#define TALLY_RELAY_LOCK_KEY INT64_C(0x74616c6c79) /* "tally" */
#define TALLY_RELAY_SILENCE_MS 3000                /* what a relay agrees to */
#define TALLY_RELAY_STATEMENT_MS 60000             /* no statement takes longer */

struct tally_relay_position {
    char *base;   /* pg_snapshot: all visible in it is published; owned, or NULL for none */
    char *target; /* pg_snapshot: read up to `reached_seq`; owned, NULL where base is whole */
    int64_t reached_seq; /* meaningful with target only */
};

void tally_relay_position_clear(struct tally_relay_position *position);

/* Some events in publishing order. */
struct tally_relay_batch {
    PGresult *rows;                    /* owned */
    int count;                         /* 0: nothing was found to publish */
    bool more;                         /* there is more to read at once, also where count is 0 */
    struct tally_relay_position after; /* the position once these are acknowledged; owned */
};

void tally_relay_batch_clear(struct tally_relay_batch *batch);
/* Event `index` of the batch; its texts are borrowed from the batch. `traceparent` receives NULL
 * where there is none. PROTOCOL: the row is not what the schema promises. */
enum tally_status tally_relay_batch_event(const struct tally_relay_batch *batch, int index,
                                          struct tally_event *event, const char **traceparent,
                                          struct tally_error *error) TALLY_MUST_CHECK;

struct tally_relay_reader;

/* Connects. Errors as tally_pg_connect(). `batch_events` bounds a batch; after `silence_ms` without
 * a word the server ends the session, once it leads. */
enum tally_status tally_relay_reader_open(const char *dsn, int64_t batch_events, int silence_ms,
                                          struct tally_relay_reader **reader,
                                          struct tally_error *error) TALLY_MUST_CHECK;
void tally_relay_reader_close(struct tally_relay_reader **reader);

/* Tries to become the leader: `*leading` says whether it is; where it is not, call again within a
 * second, for it looks whether the one that leads goes on. Then the position is loaded, and its
 * epoch raised. A position from another database (by its system identifier) is not one: reading
 * starts over from the oldest kept event, and `*started_over` says so; the events must be adopted
 * before the first is read. */
enum tally_status tally_relay_reader_lead(struct tally_relay_reader *reader, bool *leading,
                                          bool *started_over,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* One piece of the adoption of another database's events, whose transaction numbers mean nothing in
 * this one: they are stamped anew. `*done`: there are no more, and the position is this database's.
 */
enum tally_status tally_relay_reader_adopt(struct tally_relay_reader *reader, bool *done,
                                           struct tally_error *error) TALLY_MUST_CHECK;
/* System identifier of the database, once leading; borrowed. */
const char *tally_relay_reader_database(const struct tally_relay_reader *reader);
int64_t tally_relay_reader_epoch(const struct tally_relay_reader *reader);

/* Reads what comes after the last batch read (not: after the position saved). The caller clears the
 * batch. After an error the reader must be closed. */
enum tally_status tally_relay_reader_next(struct tally_relay_reader *reader,
                                          struct tally_relay_batch *batch,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* FENCED: another leader was elected since. The commit is not waited for (synchronous_commit=off):
 * a position lost in a crash of the server only repeats events. */
enum tally_status tally_relay_reader_save(struct tally_relay_reader *reader,
                                          const struct tally_relay_position *position,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* Says for whoever reads the topic that events go by this partition count from now on; all that
 * went by another one must have been acknowledged. FENCED: another leader was elected since. */
enum tally_status tally_relay_reader_note_partitions(struct tally_relay_reader *reader,
                                                     int32_t partitions,
                                                     struct tally_error *error) TALLY_MUST_CHECK;
/* What an operator wants of the relay (store/relay_control.h). */
#define TALLY_PAUSE_REASON_MOST 200
struct tally_relay_orders {
    bool paused;
    char since[24]; /* RFC 3339; "" where it is not paused */
    char reason[4 * TALLY_PAUSE_REASON_MOST + 1];
};

/* Reads them, and keeps the session alive while there is nothing to read or save. FENCED: another
 * leader was elected since, or the position was moved back for a refill. */
enum tally_status tally_relay_reader_attend(struct tally_relay_reader *reader,
                                            struct tally_relay_orders *orders,
                                            struct tally_error *error) TALLY_MUST_CHECK;

#endif
