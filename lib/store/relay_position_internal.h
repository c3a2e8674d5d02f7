/*
 * What the parts of the relay's reader share: relay_position.c (what is new, and how far it is
 * saved), relay_election.c (who leads).
 */
#ifndef TALLY_STORE_RELAY_POSITION_INTERNAL_H
#define TALLY_STORE_RELAY_POSITION_INTERNAL_H

#include "pg/blocking.h"
#include "store/relay_position.h"

enum { NUMBER_BYTES = 24 };

/* The search for the beginning of a backlog, which leads over all of its events, in slices. */
struct entry {
    char *target;                /* pg_snapshot; owned, NULL where nothing is searched for */
    char searched[NUMBER_BYTES]; /* the last transaction that was looked at */
    int64_t lowest_seq;          /* of those so far; 0: there was none */
};

/* A leader's statement whose rows nobody takes, as a standby sees it. */
struct sight {
    char statement[64]; /* process and start; "": none */
    int64_t since_us;   /* monotonic: when it was first seen so */
};

struct tally_relay_reader {
    PGconn *connection;
    char batch_events[NUMBER_BYTES];
    int silence_ms; /* while it leads */
    char database[NUMBER_BYTES];
    int64_t epoch;
    struct tally_relay_position read; /* how far batches have been handed out */
    struct entry entry;
    struct sight sight;
};

/* Copies texts that may be NULL; false where there is no memory. */
bool relay_position_set(struct tally_relay_position *position, const char *base, const char *target,
                        int64_t reached_seq);
/* NULL for SQL NULL. */
const char *relay_cell(const PGresult *rows, int row, int column);
/* False where it is NULL or no decimal number above 0. */
bool relay_cell_number(const PGresult *rows, int row, int column, int64_t *number);
enum tally_status relay_query(struct tally_relay_reader *reader, const char *sql, int count,
                              const char *const *values, PGresult **rows,
                              struct tally_error *error);

#endif
