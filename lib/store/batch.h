/*
 * Batch: commands as the parameters of apply_commands(), and its rows as outcomes. Pure but for
 * libpq's accessors.
 */
#ifndef TALLY_STORE_BATCH_H
#define TALLY_STORE_BATCH_H

#include "pg/array.h"
#include "pg/connection.h"
#include "store/command_queue.h"

/* The one statement of the batcher's connections. */
extern const struct tally_pg_statement tally_batch_statement;

#define TALLY_BATCH_COLUMNS 13

struct tally_batch_parameters {
    struct tally_pg_array columns[TALLY_BATCH_COLUMNS];
    const char *values[TALLY_BATCH_COLUMNS];
    int lengths[TALLY_BATCH_COLUMNS];
    int formats[TALLY_BATCH_COLUMNS];
};

/* `bytes` bounds each column. */
void tally_batch_parameters_init(struct tally_batch_parameters *parameters, size_t bytes);
void tally_batch_parameters_release(struct tally_batch_parameters *parameters);
/* Fills values, lengths and formats from `count` commands. NO_MEMORY. */
enum tally_status tally_batch_parameters_fill(struct tally_batch_parameters *parameters,
                                              struct tally_queued *const *commands, size_t count,
                                              struct tally_error *error) TALLY_MUST_CHECK;

/* Reads the rows (binary format) of a batch of `count` commands; outcomes[i] belongs to command i.
 * PROTOCOL where the rows are not one for each command. */
enum tally_status tally_batch_read(const PGresult *rows, size_t count,
                                   struct tally_command_outcome *outcomes,
                                   struct tally_error *error) TALLY_MUST_CHECK;
/* What a command alone comes to whose statement was refused: the e-mail's unique index means
 * EMAIL_TAKEN, what another attempt may get past UNAVAILABLE, the rest INTERNAL. */
enum tally_status tally_batch_refusal(const PGresult *failed);

#endif
