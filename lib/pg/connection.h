/*
 * Connection: one PostgreSQL session on the event loop, which connects by itself, prepares its
 * statements, and connects again with jittered back-off when it is lost. The back-off grows until a
 * connection has lasted for some seconds, so that one that comes up only to fail is no quicker.
 *
 *     disconnected ─► connecting ─► preparing ─► ready ◄─► busy
 *          ▲──────────────┴─────────────┴──────────┴─────────┘  any failure; a pause, then again
 *
 * One query at a time. Everything belongs to the loop's thread. Host names are resolved by libpq,
 * which blocks the loop meanwhile: give addresses (hostaddr), sockets, or names of a local cache.
 */
#ifndef TALLY_PG_CONNECTION_H
#define TALLY_PG_CONNECTION_H

#include "core/status.h"

#include <libpq-fe.h>
#include <stdint.h>

struct event_base;
struct tally_pg_connection;

#define TALLY_PG_STATE_LIST(X)      \
    X(DISCONNECTED, "disconnected") \
    X(CONNECTING, "connecting") X(PREPARING, "preparing") X(READY, "ready") X(BUSY, "busy")

enum tally_pg_state {
#define X(name, text) TALLY_PG_##name,
    TALLY_PG_STATE_LIST(X)
#undef X
        TALLY_PG_STATE_COUNT
};

const char *tally_pg_state_text(enum tally_pg_state state);

/* Prepared once a connection, under its place in the table. */
struct tally_pg_statement {
    const char *sql;
    int parameter_count;
    const Oid *parameter_types; /* parameter_count of them, or NULL: the server infers them */
};

struct tally_pg_options {
    const char *dsn;              /* borrowed for the connection's life, as all strings here */
    const char *application_name; /* in pg_stat_activity */
    const struct tally_pg_statement *statements;
    size_t statement_count;
    /* A query ends within this: the server cancels it a fifth earlier (statement_timeout), and
     * where even that does not come, the connection is given up. > 0. */
    int64_t query_timeout_ms;
    int64_t lock_timeout_ms; /* a query that waits longer for one lock is REFUSED; 0: no bound */
    /* Came to or left READY or DISCONNECTED; queries may be started from here. May be NULL. */
    void (*on_change)(struct tally_pg_connection *connection, void *context);
    void *context;
};

/* How a started query ended. */
enum tally_pg_end {
    TALLY_PG_DONE,    /* committed (as far as the statement commits) */
    TALLY_PG_REFUSED, /* an SQLSTATE came and the session lives: rolled back, nothing was done */
    TALLY_PG_LOST,    /* the session ended under it: whether it was done is not known */
};

/* Exactly once for each started query, never from inside tally_pg_connection_query(). `result` is
 * borrowed: the rows of DONE, the error of REFUSED, NULL for LOST; `error` tells why it is not
 * DONE. The connection is READY or DISCONNECTED by then, and may be given the next query. */
typedef void tally_pg_callback(enum tally_pg_end end, const PGresult *result,
                               const struct tally_error *error, void *context);

/* Starts connecting, in the loop. CONFIG: the DSN cannot be read; NO_MEMORY. */
enum tally_status tally_pg_connection_new(struct event_base *base,
                                          const struct tally_pg_options *options,
                                          struct tally_pg_connection **connection,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* Closes at once. A query under way gets no callback. Not from inside a callback. */
void tally_pg_connection_free(struct tally_pg_connection **connection);

enum tally_pg_state tally_pg_connection_state(const struct tally_pg_connection *connection);
/* Failed attempts to connect since the last time it was READY. */
unsigned tally_pg_connection_failures(const struct tally_pg_connection *connection);
/* Why it is not connected; status OK while it is. */
const struct tally_error *tally_pg_connection_error(const struct tally_pg_connection *connection);

/* Monotonic: when the query under way, or the attempt to connect, began (INT64_MAX where there is
 * none), and when the last bytes came from the server (0: never). For pg/guard.h. */
int64_t tally_pg_connection_asked_us(const struct tally_pg_connection *connection);
int64_t tally_pg_connection_heard_us(const struct tally_pg_connection *connection);

/* Starts statement `statement` of the table. Parameters as PQsendQueryPrepared() takes them, copied
 * by it; `binary_result` as there. Only in state READY. Where it fails, nothing was sent and the
 * callback does not come. */
enum tally_status tally_pg_connection_query(struct tally_pg_connection *connection,
                                            size_t statement, const char *const *values,
                                            const int *lengths, const int *formats,
                                            bool binary_result, tally_pg_callback *callback,
                                            void *context,
                                            struct tally_error *error) TALLY_MUST_CHECK;

#endif
