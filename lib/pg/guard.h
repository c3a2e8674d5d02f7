/*
 * Guard: the circuit breaker round the connections of one PostgreSQL (core/breaker.h).
 *
 * It watches the connections of whoever sends statements, and has one of its own for the probe, a
 * `select 1`: sent once a second, and as soon as a statement has been without an answer for a third
 * of the patience. A statement that waits for a lock keeps its connection silent, but not the
 * probe's, so that the breaker stays closed; a server, or a link, that is dead silences both, and
 * the breaker opens within the patience. What was sent before is left to its own time-out: only its
 * answer can tell what became of it.
 *
 * Everything belongs to the loop's thread.
 */
#ifndef TALLY_PG_GUARD_H
#define TALLY_PG_GUARD_H

#include "core/breaker.h"
#include "pg/connection.h"

struct event_base;
struct tally_pg_guard;

#define TALLY_PG_GUARD_CONNECTIONS_MOST 16

struct tally_pg_guard_options {
    const char *dsn; /* borrowed for the guard's life */
    const char *application_name;
    int64_t patience_ms; /* the silence that opens the breaker, > 0 */
    int64_t timeout_ms;  /* of the probe, and the most that the patience may grow to */
    /* The breaker opened or closed; from the loop or from tally_pg_guard_look(). May be NULL. */
    void (*on_change)(const struct tally_breaker *breaker, void *context);
    void *context;
};

/* Connects by itself, in the loop. CONFIG: the DSN cannot be read; NO_MEMORY. */
enum tally_status tally_pg_guard_new(struct event_base *base,
                                     const struct tally_pg_guard_options *options,
                                     struct tally_pg_guard **guard,
                                     struct tally_error *error) TALLY_MUST_CHECK;
/* Watches a connection from now on; it must outlive the guard. */
void tally_pg_guard_watch(struct tally_pg_guard *guard,
                          const struct tally_pg_connection *connection);
/* Looks at the connections now; for whoever knows that one has changed. */
void tally_pg_guard_look(struct tally_pg_guard *guard);
const struct tally_breaker *tally_pg_guard_breaker(const struct tally_pg_guard *guard);
void tally_pg_guard_free(struct tally_pg_guard **guard);

#endif
