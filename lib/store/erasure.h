/*
 * Erasure: removes the personal data of one user from the write model, step by step, and keeps book
 * of it in the table erasures, so that any step may be repeated and an interrupted one goes on.
 * Blocking; one thread.
 */
#ifndef TALLY_STORE_ERASURE_H
#define TALLY_STORE_ERASURE_H

#include "core/status.h"

#include <libpq-fe.h>
#include <stdint.h>

/* Moments are wall clock in microseconds, 0: not yet. */
struct tally_erasure {
    int64_t begun_at_us;
    bool counted;     /* the erasure itself deleted the user, and so knows: */
    int64_t posts;    /* that the user had */
    int64_t comments; /* likewise */
    int64_t events_redacted;
    int64_t keys_removed;
    int64_t reasons_redacted;
    int64_t profiles_removed;
    int64_t published_at_us;
    int64_t log_end; /* -1: not known */
    int64_t vacuumed_at_us;
    int64_t tables_written_at_us; /* by a vacuum that writes them anew */
    int64_t files_written_at_us;  /* Redis's, all that it keeps */
    int64_t completed_at_us;
    int64_t version; /* of the deletion */
    bool swept;      /* nothing the user wrote is left */
    int64_t left;    /* rows that are, at most TALLY_ERASURE_LEFT_MOST of each kind */
};

#define TALLY_ERASURE_LEFT_MOST 100000

/* Deletes the user where it lives. `*known` is false where there never was one. */
enum tally_status tally_erasure_begin(PGconn *connection, int64_t user_id, bool *known,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* NOT_FOUND: it was not begun. */
enum tally_status tally_erasure_read(PGconn *connection, int64_t user_id,
                                     struct tally_erasure *erasure,
                                     struct tally_error *error) TALLY_MUST_CHECK;
/* Profiles in kept events and idempotency keys, in transactions of bounded size. */
enum tally_status tally_erasure_scrub(PGconn *connection, int64_t user_id,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* The reason with which this dead letter was closed, if it was. */
enum tally_status tally_erasure_scrub_letter(PGconn *connection, int64_t user_id, const char *topic,
                                             int32_t partition, int64_t offset,
                                             struct tally_error *error) TALLY_MUST_CHECK;

/* Whether the relay has published every kept event of the user. */
enum tally_status tally_erasure_published(PGconn *connection, int64_t user_id, bool *published,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* Notes in the book that this is so now, and the end of the user's partition; the first note
 * stays. */
enum tally_status tally_erasure_note_published(PGconn *connection, int64_t user_id, int64_t log_end,
                                               struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_erasure_note_profiles(PGconn *connection, int64_t user_id, int64_t removed,
                                              struct tally_error *error) TALLY_MUST_CHECK;
/* Redis has written anew all files that it keeps. */
enum tally_status tally_erasure_note_files(PGconn *connection, int64_t user_id,
                                           struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_erasure_note_complete(PGconn *connection, int64_t user_id,
                                              struct tally_error *error) TALLY_MUST_CHECK;

/* A number older than which no transaction sees what was removed so far. */
enum tally_status tally_erasure_horizon(PGconn *connection, int64_t *horizon,
                                        struct tally_error *error) TALLY_MUST_CHECK;
/* Who is older, and so keeps removed rows from being vacuumed: `who` is "" where nobody is. */
#define TALLY_ERASURE_HOLDER_BYTES 256
enum tally_status tally_erasure_holder(PGconn *connection, int64_t horizon,
                                       char who[TALLY_ERASURE_HOLDER_BYTES],
                                       struct tally_error *error) TALLY_MUST_CHECK;
/* Vacuums and analyzes the tables that held data of the user, with their indexes, and the planner's
 * statistics, and notes it in the book. `whole` writes them anew, each under a lock that stops
 * reads and writes of it meanwhile: nothing of what was removed is then left in free space.
 * UNAVAILABLE: a lock was not to be had in 10 s, of `whole` in 3 s. */
enum tally_status tally_erasure_vacuum(PGconn *connection, int64_t user_id, bool whole,
                                       struct tally_error *error) TALLY_MUST_CHECK;

#endif
