/* pg/blocking.h, as far as store/relay_position.c uses it: its statements, known by how they begin,
 * on the simulated database. */
#include "simulation_postgres.h"

#include "pg/blocking.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct session *session_of(PGconn *connection)
{
    return (struct session *)(void *)connection;
}

static enum tally_status lost(struct session *session, struct tally_error *error)
{
    session->broken = true;
    return tally_fail(error, TALLY_UNAVAILABLE, "the simulated connection is lost");
}

enum tally_status tally_pg_connect(const char *dsn, const char *application_name,
                                   PGconn **connection, struct tally_error *error)
{
    (void)dsn, (void)application_name;
    simulation_wait((int64_t)simulation_below(2000), NULL, NULL);
    if (simulation_killed() || simulation_fault(20))
        return tally_fail(error, TALLY_UNAVAILABLE, "the simulated server does not answer");
    struct session *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "session");
    made->process = simulation->current;
    made->spoke_us = simulation->now_us;
    made->next = simulation->postgres->sessions;
    simulation->postgres->sessions = made;
    *connection = (PGconn *)(void *)made;
    return TALLY_OK;
}

void __wrap_PQfinish(PGconn *connection);
char *__wrap_PQcmdTuples(PGresult *result);

void __wrap_PQfinish(PGconn *connection)
{
    struct session **link = &simulation->postgres->sessions;
    while (*link != NULL && *link != session_of(connection))
        link = &(*link)->next;
    if (*link == NULL)
        return;
    *link = (*link)->next;
    free(session_of(connection));
}

char *__wrap_PQcmdTuples(PGresult *result)
{
    (void)result;
    return simulation->postgres->changed_rows;
}

/* A result of `columns` columns; every cell is set next. */
static PGresult *table(int columns)
{
    static char empty[] = "";
    PGresAttDesc names[16] = {0};
    PGresult *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    for (int i = 0; i < columns; i++)
        names[i].name = empty;
    if (rows == NULL || !PQsetResultAttrs(rows, columns, names))
        abort();
    return rows;
}

static void put(PGresult *rows, int row, int column, const char *text)
{
    char copy[SNAPSHOT_BYTES];
    (void)snprintf(copy, sizeof copy, "%s", text != NULL ? text : "");
    if (!PQsetvalue(rows, row, column, text != NULL ? copy : NULL,
                    text != NULL ? (int)strlen(copy) : -1))
        abort();
}

static void put_number(PGresult *rows, int row, int column, int64_t number)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRId64, number);
    put(rows, row, column, text);
}

static void put_event(PGresult *rows, int row, const struct event_row *event, const char *snapshot)
{
    put_number(rows, row, 0, event->seq);
    put_number(rows, row, 1, simulated_user_id(event->user));
    put_number(rows, row, 2, event->version);
    put(rows, row, 3, tally_event_type_text(event->type));
    put(rows, row, 4, event->type == TALLY_EVENT_USER_DELETED ? NULL : event->data);
    put_number(rows, row, 5, event->at_us);
    put_number(rows, row, 6, 1);
    put(rows, row, 7, NULL);
    put(rows, row, 8, snapshot);
}

/* Visible to a statement that begins now. */
static bool visible(const struct event_row *event)
{
    return simulation->postgres->states[event->xid] == TRANSACTION_COMMITTED;
}

/* What the position names as published, for a new statement; the planted mistake looks at nothing
 * but sequence numbers. */
static bool is_new(const struct event_row *event, const char *base, int64_t highest)
{
    if (simulation_planted(PLANT_LATE_COMMIT_LOST))
        return event->seq > highest;
    return event->xid >= simulated_snapshot_xmin(base) &&
           !simulated_snapshot_visible(base, event->xid);
}

/* Highest sequence number that a snapshot shows, which the plant takes for the position. */
static int64_t highest_visible(const char *base)
{
    const struct simulated_postgres *postgres = simulation->postgres;
    for (size_t i = postgres->event_count; i > 0; i--) {
        const struct event_row *event = &postgres->events[i - 1];
        if (visible(event) && simulated_snapshot_visible(base, event->xid))
            return event->seq;
    }
    return 0;
}

static PGresult *poll_events(const char *const *values)
{
    const struct simulated_postgres *postgres = simulation->postgres;
    const int64_t most = strtoll(values[1], NULL, 10) + 1;
    const int64_t highest = highest_visible(values[0]);
    char snapshot[SNAPSHOT_BYTES];
    PGresult *rows = table(9);
    int count = 0;
    simulated_snapshot_take(snapshot);
    for (size_t i = 0; i < postgres->event_count && count < most; i++) {
        if (visible(&postgres->events[i]) && is_new(&postgres->events[i], values[0], highest))
            put_event(rows, count++, &postgres->events[i], snapshot);
    }
    for (int column = 0; count == 0 && column < 9; column++)
        put(rows, 0, column, column == 8 ? snapshot : NULL);
    return rows;
}

/* Of a snapshot's text, "xmin:xmax:xip". */
static int64_t xmax_of(const char *snapshot)
{
    return strtoll(strchr(snapshot, ':') + 1, NULL, 10);
}

static PGresult *enter_backlog(const char *const *values)
{
    const struct simulated_postgres *postgres = simulation->postgres;
    const int64_t xmax = xmax_of(values[0]);
    char snapshot[SNAPSHOT_BYTES];
    PGresult *rows = table(3);
    simulated_snapshot_take(snapshot);
    put(rows, 0, 0, snapshot);
    put_number(rows, 0, 1, xmax - 1);
    put(rows, 0, 2, NULL);
    for (size_t i = 0; i < postgres->event_count; i++) {
        const struct event_row *event = &postgres->events[i];
        if (visible(event) && event->xid < xmax &&
            !simulated_snapshot_visible(values[0], event->xid)) {
            put_number(rows, 0, 2, event->seq);
            break;
        }
    }
    return rows;
}

/* Slices of few events, so that there are many. */
static PGresult *search_slice(const char *const *values)
{
    enum { SLICE_EVENTS = 20 };
    const struct simulated_postgres *postgres = simulation->postgres;
    const int64_t end = xmax_of(values[1]);
    int64_t last = strtoll(values[0], NULL, 10);
    int64_t lowest = 0;
    int count = 0;
    PGresult *rows = table(2);
    while (last + 1 < end && count <= SLICE_EVENTS) {
        last++;
        for (size_t i = 0; i < postgres->event_count; i++) {
            const struct event_row *event = &postgres->events[i];
            if ((int64_t)event->xid != last || !visible(event))
                continue;
            count++;
            lowest = lowest == 0 || event->seq < lowest ? event->seq : lowest;
        }
    }
    put(rows, 0, 0, NULL);
    put(rows, 0, 1, NULL);
    if (last + 1 < end)
        put_number(rows, 0, 0, last);
    if (lowest > 0)
        put_number(rows, 0, 1, lowest);
    return rows;
}

static PGresult *ahead(const char *const *values)
{
    const struct simulated_postgres *postgres = simulation->postgres;
    const int64_t reach = strtoll(values[0], NULL, 10) + strtoll(values[1], NULL, 10);
    PGresult *rows = table(1);
    put(rows, 0, 0, NULL);
    for (size_t i = 0; i < postgres->event_count; i++) {
        if (visible(&postgres->events[i]) && postgres->events[i].seq > reach) {
            put_number(rows, 0, 0, postgres->events[i].seq - 1);
            break;
        }
    }
    return rows;
}

static PGresult *piece(const char *const *values)
{
    const struct simulated_postgres *postgres = simulation->postgres;
    const int64_t reached = strtoll(values[2], NULL, 10);
    const int64_t most = strtoll(values[3], NULL, 10);
    const int64_t reach = strtoll(values[4], NULL, 10);
    PGresult *rows = table(9);
    int count = 0;
    for (size_t i = 0; i < postgres->event_count && count < most; i++) {
        const struct event_row *event = &postgres->events[i];
        if (visible(event) && event->seq > reached && event->seq <= reached + reach &&
            !simulated_snapshot_visible(values[0], event->xid) &&
            simulated_snapshot_visible(values[1], event->xid))
            put_event(rows, count++, event, NULL);
    }
    return rows;
}

static void save(const char *const *values)
{
    struct simulated_postgres *postgres = simulation->postgres;
    struct position_row *row = &postgres->position;
    const bool current = strtoll(values[3], NULL, 10) == row->epoch;
    (void)snprintf(postgres->changed_rows, sizeof postgres->changed_rows, "%d", current);
    if (!current)
        return;
    row->has_snapshot = true;
    row->has_target = values[1] != NULL;
    (void)snprintf(row->snapshot, sizeof row->snapshot, "%s", values[0]);
    (void)snprintf(row->target, sizeof row->target, "%s", values[1] != NULL ? values[1] : "");
    row->reached = values[2] != NULL ? strtoll(values[2], NULL, 10) : 0;
    simulation_note("pg.position", row->epoch, simulated_snapshot_xmin(row->snapshot),
                    row->has_target ? row->reached : -1);
    simulated_postgres_check_position();
}

static void note_partitions(const char *const *values)
{
    struct simulated_postgres *postgres = simulation->postgres;
    const bool current = strtoll(values[1], NULL, 10) == postgres->position.epoch;
    (void)snprintf(postgres->changed_rows, sizeof postgres->changed_rows, "%d", current);
}

static PGresult *try_lock(struct session *asking)
{
    bool free_to_take = true;
    PGresult *rows = table(1);
    for (struct session *session = simulation->postgres->sessions; session != NULL;
         session = session->next)
        free_to_take = free_to_take && (!session->leads || session == asking);
    asking->leads = free_to_take;
    put(rows, 0, 0, free_to_take ? "t" : "f");
    return rows;
}

static PGresult *elect(void)
{
    struct position_row *row = &simulation->postgres->position;
    PGresult *rows = table(5);
    row->epoch++;
    put_number(rows, 0, 0, row->epoch);
    put_number(rows, 0, 1, 1);
    put(rows, 0, 2, row->has_snapshot ? row->snapshot : NULL);
    put(rows, 0, 3, row->has_target ? row->target : NULL);
    put(rows, 0, 4, NULL);
    if (row->has_target)
        put_number(rows, 0, 4, row->reached);
    simulation_note("pg.elected", row->epoch, 0, 0);
    return rows;
}

static PGresult *attend(void)
{
    const struct position_row *row = &simulation->postgres->position;
    PGresult *rows = table(3);
    put_number(rows, 0, 0, row->epoch);
    put(rows, 0, 1, row->paused ? "2026-11-22T00:00:00Z" : NULL);
    put(rows, 0, 2, "");
    return rows;
}

static PGresult *one_number(int64_t number)
{
    PGresult *rows = table(1);
    put_number(rows, 0, 0, number);
    return rows;
}

static bool begins(const char *sql, const char *start)
{
    return strncmp(sql, start, strlen(start)) == 0;
}

/* NULL for a command without rows. */
static PGresult *perform(struct session *session, const char *sql, const char *const *values)
{
    if (begins(sql, "poll"))
        return poll_events(values);
    if (begins(sql, "piece"))
        return piece(values);
    if (begins(sql, "select pg_current_snapshot()::text,"))
        return enter_backlog(values);
    if (begins(sql, "with last as"))
        return search_slice(values);
    if (begins(sql, "ahead"))
        return ahead(values);
    if (begins(sql, "select a.pid"))
        return table(1); /* nobody is stuck while he is sent rows */
    if (begins(sql, "select pg_try_advisory_lock"))
        return try_lock(session);
    if (begins(sql, "update relay_position set epoch"))
        return elect();
    if (begins(sql, "select epoch, to_char(paused_at"))
        return attend();
    if (begins(sql, "select system_identifier"))
        return one_number(1);
    if (begins(sql, "save"))
        save(values);
    else if (begins(sql, "update relay_position set partitions"))
        note_partitions(values);
    else if (!begins(sql, "set "))
        simulation_fail("a statement the simulation does not know: %.60s", sql);
    return NULL;
}

static enum tally_status run(PGconn *connection, const char *sql, const char *const *values,
                             PGresult **result, struct tally_error *error)
{
    struct session *session = session_of(connection);
    simulation_wait((int64_t)simulation_below(1000), NULL, NULL);
    if (simulation_killed() || session->broken || simulation_fault(400))
        return lost(session, error);
    session->spoke_us = simulation->now_us;
    PGresult *rows = perform(session, sql, values);
    if (simulation_fault(4))
        simulation_wait((int64_t)simulation_below(3000), NULL, NULL);
    if (simulation_killed() || session->broken || simulation_fault(400)) {
        PQclear(rows); /* done, and nobody knows */
        return lost(session, error);
    }
    if (result != NULL)
        *result = rows != NULL ? rows : PQmakeEmptyPGresult(NULL, PGRES_COMMAND_OK);
    else
        PQclear(rows);
    return TALLY_OK;
}

enum tally_status tally_pg_exec(PGconn *connection, const char *sql, int count,
                                const char *const *values, ExecStatusType expected,
                                PGresult **result, struct tally_error *error)
{
    (void)count, (void)expected;
    return run(connection, sql, values, result, error);
}

enum tally_status tally_pg_prepare(PGconn *connection, const char *name, const char *sql,
                                   struct tally_error *error)
{
    (void)connection, (void)name, (void)sql, (void)error;
    return TALLY_OK;
}

enum tally_status tally_pg_exec_prepared(PGconn *connection, const char *name, int count,
                                         const char *const *values, ExecStatusType expected,
                                         PGresult **result, struct tally_error *error)
{
    (void)count, (void)expected;
    return run(connection, name, values, result, error);
}
