/*
 * Database: a fresh, migrated PostgreSQL database for one integration test.
 */
#ifndef TALLY_TESTS_DATABASE_H
#define TALLY_TESTS_DATABASE_H

#include <libpq-fe.h>

struct test_database {
    char name[64];
    char dsn[512];
    PGconn *connection; /* of the test itself: test_database_connect() */
};

/* Creates it on the server of $TALLY_PG_DSN and applies every migration; fails the test otherwise.
 */
void test_database_create(struct test_database *database);
/* Another connection of the test itself, to be ended by PQfinish(). Its commits are not waited for
 * on disk (synchronous_commit=off): what they write is visible all the same, and on a disk that
 * others use a test's own preparations would take longer than what it tests. */
PGconn *test_database_connect(const struct test_database *database);
/* Drops it, whoever is still connected. */
void test_database_drop(struct test_database *database);
/* Runs statements that must succeed. */
void test_database_run(PGconn *connection, const char *sql);
/* The first column of the first row as a number; fails the test where there is none. */
long long test_database_number(PGconn *connection, const char *sql);

#endif
