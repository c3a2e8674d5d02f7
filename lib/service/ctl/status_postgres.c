#include "pg/blocking.h"
#include "service/ctl/output.h"
#include "service/ctl/status_probe.h"
#include "store/migrate.h"
#include "store/relay_control.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    EVENTS_COUNTED = 1000000,
    BACKLOG_COUNTED = 100000,
    TRANSACTION_LONG_S = 300, /* holds back vacuum, and the relay's snapshots */
    BACKLOG_LONG_S = 30,
};

/* Of any database, since each of them holds back the snapshots of all. A prepared transaction has
 * no process, and its name instead of an application's. */
static const char longest_sql[] =
    "select pid, name, database, extract(epoch from clock_timestamp() - began)::float8 from ("
    " select pid, application_name as name, datname as database, xact_start as began"
    "  from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid()"
    "  and backend_type = 'client backend'"
    " union all select 0, regexp_replace(left(gid, 60), '[^ -~]', '?', 'g'), database, prepared"
    "  from pg_prepared_xacts) as open"
    " order by began limit 1";

static const char events_sql[] = "select count(*) from (select from events limit 1000000) as kept";

/* Of the events after the position, those that are not on the part of a backlog's way that is
 * done. */
#define NOT_REACHED                                                                         \
    " and (p.target is null or e.seq > p.reached_seq or not pg_visible_in_snapshot(e.xid, " \
    "p.target))"

/* What the relay has not published, as relay_position.h defines it: two scans by index, the oldest
 * transactions first. */
static const char relay_sql[] =
    "select p.epoch, extract(epoch from clock_timestamp() - p.saved_at)::float8, b.events,"
    " coalesce(extract(epoch from clock_timestamp() - b.oldest)::float8, 0)"
    " from relay_position p, lateral (select count(*) as events, min(at) as oldest from ("
    "  (select e.at from events e where e.xid = any (array(select pg_snapshot_xip(p.snapshot)))"
    "   " NOT_REACHED " limit 100000)"
    "  union all (select e.at from events e"
    "   where e.xid >= coalesce(pg_snapshot_xmax(p.snapshot), '0')" NOT_REACHED
    "   order by e.xid limit 100000)"
    "  limit 100000) as waiting) as b";

static const char leader_sql[] =
    "select l.pid, a.application_name from pg_locks l left join pg_stat_activity a using (pid)"
    " where l.locktype = 'advisory' and l.granted and l.objsubid = 1"
    " and l.database = (select oid from pg_database where datname = current_database())"
    " and (l.classid::bigint << 32 | l.objid::bigint) = $1::bigint limit 1";

static double real(const PGresult *rows, int column)
{
    return strtod(PQgetvalue(rows, 0, column), NULL);
}

static int64_t number(const PGresult *rows, int column)
{
    return strtoll(PQgetvalue(rows, 0, column), NULL, 10);
}

static enum tally_status ask(PGconn *connection, const char *sql, const char *value,
                             PGresult **rows, struct tally_error *error)
{
    const char *const values[] = {value};
    return tally_pg_exec(connection, sql, value != NULL, values, PGRES_TUPLES_OK, rows, error);
}

struct database {
    int64_t version;
    int64_t events;
    bool transaction; /* the rest says which is open longest */
    int64_t pid;      /* 0: it is prepared, and `name` its identifier */
    char name[64], of_database[64];
    double seconds;
};

static enum tally_status read_database(PGconn *connection, struct database *database,
                                       struct tally_error *error)
{
    *database = (struct database){0};
    PGresult *rows = NULL;
    enum tally_status status = ask(connection, longest_sql, NULL, &rows, error);
    if (status != TALLY_OK)
        return status;
    database->transaction = PQntuples(rows) > 0;
    if (database->transaction) {
        database->pid = number(rows, 0);
        (void)snprintf(database->name, sizeof database->name, "%s", PQgetvalue(rows, 0, 1));
        (void)snprintf(database->of_database, sizeof database->of_database, "%s",
                       PQgetvalue(rows, 0, 2));
        database->seconds = real(rows, 3);
    }
    PQclear(rows);
    status = ask(connection, TALLY_SCHEMA_VERSION_SQL, NULL, &rows, error);
    if (status != TALLY_OK)
        return tally_fail(error, TALLY_CONFIG, "there is no schema: run `tallyctl migrate`");
    database->version = number(rows, 0);
    PQclear(rows);
    status = ask(connection, events_sql, NULL, &rows, error);
    if (status != TALLY_OK)
        return status;
    database->events = number(rows, 0);
    PQclear(rows);
    return TALLY_OK;
}

/* `text` says which transaction is open longest; the same for machines is returned. */
static json_t *describe_longest(const struct database *database, char text[256])
{
    char age[TALLY_DURATION_BYTES], who[96];
    if (!database->transaction) {
        (void)snprintf(text, 256, "no open transaction");
        return json_null();
    }
    if (database->pid != 0)
        (void)snprintf(who, sizeof who, "pid %" PRId64 ", %s", database->pid, database->name);
    else
        (void)snprintf(who, sizeof who, "prepared as %s", database->name);
    tally_ctl_format_duration(database->seconds, age);
    (void)snprintf(text, 256, "longest transaction %s (%s, database %s)", age, who,
                   database->of_database);
    return json_pack("{s:I,s:s,s:s,s:b,s:f}", "pid", (json_int_t)database->pid, "application",
                     database->name, "database", database->of_database, "prepared",
                     database->pid == 0, "seconds", database->seconds);
}

static void add_database(json_t *components, const struct database *database)
{
    int needed = tally_schema_version_needed();
    bool long_open = database->transaction && database->seconds > TRANSACTION_LONG_S;
    bool old = database->version < needed;
    char open[256], events[TALLY_NUMBER_BYTES];
    json_t *longest = describe_longest(database, open);
    tally_probe_add(components, "postgresql", old || long_open ? "unhealthy" : "up",
                    json_pack("{s:I,s:i,s:o,s:I}", "schemaVersion", (json_int_t)database->version,
                              "schemaNeeded", needed, "longestTransaction", longest, "eventsKept",
                              (json_int_t)database->events),
                    "schema %" PRId64 "%s, %s%s events kept, %s", database->version,
                    old ? " is too old (run `tallyctl migrate`)" : "",
                    database->events >= EVENTS_COUNTED ? "at least " : "",
                    tally_ctl_format_number(database->events, events), open);
}

struct relay {
    int64_t epoch, backlog, leader_pid; /* leader_pid 0: nobody leads */
    double saved_s, backlog_s;
    char application[64];
    struct tally_relay_orders orders;
};

static enum tally_status read_relay(PGconn *connection, struct relay *relay,
                                    struct tally_error *error)
{
    *relay = (struct relay){0};
    PGresult *rows = NULL;
    enum tally_status status = ask(connection, relay_sql, NULL, &rows, error);
    if (status != TALLY_OK)
        return status;
    if (PQntuples(rows) == 1) {
        relay->epoch = number(rows, 0);
        relay->saved_s = real(rows, 1);
        relay->backlog = number(rows, 2);
        relay->backlog_s = real(rows, 3);
    }
    PQclear(rows);
    char key[24];
    (void)snprintf(key, sizeof key, "%" PRId64, TALLY_RELAY_LOCK_KEY);
    status = ask(connection, leader_sql, key, &rows, error);
    if (status != TALLY_OK)
        return status;
    if (PQntuples(rows) == 1) {
        relay->leader_pid = number(rows, 0);
        (void)snprintf(relay->application, sizeof relay->application, "%s", PQgetvalue(rows, 0, 1));
    }
    PQclear(rows);
    struct tally_relay_view view;
    status = tally_relay_view_read(connection, &view, error);
    relay->orders = view.orders;
    return status;
}

static void add_relay(json_t *components, const struct relay *relay)
{
    bool late = relay->backlog > 0 && relay->backlog_s > BACKLOG_LONG_S;
    char backlog[TALLY_NUMBER_BYTES], age[TALLY_DURATION_BYTES], saved[TALLY_DURATION_BYTES];
    char leader[96] = "nobody leads (is a tally-command running?)";
    json_t *leader_json = json_null();
    if (relay->leader_pid != 0) {
        (void)snprintf(leader, sizeof leader, "led by %s (backend %" PRId64 ")", relay->application,
                       relay->leader_pid);
        leader_json = json_pack("{s:I,s:s}", "pid", (json_int_t)relay->leader_pid, "application",
                                relay->application);
    }
    tally_ctl_format_duration(relay->backlog_s, age);
    tally_ctl_format_duration(relay->saved_s, saved);
    const struct tally_relay_orders *orders = &relay->orders;
    json_t *paused = orders->paused
                         ? json_pack("{s:s,s:s}", "since", orders->since, "reason", orders->reason)
                         : json_null();
    char pause[TALLY_PROBE_SUMMARY_BYTES] = "";
    if (orders->paused)
        (void)snprintf(pause, sizeof pause, "paused since %s%s%.100s; ", orders->since,
                       orders->reason[0] != '\0' ? ": " : "", orders->reason);
    tally_probe_add(components, "relay",
                    relay->leader_pid == 0 ? "unhealthy"
                    : orders->paused       ? "paused"
                    : late                 ? "unhealthy"
                                           : "up",
                    json_pack("{s:I,s:f,s:I,s:f,s:o,s:o}", "epoch", (json_int_t)relay->epoch,
                              "savedSecondsAgo", relay->saved_s, "backlogEvents",
                              (json_int_t)relay->backlog, "backlogSeconds", relay->backlog_s,
                              "leader", leader_json, "paused", paused),
                    "%s%s, backlog %s%s events (%s), position of epoch %" PRId64 " saved %s ago",
                    pause, leader, relay->backlog >= BACKLOG_COUNTED ? "at least " : "",
                    tally_ctl_format_number(relay->backlog, backlog), age, relay->epoch, saved);
}

static enum tally_status look(PGconn *connection, struct database *database, struct relay *relay,
                              struct tally_error *error)
{
    char timeout[64];
    (void)snprintf(timeout, sizeof timeout, "set statement_timeout = %d", TALLY_PROBE_MS / 2);
    enum tally_status status =
        tally_pg_exec(connection, timeout, 0, NULL, PGRES_COMMAND_OK, NULL, error);
    if (status == TALLY_OK)
        status = read_database(connection, database, error);
    if (status == TALLY_OK)
        status = read_relay(connection, relay, error);
    return status;
}

void tally_probe_postgres(const struct tally_settings *settings, json_t *components)
{
    struct tally_error error;
    struct database database;
    struct relay relay;
    PGconn *connection = NULL;
    enum tally_status status =
        tally_pg_connect(settings->pg_dsn, "tallyctl status", &connection, &error);
    bool connected = status == TALLY_OK;
    if (connected)
        status = look(connection, &database, &relay, &error);
    PQfinish(connection);
    if (status == TALLY_OK) {
        add_database(components, &database);
        add_relay(components, &relay);
        return;
    }
    tally_probe_add(components, "postgresql", connected ? "unhealthy" : "down", json_object(), "%s",
                    error.text);
    tally_probe_add(components, "relay", "down", json_object(), "not known: it is in PostgreSQL");
}
