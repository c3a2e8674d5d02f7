/* Verify finds every kind of difference, and nothing where there is none. */
#include "database.h"
#include "query_fixture.h"
#include "service/ctl/verify.h"
#include "view/keys.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GENERATION FIXTURE_GENERATION

enum { LISTED = 16 };

static struct test_database database;
static struct fixture fixture;
static struct tally_verify_result result;
static struct tally_verify_difference listed[LISTED];
static size_t listed_count;
static void (*on_progress)(void *context, int64_t checked, int64_t total, size_t pending);

/* Users 1 … 3 with posts and comments, 4 deleted, in both. */
static void open_all(void)
{
    test_database_create(&database);
    test_database_run(
        database.connection,
        "insert into users (id, name, email, avatar, version) values"
        " (1, 'Ann', 'ann@x.test', null, 4), (2, 'Bob', 'bob@x.test', 'b.png', 2),"
        " (3, 'Cem', 'cem@x.test', null, 1);"
        "insert into users (id, version, deleted_at, swept_at) values (4, 2, now(), now());"
        "insert into posts (id, author_id, body) values (11, 1, 'x'), (12, 1, 'x');"
        "insert into comments (id, post_id, author_id, body) values (21, 11, 1, 'x'),"
        " (22, 11, 2, 'x')");
    fixture_open(&fixture);
    fixture_make_generation(&fixture, GENERATION);
    fixture_set_user(&fixture, GENERATION, 1,
                     "v 4 posts 2 comments 1 name Ann email ann@x.test tl 1");
    fixture_set_user(&fixture, GENERATION, 2,
                     "v 2 posts 0 comments 1 name Bob email bob@x.test avatar b.png tl 1");
    fixture_set_user(&fixture, GENERATION, 3,
                     "v 1 posts 0 comments 0 name Cem email cem@x.test tl 1");
    fixture_set_user(&fixture, GENERATION, 4, "v 2 deleted 1 tl 1");
    fixture_redis(&fixture, "HSET tally:%d:{0}:totals users 3 posts 2 comments 2", GENERATION);
}

static void close_all(void)
{
    fixture_close(&fixture);
    test_database_drop(&database);
}

TestSuite(verify, .init = open_all, .fini = close_all, .timeout = 300);

static void list_difference(void *context, const struct tally_verify_difference *difference)
{
    (void)context;
    if (listed_count < LISTED)
        listed[listed_count++] = *difference;
}

static void verify_within(int64_t grace_ms, int64_t sample)
{
    const struct tally_verify_options options = {
        .pg_dsn = database.dsn,
        .redis_url = fixture.redis_url,
        .redis_timeout_ms = 5000,
        .grace_ms = grace_ms,
        .sample = sample,
        .pending_most = 2,
        .on_difference = list_difference,
        .on_progress = on_progress,
    };
    struct tally_error error = {0};
    listed_count = 0;
    cr_assert_eq(tally_verify_run(&options, &result, &error), TALLY_OK, "%s", error.text);
}

/* Totals are compared only while no transaction is open on the whole server, where other tests are
 * at work too. */
static void verify_totals(void)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    do {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s", result.totals_reason);
        verify_within(200, 0);
    } while (result.totals_reason != NULL && strstr(result.totals_reason, "was open") != NULL);
}

static void expect_one(const char *field, int64_t user_id)
{
    verify_totals();
    cr_assert_eq(listed_count, 1, "%zu differences", listed_count);
    cr_expect_str_eq(listed[0].field, field);
    cr_expect_eq(listed[0].user_id, user_id);
}

static void set(int64_t user_id, const char *fields)
{
    fixture_set_user(&fixture, GENERATION, user_id, fields);
}

static long long user_key(char key[TALLY_VIEW_KEY_BYTES], int64_t user_id)
{
    return (long long)tally_view_user_key(key, GENERATION, fixture_partition(user_id), user_id);
}

Test(verify, equal_models_have_no_difference)
{
    verify_totals();
    cr_assert_eq(listed_count, 0, "%s", listed[0].field);
    cr_assert_eq(result.checked, 4);
    cr_assert_eq(result.equal, 4);
    cr_assert_eq(result.keys, 4);
    cr_assert(result.totals_compared, "%s", result.totals_reason);
    cr_assert_eq(result.users, 3);
    cr_assert_eq(result.posts, 2);
    cr_assert_eq(result.comments, 2);
}

Test(verify, a_wrong_count_is_found)
{
    set(1, "posts 3");
    expect_one("posts", 1);
    cr_assert_str_eq(listed[0].expected, "2");
    cr_assert_str_eq(listed[0].found, "3");
    set(1, "posts 2 comments 0");
    expect_one("comments", 1);
}

Test(verify, a_wrong_profile_is_found)
{
    set(1, "name Eve");
    expect_one("name", 1);
    set(1, "name Ann avatar a.png");
    expect_one("avatar", 1);
}

Test(verify, a_version_that_does_not_arrive_is_found)
{
    set(1, "v 3");
    expect_one("version", 1);
    cr_assert_eq(listed[0].expected_version, 4);
    cr_assert_eq(listed[0].found_version, 3);
}

Test(verify, a_version_ahead_of_the_source_is_found)
{
    set(1, "v 9");
    expect_one("version", 1);
}

Test(verify, a_missing_user_is_found)
{
    char key[TALLY_VIEW_KEY_BYTES];
    user_key(key, 2);
    fixture_redis(&fixture, "DEL %s", key);
    expect_one("missing", 2);
}

Test(verify, a_ghost_is_found)
{
    set(99, "v 1 posts 0 comments 0 name Gus email gus@x.test tl 1");
    expect_one("ghost", 99);
}

Test(verify, a_user_in_the_wrong_partition_is_found)
{
    char key[TALLY_VIEW_KEY_BYTES];
    tally_view_user_key(key, GENERATION, (fixture_partition(1) + 1) % FIXTURE_PARTITIONS, 1);
    fixture_redis(&fixture, "HSET %s v 4", key);
    expect_one("misplaced", 1);
}

Test(verify, a_deleted_user_who_is_shown_is_found)
{
    char key[TALLY_VIEW_KEY_BYTES];
    user_key(key, 4);
    fixture_redis(&fixture, "HDEL %s deleted", key);
    expect_one("deleted", 4);
}

Test(verify, wrong_totals_are_found)
{
    fixture_redis(&fixture, "HSET tally:%d:{1}:totals users 0 posts 1 comments 0", GENERATION);
    expect_one("total posts", 0);
}

Test(verify, totals_are_not_compared_where_deletions_are_being_finished)
{
    test_database_run(database.connection, "update users set swept_at = null where id = 4");
    fixture_redis(&fixture, "HSET tally:%d:{1}:totals users 0 posts 1 comments 0", GENERATION);
    verify_within(200, 0);
    cr_assert_eq(listed_count, 0);
    cr_assert_not(result.totals_compared);
}

/* The events arrive once verify has seen that they are missing. */
static void arrive(void *context, int64_t checked, int64_t total, size_t pending)
{
    (void)context, (void)checked, (void)total;
    if (pending < 3)
        return;
    set(1, "v 4 posts 2");
    set(2, "v 2");
    set(3, "v 1");
}

Test(verify, events_on_their_way_are_no_difference)
{
    set(1, "v 3 posts 1");
    set(2, "v 1");
    set(3, "v 0");
    on_progress = arrive;
    verify_within(30000, 0);
    cr_assert_eq(listed_count, 0, "%s", listed[0].field);
    cr_assert_eq(result.resolved, 3);
}

/* Redis is always one version behind: at no two moments do the versions agree. */
static void *write_always(void *context)
{
    bool *stop = context;
    PGconn *connection = test_database_connect(&database);
    char sql[400], fields[64];
    for (int version = 5; !__atomic_load_n(stop, __ATOMIC_RELAXED); version++) {
        (void)snprintf(sql, sizeof sql,
                       "begin; update users set version = %d where id = 1;"
                       "insert into posts (id, author_id, body) values (%d, 1, 'x');"
                       "insert into events (user_id, version, type, timeline)"
                       " values (1, %d, 'post.created', 1); commit",
                       version, 1000 + version, version);
        test_database_run(connection, sql);
        (void)snprintf(fields, sizeof fields, "v %d posts %d", version - 1, version - 3);
        set(1, fields);
        usleep(2000);
    }
    PQfinish(connection);
    return NULL;
}

Test(verify, a_user_who_is_written_to_all_the_time_is_no_difference)
{
    bool stop = false;
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, write_always, &stop), 0);
    for (int i = 0; i < 5; i++) {
        verify_within(30000, 0);
        cr_expect_eq(listed_count, 0, "%s: expected %s, found %s", listed[0].field,
                     listed[0].expected, listed[0].found);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
}

Test(verify, a_sample_checks_users_and_no_totals)
{
    set(1, "posts 3");
    verify_within(200, 1000);
    cr_assert_eq(result.checked, 4);
    cr_assert_eq(listed_count, 1);
    cr_assert_not(result.totals_compared);
}

Test(verify, an_empty_redis_is_said_to_hold_no_read_model)
{
    const struct tally_verify_options options = {.pg_dsn = database.dsn,
                                                 .redis_url = fixture.redis_url,
                                                 .redis_timeout_ms = 5000,
                                                 .pending_most = 2};
    struct tally_error error = {0};
    fixture_redis(&fixture, "DEL %s", TALLY_VIEW_GENERATION_KEY);
    cr_assert_eq(tally_verify_run(&options, &result, &error), TALLY_READ_MODEL_INCOMPLETE);
}
