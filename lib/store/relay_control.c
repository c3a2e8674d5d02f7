#include "store/relay_control.h"

#include "pg/blocking.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { NUMBER_BYTES = 24 };

static const char view_sql[] =
    "select epoch, paused_at is not null, pause_reason,"
    " coalesce(to_char(paused_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), ''),"
    " snapshot is not null and target is null, coalesce(reached_seq, 0),"
    " coalesce((select l.pid from pg_locks l where l.locktype = 'advisory' and l.granted"
    "  and l.objsubid = 1"
    "  and l.database = (select oid from pg_database where datname = current_database())"
    "  and (l.classid::bigint << 32 | l.objid::bigint) = $1::bigint limit 1), 0),"
    " coalesce(partitions, 0)"
    " from relay_position";

static const char pause_sql[] =
    "update relay_position set paused_at = coalesce(paused_at, now()), pause_reason = $1";
static const char resume_sql[] = "update relay_position set paused_at = null, pause_reason = ''";

/* Those at least as new as asked for, and all after the first of them in order of sequence; also
 * those the relay has not sent yet, which the position set below would pass over otherwise. */
static const char plan_sql[] =
    "with first as (select min(seq) as seq from events e, relay_position p"
    "  where $1::bigint = 0 or e.at >= now() - $1::bigint * interval '1 hour'"
    "  or (p.snapshot is null or not pg_visible_in_snapshot(e.xid, p.snapshot))"
    "   and (p.target is null or e.seq > p.reached_seq"
    "    or not pg_visible_in_snapshot(e.xid, p.target)))"
    " select count(e.seq), coalesce(min(e.seq), 0), coalesce(max(e.seq), 0),"
    " pg_current_snapshot()::text from events e, first where e.seq >= first.seq";

/* Holds the relay off until the position is another, so that what it sends meanwhile is either
 * seen as sent or refused to be saved. */
static const char lock_sql[] = "begin isolation level read committed;"
                               "select from relay_position for update";

/* "1:1:": a snapshot in which nothing is visible. */
static const char move_sql[] =
    "update relay_position set epoch = epoch + 1, snapshot = '1:1:', target = $2::pg_snapshot,"
    " reached_seq = $1::bigint - 1, saved_at = clock_timestamp()";

static int64_t number(const PGresult *rows, int column)
{
    return strtoll(PQgetvalue(rows, 0, column), NULL, 10);
}

enum tally_status tally_relay_view_read(PGconn *connection, struct tally_relay_view *view,
                                        struct tally_error *error)
{
    char key[NUMBER_BYTES];
    (void)snprintf(key, sizeof key, "%" PRId64, TALLY_RELAY_LOCK_KEY);
    const char *const values[] = {key};
    PGresult *rows = NULL;
    *view = (struct tally_relay_view){0};
    enum tally_status status =
        tally_pg_exec(connection, view_sql, 1, values, PGRES_TUPLES_OK, &rows, error);
    if (status == TALLY_OK && PQntuples(rows) != 1)
        status = tally_fail(error, TALLY_PROTOCOL, "relay_position does not hold one row");
    if (status == TALLY_OK) {
        view->epoch = number(rows, 0);
        view->orders.paused = PQgetvalue(rows, 0, 1)[0] == 't';
        (void)snprintf(view->orders.reason, sizeof view->orders.reason, "%s",
                       PQgetvalue(rows, 0, 2));
        (void)snprintf(view->orders.since, sizeof view->orders.since, "%s", PQgetvalue(rows, 0, 3));
        view->whole = PQgetvalue(rows, 0, 4)[0] == 't';
        view->reached_seq = number(rows, 5);
        view->leader_pid = number(rows, 6);
        view->partitions = number(rows, 7);
    }
    PQclear(rows);
    return status;
}

enum tally_status tally_relay_pause(PGconn *connection, const char *reason,
                                    struct tally_error *error)
{
    const char *const values[] = {reason};
    return tally_pg_exec(connection, pause_sql, 1, values, PGRES_COMMAND_OK, NULL, error);
}

enum tally_status tally_relay_resume(PGconn *connection, struct tally_error *error)
{
    return tally_pg_exec(connection, resume_sql, 0, NULL, PGRES_COMMAND_OK, NULL, error);
}

/* `*rows` receives the plan with its snapshot; the caller clears. */
static enum tally_status plan(PGconn *connection, int64_t hours, struct tally_relay_refill *refill,
                              PGresult **rows, struct tally_error *error)
{
    char text[NUMBER_BYTES];
    (void)snprintf(text, sizeof text, "%" PRId64, hours);
    const char *const values[] = {text};
    enum tally_status status =
        tally_pg_exec(connection, plan_sql, 1, values, PGRES_TUPLES_OK, rows, error);
    if (status == TALLY_OK)
        *refill = (struct tally_relay_refill){number(*rows, 0), number(*rows, 1), number(*rows, 2)};
    return status;
}

enum tally_status tally_relay_refill_plan(PGconn *connection, int64_t hours,
                                          struct tally_relay_refill *refill,
                                          struct tally_error *error)
{
    PGresult *rows = NULL;
    *refill = (struct tally_relay_refill){0};
    enum tally_status status = plan(connection, hours, refill, &rows, error);
    PQclear(rows);
    return status;
}

enum tally_status tally_relay_refill(PGconn *connection, int64_t hours,
                                     struct tally_relay_refill *refill, struct tally_error *error)
{
    char first[NUMBER_BYTES];
    PGresult *rows = NULL;
    *refill = (struct tally_relay_refill){0};
    enum tally_status status =
        tally_pg_exec(connection, lock_sql, 0, NULL, PGRES_TUPLES_OK, NULL, error);
    if (status == TALLY_OK)
        status = plan(connection, hours, refill, &rows, error);
    if (status == TALLY_OK && refill->events > 0) {
        (void)snprintf(first, sizeof first, "%" PRId64, refill->first_seq);
        const char *const values[] = {first, PQgetvalue(rows, 0, 3)};
        status = tally_pg_exec(connection, move_sql, 2, values, PGRES_COMMAND_OK, NULL, error);
    }
    PQclear(rows);
    if (status == TALLY_OK)
        return tally_pg_exec(connection, "commit", 0, NULL, PGRES_COMMAND_OK, NULL, error);
    return tally_pg_rollback(connection, status, error);
}
