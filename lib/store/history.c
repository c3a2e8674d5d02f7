#include "store/history.h"

#include "pg/blocking.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES = 24 };

/* The planner must not walk a day's events to find those of one user. */
static const char begin_sql[] = "begin isolation level repeatable read read only;"
                                "set local enable_seqscan = off; set local jit = off";

static const char user_sql[] =
    "select u.version, u.deleted_at is not null,"
    " (select count(*) from posts p where p.author_id = u.id and p.deleted_at is null),"
    " (select count(*) from comments c where c.author_id = u.id)"
    " from users u where u.id = $1::bigint";

/* The events of user $1 with `published` as store/relay_position.h defines a position: visible in
 * its snapshot, or sent on the way to its target. */
#define MINE                                                                                  \
    "with mine as (select e.seq, e.version, e.type, e.at,"                                    \
    " coalesce(pg_visible_in_snapshot(e.xid, r.snapshot), false)"                             \
    " or coalesce(e.seq <= r.reached_seq and pg_visible_in_snapshot(e.xid, r.target), false)" \
    " as published"                                                                           \
    " from events e left join (select p.* from relay_position p, pg_control_system() s"       \
    "  where p.system_identifier = s.system_identifier) as r on true where e.user_id = "      \
    "$1::bigint)"

#define DELTA(what)                                         \
    "coalesce(sum(case type when '" what ".created' then 1" \
    " when '" what ".deleted' then -1 else 0 end)"

static const char sums_sql[] = MINE
    " select count(*), coalesce(min(version), 0), coalesce(max(version), 0),"
    " count(distinct version), " DELTA("post") ", 0), " DELTA(
        "comment") ", 0),"
                   " " DELTA("post") " filter (where version <= $2::bigint), 0),"
                                     " " DELTA(
                                         "comment") " filter (where version <= $2::bigint), 0),"
                                                    " coalesce(min(version) filter (where not "
                                                    "published), 0) from mine";

static const char list_sql[] =
    MINE " select seq, version, (extract(epoch from at) * 1000000)::bigint, type, published"
         " from (select * from mine order by version desc, seq desc limit $2::bigint) as newest"
         " order by version, seq";

static int64_t number(const PGresult *rows, int row, int column)
{
    return strtoll(PQgetvalue(rows, row, column), NULL, 10);
}

static bool truth(const PGresult *rows, int row, int column)
{
    return PQgetvalue(rows, row, column)[0] == 't';
}

static enum tally_status query(PGconn *connection, const char *sql, int64_t first, int64_t second,
                               int count, PGresult **rows, struct tally_error *error)
{
    char texts[2][NUMBER_BYTES];
    (void)snprintf(texts[0], NUMBER_BYTES, "%" PRId64, first);
    (void)snprintf(texts[1], NUMBER_BYTES, "%" PRId64, second);
    const char *const values[] = {texts[0], texts[1]};
    return tally_pg_exec(connection, sql, count, values, PGRES_TUPLES_OK, rows, error);
}

static enum tally_status read_user(PGconn *connection, int64_t user_id,
                                   struct tally_history *history, struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status = query(connection, user_sql, user_id, 0, 1, &rows, error);
    if (status == TALLY_OK && PQntuples(rows) == 1) {
        history->found = true;
        history->version = number(rows, 0, 0);
        history->deleted = truth(rows, 0, 1);
        history->posts = number(rows, 0, 2);
        history->comments = number(rows, 0, 3);
    }
    PQclear(rows);
    return status;
}

static enum tally_status read_sums(PGconn *connection, int64_t user_id, int64_t version,
                                   struct tally_history *history, struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status = query(connection, sums_sql, user_id, version, 2, &rows, error);
    int64_t *const fields[] = {
        &history->kept,          &history->first_version,    &history->last_version,
        &history->distinct,      &history->posts_kept,       &history->comments_kept,
        &history->posts_through, &history->comments_through, &history->first_waiting,
    };
    for (size_t i = 0; status == TALLY_OK && i < sizeof fields / sizeof fields[0]; i++)
        *fields[i] = number(rows, 0, (int)i);
    PQclear(rows);
    return status;
}

static enum tally_status take_rows(const PGresult *rows, struct tally_history *history,
                                   struct tally_error *error)
{
    const size_t count = (size_t)PQntuples(rows);
    history->events = calloc(count + 1, sizeof *history->events);
    if (history->events == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "%zu events", count);
    for (size_t i = 0; i < count; i++) {
        struct tally_history_event *event = &history->events[history->event_count++];
        const char *type = PQgetvalue(rows, (int)i, 3);
        event->seq = number(rows, (int)i, 0);
        event->version = number(rows, (int)i, 1);
        event->at_us = number(rows, (int)i, 2);
        event->published = truth(rows, (int)i, 4);
        if (!tally_event_type_parse(type, strlen(type), &event->type))
            return tally_fail(error, TALLY_PROTOCOL, "event %" PRId64 " has the type \"%s\"",
                              event->seq, type);
    }
    return TALLY_OK;
}

enum tally_status tally_history_read(PGconn *connection, int64_t user_id, int64_t version,
                                     size_t list_most, struct tally_history *history,
                                     struct tally_error *error)
{
    PGresult *rows = NULL;
    *history = (struct tally_history){0};
    enum tally_status status =
        tally_pg_exec(connection, begin_sql, 0, NULL, PGRES_COMMAND_OK, NULL, error);
    if (status == TALLY_OK)
        status = read_user(connection, user_id, history, error);
    if (status == TALLY_OK)
        status = read_sums(connection, user_id, version, history, error);
    if (status == TALLY_OK && list_most > 0)
        status = query(connection, list_sql, user_id, (int64_t)list_most, 2, &rows, error);
    if (status == TALLY_OK && rows != NULL)
        status = take_rows(rows, history, error);
    PQclear(rows);
    status = tally_pg_rollback(connection, status, error);
    if (status != TALLY_OK)
        tally_history_release(history);
    return status;
}

void tally_history_release(struct tally_history *history)
{
    free(history->events);
    *history = (struct tally_history){0};
}
