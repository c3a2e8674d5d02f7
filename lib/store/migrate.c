#include "store/migrate.h"

#include "core/clock.h"
#include "pg/blocking.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATEMENT_BYTES = 160, NUMBER_BYTES = 24 };

/* 'mig' in the upper half keeps it apart from the relay's key. */
#define MIGRATE_LOCK "7883887000000000001"

static const char create_table[] = "create table if not exists schema_migrations ("
                                   " version integer primary key check (version > 0),"
                                   " name text not null,"
                                   " checksum text not null check (checksum ~ '^[0-9a-f]{64}$'),"
                                   " applied_at timestamptz not null default clock_timestamp(),"
                                   " duration interval not null)";

static const char read_table[] =
    "select version, name, checksum, date_trunc('seconds', applied_at)::text,"
    " (extract(epoch from duration) * 1000)::bigint"
    " from schema_migrations order by version limit 10001";

static void copy_text(char *target, size_t size, const char *text)
{
    (void)snprintf(target, size, "%s", text);
}

static enum tally_status table_exists(PGconn *connection, bool *exists, struct tally_error *error)
{
    PGresult *result = NULL;
    enum tally_status status =
        tally_pg_exec(connection, "select to_regclass('schema_migrations') is not null", 0, NULL,
                      PGRES_TUPLES_OK, &result, error);
    if (status != TALLY_OK)
        return status;
    *exists = PQgetvalue(result, 0, 0)[0] == 't';
    PQclear(result);
    return TALLY_OK;
}

enum tally_status tally_migrations_read(PGconn *connection,
                                        struct tally_migration_applied **applied, size_t *count,
                                        struct tally_error *error)
{
    *applied = NULL;
    *count = 0;
    bool exists = false;
    enum tally_status status = table_exists(connection, &exists, error);
    if (status != TALLY_OK || !exists)
        return status;
    PGresult *result = NULL;
    status = tally_pg_exec(connection, read_table, 0, NULL, PGRES_TUPLES_OK, &result, error);
    if (status != TALLY_OK)
        return status;
    int rows = PQntuples(result);
    if (rows > TALLY_MIGRATIONS_MOST) {
        status = tally_fail(error, TALLY_CONFIG, "schema_migrations has more than %d rows",
                            TALLY_MIGRATIONS_MOST);
    } else if (rows > 0) {
        *applied = calloc((size_t)rows, sizeof **applied);
        if (*applied == NULL)
            status = tally_fail(error, TALLY_NO_MEMORY, "list of applied migrations");
    }
    for (int i = 0; *applied != NULL && i < rows; i++) {
        struct tally_migration_applied *row = &(*applied)[i];
        row->version = (int)strtol(PQgetvalue(result, i, 0), NULL, 10);
        copy_text(row->name, sizeof row->name, PQgetvalue(result, i, 1));
        copy_text(row->checksum, sizeof row->checksum, PQgetvalue(result, i, 2));
        copy_text(row->applied_at, sizeof row->applied_at, PQgetvalue(result, i, 3));
        row->duration_ms = strtoll(PQgetvalue(result, i, 4), NULL, 10);
        *count = (size_t)i + 1;
    }
    PQclear(result);
    return status;
}

static enum tally_status command(PGconn *connection, const char *sql, struct tally_error *error)
{
    return tally_pg_exec(connection, sql, 0, NULL, PGRES_COMMAND_OK, NULL, error);
}

/* `set` needs a value in its text; `wait_ms` 0 would mean to wait for ever. */
static enum tally_status set_lock_timeout(PGconn *connection, int wait_ms,
                                          struct tally_error *error)
{
    char sql[STATEMENT_BYTES];
    (void)snprintf(sql, sizeof sql, "set lock_timeout = %d", wait_ms < 1 ? 1 : wait_ms);
    return command(connection, sql, error);
}

static bool is_lock_timeout(const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    return sqlstate != NULL && strcmp(sqlstate, "55P03") == 0;
}

static enum tally_status take_lock(PGconn *connection, int wait_ms, struct tally_error *error)
{
    enum tally_status status = set_lock_timeout(connection, wait_ms, error);
    if (status != TALLY_OK)
        return status;
    PGresult *result = PQexec(connection, "select pg_advisory_lock(" MIGRATE_LOCK ")");
    if (is_lock_timeout(result))
        status = tally_fail(error, TALLY_OVERLOADED,
                            "another migrate has held the lock for %d ms: wait for it to end, or "
                            "look for its session in pg_stat_activity (application tallyctl)",
                            wait_ms);
    else if (PQresultStatus(result) != PGRES_TUPLES_OK)
        status = tally_fail(error, TALLY_UNAVAILABLE, "taking the lock of migrations: %s",
                            PQerrorMessage(connection));
    PQclear(result);
    return status;
}

/* Fills `error` from the failure of a migration's own SQL, with the place in the file. */
static enum tally_status fail_migration(const struct tally_migration *migration, PGconn *connection,
                                        const PGresult *result, struct tally_error *error)
{
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    char line[NUMBER_BYTES] = "";
    if (position != NULL)
        (void)snprintf(line, sizeof line, " line %d",
                       tally_migration_line(migration->sql, (int)strtol(position, NULL, 10)));
    if (is_lock_timeout(result))
        return tally_fail(error, TALLY_OVERLOADED,
                          "migration %04d_%s%s waited too long for a lock that a running "
                          "transaction holds (see pg_stat_activity); nothing of it was applied, "
                          "run migrate again",
                          migration->version, migration->name, line);
    return tally_fail(error, TALLY_INTERNAL, "migration %04d_%s%s: %s; nothing of it was applied",
                      migration->version, migration->name, line,
                      message != NULL ? message : PQerrorMessage(connection));
}

static enum tally_status record(PGconn *connection, const struct tally_migration *migration,
                                int64_t duration_us, struct tally_error *error)
{
    char version[NUMBER_BYTES], duration[NUMBER_BYTES];
    (void)snprintf(version, sizeof version, "%d", migration->version);
    (void)snprintf(duration, sizeof duration, "%" PRId64, duration_us);
    const char *const values[] = {version, migration->name, migration->checksum, duration};
    return tally_pg_exec(connection,
                         "insert into schema_migrations (version, name, checksum, duration)"
                         " values ($1, $2, $3, $4::bigint * interval '1 microsecond')",
                         4, values, PGRES_COMMAND_OK, NULL, error);
}

static enum tally_status run_in_transaction(PGconn *connection,
                                            const struct tally_migration *migration,
                                            struct tally_error *error)
{
    int64_t start_us = tally_clock_monotonic_us();
    PGresult *result = PQexec(connection, migration->sql);
    ExecStatusType kind = PQresultStatus(result);
    enum tally_status status = TALLY_OK;
    if (kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK && kind != PGRES_EMPTY_QUERY)
        status = fail_migration(migration, connection, result, error);
    else if (PQtransactionStatus(connection) != PQTRANS_INTRANS)
        status = tally_fail(error, TALLY_CONFIG,
                            "migration %04d_%s ends its transaction by itself: remove its COMMIT "
                            "or ROLLBACK",
                            migration->version, migration->name);
    PQclear(result);
    if (status == TALLY_OK)
        status = record(connection, migration, tally_clock_monotonic_us() - start_us, error);
    if (status == TALLY_OK)
        status = command(connection, "commit", error);
    return status;
}

static enum tally_status apply(PGconn *connection, const struct tally_migration *migration,
                               const struct tally_migrate_options *options,
                               struct tally_error *error)
{
    int64_t start_us = tally_clock_monotonic_us();
    enum tally_status status = command(connection, "begin", error);
    if (status == TALLY_OK)
        status = run_in_transaction(connection, migration, error);
    if (status != TALLY_OK) {
        (void)command(connection, "rollback", NULL) /* the first error is the one to tell */;
        return status;
    }
    if (options->on_applied != NULL)
        options->on_applied(options->context, migration,
                            (tally_clock_monotonic_us() - start_us) / 1000);
    return TALLY_OK;
}

static enum tally_status apply_pending(PGconn *connection, const struct tally_migration_set *set,
                                       const struct tally_migrate_options *options, size_t *applied,
                                       struct tally_error *error)
{
    /* A NOTICE that the table exists already would tell the operator nothing. */
    enum tally_status status = command(connection, "set client_min_messages = warning", error);
    if (status == TALLY_OK)
        status = command(connection, create_table, error);
    struct tally_migration_applied *rows = NULL;
    size_t count = 0, done = 0;
    if (status == TALLY_OK)
        status = tally_migrations_read(connection, &rows, &count, error);
    if (status == TALLY_OK)
        status = tally_migrations_compare(set, rows, count, &done, error);
    free(rows);
    for (size_t i = done; status == TALLY_OK && i < set->count; i++) {
        status = apply(connection, &set->list[i], options, error);
        *applied += status == TALLY_OK;
    }
    return status;
}

enum tally_status tally_migrate(PGconn *connection, const struct tally_migration_set *set,
                                const struct tally_migrate_options *options, size_t *applied,
                                struct tally_error *error)
{
    *applied = 0;
    enum tally_status status = take_lock(connection, options->wait_ms, error);
    if (status != TALLY_OK)
        return status;
    status = apply_pending(connection, set, options, applied, error);
    /* A lost connection has lost the lock with it. */
    PQclear(PQexec(connection, "select pg_advisory_unlock(" MIGRATE_LOCK ")"));
    PQclear(PQexec(connection, "reset lock_timeout"));
    PQclear(PQexec(connection, "reset client_min_messages"));
    return status;
}
