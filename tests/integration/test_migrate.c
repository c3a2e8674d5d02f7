/* Migrations on a real PostgreSQL: once each, whole or not at all, and never out of order. */
#include "database.h"
#include "pg/blocking.h"
#include "store/migrate.h"
#include "store/migrate_hint.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define SUM_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SUM_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define SUM_C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

static const struct tally_migration list[] = {
    {1, "first", "create table first (n int); insert into first values (1)", SUM_A},
    {2, "second", "select pg_sleep(0.3); create table second (n int)", SUM_B},
};
static const struct tally_migration_set both = {list, 2}, only_first = {list, 1};
static struct test_database database;

static void open_empty(void)
{
    test_database_create(&database);
    test_database_run(database.connection,
                      "set client_min_messages = warning; drop schema public cascade;"
                      "create schema public; reset client_min_messages");
}

static void close_all(void)
{
    test_database_drop(&database);
}

TestSuite(migrate, .init = open_empty, .fini = close_all, .timeout = 300);

static enum tally_status migrate_by(PGconn *connection, const struct tally_migration_set *set,
                                    int wait_ms, size_t *applied, struct tally_error *error)
{
    const struct tally_migrate_options options = {.wait_ms = wait_ms};
    return tally_migrate(connection, set, &options, applied, error);
}

static size_t migrate(const struct tally_migration_set *set)
{
    struct tally_error error = {0};
    size_t applied = 0;
    cr_assert_eq(migrate_by(database.connection, set, 30000, &applied, &error), TALLY_OK, "%s",
                 error.text);
    return applied;
}

static void expect_failure(const struct tally_migration_set *set, enum tally_status status,
                           const char *says)
{
    struct tally_error error = {0};
    size_t applied = 0;
    cr_expect_eq(migrate_by(database.connection, set, 500, &applied, &error), status);
    cr_expect_not_null(strstr(error.text, says), "\"%s\" does not say \"%s\"", error.text, says);
}

Test(migrate, what_is_missing_is_applied_and_then_there_is_nothing_to_do)
{
    cr_assert_eq(migrate(&only_first), 1);
    cr_assert_eq(migrate(&both), 1);
    cr_assert_eq(migrate(&both), 0);
    cr_assert_eq(test_database_number(database.connection, TALLY_SCHEMA_VERSION_SQL), 2);
    cr_assert_eq(test_database_number(database.connection, "select count(*) from first"), 1);
}

Test(migrate, the_version_of_an_empty_database_is_undefined_table)
{
    PGresult *result = PQexec(database.connection, TALLY_SCHEMA_VERSION_SQL);
    cr_assert_str_eq(PQresultErrorField(result, PG_DIAG_SQLSTATE), "42P01");
    PQclear(result);
}

struct racer {
    size_t applied;
    enum tally_status status;
    struct tally_error error;
};

static void *race(void *context)
{
    struct racer *racer = context;
    PGconn *connection = NULL;
    racer->status = tally_pg_connect(database.dsn, "racer", &connection, &racer->error);
    if (racer->status == TALLY_OK)
        racer->status = migrate_by(connection, &both, 30000, &racer->applied, &racer->error);
    PQfinish(connection);
    return NULL;
}

Test(migrate, two_at_once_apply_each_migration_once)
{
    struct racer racers[2] = {0};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        cr_expect_eq(racers[i].status, TALLY_OK, "%s", racers[i].error.text);
    }
    cr_assert_eq(racers[0].applied + racers[1].applied, 2);
    cr_assert_eq(test_database_number(database.connection, "select count(*) from first"), 1);
}

Test(migrate, a_second_one_gives_up_after_its_wait)
{
    PGconn *other = PQconnectdb(database.dsn);
    migrate(&only_first);
    const char *lock = "select pg_advisory_lock(7883887000000000001)";
    test_database_run(other, lock);
    expect_failure(&both, TALLY_OVERLOADED, "another migrate");
    PQfinish(other);
}

Test(migrate, a_failing_migration_leaves_nothing_behind_and_names_its_line)
{
    const struct tally_migration wrong[] = {
        list[0], {2, "wrong", "create table half (n int);\nselect nonsense;", SUM_C}};
    const struct tally_migration_set wrong_set = {wrong, 2};
    expect_failure(&wrong_set, TALLY_INTERNAL, "0002_wrong line 2");
    cr_assert_eq(test_database_number(database.connection, TALLY_SCHEMA_VERSION_SQL), 1);
    cr_assert_eq(
        test_database_number(database.connection, "select count(to_regclass('half'))::int"), 0);
    cr_assert_eq(migrate(&both), 1, "the corrected migration can be applied");
}

Test(migrate, a_migration_that_commits_by_itself_is_refused)
{
    const struct tally_migration commits[] = {{1, "commits", "select 1; commit", SUM_A}};
    const struct tally_migration_set commits_set = {commits, 1};
    expect_failure(&commits_set, TALLY_CONFIG, "ends its transaction");
}

Test(migrate, a_changed_checksum_is_refused)
{
    migrate(&both);
    const struct tally_migration changed[] = {list[0], {2, "second", "select 2", SUM_C}};
    const struct tally_migration_set changed_set = {changed, 2};
    expect_failure(&changed_set, TALLY_CONFIG, "another text");
}

Test(migrate, a_database_newer_than_the_build_is_refused)
{
    migrate(&both);
    expect_failure(&only_first, TALLY_CONFIG, "newer release");
}

Test(migrate, a_lost_row_in_the_middle_is_refused)
{
    migrate(&both);
    test_database_run(database.connection, "delete from schema_migrations where version = 1");
    expect_failure(&both, TALLY_CONFIG, "no row for version 1");
}

Test(migrate, a_missing_database_is_named_with_the_command_that_makes_it)
{
    char hint[256], dsn[600];
    cr_assert_not(tally_migrate_hint(database.dsn, hint, sizeof hint));
    (void)snprintf(dsn, sizeof dsn, "%s dbname='tally_absent'", database.dsn);
    cr_assert(tally_migrate_hint(dsn, hint, sizeof hint));
    cr_assert_not_null(strstr(hint, "createdb"), "%s", hint);
    cr_assert_not_null(strstr(hint, "tally_absent"), "%s", hint);
}
