/* A repair restores the users it is given, and nobody else. */
#include "model_fixture.h"
#include "service/ctl/repair.h"
#include "view/keys.h"

#include "domain/partitioner.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct model_fixture model;
static struct tally_repair_result result;

static void open_all(void)
{
    model_open(&model);
    for (int64_t id = 1; id <= 8; id++)
        model_add(&model, id, 1, 5);
    fixture_await_applied(&model.log);
}

static void close_all(void)
{
    projector_stop(&model.projector);
    model_close(&model);
}

TestSuite(repair, .init = open_all, .fini = close_all, .timeout = 300);

static void repair_as(int64_t user_id, bool follow_source)
{
    struct tally_repairer *repairer = NULL;
    struct tally_error error = {0};
    result = (struct tally_repair_result){0};
    cr_assert_eq(tally_repairer_new(&model.settings, &repairer, &error), TALLY_OK, "%s",
                 error.text);
    if (follow_source)
        tally_repairer_follow_source(repairer);
    cr_assert_eq(tally_repair_users(repairer, &user_id, 1, NULL, NULL, &result, &error), TALLY_OK,
                 "%s", error.text);
    tally_repairer_free(&repairer);
}

static void repair(int64_t user_id)
{
    repair_as(user_id, false);
}

Test(repair, a_user_who_missed_events_is_whole_again_and_so_are_the_totals)
{
    model_write(&model, 1, 6, 9);
    model_publish(&model, 1, 8, 9); /* 6 and 7 are lost */
    fixture_await_version(&model.log, 1, 9);
    cr_assert_str_eq(fixture_user(&model.log, 1), "9 3 3 - 1");
    repair(1);
    cr_assert_eq(result.repaired, 1);
    cr_assert_str_eq(fixture_user(&model.log, 1), fixture_history(9));
    model_expect_equal(&model);
    model_add(&model, 1, 10, 12);
    fixture_await_version(&model.log, 1, 12);
    cr_assert_str_eq(fixture_user(&model.log, 1), fixture_history(12));
    model_expect_equal(&model);
}

Test(repair, a_wrong_number_that_no_event_made_leaves_the_totals_alone)
{
    model_set_field(&model, 0, 2, "posts", "70");
    repair(2);
    cr_assert_eq(result.repaired, 1);
    cr_assert_str_eq(fixture_user(&model.log, 2), fixture_history(5));
    model_expect_equal(&model);
}

/* Readers who were shown the wrong number hold its version. */
Test(repair, the_version_that_was_shown_wrong_is_kept_until_it_is_passed)
{
    model_set_field(&model, 0, 2, "posts", "70");
    repair(2);
    cr_assert_str_eq(model_field(&model, 0, 2, "corrected"), "5");
    /* One of a history that is gone, which will be given out again. */
    model_set_field(&model, 0, 2, "v", "7");
    repair_as(2, true);
    cr_assert_str_eq(model_field(&model, 0, 2, "corrected"), "7");
    model_add(&model, 2, 6, 6);
    fixture_await_version(&model.log, 2, 6);
    repair(2);
    cr_assert_str_eq(model_field(&model, 0, 2, "corrected"), "7");
    model_add(&model, 2, 7, 8);
    fixture_await_version(&model.log, 2, 8);
    model_set_field(&model, 0, 2, "v", "7");
    repair(2);
    cr_assert_str_eq(model_field(&model, 0, 2, "v"), "8");
    cr_assert_str_eq(model_field(&model, 0, 2, "corrected"), "-");
}

Test(repair, events_that_the_recount_is_ahead_of_are_counted_once)
{
    model_write(&model, 3, 6, 7);
    test_database_run(model.database.connection,
                      "insert into events (user_id, version, type, timeline) values"
                      " (3, 6, 'post.created', 1), (3, 7, 'comment.created', 1)");
    repair(3);
    cr_assert_str_eq(fixture_user(&model.log, 3), fixture_history(7));
    model_publish(&model, 3, 6, 7);
    model_add(&model, 3, 8, 8);
    fixture_await_version(&model.log, 3, 8);
    model_expect_equal(&model);
}

Test(repair, nobody_else_is_touched)
{
    model_set_field(&model, 0, 5, "name", "Somebody else");
    model_set_field(&model, 0, 4, "flagged", "1");
    repair(4);
    cr_assert_str_eq(model_field(&model, 0, 4, "flagged"), "-");
    cr_assert_str_eq(model_field(&model, 0, 5, "name"), "Somebody else");
}

Test(repair, a_newer_user_is_left_alone)
{
    model_set_field(&model, 0, 6, "v", "9");
    repair(6);
    cr_assert_eq(result.refused, 1);
    cr_assert_str_eq(model_field(&model, 0, 6, "v"), "9");
}

Test(repair, a_newer_user_of_an_older_timeline_follows_the_database_that_went_back)
{
    model_publish(&model, 6, 6, 9);
    fixture_await_version(&model.log, 6, 9);
    model_set_field(&model, 0, 6, "tl", "0");
    repair(6);
    cr_assert_eq(result.repaired, 1);
    cr_assert_str_eq(fixture_user(&model.log, 6), fixture_history(5));
    model_expect_equal(&model);
}

Test(repair, a_newer_user_follows_a_source_that_is_known_to_be_the_right_one)
{
    model_set_field(&model, 0, 6, "v", "9");
    repair_as(6, true);
    cr_assert_eq(result.repaired, 1);
    cr_assert_str_eq(fixture_user(&model.log, 6), fixture_history(5));
    model_expect_equal(&model);
}

Test(repair, nobody_of_a_later_timeline_follows_a_database_that_was_replaced)
{
    model_set_field(&model, 0, 6, "v", "9");
    model_set_field(&model, 0, 6, "tl", "2");
    repair_as(6, true);
    cr_assert_eq(result.refused, 1);
    model_set_field(&model, 0, 4711, "v", "3");
    model_set_field(&model, 0, 4711, "tl", "2");
    repair_as(4711, true);
    cr_assert_eq(result.refused, 1);
    cr_assert_str_eq(model_field(&model, 0, 6, "v"), "9");
    cr_assert_str_eq(model_field(&model, 0, 4711, "v"), "3");
}

Test(repair, a_user_whose_row_went_with_a_lost_history_leaves_the_totals_too)
{
    model_set_field(&model, 0, 8, "tl", "0");
    test_database_run(model.database.connection, "delete from comments where author_id = 8;"
                                                 "delete from posts where author_id = 8;"
                                                 "delete from users where id = 8");
    repair(8);
    cr_assert_eq(result.removed, 1);
    model_expect_equal(&model);
}

static void lose_key(int64_t user_id)
{
    char key[TALLY_VIEW_KEY_BYTES];
    redisReply *reply = NULL;
    struct tally_error error = {0};
    tally_view_user_key(key, fixture_generation(&model.log),
                        tally_partition_of(user_id, FIXTURE_PARTITIONS), user_id);
    cr_assert_eq(tally_redis_call(model.log.redis, &reply, &error, "DEL %s", key), TALLY_OK);
    freeReplyObject(reply);
}

Test(repair, a_lost_user_comes_back_and_a_ghost_goes)
{
    lose_key(7);
    repair(7);
    cr_assert_eq(result.repaired, 1);
    model_set_field(&model, 0, 4711, "v", "3");
    repair(4711);
    cr_assert_eq(result.removed, 1);
    repair(4711);
    cr_assert_eq(result.unknown, 1);
    model_expect_equal(&model);
}

Test(repair, a_deleted_user_is_deleted_in_the_read_model)
{
    test_database_run(
        model.database.connection,
        "delete from comments where author_id = 8; delete from posts where author_id = 8;"
        "update users set name = null, email = null, version = 6, deleted_at = now(),"
        " swept_at = now() where id = 8");
    repair(8);
    cr_assert_str_eq(fixture_user(&model.log, 8), "6 - - 1 -");
    cr_assert_str_eq(model_field(&model, 0, 8, "email"), "-");
    model_expect_equal(&model);
}

Test(repair, flagged_users_are_found)
{
    struct tally_repairer *repairer = NULL;
    struct tally_error error = {0};
    char cursor[24] = "0";
    int64_t *ids = calloc(TALLY_REPAIR_SCAN_MOST, sizeof *ids);
    int64_t found = 0, looked = 0;
    size_t users = 0;
    model_set_field(&model, 0, 5, "flagged", "1");
    cr_assert_eq(tally_repairer_new(&model.settings, &repairer, &error), TALLY_OK, "%s",
                 error.text);
    do {
        size_t count = 0;
        cr_assert_eq(tally_repair_find_flagged(repairer, cursor, ids, TALLY_REPAIR_SCAN_MOST,
                                               &count, &looked, &error),
                     TALLY_OK, "%s", error.text);
        users += count;
        if (count > 0)
            found = ids[0];
    } while (strcmp(cursor, "0") != 0);
    cr_assert_eq(users, 1);
    cr_assert_eq(found, 5);
    cr_assert_eq(looked, 8);
    free(ids);
    tally_repairer_free(&repairer);
}

Test(repair, a_user_whose_events_are_on_their_way_is_left_for_later_and_counted_once)
{
    model_write(&model, 9, 1, 3);
    test_database_run(model.database.connection,
                      "insert into events (user_id, version, type, timeline) values"
                      " (9, 1, 'user.created', 1), (9, 2, 'post.created', 1),"
                      " (9, 3, 'comment.created', 1)");
    repair(9);
    cr_assert_eq(result.postponed, 1);
    cr_assert_eq(result.repaired, 0);
    model_publish(&model, 9, 1, 3);
    fixture_await_version(&model.log, 9, 3);
    model_expect_equal(&model);
}

/* The projector has forgotten the user, as after a restart, and meets it by a later event. */
Test(repair, a_lost_user_who_is_written_to_again_is_counted_once)
{
    projector_stop(&model.projector);
    lose_key(7);
    model_add(&model, 7, 6, 8);
    projector_start(&model.log, &model.projector);
    fixture_await_version(&model.log, 7, 8);
    cr_assert_str_eq(model_field(&model, 0, 7, "flagged"), "lost");
    repair(7);
    cr_assert_eq(result.repaired, 1);
    cr_assert_str_eq(fixture_user(&model.log, 7), fixture_history(8));
    model_expect_equal(&model);
}
