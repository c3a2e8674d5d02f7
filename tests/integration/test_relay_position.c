/* Reading what is new: nothing skipped whatever the order of commits, nothing out of a user's
 * order. */
#include "core/clock.h"
#include "leader.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct test_database database;

static void create_database(void)
{
    test_database_create(&database);
}

static void drop_database(void)
{
    test_database_drop(&database);
}

TestSuite(relay_position, .init = create_database, .fini = drop_database, .timeout = 300);

enum { PATIENCE_S = 120 };

static PGconn *connect_again(void)
{
    return test_database_connect(&database);
}

static void write_event(PGconn *connection, int64_t user_id, int64_t version)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "insert into events (user_id, version, type, data, timeline)"
                   " values (%" PRId64 ", %" PRId64 ", 'post.created', '{\"postId\":\"1\"}', 1)",
                   user_id, version);
    test_database_run(connection, sql);
}

static struct tally_relay_reader *open_leader(int64_t batch_events)
{
    return test_leader_open(&database, batch_events);
}

static struct tally_relay_batch read_next(struct tally_relay_reader *reader)
{
    struct tally_relay_batch batch;
    struct tally_error error = {0};
    cr_assert_eq(tally_relay_reader_next(reader, &batch, &error), TALLY_OK, "%s", error.text);
    return batch;
}

/* Reads one batch and compares its "user-version" pairs, saving the position where asked to. */
static void expect_batch(struct tally_relay_reader *reader, const char *expected, bool save)
{
    struct tally_relay_batch batch = read_next(reader);
    struct tally_error error = {0};
    char found[1024] = "";
    for (int i = 0; i < batch.count; i++) {
        struct tally_event event;
        const char *traceparent;
        cr_assert_eq(tally_relay_batch_event(&batch, i, &event, &traceparent, &error), TALLY_OK,
                     "%s", error.text);
        size_t length = strlen(found);
        (void)snprintf(found + length, sizeof found - length, "%s%" PRId64 "-%" PRId64,
                       i > 0 ? " " : "", event.user_id, event.version);
    }
    cr_assert_str_eq(found, expected);
    if (save)
        cr_assert_eq(tally_relay_reader_save(reader, &batch.after, &error), TALLY_OK, "%s",
                     error.text);
    tally_relay_batch_clear(&batch);
}

Test(relay_position, an_event_of_a_transaction_that_commits_late_is_not_skipped)
{
    PGconn *slow = connect_again();
    struct tally_relay_reader *reader = open_leader(100);
    expect_batch(reader, "", false);
    test_database_run(slow, "begin");
    write_event(slow, 1, 1);
    write_event(database.connection, 2, 1);
    expect_batch(reader, "2-1", true);
    write_event(database.connection, 2, 2);
    expect_batch(reader, "2-2", true);
    expect_batch(reader, "", false);
    test_database_run(slow, "commit");
    expect_batch(reader, "1-1", true);
    expect_batch(reader, "", false);
    PQfinish(slow);
    tally_relay_reader_close(&reader);
}

Test(relay_position, an_event_of_a_transaction_that_rolls_back_is_never_read)
{
    PGconn *slow = connect_again();
    struct tally_relay_reader *reader = open_leader(100);
    test_database_run(slow, "begin");
    write_event(slow, 1, 1);
    expect_batch(reader, "", false);
    test_database_run(slow, "rollback");
    write_event(database.connection, 2, 1);
    expect_batch(reader, "2-1", false);
    PQfinish(slow);
    tally_relay_reader_close(&reader);
}

Test(relay_position, what_was_read_and_not_saved_is_read_again_by_the_next_leader)
{
    struct tally_relay_reader *reader = open_leader(100);
    write_event(database.connection, 1, 1);
    expect_batch(reader, "1-1", true);
    write_event(database.connection, 1, 2);
    write_event(database.connection, 1, 3);
    expect_batch(reader, "1-2 1-3", false);
    tally_relay_reader_close(&reader);
    reader = open_leader(100);
    expect_batch(reader, "1-2 1-3", true);
    tally_relay_reader_close(&reader);
    reader = open_leader(100);
    expect_batch(reader, "", false);
    tally_relay_reader_close(&reader);
}

Test(relay_position, a_backlog_is_read_in_pieces_that_a_restart_does_not_repeat_once_saved)
{
    for (int version = 1; version <= 7; version++)
        write_event(database.connection, 1, version);
    PGconn *slow = connect_again();
    test_database_run(slow, "begin");
    write_event(slow, 2, 1);
    struct tally_relay_reader *reader = open_leader(3);
    expect_batch(reader, "1-1 1-2 1-3", true);
    /* Neither what comes now nor what commits now belongs to the backlog, nor may it be lost. */
    write_event(database.connection, 1, 8);
    test_database_run(slow, "commit");
    expect_batch(reader, "1-4 1-5 1-6", true);
    tally_relay_reader_close(&reader);
    reader = open_leader(3);
    expect_batch(reader, "1-7", true);
    expect_batch(reader, "2-1 1-8", true);
    expect_batch(reader, "", false);
    PQfinish(slow);
    tally_relay_reader_close(&reader);
}

Test(relay_position, only_one_reader_leads_and_the_one_it_replaced_cannot_save)
{
    struct tally_relay_reader *first = open_leader(100);
    struct tally_relay_reader *second = test_reader_open(&database, 100, TEST_LEADER_SILENCE_MS);
    struct tally_error error = {0};
    bool leading = true;
    bool started_over = false;
    cr_assert_eq(tally_relay_reader_lead(second, &leading, &started_over, &error), TALLY_OK);
    cr_assert_not(leading);
    write_event(database.connection, 1, 1);
    struct tally_relay_batch batch = read_next(first);
    /* The lock taken away behind its back, as a failover of the server does. */
    test_database_run(database.connection, "update relay_position set epoch = epoch + 1");
    cr_assert_eq(tally_relay_reader_save(first, &batch.after, &error), TALLY_FENCED);
    tally_relay_batch_clear(&batch);
    tally_relay_reader_close(&first);
    test_reader_lead(second);
    expect_batch(second, "1-1", true);
    tally_relay_reader_close(&second);
}

Test(relay_position, a_leader_that_falls_silent_loses_its_session)
{
    struct tally_relay_reader *silent = test_reader_open(&database, 100, TALLY_RELAY_SILENCE_MS);
    struct tally_relay_reader *standby = test_reader_open(&database, 100, TEST_LEADER_SILENCE_MS);
    struct tally_relay_orders orders;
    struct tally_error error = {0};
    test_reader_lead(silent);
    test_reader_lead(standby);
    cr_assert_neq(tally_relay_reader_attend(silent, &orders, &error), TALLY_OK);
    tally_relay_reader_close(&silent);
    tally_relay_reader_close(&standby);
}

Test(relay_position, on_another_database_everything_kept_is_published_again_once)
{
    struct tally_relay_reader *reader = open_leader(100);
    write_event(database.connection, 1, 1);
    expect_batch(reader, "1-1", true);
    tally_relay_reader_close(&reader);
    /* As after loading a dump elsewhere: another identity, and transaction numbers of the future.
     */
    test_database_run(database.connection, "update relay_position set system_identifier = 42;"
                                           "update events set xid = '9000000000'");
    reader = open_leader(100);
    struct tally_error error = {0};
    for (bool done = false; !done;)
        cr_assert_eq(tally_relay_reader_adopt(reader, &done, &error), TALLY_OK, "%s", error.text);
    expect_batch(reader, "1-1", true);
    expect_batch(reader, "", false);
    write_event(database.connection, 1, 2);
    expect_batch(reader, "1-2", true);
    tally_relay_reader_close(&reader);
}

enum { WRITERS = 16, TRANSACTIONS = 60, EVENTS = 4, USERS = 24 };

/* Transactions of several users' events that commit up to some milliseconds after taking numbers.
 */
static void *write_slowly(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    PGconn *connection = connect_again();
    for (int i = 0; i < TRANSACTIONS; i++) {
        test_database_run(connection, "begin");
        for (int k = 0; k < EVENTS; k++) {
            char sql[512];
            /* Ascending users, so that the writers do not deadlock. */
            (void)snprintf(
                sql, sizeof sql,
                "with bumped as (update counters set version = version + 1"
                " where id = %d returning id, version)"
                " insert into events (user_id, version, type, data, timeline)"
                " select id, version, 'post.created', '{\"postId\":\"1\"}', 1 from bumped",
                1 + k * (USERS / EVENTS) + rand_r(&seed) % (USERS / EVENTS));
            test_database_run(connection, sql);
        }
        usleep((useconds_t)(rand_r(&seed) % 5000));
        test_database_run(connection, i % 10 == 9 ? "rollback" : "commit");
    }
    PQfinish(connection);
    return NULL;
}

Test(relay_position,
     concurrent_transactions_that_commit_in_any_order_are_read_once_each_in_each_users_order)
{
    test_database_run(database.connection,
                      "create table counters (id bigint primary key, version bigint not null);"
                      "insert into counters select id, 0 from generate_series(1, 24) as id");
    struct tally_relay_reader *reader = open_leader(17);
    pthread_t threads[WRITERS];
    for (size_t i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, write_slowly, (void *)(uintptr_t)(i + 1));
    int64_t versions[USERS + 1] = {0};
    int64_t expected = (int64_t)WRITERS * TRANSACTIONS * EVENTS * 9 / 10;
    int64_t read_events = 0;
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_S * INT64_C(1000000);
    while (read_events < expected && tally_clock_monotonic_us() < give_up_us) {
        struct tally_relay_batch batch = read_next(reader);
        for (int i = 0; i < batch.count; i++) {
            struct tally_event event;
            struct tally_error error = {0};
            const char *traceparent;
            cr_assert_eq(tally_relay_batch_event(&batch, i, &event, &traceparent, &error),
                         TALLY_OK);
            cr_assert_eq(event.version, versions[event.user_id] + 1,
                         "user %" PRId64 ": %" PRId64 " after %" PRId64, event.user_id,
                         event.version, versions[event.user_id]);
            versions[event.user_id] = event.version;
            read_events++;
        }
        if (batch.count == 0)
            usleep(1000);
        tally_relay_batch_clear(&batch);
    }
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(read_events, expected);
    cr_assert_eq(test_database_number(database.connection, "select sum(version) from counters"),
                 expected);
    expect_batch(reader, "", false);
    tally_relay_reader_close(&reader);
}

/* Reads until there is nothing more; returns how many
 * events there were. The first is expected to be of user `first_user`. */
static int64_t read_backlog(struct tally_relay_reader *reader, int64_t first_user)
{
    int64_t events = 0;
    bool more = true;
    while (more) {
        struct tally_relay_batch batch = read_next(reader);
        more = batch.more;
        for (int i = 0; i < batch.count; i++) {
            struct tally_event event;
            struct tally_error error = {0};
            const char *traceparent;
            cr_assert_eq(tally_relay_batch_event(&batch, i, &event, &traceparent, &error),
                         TALLY_OK);
            if (events++ == 0)
                cr_assert_eq(event.user_id, first_user);
        }
        tally_relay_batch_clear(&batch);
    }
    return events;
}

Test(relay_position, a_backlog_of_many_slices_begins_with_its_lowest_sequence_number)
{
    test_database_run(database.connection, "select setval('event_sequence', 1000)");
    for (int i = 0; i < 5; i++)
        test_database_run(database.connection,
                          "insert into events (user_id, version, type, data, timeline)"
                          " select 1, n, 'post.created', '{\"postId\":\"1\"}', 1"
                          " from generate_series(1, 50000) as n");
    /* The last transaction took the first number. */
    test_database_run(database.connection,
                      "insert into events (seq, user_id, version, type, data, timeline)"
                      " values (500, 2, 1, 'post.created', '{\"postId\":\"1\"}', 1)");
    struct tally_relay_reader *reader = open_leader(10000);
    struct tally_relay_batch batch = read_next(reader);
    cr_assert(batch.more && batch.count == 0, "one slice was enough, so the test proves nothing");
    tally_relay_batch_clear(&batch);
    cr_assert_eq(read_backlog(reader, 2), 250001);
    expect_batch(reader, "", false);
    tally_relay_reader_close(&reader);
}

Test(relay_position, a_backlog_goes_on_behind_sequence_numbers_that_lead_nowhere)
{
    for (int version = 1; version <= 4; version++)
        write_event(database.connection, 1, version);
    test_database_run(database.connection, "select setval('event_sequence', 5000000000)");
    for (int version = 5; version <= 7; version++)
        write_event(database.connection, 1, version);
    struct tally_relay_reader *reader = open_leader(3);
    expect_batch(reader, "1-1 1-2 1-3", true);
    expect_batch(reader, "1-4", true);
    expect_batch(reader, "1-5 1-6 1-7", true);
    expect_batch(reader, "", true); /* and so ends the backlog */
    expect_batch(reader, "", false);
    write_event(database.connection, 1, 8);
    expect_batch(reader, "1-8", true);
    tally_relay_reader_close(&reader);
}

Test(relay_position, what_one_of_many_open_transactions_wrote_leads_a_backlog)
{
    PGconn *slow = connect_again();
    struct tally_relay_reader *reader = open_leader(3);
    test_database_run(slow, "begin");
    write_event(slow, 1, 1);
    write_event(database.connection, 2, 1);
    expect_batch(reader, "2-1", true);
    test_database_run(slow, "commit");
    for (int version = 2; version <= 5; version++)
        write_event(database.connection, 2, version);
    expect_batch(reader, "1-1 2-2 2-3", true);
    expect_batch(reader, "2-4 2-5", true);
    expect_batch(reader, "", false);
    PQfinish(slow);
    tally_relay_reader_close(&reader);
}

Test(relay_position, a_leader_that_stops_taking_rows_loses_its_session)
{
    PGconn *stuck = connect_again();
    char sql[128];
    (void)snprintf(sql, sizeof sql, "select pg_advisory_lock(%" PRId64 ")", TALLY_RELAY_LOCK_KEY);
    test_database_run(stuck, sql);
    /* More than the buffers of both ends hold. */
    cr_assert_eq(PQsendQuery(stuck, "select repeat('x', 1000) from generate_series(1, 1000000)"),
                 1);
    PQflush(stuck);
    struct tally_relay_reader *standby = test_reader_open(&database, 100, TALLY_RELAY_SILENCE_MS);
    struct tally_error error = {0};
    bool leading = false;
    bool started_over = false;
    for (int i = 0; i < 300 && !leading; i++) {
        cr_assert_eq(tally_relay_reader_lead(standby, &leading, &started_over, &error), TALLY_OK,
                     "%s", error.text);
        if (!leading)
            usleep(100000);
    }
    cr_assert(leading);
    PQfinish(stuck);
    tally_relay_reader_close(&standby);
}
