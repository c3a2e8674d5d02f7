#include "store/relay_position_internal.h"

#include "core/id.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bounds of a statement that works its way through a backlog: a second or two on a slow disk. */
static const char slice_events[] = "100000";
static const char piece_reach[] = "1000000";

/* Columns of every statement that reads events. */
enum column {
    SEQ,
    USER_ID,
    VERSION,
    TYPE,
    DATA,
    AT_US,
    TIMELINE,
    TRACEPARENT,
    SNAPSHOT,
    COLUMN_COUNT
};

#define EVENT_COLUMNS                                                                          \
    "seq, user_id, version, type, data, (extract(epoch from at) * 1000000)::bigint as at_us, " \
    "timeline, traceparent"

/* The planner may not know yet how few rows a poll finds; a scan of the whole partition instead of
 * its index would make each poll as long as the day's events. The cost that a forbidden scan is
 * given would start the JIT compiler, which takes longer than every statement here. */
static const char session_sql[] = "set enable_seqscan = off; set enable_bitmapscan = off;"
                                  "set jit = off; set plan_cache_mode = force_generic_plan;"
                                  "set synchronous_commit = off;";

/* Not visible in the snapshot $1, as two scans of the index of xid. The one condition that says the
 * same, xid >= xmin and not visible, reads again at each poll all that was written since the oldest
 * open transaction began. */
#define FRESH_EVENTS                                                                        \
    "select * from events where xid = any (array(select pg_snapshot_xip($1::pg_snapshot)))" \
    " union all select * from events where xid >= pg_snapshot_xmax($1::pg_snapshot)"

/* Everything new since $1, if it is at most $2 rows; one more row says that there is a backlog. One
 * statement, so that the snapshot it returns is the one it read. */
static const char poll_sql[] = "select " EVENT_COLUMNS ", now.snapshot"
                               " from (select pg_current_snapshot()::text as snapshot) as now"
                               " left join (" FRESH_EVENTS " limit $2::bigint + 1) as fresh on true"
                               " order by seq";

/* Where the search for the beginning of a backlog begins: the snapshot that the backlog leads to,
 * the transaction before the first to look at, and the lowest sequence number of those that were
 * open at the position. `seq + 0` keeps the planner from walking the index of seq from the oldest
 * kept event. */
static const char enter_sql[] =
    "select pg_current_snapshot()::text,"
    " (pg_snapshot_xmax($1::pg_snapshot)::text::bigint - 1)::text,"
    " (select min(seq + 0) from events"
    "  where xid = any (array(select pg_snapshot_xip($1::pg_snapshot))))::text";

/* A slice of that search: of the transactions after $1 that the snapshot $2 may see, as many as
 * wrote $3 events, or all, which the first column tells by NULL; else it is the last of them. What
 * is not visible in $2 may only make the beginning too early. A transaction is never divided, so
 * that each slice gets on. */
static const char slice_sql[] =
    "with last as materialized (select xid from events where xid > $1::xid8"
    " and xid < pg_snapshot_xmax($2::pg_snapshot) order by xid offset $3::bigint limit 1)"
    " select (select xid from last)::text, min(seq + 0)::text from events where xid > $1::xid8"
    " and xid <= coalesce((select xid from last), pg_snapshot_xmax($2::pg_snapshot))";

/* A piece of the backlog between the snapshots $1 and $2, of $4 rows at most, among the $5 sequence
 * numbers after $3: those that lie between may all be published already. */
static const char piece_sql[] =
    "select " EVENT_COLUMNS ", null as snapshot from events"
    " where seq > $3::bigint and seq <= $3::bigint + $5::bigint"
    " and not pg_visible_in_snapshot(xid, $1::pg_snapshot)"
    " and pg_visible_in_snapshot(xid, $2::pg_snapshot) order by seq limit $4::bigint";

/* The number before the first that comes after the $2 sequence numbers after $1. */
static const char ahead_sql[] =
    "select (min(seq) - 1)::text from events where seq > $1::bigint + $2::bigint";

static const char save_sql[] =
    "update relay_position set snapshot = $1::pg_snapshot, target = $2::pg_snapshot,"
    " reached_seq = $3::bigint, saved_at = clock_timestamp() where only_row and epoch = $4::bigint";

/* What runs many times a second, planned once. */
static const struct {
    const char *name;
    const char *sql;
} prepared[] = {{"poll", poll_sql}, {"piece", piece_sql}, {"ahead", ahead_sql}, {"save", save_sql}};

void tally_relay_position_clear(struct tally_relay_position *position)
{
    free(position->base);
    free(position->target);
    *position = (struct tally_relay_position){0};
}

void tally_relay_batch_clear(struct tally_relay_batch *batch)
{
    PQclear(batch->rows);
    tally_relay_position_clear(&batch->after);
    *batch = (struct tally_relay_batch){0};
}

bool relay_position_set(struct tally_relay_position *position, const char *base, const char *target,
                        int64_t reached_seq)
{
    struct tally_relay_position fresh = {
        .base = strdup(base),
        .target = target != NULL ? strdup(target) : NULL,
        .reached_seq = reached_seq,
    };
    if (fresh.base == NULL || (target != NULL && fresh.target == NULL)) {
        tally_relay_position_clear(&fresh);
        return false;
    }
    tally_relay_position_clear(position);
    *position = fresh;
    return true;
}

const char *relay_cell(const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column) ? NULL : PQgetvalue(rows, row, column);
}

bool relay_cell_number(const PGresult *rows, int row, int column, int64_t *number)
{
    const char *text = relay_cell(rows, row, column);
    return text != NULL && tally_id_parse(text, strlen(text), number);
}

enum tally_status relay_query(struct tally_relay_reader *reader, const char *sql, int count,
                              const char *const *values, PGresult **rows, struct tally_error *error)
{
    return tally_pg_exec(reader->connection, sql, count, values, PGRES_TUPLES_OK, rows, error);
}

enum tally_status tally_relay_batch_event(const struct tally_relay_batch *batch, int index,
                                          struct tally_event *event, const char **traceparent,
                                          struct tally_error *error)
{
    const char *type = relay_cell(batch->rows, index, TYPE);
    int64_t timeline = 0;
    *event = (struct tally_event){.value = relay_cell(batch->rows, index, DATA)};
    if (!relay_cell_number(batch->rows, index, USER_ID, &event->user_id) ||
        !relay_cell_number(batch->rows, index, VERSION, &event->version) ||
        !relay_cell_number(batch->rows, index, AT_US, &event->at_us) ||
        !relay_cell_number(batch->rows, index, TIMELINE, &timeline) || timeline > INT32_MAX ||
        type == NULL || !tally_event_type_parse(type, strlen(type), &event->type))
        return tally_fail(error, TALLY_PROTOCOL, "the event with seq %s is not as the schema says",
                          PQgetvalue(batch->rows, index, SEQ));
    event->timeline = (int32_t)timeline;
    event->value_length = event->value != NULL ? strlen(event->value) : 0;
    *traceparent = relay_cell(batch->rows, index, TRACEPARENT);
    return TALLY_OK;
}

enum tally_status tally_relay_reader_open(const char *dsn, int64_t batch_events, int silence_ms,
                                          struct tally_relay_reader **reader,
                                          struct tally_error *error)
{
    struct tally_relay_reader *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "relay");
    made->silence_ms = silence_ms;
    (void)snprintf(made->batch_events, sizeof made->batch_events, "%" PRId64, batch_events);
    enum tally_status status = tally_pg_connect(dsn, "tally-relay", &made->connection, error);
    if (status == TALLY_OK)
        status =
            tally_pg_exec(made->connection, session_sql, 0, NULL, PGRES_COMMAND_OK, NULL, error);
    for (size_t i = 0; i < sizeof prepared / sizeof prepared[0] && status == TALLY_OK; i++)
        status = tally_pg_prepare(made->connection, prepared[i].name, prepared[i].sql, error);
    if (status != TALLY_OK) {
        tally_relay_reader_close(&made);
        return status;
    }
    *reader = made;
    return TALLY_OK;
}

void tally_relay_reader_close(struct tally_relay_reader **reader)
{
    if (*reader == NULL)
        return;
    PQfinish((*reader)->connection);
    tally_relay_position_clear(&(*reader)->read);
    free((*reader)->entry.target);
    free(*reader);
    *reader = NULL;
}

/* Nothing of the backlog is left among the sequence numbers of this reach: goes on behind them, or
 * is at the target where there is nothing behind. */
static enum tally_status pass_reach(struct tally_relay_reader *reader, const char *reached,
                                    struct tally_error *error)
{
    struct tally_relay_position *read = &reader->read;
    const char *const values[] = {reached, piece_reach};
    PGresult *rows = NULL;
    enum tally_status status = tally_pg_exec_prepared(reader->connection, "ahead", 2, values,
                                                      PGRES_TUPLES_OK, &rows, error);
    if (status != TALLY_OK)
        return status;
    int64_t before = 0;
    bool kept = relay_cell_number(rows, 0, 0, &before)
                    ? relay_position_set(read, read->base, read->target, before)
                    : relay_position_set(read, read->target, NULL, 0);
    PQclear(rows);
    return kept ? TALLY_OK : tally_fail(error, TALLY_NO_MEMORY, "relay position");
}

static enum tally_status next_piece(struct tally_relay_reader *reader,
                                    struct tally_relay_batch *batch, struct tally_error *error)
{
    struct tally_relay_position *read = &reader->read;
    char reached[NUMBER_BYTES];
    (void)snprintf(reached, sizeof reached, "%" PRId64, read->reached_seq);
    const char *const values[] = {read->base, read->target, reached, reader->batch_events,
                                  piece_reach};
    enum tally_status status = tally_pg_exec_prepared(reader->connection, "piece", 5, values,
                                                      PGRES_TUPLES_OK, &batch->rows, error);
    if (status != TALLY_OK)
        return status;
    batch->count = PQntuples(batch->rows);
    batch->more = true;
    int64_t last = 0;
    if (batch->count < strtoll(reader->batch_events, NULL, 10))
        return pass_reach(reader, reached, error);
    if (!relay_cell_number(batch->rows, batch->count - 1, SEQ, &last))
        return tally_fail(error, TALLY_PROTOCOL, "an event without sequence number");
    return relay_position_set(read, read->base, read->target, last)
               ? TALLY_OK
               : tally_fail(error, TALLY_NO_MEMORY, "relay position");
}

/* Begins the search for the beginning of what is new since the position. */
static enum tally_status begin_entry(struct tally_relay_reader *reader, struct tally_error *error)
{
    const char *const values[] = {reader->read.base};
    struct entry *entry = &reader->entry;
    PGresult *rows = NULL;
    enum tally_status status = relay_query(reader, enter_sql, 1, values, &rows, error);
    if (status != TALLY_OK)
        return status;
    *entry = (struct entry){.target = strdup(PQgetvalue(rows, 0, 0))};
    (void)snprintf(entry->searched, sizeof entry->searched, "%s", PQgetvalue(rows, 0, 1));
    (void)relay_cell_number(rows, 0, 2, &entry->lowest_seq); /* NULL: none */
    PQclear(rows);
    return entry->target != NULL ? TALLY_OK : tally_fail(error, TALLY_NO_MEMORY, "relay position");
}

static enum tally_status search_slice(struct tally_relay_reader *reader, bool *done,
                                      struct tally_error *error)
{
    struct entry *entry = &reader->entry;
    const char *const values[] = {entry->searched, entry->target, slice_events};
    PGresult *rows = NULL;
    enum tally_status status = relay_query(reader, slice_sql, 3, values, &rows, error);
    if (status != TALLY_OK)
        return status;
    int64_t lowest = 0;
    if (relay_cell_number(rows, 0, 1, &lowest) &&
        (entry->lowest_seq == 0 || lowest < entry->lowest_seq))
        entry->lowest_seq = lowest;
    *done = PQgetisnull(rows, 0, 0);
    if (!*done)
        (void)snprintf(entry->searched, sizeof entry->searched, "%s", PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return TALLY_OK;
}

/* From a whole position to the start of the way to a new target; the batch stays empty while the
 * search goes on, and where the backlog has gone meanwhile (its partition was dropped). */
static enum tally_status enter_backlog(struct tally_relay_reader *reader,
                                       struct tally_relay_batch *batch, struct tally_error *error)
{
    struct entry *entry = &reader->entry;
    bool done = false;
    enum tally_status status = search_slice(reader, &done, error);
    batch->more = status == TALLY_OK && !done;
    if (status != TALLY_OK || !done)
        return status;
    bool found = entry->lowest_seq > 0;
    if (found &&
        !relay_position_set(&reader->read, reader->read.base, entry->target, entry->lowest_seq - 1))
        return tally_fail(error, TALLY_NO_MEMORY, "relay position");
    free(entry->target);
    *entry = (struct entry){0};
    return found ? next_piece(reader, batch, error) : TALLY_OK;
}

static enum tally_status next_fresh(struct tally_relay_reader *reader,
                                    struct tally_relay_batch *batch, struct tally_error *error)
{
    const char *const values[] = {reader->read.base, reader->batch_events};
    enum tally_status status = tally_pg_exec_prepared(reader->connection, "poll", 2, values,
                                                      PGRES_TUPLES_OK, &batch->rows, error);
    if (status != TALLY_OK)
        return status;
    batch->count = PQntuples(batch->rows);
    if (batch->count == 1 && PQgetisnull(batch->rows, 0, SEQ))
        batch->count = 0;
    if (batch->count > strtoll(reader->batch_events, NULL, 10)) {
        PQclear(batch->rows);
        *batch = (struct tally_relay_batch){0};
        status = begin_entry(reader, error);
        return status == TALLY_OK ? enter_backlog(reader, batch, error) : status;
    }
    return relay_position_set(&reader->read, PQgetvalue(batch->rows, 0, SNAPSHOT), NULL, 0)
               ? TALLY_OK
               : tally_fail(error, TALLY_NO_MEMORY, "relay position");
}

enum tally_status tally_relay_reader_next(struct tally_relay_reader *reader,
                                          struct tally_relay_batch *batch,
                                          struct tally_error *error)
{
    *batch = (struct tally_relay_batch){0};
    enum tally_status status = reader->read.target != NULL    ? next_piece(reader, batch, error)
                               : reader->entry.target != NULL ? enter_backlog(reader, batch, error)
                                                              : next_fresh(reader, batch, error);
    const struct tally_relay_position *read = &reader->read;
    if (status == TALLY_OK &&
        !relay_position_set(&batch->after, read->base, read->target, read->reached_seq))
        status = tally_fail(error, TALLY_NO_MEMORY, "relay position");
    if (status != TALLY_OK)
        tally_relay_batch_clear(batch);
    return status;
}

enum tally_status tally_relay_reader_save(struct tally_relay_reader *reader,
                                          const struct tally_relay_position *position,
                                          struct tally_error *error)
{
    char reached[NUMBER_BYTES];
    char epoch[NUMBER_BYTES];
    (void)snprintf(reached, sizeof reached, "%" PRId64, position->reached_seq);
    (void)snprintf(epoch, sizeof epoch, "%" PRId64, reader->epoch);
    const char *const values[] = {position->base, position->target,
                                  position->target != NULL ? reached : NULL, epoch};
    PGresult *result = NULL;
    enum tally_status status = tally_pg_exec_prepared(reader->connection, "save", 4, values,
                                                      PGRES_COMMAND_OK, &result, error);
    if (status == TALLY_OK && strcmp(PQcmdTuples(result), "1") != 0)
        status = tally_fail(error, TALLY_FENCED, "another relay was elected after epoch %s", epoch);
    PQclear(result);
    return status;
}
