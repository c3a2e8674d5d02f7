/*
 * Closed letters: which dead letters an operator is done with, and why; all others are open.
 * Blocking.
 */
#ifndef TALLY_STORE_CLOSED_LETTERS_H
#define TALLY_STORE_CLOSED_LETTERS_H

#include "core/status.h"

#include <libpq-fe.h>
#include <stdint.h>

#define TALLY_LETTER_REASON_MOST 500 /* characters */

/* A letter by its place in the topic of dead letters. */
struct tally_letter_place {
    int32_t partition;
    int64_t offset;
    int64_t written_at_ms; /* Kafka's timestamp of the letter, -1: none */
};

struct tally_closed_letter {
    struct tally_letter_place place;
    const char *action;    /* "retried" or "discarded"; borrowed from the rows */
    const char *reason;    /* likewise */
    const char *closed_at; /* likewise, RFC 3339 */
};

struct tally_closed_letters {
    PGresult *rows; /* owned */
    int count;
};

/* All of `topic`. The caller clears. */
enum tally_status tally_closed_letters_read(PGconn *connection, const char *topic,
                                            struct tally_closed_letters *letters,
                                            struct tally_error *error) TALLY_MUST_CHECK;
void tally_closed_letters_clear(struct tally_closed_letters *letters);
/* False where this very letter is open. */
bool tally_closed_letters_find(const struct tally_closed_letters *letters,
                               const struct tally_letter_place *place,
                               struct tally_closed_letter *found);

/* Closes a letter; one that is closed already stays as it is. `reason` 1 to
 * TALLY_LETTER_REASON_MOST characters. */
enum tally_status tally_closed_letters_add(PGconn *connection, const char *topic,
                                           const struct tally_letter_place *place,
                                           const char *action, const char *reason,
                                           struct tally_error *error) TALLY_MUST_CHECK;

#endif
