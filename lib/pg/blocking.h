/*
 * Blocking: a PostgreSQL connection for threads and tools that may wait, with every failure as a
 * tally_error. What runs on the event loop uses pg/connection.h instead.
 *
 * A connection belongs to one thread at a time.
 */
#ifndef TALLY_PG_BLOCKING_H
#define TALLY_PG_BLOCKING_H

#include "core/status.h"

#include <libpq-fe.h>

/* Connects, waiting at most 5 s where `dsn` (libpq URI or conninfo) sets no connect_timeout, and
 * sets the session up as pg/session.h says. `*connection` is the caller's, who ends it by
 * PQfinish(). UNAVAILABLE: no server answered, or it refused; CONFIG: `dsn` cannot be read. The
 * text never repeats the DSN, which may hold a password. */
enum tally_status tally_pg_connect(const char *dsn, const char *application_name,
                                   PGconn **connection, struct tally_error *error) TALLY_MUST_CHECK;

/* Runs one statement with `count` text parameters (`values[i]` may be NULL for SQL NULL; `values`
 * may be NULL where count is 0) and expects `expected` (PGRES_COMMAND_OK or PGRES_TUPLES_OK).
 * `*result` is the caller's, who frees it by PQclear(); `result` may be NULL. With count 0 `sql`
 * may hold several statements, which then are one transaction unless they say otherwise.
 * UNAVAILABLE: the connection is lost (PQstatus() says CONNECTION_BAD), or an SQLSTATE that another
 * attempt may get past; CONFIG and INTERNAL: other SQLSTATEs, see tally_pg_classify(); PROTOCOL: a
 * result of another kind. The text holds the SQLSTATE and the primary message. */
enum tally_status tally_pg_exec(PGconn *connection, const char *sql, int count,
                                const char *const *values, ExecStatusType expected,
                                PGresult **result, struct tally_error *error) TALLY_MUST_CHECK;

/* Prepares `sql` under `name`, for tally_pg_exec_prepared(). */
enum tally_status tally_pg_prepare(PGconn *connection, const char *name, const char *sql,
                                   struct tally_error *error) TALLY_MUST_CHECK;
/* As tally_pg_exec() with a prepared statement's name. */
enum tally_status tally_pg_exec_prepared(PGconn *connection, const char *name, int count,
                                         const char *const *values, ExecStatusType expected,
                                         PGresult **result,
                                         struct tally_error *error) TALLY_MUST_CHECK;

/* Rolls the transaction back. Returns `status`, which it ended with, and leaves its error alone;
 * where that is OK, what is wrong with the rollback: the next statement would be one of the old
 * transaction. */
enum tally_status tally_pg_rollback(PGconn *connection, enum tally_status status,
                                    struct tally_error *error) TALLY_MUST_CHECK;

#endif
