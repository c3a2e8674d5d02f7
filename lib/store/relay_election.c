#include "store/relay_position_internal.h"

#include "core/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char identity_sql[] = "select system_identifier::text from pg_control_system()";

/* The session that holds the lock $1, where the server waits for its client to take what it sends:
 * nothing that the leader set up ends such a wait. */
#define STUCK_LEADER                                                                     \
    " from pg_locks l join pg_stat_activity a using (pid)"                               \
    " where l.locktype = 'advisory' and l.granted and l.objsubid = 1"                    \
    " and l.database = (select oid from pg_database where datname = current_database())" \
    " and (l.classid::bigint << 32 | l.objid::bigint) = $1::bigint"                      \
    " and a.state = 'active' and a.wait_event = 'ClientWrite'"
#define STATEMENT_OF_LEADER "a.pid || ' ' || extract(epoch from a.query_start)"
static const char look_sql[] = "select " STATEMENT_OF_LEADER STUCK_LEADER;
static const char end_sql[] =
    "select pg_terminate_backend(a.pid)" STUCK_LEADER " and " STATEMENT_OF_LEADER " = $2";

static const char elect_sql[] =
    "update relay_position set epoch = epoch + 1 where only_row"
    " returning epoch, system_identifier::text, snapshot::text, target::text, reached_seq";

/* A piece of the events whose transaction numbers lie in this cluster's future. What this cluster
 * has counted past meanwhile reads as committed long ago, which is right too: the position starts
 * from nothing. */
static const char adopt_events_sql[] =
    "update events set xid = pg_current_xact_id() where (seq, at) in (select seq, at from events"
    " where xid >= pg_snapshot_xmax(pg_current_snapshot()) limit 10000)";
static const char adopt_position_sql[] =
    "update relay_position set system_identifier = $1::bigint, snapshot = null, target = null,"
    " reached_seq = null";

static const char note_partitions_sql[] =
    "update relay_position set partitions = $1::int where only_row and epoch = $2::bigint";

static const char attend_sql[] =
    "select epoch, to_char(paused_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"
    " pause_reason from relay_position where only_row";

const char *tally_relay_reader_database(const struct tally_relay_reader *reader)
{
    return reader->database;
}

int64_t tally_relay_reader_epoch(const struct tally_relay_reader *reader)
{
    return reader->epoch;
}

static enum tally_status command(struct tally_relay_reader *reader, const char *sql, int count,
                                 const char *const *values, struct tally_error *error)
{
    return tally_pg_exec(reader->connection, sql, count, values, PGRES_COMMAND_OK, NULL, error);
}

/* A snapshot in which nothing is visible: the position of a relay that has published nothing. */
static const char nothing_published[] = "1:1:";

/* Takes the position over from `row`, or starts over where it is of another database. */
static enum tally_status take_position(struct tally_relay_reader *reader, const PGresult *row,
                                       bool *started_over, struct tally_error *error)
{
    const char *identity = relay_cell(row, 0, 1);
    const char *base = relay_cell(row, 0, 2) != NULL ? relay_cell(row, 0, 2) : nothing_published;
    const char *reached = relay_cell(row, 0, 4);
    *started_over = identity == NULL || strcmp(identity, reader->database) != 0;
    bool kept = *started_over
                    ? relay_position_set(&reader->read, nothing_published, NULL, 0)
                    : relay_position_set(&reader->read, base, relay_cell(row, 0, 3),
                                         reached != NULL ? strtoll(reached, NULL, 10) : 0);
    return kept ? TALLY_OK : tally_fail(error, TALLY_NO_MEMORY, "relay position");
}

enum tally_status tally_relay_reader_adopt(struct tally_relay_reader *reader, bool *done,
                                           struct tally_error *error)
{
    const char *const values[] = {reader->database};
    PGresult *result = NULL;
    enum tally_status status = tally_pg_exec(reader->connection, adopt_events_sql, 0, NULL,
                                             PGRES_COMMAND_OK, &result, error);
    *done = status == TALLY_OK && strcmp(PQcmdTuples(result), "0") == 0;
    PQclear(result);
    return *done ? command(reader, adopt_position_sql, 1, values, error) : status;
}

static enum tally_status load_position(struct tally_relay_reader *reader, bool *started_over,
                                       struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status = relay_query(reader, identity_sql, 0, NULL, &rows, error);
    if (status != TALLY_OK)
        return status;
    (void)snprintf(reader->database, sizeof reader->database, "%s", PQgetvalue(rows, 0, 0));
    PQclear(rows);
    status = relay_query(reader, elect_sql, 0, NULL, &rows, error);
    if (status != TALLY_OK)
        return status;
    if (PQntuples(rows) != 1 || !relay_cell_number(rows, 0, 0, &reader->epoch))
        status = tally_fail(error, TALLY_PROTOCOL, "relay_position does not hold one row");
    else
        status = take_position(reader, rows, started_over, error);
    PQclear(rows);
    return status;
}

/* Ends the session of a leader that has taken no rows of one statement for as long as this one may
 * be silent. Where it is only slow it begins again; what it may still send, the epoch keeps from
 * being saved.
 */
static enum tally_status watch_leader(struct tally_relay_reader *reader, const char *key,
                                      struct tally_error *error)
{
    struct sight *sight = &reader->sight;
    const char *const values[] = {key, sight->statement};
    PGresult *rows = NULL;
    enum tally_status status = relay_query(reader, look_sql, 1, values, &rows, error);
    if (status != TALLY_OK)
        return status;
    const char *seen = PQntuples(rows) > 0 ? PQgetvalue(rows, 0, 0) : "";
    const int64_t now_us = tally_clock_monotonic_us();
    const bool same = seen[0] != '\0' && strcmp(seen, sight->statement) == 0;
    if (!same) {
        (void)snprintf(sight->statement, sizeof sight->statement, "%s", seen);
        sight->since_us = now_us;
    }
    PQclear(rows);
    if (!same || now_us - sight->since_us < reader->silence_ms * INT64_C(1000))
        return TALLY_OK;
    return tally_pg_exec(reader->connection, end_sql, 2, values, PGRES_TUPLES_OK, NULL, error);
}

enum tally_status tally_relay_reader_lead(struct tally_relay_reader *reader, bool *leading,
                                          bool *started_over, struct tally_error *error)
{
    char key[NUMBER_BYTES];
    (void)snprintf(key, sizeof key, "%" PRId64, TALLY_RELAY_LOCK_KEY);
    const char *const values[] = {key};
    PGresult *rows = NULL;
    enum tally_status status =
        relay_query(reader, "select pg_try_advisory_lock($1::bigint)", 1, values, &rows, error);
    if (status != TALLY_OK)
        return status;
    *leading = PQgetvalue(rows, 0, 0)[0] == 't';
    *started_over = false;
    PQclear(rows);
    if (!*leading)
        return watch_leader(reader, key, error);
    char silence[160];
    (void)snprintf(silence, sizeof silence,
                   "set idle_session_timeout = %d; set statement_timeout = %d;"
                   " set tcp_user_timeout = %d",
                   reader->silence_ms, TALLY_RELAY_STATEMENT_MS, 3 * reader->silence_ms);
    status = command(reader, silence, 0, NULL, error);
    return status == TALLY_OK ? load_position(reader, started_over, error) : status;
}

enum tally_status tally_relay_reader_attend(struct tally_relay_reader *reader,
                                            struct tally_relay_orders *orders,
                                            struct tally_error *error)
{
    PGresult *rows = NULL;
    int64_t epoch = 0;
    enum tally_status status = relay_query(reader, attend_sql, 0, NULL, &rows, error);
    if (status == TALLY_OK && (PQntuples(rows) != 1 || !relay_cell_number(rows, 0, 0, &epoch)))
        status = tally_fail(error, TALLY_PROTOCOL, "relay_position does not hold one row");
    if (status == TALLY_OK && epoch != reader->epoch)
        status =
            tally_fail(error, TALLY_FENCED,
                       "the position is of epoch %" PRId64 ", and this relay led epoch %" PRId64,
                       epoch, reader->epoch);
    if (status == TALLY_OK) {
        *orders = (struct tally_relay_orders){.paused = !PQgetisnull(rows, 0, 1)};
        (void)snprintf(orders->since, sizeof orders->since, "%s", PQgetvalue(rows, 0, 1));
        (void)snprintf(orders->reason, sizeof orders->reason, "%s", PQgetvalue(rows, 0, 2));
    }
    PQclear(rows);
    return status;
}

enum tally_status tally_relay_reader_note_partitions(struct tally_relay_reader *reader,
                                                     int32_t partitions, struct tally_error *error)
{
    char count[NUMBER_BYTES], epoch[NUMBER_BYTES];
    (void)snprintf(count, sizeof count, "%" PRId32, partitions);
    (void)snprintf(epoch, sizeof epoch, "%" PRId64, reader->epoch);
    const char *const values[] = {count, epoch};
    PGresult *result = NULL;
    enum tally_status status = tally_pg_exec(reader->connection, note_partitions_sql, 2, values,
                                             PGRES_COMMAND_OK, &result, error);
    if (status == TALLY_OK && strcmp(PQcmdTuples(result), "1") != 0)
        status = tally_fail(error, TALLY_FENCED, "another relay was elected after epoch %s", epoch);
    PQclear(result);
    return status;
}
