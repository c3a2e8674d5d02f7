/* Relay control: a refill sends again what it says, and fences the relay that runs; a pause is
 * told. */
#include "leader.h"
#include "store/relay_control.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct test_database database;
static struct tally_relay_reader *reader;
static struct tally_error failure;

static void lead(void)
{
    reader = test_leader_open(&database, 3);
}

static void create_world(void)
{
    test_database_create(&database);
    lead();
}

static void destroy_world(void)
{
    tally_relay_reader_close(&reader);
    test_database_drop(&database);
}

TestSuite(relay_control, .init = create_world, .fini = destroy_world, .timeout = 300);

static void lead_again(void)
{
    tally_relay_reader_close(&reader);
    lead();
}

/* Versions `first` to `last` of user 1, `age` old. */
static void write_events(int first, int last, const char *age)
{
    char sql[512];
    (void)snprintf(
        sql, sizeof sql,
        "select create_event_partition((now() at time zone 'UTC' - interval '%s')::date);"
        "insert into events (user_id, version, type, at, timeline)"
        " select 1, n, 'post.created', now() - interval '%s', 1"
        " from generate_series(%d, %d) as n order by n",
        age, age, first, last);
    test_database_run(database.connection, sql);
}

/* Publishes all there is; writes the versions in their order into `seen`, "1 2 3 ". */
static void drain(char *seen, size_t bytes)
{
    size_t length = 0;
    seen[0] = '\0';
    for (bool more = true; more;) {
        struct tally_relay_batch batch;
        cr_assert_eq(tally_relay_reader_next(reader, &batch, &failure), TALLY_OK, "%s",
                     failure.text);
        for (int i = 0; i < batch.count; i++) {
            struct tally_event event;
            const char *traceparent;
            cr_assert_eq(tally_relay_batch_event(&batch, i, &event, &traceparent, &failure),
                         TALLY_OK);
            length +=
                (size_t)snprintf(seen + length, bytes - length, "%lld ", (long long)event.version);
        }
        more = batch.more || batch.count > 0;
        cr_assert_eq(tally_relay_reader_save(reader, &batch.after, &failure), TALLY_OK, "%s",
                     failure.text);
        tally_relay_batch_clear(&batch);
    }
}

static void expect_drained(const char *versions)
{
    char seen[256];
    drain(seen, sizeof seen);
    cr_assert_str_eq(seen, versions);
}

Test(relay_control, a_refill_of_all_publishes_everything_kept_once_more_in_order)
{
    struct tally_relay_refill plan, refill;
    write_events(1, 7, "0 hours");
    expect_drained("1 2 3 4 5 6 7 ");
    cr_assert_eq(tally_relay_refill_plan(database.connection, 0, &plan, &failure), TALLY_OK, "%s",
                 failure.text);
    cr_assert_eq(plan.events, 7);
    cr_assert_eq(tally_relay_refill(database.connection, 0, &refill, &failure), TALLY_OK, "%s",
                 failure.text);
    cr_assert_eq(refill.events, 7);
    lead_again();
    write_events(8, 8, "0 hours");
    expect_drained("1 2 3 4 5 6 7 8 ");
    expect_drained("");
}

Test(relay_control, a_relay_that_runs_meanwhile_can_neither_save_nor_go_on)
{
    struct tally_relay_refill refill;
    struct tally_relay_orders orders;
    struct tally_relay_batch batch;
    write_events(1, 2, "0 hours");
    cr_assert_eq(tally_relay_reader_attend(reader, &orders, &failure), TALLY_OK);
    cr_assert_eq(tally_relay_reader_next(reader, &batch, &failure), TALLY_OK);
    cr_assert_eq(batch.count, 2);
    cr_assert_eq(tally_relay_refill(database.connection, 0, &refill, &failure), TALLY_OK);
    cr_assert_eq(tally_relay_reader_save(reader, &batch.after, &failure), TALLY_FENCED);
    cr_assert_eq(tally_relay_reader_attend(reader, &orders, &failure), TALLY_FENCED);
    tally_relay_batch_clear(&batch);
    lead_again();
    expect_drained("1 2 ");
}

Test(relay_control, a_refill_of_some_hours_begins_there_but_never_after_what_is_not_published)
{
    struct tally_relay_refill refill;
    write_events(1, 3, "30 hours");
    write_events(4, 6, "1 hours");
    expect_drained("1 2 3 4 5 6 ");
    cr_assert_eq(tally_relay_refill(database.connection, 2, &refill, &failure), TALLY_OK, "%s",
                 failure.text);
    cr_assert_eq(refill.events, 3);
    lead_again();
    expect_drained("4 5 6 ");
    /* Old, and not published yet. */
    write_events(7, 7, "30 hours");
    cr_assert_eq(tally_relay_refill(database.connection, 2, &refill, &failure), TALLY_OK);
    lead_again();
    expect_drained("4 5 6 7 ");
    test_database_run(database.connection, "select create_event_partition(current_date - 1)");
    test_database_run(database.connection, "update events set at = at - interval '10 hours'"
                                           " where version < 7 and version > 3");
    cr_assert_eq(tally_relay_refill(database.connection, 2, &refill, &failure), TALLY_OK);
    cr_assert_eq(refill.events, 0, "nothing is that young");
    expect_drained("");
}

Test(relay_control, a_refill_finds_an_event_that_is_committed_late)
{
    struct tally_relay_refill refill;
    PGconn *late = test_database_connect(&database);
    write_events(1, 1, "0 hours");
    test_database_run(late, "begin; insert into events (user_id, version, type, timeline)"
                            " values (2, 9, 'post.created', 1)");
    write_events(2, 2, "0 hours");
    cr_assert_eq(tally_relay_refill(database.connection, 0, &refill, &failure), TALLY_OK);
    lead_again();
    expect_drained("1 2 ");
    test_database_run(late, "commit");
    PQfinish(late);
    expect_drained("9 ");
}

Test(relay_control, a_pause_is_told_to_the_leader_with_its_reason_until_it_is_ended)
{
    struct tally_relay_orders orders;
    struct tally_relay_view view;
    cr_assert_eq(tally_relay_pause(database.connection, "Kafka moves", &failure), TALLY_OK);
    cr_assert_eq(tally_relay_reader_attend(reader, &orders, &failure), TALLY_OK);
    cr_assert(orders.paused);
    cr_assert_str_eq(orders.reason, "Kafka moves");
    cr_assert_eq(strlen(orders.since), 20);
    cr_assert_eq(tally_relay_view_read(database.connection, &view, &failure), TALLY_OK);
    cr_assert(view.orders.paused);
    cr_assert_neq(view.leader_pid, 0);
    cr_assert_eq(tally_relay_resume(database.connection, &failure), TALLY_OK);
    cr_assert_eq(tally_relay_reader_attend(reader, &orders, &failure), TALLY_OK);
    cr_assert_not(orders.paused);
    cr_assert_str_eq(orders.since, "");
}
