#include "store/erasure.h"

#include "core/buffer.h"
#include "pg/blocking.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES = 24, PIECE = 1000, SQL_BYTES = 64 << 10 };

#define TEXT_OF(number) #number
#define TEXT_OF_VALUE(number) TEXT_OF(number)
#define LEFT TEXT_OF_VALUE(TALLY_ERASURE_LEFT_MOST)

enum column {
    BEGUN_AT,
    COUNTED,
    POSTS,
    COMMENTS,
    EVENTS_REDACTED,
    KEYS_REMOVED,
    REASONS_REDACTED,
    PROFILES_REMOVED,
    PUBLISHED_AT,
    LOG_END,
    VACUUMED_AT,
    TABLES_WRITTEN_AT,
    FILES_WRITTEN_AT,
    COMPLETED_AT,
    VERSION,
    SWEPT,
    LEFT_ROWS,
};

static const char read_sql[] =
    "select (extract(epoch from e.begun_at) * 1000000)::bigint, e.posts is not null,"
    " coalesce(e.posts, 0), coalesce(e.comments, 0), e.events_redacted, e.keys_removed,"
    " e.reasons_redacted, e.profiles_removed,"
    " coalesce((extract(epoch from e.published_at) * 1000000)::bigint, 0),"
    " coalesce(e.log_end, -1),"
    " coalesce((extract(epoch from e.vacuumed_at) * 1000000)::bigint, 0),"
    " coalesce((extract(epoch from e.tables_written_anew_at) * 1000000)::bigint, 0),"
    " coalesce((extract(epoch from e.files_written_anew_at) * 1000000)::bigint, 0),"
    " coalesce((extract(epoch from e.completed_at) * 1000000)::bigint, 0),"
    " u.version, u.swept_at is not null,"
    " (select count(*) from (select from posts where author_id = u.id limit " LEFT ") as p)"
    " + (select count(*) from (select from comments where author_id = u.id limit " LEFT ") as c)"
    " from erasures e join users u on u.id = e.user_id where e.user_id = $1::bigint";

/* Published: as store/relay_position.h defines a position, visible in its snapshot, or sent on the
 * way to its target. */
static const char published_sql[] =
    "select not exists (select from events e left join (select p.* from relay_position p,"
    "  pg_control_system() s where p.system_identifier = s.system_identifier) as r on true"
    " where e.user_id = $1::bigint and not"
    "  (coalesce(pg_visible_in_snapshot(e.xid, r.snapshot), false)"
    "   or coalesce(e.seq <= r.reached_seq and pg_visible_in_snapshot(e.xid, r.target), false)))";

static const char horizon_sql[] = "select pg_current_xact_id()::xid::text::bigint";

/* A vacuum's own snapshot holds nobody back. */
static const char holder_sql[] =
    "select who from ("
    " select 'session ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '')"
    "  || coalesce(', in its transaction since '"
    "   || to_char(xact_start at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '') as who,"
    "  backend_xmin as oldest from pg_stat_activity"
    "  where backend_xmin is not null and pid <> pg_backend_pid()"
    "   and (datname = current_database() or backend_type = 'walsender')"
    "   and pid not in (select pid from pg_stat_progress_vacuum)"
    " union all select 'replication slot ' || slot_name, xmin from pg_replication_slots"
    "  where xmin is not null"
    " union all select 'prepared transaction ' || gid, transaction from pg_prepared_xacts"
    "  where database = current_database()) as holders"
    " where age(oldest) > age($1::text::xid) order by age(oldest) desc limit 1";

/* All partitions of events that hold one of the user's. */
static const char tables_sql[] =
    "select distinct tableoid::regclass::text from events where user_id = $1::bigint";

static const char fixed_tables[] =
    "users, posts, comments, idempotency_keys, closed_dead_letters, pg_catalog.pg_statistic";

static const char vacuumed_sql[] =
    "update erasures set vacuumed_at = clock_timestamp() where user_id = $1::bigint";
static const char written_anew_sql[] =
    "update erasures set vacuumed_at = clock_timestamp(),"
    " tables_written_anew_at = clock_timestamp() where user_id = $1::bigint";
static const char note_files_sql[] = "update erasures set files_written_anew_at = clock_timestamp()"
                                     " where user_id = $1::bigint";
static const char note_published_sql[] =
    "update erasures set published_at = clock_timestamp(), log_end = $2::bigint"
    " where user_id = $1::bigint and published_at is null";
static const char note_profiles_sql[] =
    "update erasures set profiles_removed = profiles_removed + $2::bigint"
    " where user_id = $1::bigint";
static const char note_complete_sql[] = "update erasures set completed_at = clock_timestamp()"
                                        " where user_id = $1::bigint and completed_at is null";

static int64_t number(const PGresult *rows, int column)
{
    return strtoll(PQgetvalue(rows, 0, column), NULL, 10);
}

static bool truth(const PGresult *rows, int column)
{
    return PQgetvalue(rows, 0, column)[0] == 't';
}

/* One statement with the user and perhaps another number. */
static enum tally_status ask(PGconn *connection, const char *sql, int count, int64_t first,
                             int64_t second, PGresult **rows, struct tally_error *error)
{
    char texts[2][NUMBER_BYTES];
    const char *const values[] = {texts[0], texts[1]};
    (void)snprintf(texts[0], NUMBER_BYTES, "%" PRId64, first);
    (void)snprintf(texts[1], NUMBER_BYTES, "%" PRId64, second);
    return tally_pg_exec(connection, sql, count, values,
                         rows != NULL ? PGRES_TUPLES_OK : PGRES_COMMAND_OK, rows, error);
}

enum tally_status tally_erasure_begin(PGconn *connection, int64_t user_id, bool *known,
                                      struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status =
        ask(connection, "select begin_erasure($1::bigint)", 1, user_id, 0, &rows, error);
    *known = status == TALLY_OK && truth(rows, 0);
    PQclear(rows);
    return status;
}

enum tally_status tally_erasure_read(PGconn *connection, int64_t user_id,
                                     struct tally_erasure *erasure, struct tally_error *error)
{
    PGresult *rows = NULL;
    *erasure = (struct tally_erasure){0};
    enum tally_status status = ask(connection, read_sql, 1, user_id, 0, &rows, error);
    if (status == TALLY_OK && PQntuples(rows) != 1)
        status = tally_fail(error, TALLY_NOT_FOUND, "no erasure of user %" PRId64, user_id);
    if (status == TALLY_OK)
        *erasure = (struct tally_erasure){
            .begun_at_us = number(rows, BEGUN_AT),
            .counted = truth(rows, COUNTED),
            .posts = number(rows, POSTS),
            .comments = number(rows, COMMENTS),
            .events_redacted = number(rows, EVENTS_REDACTED),
            .keys_removed = number(rows, KEYS_REMOVED),
            .reasons_redacted = number(rows, REASONS_REDACTED),
            .profiles_removed = number(rows, PROFILES_REMOVED),
            .published_at_us = number(rows, PUBLISHED_AT),
            .log_end = number(rows, LOG_END),
            .vacuumed_at_us = number(rows, VACUUMED_AT),
            .tables_written_at_us = number(rows, TABLES_WRITTEN_AT),
            .files_written_at_us = number(rows, FILES_WRITTEN_AT),
            .completed_at_us = number(rows, COMPLETED_AT),
            .version = number(rows, VERSION),
            .swept = truth(rows, SWEPT) && number(rows, LEFT_ROWS) == 0,
            .left = number(rows, LEFT_ROWS),
        };
    PQclear(rows);
    return status;
}

enum tally_status tally_erasure_scrub(PGconn *connection, int64_t user_id,
                                      struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    int64_t scrubbed = 1;
    /* Ends: a deleted user gets no further events or keys. */
    while (status == TALLY_OK && scrubbed > 0) {
        PGresult *rows = NULL;
        status = ask(connection, "select scrub_erased($1::bigint, $2::int)", 2, user_id, PIECE,
                     &rows, error);
        scrubbed = status == TALLY_OK ? number(rows, 0) : 0;
        PQclear(rows);
    }
    return status;
}

enum tally_status tally_erasure_scrub_letter(PGconn *connection, int64_t user_id, const char *topic,
                                             int32_t partition, int64_t offset,
                                             struct tally_error *error)
{
    char texts[3][NUMBER_BYTES];
    (void)snprintf(texts[0], NUMBER_BYTES, "%" PRId64, user_id);
    (void)snprintf(texts[1], NUMBER_BYTES, "%" PRId32, partition);
    (void)snprintf(texts[2], NUMBER_BYTES, "%" PRId64, offset);
    const char *const values[] = {texts[0], topic, texts[1], texts[2]};
    return tally_pg_exec(connection,
                         "select scrub_erased_letter($1::bigint, $2, $3::int, $4::bigint)", 4,
                         values, PGRES_TUPLES_OK, NULL, error);
}

enum tally_status tally_erasure_published(PGconn *connection, int64_t user_id, bool *published,
                                          struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status = ask(connection, published_sql, 1, user_id, 0, &rows, error);
    *published = status == TALLY_OK && truth(rows, 0);
    PQclear(rows);
    return status;
}

enum tally_status tally_erasure_note_published(PGconn *connection, int64_t user_id, int64_t log_end,
                                               struct tally_error *error)
{
    return ask(connection, note_published_sql, 2, user_id, log_end, NULL, error);
}

enum tally_status tally_erasure_note_profiles(PGconn *connection, int64_t user_id, int64_t removed,
                                              struct tally_error *error)
{
    return ask(connection, note_profiles_sql, 2, user_id, removed, NULL, error);
}

enum tally_status tally_erasure_note_files(PGconn *connection, int64_t user_id,
                                           struct tally_error *error)
{
    return ask(connection, note_files_sql, 1, user_id, 0, NULL, error);
}

enum tally_status tally_erasure_note_complete(PGconn *connection, int64_t user_id,
                                              struct tally_error *error)
{
    return ask(connection, note_complete_sql, 1, user_id, 0, NULL, error);
}

enum tally_status tally_erasure_horizon(PGconn *connection, int64_t *horizon,
                                        struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status =
        tally_pg_exec(connection, horizon_sql, 0, NULL, PGRES_TUPLES_OK, &rows, error);
    *horizon = status == TALLY_OK ? number(rows, 0) : 0;
    PQclear(rows);
    return status;
}

enum tally_status tally_erasure_holder(PGconn *connection, int64_t horizon,
                                       char who[TALLY_ERASURE_HOLDER_BYTES],
                                       struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status = ask(connection, holder_sql, 1, horizon, 0, &rows, error);
    who[0] = '\0';
    if (status == TALLY_OK && PQntuples(rows) == 1)
        (void)snprintf(who, TALLY_ERASURE_HOLDER_BYTES, "%s", PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return status;
}

static enum tally_status compose(PGconn *connection, int64_t user_id, bool whole,
                                 struct tally_buffer *sql, struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status = ask(connection, tables_sql, 1, user_id, 0, &rows, error);
    if (status != TALLY_OK)
        return status;
    /* Where few pages hold removed rows, PostgreSQL would leave their entries in the indexes, and
     * one of them holds the address. */
    tally_buffer_format(sql, "vacuum (%s, analyze) %s", whole ? "full" : "index_cleanup on",
                        fixed_tables);
    for (int i = 0; i < PQntuples(rows); i++)
        tally_buffer_format(sql, ", %s", PQgetvalue(rows, i, 0));
    PQclear(rows);
    (void)tally_buffer_text(sql);
    return sql->failed ? tally_fail(error, TALLY_NO_MEMORY, "the list of tables to vacuum")
                       : TALLY_OK;
}

enum tally_status tally_erasure_vacuum(PGconn *connection, int64_t user_id, bool whole,
                                       struct tally_error *error)
{
    struct tally_buffer sql;
    tally_buffer_init(&sql, SQL_BYTES);
    enum tally_status status = compose(connection, user_id, whole, &sql, error);
    if (status == TALLY_OK)
        /* Who waits for the lock that writing anew needs holds off all who come after. */
        status = tally_pg_exec(connection,
                               whole ? "set lock_timeout = '3s'" : "set lock_timeout = '10s'", 0,
                               NULL, PGRES_COMMAND_OK, NULL, error);
    if (status == TALLY_OK)
        status = tally_pg_exec(connection, tally_buffer_text(&sql), 0, NULL, PGRES_COMMAND_OK, NULL,
                               error);
    if (status == TALLY_OK)
        status =
            tally_pg_exec(connection, "reset lock_timeout", 0, NULL, PGRES_COMMAND_OK, NULL, error);
    tally_buffer_release(&sql);
    return status == TALLY_OK ? ask(connection, whole ? written_anew_sql : vacuumed_sql, 1, user_id,
                                    0, NULL, error)
                              : status;
}
