#include "store_fixture.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct test_database database;
static struct writer writer;

static void start(void)
{
    test_database_create(&database);
    writer_open(&writer, database.dsn, 2, 10000);
}

static void stop(void)
{
    writer_close(&writer);
    test_database_drop(&database);
}

TestSuite(batcher, .init = start, .fini = stop, .timeout = 300);

static long long number(const char *format, ...)
{
    char sql[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(sql, sizeof sql, format, arguments);
    va_end(arguments);
    return test_database_number(database.connection, sql);
}

static struct tally_command keyed(struct tally_command command, const char *key, char hash)
{
    command.caller = "anonymous";
    command.idempotency_key = key;
    memset(command.request_hash, hash, sizeof command.request_hash);
    return command;
}

static void *keep_locked(void *context)
{
    PGconn *connection = context;
    test_database_run(connection, "select pg_sleep(0.2)");
    test_database_run(connection, "rollback");
    return NULL;
}

Test(batcher, a_batch_that_meets_an_sql_error_is_run_command_by_command)
{
    struct job jobs[3] = {0};
    int64_t ada = make_user(&writer, "ada@example.org");
    jobs[0].command = create_post(ada);
    jobs[1].command = create_post(ada);
    jobs[1].command.body = ""; /* what the service would not let through; the table has a check */
    jobs[2].command = create_post(ada);
    for (int i = 0; i < 3; i++)
        writer_submit(&writer, &jobs[i]);
    writer_wait(&writer);
    cr_assert_eq(writer.replayed, 1);
    cr_assert_eq(jobs[0].outcome.status, TALLY_OK);
    cr_assert_eq(jobs[1].outcome.status, TALLY_INTERNAL);
    cr_assert_eq(jobs[2].outcome.status, TALLY_OK);
    cr_assert_eq(number("select count(*) from posts"), 2);
    expect_sound(database.connection);
}

Test(batcher, a_batch_waits_for_a_lock_and_gives_up_in_time_without_having_done_anything)
{
    struct writer hasty;
    int64_t ada = make_user(&writer, "ada@example.org");
    test_database_run(database.connection, "begin");
    test_database_run(database.connection, "select from users for update");
    writer_open(&hasty, database.dsn, 1, 2000);
    struct tally_command_outcome outcome = writer_run(&hasty, create_post(ada));
    cr_assert_eq(outcome.status, TALLY_UNAVAILABLE, "%s", tally_status_slug(outcome.status));
    writer_close(&hasty);

    pthread_t unlocker;
    pthread_create(&unlocker, NULL, keep_locked, database.connection);
    outcome = writer_run(&writer, create_post(ada));
    pthread_join(unlocker, NULL);
    cr_assert_eq(outcome.status, TALLY_OK);
    cr_assert_eq(outcome.version, 2, "the one that gave up left nothing");
}

static bool batch_waits(void *context)
{
    (void)context;
    return number("select count(*) from pg_stat_activity where application_name = 'tally-command'"
                  " and datname = current_database() and wait_event_type = 'Lock'") > 0;
}

Test(batcher, a_session_lost_in_flight_makes_the_outcome_unknown_and_the_key_can_be_repeated)
{
    struct test_database locker = database;
    struct job job = {0};
    int64_t ada = make_user(&writer, "ada@example.org");
    locker.connection = PQconnectdb(database.dsn);
    test_database_run(locker.connection, "begin");
    test_database_run(locker.connection, "select from users for update");
    job.command = keyed(create_post(ada), "k", 'a');
    writer_submit(&writer, &job);
    writer_until(&writer, batch_waits, NULL);
    test_database_run(database.connection,
                      "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type"
                      " = 'Lock' and datname = current_database()");
    writer_wait(&writer);
    cr_assert_eq(job.outcome.status, TALLY_OUTCOME_UNKNOWN, "%s",
                 tally_status_slug(job.outcome.status));
    test_database_run(locker.connection, "rollback");
    PQfinish(locker.connection);
    struct tally_command_outcome outcome = writer_run(&writer, job.command);
    cr_assert_eq(outcome.status, TALLY_OK);
    cr_assert_eq(number("select count(*) from posts"), 1);
}

static bool breaker_open(void *context)
{
    return tally_breaker_refuses(tally_batcher_breaker(((struct writer *)context)->batcher));
}

static bool connected(void *context)
{
    return tally_batcher_connections_up(((struct writer *)context)->batcher) == 2;
}

Test(batcher, the_breaker_opens_when_no_connection_comes_up_and_closes_when_one_does)
{
    int64_t ada = make_user(&writer, "ada@example.org");
    PGconn *administrator = PQconnectdb(getenv("TALLY_PG_DSN"));
    char sql[256];
    PQfinish(database.connection);
    (void)snprintf(sql, sizeof sql, "alter database %s allow_connections false", database.name);
    test_database_run(administrator, sql);
    (void)snprintf(sql, sizeof sql,
                   "select pg_terminate_backend(pid) from pg_stat_activity where datname = '%s'",
                   database.name);
    test_database_run(administrator, sql);
    writer_until(&writer, breaker_open, &writer);
    struct job job = {.command = create_post(ada)};
    writer_submit(&writer, &job);
    cr_assert_eq(job.outcome.status, TALLY_UNAVAILABLE, "refused at once");
    cr_assert_eq(writer.pending, 0);
    (void)snprintf(sql, sizeof sql, "alter database %s allow_connections true", database.name);
    test_database_run(administrator, sql);
    writer_until(&writer, connected, &writer);
    cr_assert_eq(writer_run(&writer, create_post(ada)).status, TALLY_OK);
    PQfinish(administrator);
    database.connection = PQconnectdb(database.dsn);
}

static bool batch_waits_long(void *context)
{
    (void)context;
    return number("select count(*) from pg_stat_activity where application_name = 'tally-command'"
                  " and datname = current_database() and wait_event_type = 'Lock'"
                  " and now() - query_start > interval '1.5 s'") > 0;
}

Test(batcher, a_batch_that_waits_for_a_lock_does_not_open_the_breaker)
{
    struct test_database locker = database;
    struct job job = {0};
    struct writer patient; /* a lock may take a tenth of its time */
    char sql[128];
    int64_t ada = make_user(&writer, "ada@example.org");
    int64_t eve = make_user(&writer, "eve@example.org");
    writer_open(&patient, database.dsn, 2, 60000);
    locker.connection = PQconnectdb(database.dsn);
    test_database_run(locker.connection, "begin");
    (void)snprintf(sql, sizeof sql, "select from users where id = %lld for update", (long long)ada);
    test_database_run(locker.connection, sql);
    job.command = create_post(ada);
    writer_submit(&patient, &job);
    writer_until(&patient, batch_waits_long, NULL);
    cr_assert_eq(tally_batcher_breaker(patient.batcher)->opened, 0);
    struct job other = {.command = create_post(eve)};
    writer_submit(&patient, &other);
    test_database_run(locker.connection, "rollback");
    PQfinish(locker.connection);
    writer_wait(&patient);
    cr_assert_eq(job.outcome.status, TALLY_OK);
    cr_assert_eq(other.outcome.status, TALLY_OK);
    writer_close(&patient);
}

Test(batcher, a_server_that_says_nothing_opens_the_breaker_and_what_waits_is_refused)
{
    /* The kernel accepts for it. */
    int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    cr_assert_eq(bind(silent, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(silent, 16), 0);
    cr_assert_eq(getsockname(silent, (struct sockaddr *)&address, &length), 0);
    char dsn[128];
    (void)snprintf(dsn, sizeof dsn, "hostaddr=127.0.0.1 port=%d user=nobody dbname=none",
                   ntohs(address.sin_port));
    struct writer deaf;
    struct job job = {.command = create_post(1)};
    writer_start(&deaf, dsn, 2, 10000);
    writer_submit(&deaf, &job);
    cr_assert_eq(deaf.pending, 1, "it waits for a connection");
    writer_until(&deaf, breaker_open, &deaf);
    cr_assert_eq(deaf.pending, 0);
    cr_assert_eq(job.outcome.status, TALLY_UNAVAILABLE);
    cr_assert_not_null(
        strstr(tally_batcher_breaker(deaf.batcher)->cause.text, "nothing was heard"));
    writer_close(&deaf);
    close(silent);
}

static bool was_set(void *context)
{
    return *(bool *)context;
}

static void set(void *context)
{
    *(bool *)context = true;
}

Test(batcher, a_drain_answers_what_was_taken_and_takes_no_more)
{
    struct job jobs[50] = {0};
    struct job late = {0};
    bool drained = false;
    int64_t ada = make_user(&writer, "ada@example.org");
    for (int i = 0; i < 50; i++) {
        jobs[i].command = create_post(ada);
        writer_submit(&writer, &jobs[i]);
    }
    tally_batcher_drain(writer.batcher, set, &drained);
    late.command = create_post(ada);
    writer_submit(&writer, &late);
    cr_assert_eq(late.outcome.status, TALLY_STOPPING);
    writer_until(&writer, was_set, &drained);
    cr_assert_eq(writer.pending, 0);
    for (int i = 0; i < 50; i++)
        cr_expect_eq(jobs[i].outcome.status, TALLY_OK);
    cr_assert_gt(writer.committed, 0);
}

Test(batcher, a_row_that_somebody_keeps_locked_fails_its_command_and_no_neighbour)
{
    struct writer single;
    struct job jobs[12] = {0};
    int64_t ada = make_user(&writer, "ada@example.org");
    int64_t ben = make_user(&writer, "ben@example.org");
    char sql[128];
    (void)snprintf(sql, sizeof sql, "select from users where id = %lld for update", (long long)ada);
    test_database_run(database.connection, "begin");
    test_database_run(database.connection, sql);
    writer_open(&single, database.dsn, 1, 5000);
    for (int i = 0; i < 12; i++) {
        jobs[i].command = create_post(i == 0 || i == 5 ? ada : ben);
        writer_submit(&single, &jobs[i]);
    }
    writer_wait(&single);
    test_database_run(database.connection, "rollback");
    cr_assert_eq(single.replayed, 1, "the commands did not share a batch");
    for (int i = 0; i < 12; i++)
        cr_expect_eq(jobs[i].outcome.status, i == 0 || i == 5 ? TALLY_UNAVAILABLE : TALLY_OK,
                     "command %d: %s", i, tally_status_slug(jobs[i].outcome.status));
    writer_close(&single);
    cr_assert_eq(number("select count(*) from posts"), 10);
    expect_sound(database.connection);
}
