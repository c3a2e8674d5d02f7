#include "database.h"

#include "store/migrate.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_MS = 120000, PAUSE_MS = 50 };

/* $TALLY_PG_DSN with another database name, as conninfo text. */
static void dsn_of(const char *name, char *dsn, size_t bytes)
{
    const char *base = getenv("TALLY_PG_DSN");
    cr_assert_not_null(base, "TALLY_PG_DSN is not set: run ./tests/run integration");
    char *failure = NULL;
    PQconninfoOption *options = PQconninfoParse(base, &failure);
    cr_assert_not_null(options, "TALLY_PG_DSN: %s", failure);
    size_t length = 0;
    for (const PQconninfoOption *option = options; option->keyword != NULL; option++) {
        const char *value = strcmp(option->keyword, "dbname") == 0 ? name : option->val;
        if (value != NULL && value[0] != '\0')
            length +=
                (size_t)snprintf(dsn + length, bytes - length, "%s='%s' ", option->keyword, value);
        cr_assert_lt(length, bytes);
    }
    PQconninfoFree(options);
}

void test_database_run(PGconn *connection, const char *sql)
{
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    cr_assert(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK, "%s: %s", sql,
              PQerrorMessage(connection));
    PQclear(result);
}

long long test_database_number(PGconn *connection, const char *sql)
{
    PGresult *result = PQexec(connection, sql);
    cr_assert_eq(PQresultStatus(result), PGRES_TUPLES_OK, "%s: %s", sql,
                 PQerrorMessage(connection));
    cr_assert_eq(PQntuples(result) > 0 && !PQgetisnull(result, 0, 0), 1, "%s: no row", sql);
    long long number = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    return number;
}

PGconn *test_database_connect(const struct test_database *database)
{
    PGconn *connection = PQconnectdb(database->dsn);
    cr_assert_eq(PQstatus(connection), CONNECTION_OK, "%s", PQerrorMessage(connection));
    test_database_run(connection, "set synchronous_commit = off");
    return connection;
}

/* Runs `sql` in the database of $TALLY_PG_DSN, again where it fails: FORCE cannot end an autovacuum
 * worker that happens to be at work, which ends by itself. */
static void administer(const char *sql)
{
    const char *base = getenv("TALLY_PG_DSN");
    cr_assert_not_null(base, "TALLY_PG_DSN is not set: run ./tests/run integration");
    PGconn *connection = PQconnectdb(base);
    cr_assert_eq(PQstatus(connection), CONNECTION_OK, "%s", PQerrorMessage(connection));
    bool done = false;
    for (int attempt = 0; attempt < PATIENCE_MS / PAUSE_MS && !done; attempt++) {
        PGresult *result = PQexec(connection, sql);
        done = PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
        if (!done)
            usleep(PAUSE_MS * 1000);
    }
    cr_assert(done, "%s: %s", sql, PQerrorMessage(connection));
    PQfinish(connection);
}

void test_database_create(struct test_database *database)
{
    char sql[256];
    (void)snprintf(database->name, sizeof database->name, "tally_test_%d_%u", (int)getpid(),
                   (unsigned)rand() % 1000000U);
    (void)snprintf(sql, sizeof sql, "create database %s", database->name);
    administer(sql);
    dsn_of(database->name, database->dsn, sizeof database->dsn);
    database->connection = test_database_connect(database);
    struct tally_error error = {0};
    const struct tally_migrate_options options = {.wait_ms = PATIENCE_MS};
    size_t applied = 0;
    cr_assert_eq(
        tally_migrate(database->connection, tally_migrations(), &options, &applied, &error),
        TALLY_OK, "%s", error.text);
}

void test_database_drop(struct test_database *database)
{
    char sql[256];
    PQfinish(database->connection);
    database->connection = NULL;
    (void)snprintf(sql, sizeof sql, "drop database if exists %s with (force)", database->name);
    administer(sql);
}
