/*
 * Session: what every PostgreSQL connection of Tally has in common, and what its errors mean. Pure
 * but for libpq's own parsing; any thread.
 */
#ifndef TALLY_PG_SESSION_H
#define TALLY_PG_SESSION_H

#include "core/status.h"

#include <libpq-fe.h>
#include <stdint.h>

/* Keywords and values for PQconnectdbParams(), with room for what Tally adds. */
#define TALLY_PG_PARAMETERS 16
struct tally_pg_parameters {
    const char *keywords[TALLY_PG_PARAMETERS];
    const char *values[TALLY_PG_PARAMETERS];
};

/* Fills `parameters` so that libpq reads `dsn` (expand_dbname) and what Tally needs besides: its
 * application_name, UTF-8, TCP keepalives and user timeout that notice a dead peer within about
 * 15 s. What `dsn` itself sets wins. `dsn` and `application_name` are borrowed. CONFIG where `dsn`
 * cannot be read. */
enum tally_status tally_pg_parameters_fill(struct tally_pg_parameters *parameters, const char *dsn,
                                           const char *application_name,
                                           struct tally_error *error) TALLY_MUST_CHECK;

/* The statement that each session starts with: synchronous_commit (an answer leaves after the
 * commit is durable), UTC, read committed (a statement after a lock must see what the lock's last
 * holder wrote), `statement_timeout_ms` (0: none) and `lock_timeout_ms` (0: the role's own).
 * Returns the bytes written. */
#define TALLY_PG_SETUP_BYTES 384
size_t tally_pg_setup_sql(int64_t statement_timeout_ms, int64_t lock_timeout_ms,
                          char sql[TALLY_PG_SETUP_BYTES]);

/* What an SQLSTATE (five characters, or NULL where the error came from libpq) means: UNAVAILABLE
 * for what another attempt may get past (classes 08, 53, 57, 58 and 40, timeouts and read-only
 * servers), CONFIG for what an operator must put right (28, 3D, 42), INTERNAL otherwise. */
enum tally_status tally_pg_classify(const char *sqlstate);

/* Fills `error` from a failed result: its SQLSTATE, primary message and constraint; never the
 * detail, which repeats the row. Returns the status, of tally_pg_classify(). */
enum tally_status tally_pg_fail_result(const PGresult *result, struct tally_error *error);
/* Fills `error` from the connection's last error, as UNAVAILABLE, without line breaks. */
enum tally_status tally_pg_fail_connection(const PGconn *connection, const char *doing,
                                           struct tally_error *error);

/* A PQnoticeReceiver: the server's notices are not Tally's to print. */
void tally_pg_drop_notice(void *context, const PGresult *result);

#endif
