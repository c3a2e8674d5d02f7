/* History: all events of one user and no others, with what the relay has published of them. */
#include "leader.h"
#include "store/history.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct test_database database;

static void create_world(void)
{
    test_database_create(&database);
}

static void destroy_world(void)
{
    test_database_drop(&database);
}

TestSuite(history, .init = create_world, .fini = destroy_world, .timeout = 300);

/* Versions `first` to `last` of a user: created, then posts and comments in turn. */
static void write_events(int64_t user, int64_t first, int64_t last)
{
    char sql[512];
    (void)snprintf(sql, sizeof sql,
                   "insert into events (user_id, version, type, data, timeline)"
                   " select %lld, n, case when n = 1 then 'user.created' when n %% 2 = 0"
                   " then 'post.created' else 'comment.created' end, '{}', 1"
                   " from generate_series(%lld, %lld) as n order by n",
                   (long long)user, (long long)first, (long long)last);
    test_database_run(database.connection, sql);
}

static struct tally_history read_history(int64_t user, int64_t version, size_t most)
{
    struct tally_history history;
    struct tally_error error = {0};
    cr_assert_eq(tally_history_read(database.connection, user, version, most, &history, &error),
                 TALLY_OK, "%s", error.text);
    return history;
}

/* A relay that publishes `batches` batches of two events into nowhere. */
static void relay_batches(int batches)
{
    struct tally_relay_reader *reader = test_leader_open(&database, 2);
    struct tally_error error = {0};
    for (int i = 0; i < batches; i++) {
        struct tally_relay_batch batch;
        cr_assert_eq(tally_relay_reader_next(reader, &batch, &error), TALLY_OK, "%s", error.text);
        cr_assert_eq(tally_relay_reader_save(reader, &batch.after, &error), TALLY_OK);
        tally_relay_batch_clear(&batch);
    }
    tally_relay_reader_close(&reader);
}

Test(history, holds_the_sums_up_to_a_version_and_the_newest_events)
{
    write_events(1, 1, 5);
    write_events(2, 1, 3);
    struct tally_history history = read_history(1, 3, 2);
    cr_assert_not(history.found, "there is no row in users");
    cr_assert_eq(history.kept, 5);
    cr_assert_eq(history.distinct, 5);
    cr_assert_eq(history.first_version, 1);
    cr_assert_eq(history.last_version, 5);
    cr_assert_eq(history.posts_kept, 2);
    cr_assert_eq(history.comments_kept, 2);
    cr_assert_eq(history.posts_through, 1);
    cr_assert_eq(history.comments_through, 1);
    cr_assert_eq(history.event_count, 2);
    cr_assert_eq(history.events[0].version, 4);
    cr_assert_eq(history.events[1].version, 5);
    cr_assert_eq(history.events[1].type, TALLY_EVENT_COMMENT_CREATED);
    tally_history_release(&history);
}

Test(history, tells_published_events_from_waiting_ones_also_in_the_middle_of_a_backlog)
{
    write_events(1, 1, 5);
    struct tally_history history = read_history(1, 5, 10);
    cr_assert_eq(history.first_waiting, 1, "a relay that never ran has published nothing");
    tally_history_release(&history);

    relay_batches(1);
    history = read_history(1, 5, 10);
    cr_assert_eq(history.first_waiting, 3, "the backlog was read up to version 2");
    cr_assert(history.events[1].published);
    cr_assert_not(history.events[2].published);
    tally_history_release(&history);

    relay_batches(2);
    history = read_history(1, 5, 10);
    cr_assert_eq(history.first_waiting, 0);
    tally_history_release(&history);

    write_events(1, 6, 6);
    history = read_history(1, 5, 10);
    cr_assert_eq(history.first_waiting, 6);
    cr_assert_not(history.events[5].published);
    tally_history_release(&history);
}

Test(history, counts_nothing_as_published_by_a_position_of_another_database)
{
    write_events(1, 1, 2);
    relay_batches(1);
    test_database_run(database.connection, "update relay_position set system_identifier = 1");
    struct tally_history history = read_history(1, 2, 10);
    cr_assert_eq(history.first_waiting, 1);
    tally_history_release(&history);
}

Test(history, is_found_by_an_index_also_in_partitions_that_are_made_later)
{
    test_database_run(database.connection,
                      "select create_event_partition(current_date + 30);"
                      "insert into events (user_id, version, type, at, timeline)"
                      " values (7, 1, 'user.created', current_date + 30.5 * interval '1 day', 1)");
    struct tally_history history = read_history(7, 1, 10);
    cr_assert_eq(history.kept, 1);
    tally_history_release(&history);
    cr_assert_eq(
        test_database_number(
            database.connection,
            "select (select count(*) from pg_inherits where inhparent = 'events'::regclass)"
            " - (select count(*) from pg_inherits"
            "    where inhparent = 'events_of_user'::regclass)"),
        0);
}
