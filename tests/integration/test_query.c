#include "core/clock.h"
#include "query_fixture.h"
#include "view/keys.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define GENERATION FIXTURE_GENERATION
#define ALICE "v 5 posts 2 comments 3 name Alice email alice@example.org tl 1"

static struct fixture fixture;

static void open_complete(void)
{
    fixture_open(&fixture);
    fixture_make_generation(&fixture, GENERATION);
    fixture_set_user(&fixture, GENERATION, 42, ALICE);
    fixture_serve(&fixture, 0);
    fixture_await_complete(&fixture, true);
}

static void open_empty(void)
{
    fixture_open(&fixture);
}

static void close_all(void)
{
    fixture_close(&fixture);
}

TestSuite(query, .init = open_complete, .fini = close_all, .timeout = 300);
TestSuite(query_alone, .init = open_empty, .fini = close_all, .timeout = 300);

static bool has(const struct answer *answer, const char *text)
{
    return strstr(answer->body, text) != NULL;
}

static const char *target_of(int64_t user_id)
{
    static char target[64];
    (void)snprintf(target, sizeof target, "/v1/users/%lld", (long long)user_id);
    return target;
}

/*
 * One user.
 */

Test(query, a_user_is_answered_with_its_counts_version_and_headers)
{
    struct answer answer = fixture_get(&fixture, "/v1/users/42");
    cr_assert_eq(answer.status, 200);
    cr_assert_str_eq(answer.body,
                     "{\"user\":{\"id\":\"42\",\"name\":\"Alice\",\"email\":\"alice@example.org\","
                     "\"avatar\":null},\"postCount\":2,\"commentCount\":3,\"version\":5}");
    cr_assert_str_eq(answer.etag, "\"5\"");
    cr_assert_str_eq(answer.cache_control,
                     "private, max-age=0, stale-while-revalidate=5, stale-if-error=60");
    cr_assert(answer.lag[0] >= '0' && answer.lag[0] <= '9');
}

Test(query, head_answers_like_get_without_the_body)
{
    struct answer answer = fixture_get_with(&fixture, "HEAD", "/v1/users/42", NULL);
    cr_assert_eq(answer.status, 200);
    cr_assert_str_eq(answer.etag, "\"5\"");
    cr_assert_str_eq(answer.body, "");
}

Test(query, a_known_version_is_answered_304_until_it_changes)
{
    struct answer answer =
        fixture_get_with(&fixture, "GET", "/v1/users/42", "If-None-Match: \"4\", W/\"5\"\r\n");
    cr_assert_eq(answer.status, 304);
    cr_assert_str_eq(answer.etag, "\"5\"");
    cr_assert_str_eq(answer.body, "");
    fixture_set_user(&fixture, GENERATION, 42, "v 6 posts 3");
    answer = fixture_get_with(&fixture, "GET", "/v1/users/42", "If-None-Match: \"5\"\r\n");
    cr_assert_eq(answer.status, 200);
    cr_assert_str_eq(answer.etag, "\"6\"");
}

Test(query, a_flagged_user_is_degraded_and_never_304)
{
    fixture_set_user(&fixture, GENERATION, 42, "flagged 1");
    struct answer answer =
        fixture_get_with(&fixture, "GET", "/v1/users/42", "If-None-Match: \"5\", *\r\n");
    cr_assert_eq(answer.status, 200);
    cr_assert(has(&answer, "\"degraded\":true"));
    cr_assert_str_eq(answer.etag, "");
    answer = fixture_get_with(&fixture, "GET", "/v1/users/42", "If-None-Match: *\r\n");
    cr_assert_eq(answer.status, 200);
}

Test(query, a_repaired_user_is_never_304_at_the_version_that_it_was_shown_otherwise_at)
{
    fixture_set_user(&fixture, GENERATION, 42, "posts 7 corrected 5");
    struct answer answer =
        fixture_get_with(&fixture, "GET", "/v1/users/42", "If-None-Match: \"5\"\r\n");
    cr_assert_eq(answer.status, 200);
    cr_assert(has(&answer, "\"postCount\":7"));
    cr_assert_str_eq(answer.etag, "");
    fixture_set_user(&fixture, GENERATION, 42, "v 6 posts 8");
    answer = fixture_get_with(&fixture, "GET", "/v1/users/42", "If-None-Match: \"6\"\r\n");
    cr_assert_eq(answer.status, 304);
    cr_assert_str_eq(answer.etag, "\"6\"");
}

Test(query, a_user_known_only_by_an_event_that_could_not_be_read_is_503_and_never_404)
{
    fixture_set_user(&fixture, GENERATION, 78, "flagged 1");
    struct answer answer = fixture_get(&fixture, "/v1/users/78");
    cr_assert_eq(answer.status, 503);
    cr_assert(has(&answer, "urn:tally:problem:user-unreadable"));
}

Test(query, a_user_known_only_by_an_event_that_could_not_be_read_keeps_nobody_else_from_being_read)
{
    fixture_set_user(&fixture, GENERATION, 78, "flagged 1");
    struct answer answer = fixture_get(&fixture, "/v1/users?ids=78,42,999");
    cr_assert_eq(answer.status, 200);
    cr_assert(has(&answer, "\"id\":\"42\""), "%s", answer.body);
    cr_assert(has(&answer, "\"missing\":[\"999\"],\"unreadable\":[\"78\"]}"), "%s", answer.body);
}

Test(query, a_user_who_was_never_seen_or_is_deleted_is_404)
{
    struct answer answer = fixture_get(&fixture, "/v1/users/4242");
    cr_assert_eq(answer.status, 404);
    cr_assert(has(&answer, "urn:tally:problem:user-not-found"));
    cr_assert_str_eq(answer.cache_control, "no-store");
    fixture_set_user(&fixture, GENERATION, 77, "v 9 tl 1 deleted 1");
    answer = fixture_get(&fixture, "/v1/users/77");
    cr_assert_eq(answer.status, 404);
    cr_assert(has(&answer, "urn:tally:problem:user-not-found"));
}

Test(query, what_is_malformed_is_refused)
{
    static const struct {
        const char *method;
        const char *target;
        int status;
    } cases[] = {
        {"GET", "/v1/users/abc", 400},
        {"GET", "/v1/users/0", 400},
        {"GET", "/v1/users/9223372036854775808", 400},
        {"GET", "/v1/users/42?minVersion=x", 400},
        {"GET", "/v1/users/42?minVersion=", 400},
        {"GET", "/v1/users/42?minVersion=0", 400},
        {"GET", "/v1/users", 400},
        {"GET", "/v1/users?ids=", 400},
        {"GET", "/v1/users?ids=1,x", 400},
        {"GET", "/v1/nothing", 404},
        {"DELETE", "/v1/users/42", 405},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct answer answer = fixture_get_with(&fixture, cases[i].method, cases[i].target, NULL);
        cr_assert_eq(answer.status, cases[i].status, "%s %s: %d", cases[i].method, cases[i].target,
                     answer.status);
    }
}

/*
 * Several users.
 */

Test(query, several_users_come_in_the_order_asked_and_once)
{
    fixture_set_user(&fixture, GENERATION, 7,
                     "v 1 posts 0 comments 1 name Bob email b@example.org");
    struct answer answer = fixture_get(&fixture, "/v1/users?ids=999,42,7,42,888");
    cr_assert_eq(answer.status, 200);
    const char *alice = strstr(answer.body, "\"id\":\"42\"");
    const char *bob = strstr(answer.body, "\"id\":\"7\"");
    cr_assert(alice != NULL && bob != NULL && alice < bob, "%s", answer.body);
    cr_assert_null(strstr(alice + 1, "\"id\":\"42\""), "%s", answer.body);
    cr_assert(has(&answer, "\"missing\":[\"999\",\"888\"]}"), "%s", answer.body);
}

Test(query, one_incomplete_partition_among_several_users_is_503)
{
    int64_t outside = fixture_user_outside(fixture_partition(42), 1);
    fixture_set_user(&fixture, GENERATION, outside, ALICE);
    fixture_set_position(&fixture, GENERATION, fixture_partition(42), "until 101");
    fixture_await_complete(&fixture, false);
    char target[64];
    (void)snprintf(target, sizeof target, "/v1/users?ids=%lld,42", (long long)outside);
    struct answer answer = fixture_get(&fixture, target);
    cr_assert_eq(answer.status, 503);
    cr_assert(has(&answer, "read-model-incomplete"));
}

/*
 * A read model that is not whole.
 */

Test(query_alone, without_a_read_model_everything_is_503_until_there_is_one)
{
    fixture_serve(&fixture, 0);
    struct answer answer = fixture_get(&fixture, "/v1/users/42");
    cr_assert_eq(answer.status, 503);
    cr_assert(has(&answer, "read-model-incomplete"));
    cr_assert_str_neq(answer.retry_after, "");
    cr_assert_eq(fixture_get(&fixture, "/v1/stats").status, 503);
    char reason[256];
    cr_assert_not(tally_query_check_read_model(fixture.query, reason));
    fixture_make_generation(&fixture, GENERATION);
    fixture_set_user(&fixture, GENERATION, 42, ALICE);
    fixture_await_complete(&fixture, true);
    cr_assert_eq(fixture_get(&fixture, "/v1/users/42").status, 200);
}

Test(query, users_of_a_partition_being_built_are_503_and_the_others_are_not)
{
    int32_t partition = fixture_partition(42);
    int64_t outside = fixture_user_outside(partition, 1);
    fixture_set_user(&fixture, GENERATION, outside, ALICE);
    fixture_set_position(&fixture, GENERATION, partition, "until 101");
    fixture_await_complete(&fixture, false);
    struct answer answer = fixture_get(&fixture, "/v1/users/42");
    cr_assert_eq(answer.status, 503);
    cr_assert(has(&answer, "read-model-incomplete"));
    cr_assert_eq(fixture_get(&fixture, target_of(outside)).status, 200);
    fixture_set_position(&fixture, GENERATION, partition, "offset 101");
    fixture_await_complete(&fixture, true);
    cr_assert_eq(fixture_get(&fixture, "/v1/users/42").status, 200);
}

Test(query, a_redis_that_went_back_is_503_until_it_has_caught_up)
{
    fixture_set_position(&fixture, GENERATION, fixture_partition(42), "offset 99 until 0");
    fixture_await_complete(&fixture, false);
    cr_assert_eq(fixture_get(&fixture, "/v1/users/42").status, 503);
    fixture_set_position(&fixture, GENERATION, fixture_partition(42), "offset 100");
    fixture_await_complete(&fixture, true);
    cr_assert_eq(fixture_get(&fixture, "/v1/users/42").status, 200);
}

Test(query, users_of_a_lost_read_model_are_503_and_never_404)
{
    fixture_redis(&fixture, "FLUSHALL");
    for (int i = 0; i < 200; i++) {
        struct answer answer = fixture_get(&fixture, "/v1/users/42");
        cr_assert_eq(answer.status, 503, "%d: %s", answer.status, answer.body);
    }
    cr_assert_eq(fixture_get(&fixture, "/v1/users?ids=42,43").status, 503);
    cr_assert_eq(fixture_get(&fixture, "/v1/stats").status, 503);
    fixture_make_generation(&fixture, GENERATION + 1);
    fixture_set_user(&fixture, GENERATION + 1, 42, "v 6 posts 9 comments 0 name A email a@b.c");
    struct answer answer = fixture_await_status(&fixture, "/v1/users/42", 200);
    cr_assert(has(&answer, "\"postCount\":9"));
}

/* The service may not have noticed yet that there is another generation: its first answer shows. */
Test(query, a_new_generation_is_read_at_once_after_the_old_one_is_lost)
{
    for (int round = 1; round <= 20; round++) {
        fixture_redis(&fixture, "FLUSHALL");
        fixture_make_generation(&fixture, GENERATION + round);
        fixture_set_user(&fixture, GENERATION + round, 42, ALICE);
        struct answer answer = fixture_get(&fixture, "/v1/users/42");
        /* 503 where a refresh ran into the gap between the two commands above. */
        cr_assert(answer.status == 200 || answer.status == 503, "%d", answer.status);
        cr_assert_eq(fixture_await_status(&fixture, "/v1/users/42", 200).status, 200);
        cr_assert_eq(fixture_get(&fixture, "/v1/users/4242").status, 404);
    }
}

/*
 * Reading one's own write.
 */

Test(query, a_version_that_is_there_is_answered_at_once)
{
    struct answer answer = fixture_get(&fixture, "/v1/users/42?minVersion=5");
    cr_assert_eq(answer.status, 200);
    answer = fixture_get_with(&fixture, "GET", "/v1/users/42?minVersion=4", "Prefer: wait=5\r\n");
    cr_assert_eq(answer.status, 200);
    cr_assert_str_eq(answer.applied, "wait=5");
}

Test(query, a_version_that_is_not_there_is_503_at_once_without_prefer)
{
    static const char *const targets[] = {"/v1/users/42?minVersion=6",
                                          "/v1/users/4242?minVersion=1"};
    for (size_t i = 0; i < 2; i++) {
        struct answer answer = fixture_get(&fixture, targets[i]);
        cr_assert_eq(answer.status, 503);
        cr_assert(has(&answer, "read-model-behind"));
        cr_assert_str_eq(answer.retry_after, "1");
        cr_assert_str_eq(answer.applied, "");
    }
}

static void await_waiters(double count)
{
    int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    while (fixture_metric(&fixture, "tally_query_waiters{thread=\"0\"}") != count) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%g waiters do not come", count);
        event_base_loop(fixture.base, EVLOOP_NONBLOCK);
    }
}

Test(query, a_wait_ends_when_the_version_comes)
{
    struct request six;
    struct request seven;
    struct request absent;
    fixture_send(&fixture, &six, "GET", "/v1/users/42?minVersion=6", "Prefer: wait=10\r\n");
    fixture_send(&fixture, &seven, "GET", "/v1/users/42?minVersion=7",
                 "Prefer: respond-async, wait=\"10\"\r\n");
    fixture_send(&fixture, &absent, "GET", "/v1/users/43?minVersion=1", "Prefer: wait=10\r\n");
    await_waiters(3);
    fixture_set_user(&fixture, GENERATION, 42, "v 6 posts 3");
    struct answer answer = fixture_receive(&fixture, &six);
    cr_assert_eq(answer.status, 200);
    cr_assert(has(&answer, "\"postCount\":3"));
    cr_assert_not(seven.done, "it asks for a later version");
    fixture_set_user(&fixture, GENERATION, 42, "v 7 posts 4");
    answer = fixture_receive(&fixture, &seven);
    cr_assert_eq(answer.status, 200);
    cr_assert(has(&answer, "\"postCount\":4"));
    fixture_set_user(&fixture, GENERATION, 43, "v 1 posts 0 comments 0 name N email n@example.org");
    cr_assert_eq(fixture_receive(&fixture, &absent).status, 200);
}

Test(query, a_wait_that_is_in_vain_is_503_and_for_a_deleted_user_404)
{
    struct request behind;
    struct request deleted;
    fixture_send(&fixture, &behind, "GET", "/v1/users/42?minVersion=6", "Prefer: wait=10\r\n");
    fixture_send(&fixture, &deleted, "GET", "/v1/users/43?minVersion=2", "Prefer: wait=10\r\n");
    await_waiters(2);
    fixture_set_user(&fixture, GENERATION, 43, "v 2 tl 1 deleted 1");
    cr_assert_eq(fixture_receive(&fixture, &deleted).status, 404);
    struct answer answer = fixture_receive(&fixture, &behind);
    cr_assert_eq(answer.status, 503);
    cr_assert(has(&answer, "read-model-behind"));
    cr_assert_str_eq(answer.retry_after, "1");
    cr_assert_str_eq(answer.applied, "wait=10");
}

Test(query, more_waits_than_allowed_are_503_at_once)
{
    enum { MOST = 16 };
    struct request waiting[MOST];
    for (int i = 0; i < MOST; i++)
        fixture_send(&fixture, &waiting[i], "GET", "/v1/users/42?minVersion=6",
                     "Prefer: wait=10\r\n");
    await_waiters(MOST);
    struct answer answer =
        fixture_get_with(&fixture, "GET", "/v1/users/42?minVersion=6", "Prefer: wait=10\r\n");
    cr_assert_eq(answer.status, 503);
    cr_assert(has(&answer, "overloaded"));
    fixture_set_user(&fixture, GENERATION, 42, "v 6");
    for (int i = 0; i < MOST; i++)
        cr_assert_eq(fixture_receive(&fixture, &waiting[i]).status, 200);
}

/*
 * Stats.
 */

Test(query, stats_sum_the_partitions_and_the_last_days)
{
    int64_t now_us = tally_clock_wall_us();
    for (int32_t i = 0; i < FIXTURE_PARTITIONS; i++) {
        char key[TALLY_VIEW_KEY_BYTES];
        tally_view_totals_key(key, GENERATION, i);
        fixture_redis(&fixture, "HSET %s users 10 posts 20 comments %d", key, i);
        static const int ages[] = {0, 3, 20, 35};
        for (size_t k = 0; k < sizeof ages / sizeof ages[0]; k++) {
            char day[TALLY_DAY_BYTES];
            tally_clock_format_day(now_us - ages[k] * INT64_C(86400000000), day);
            tally_view_active_key(key, GENERATION, i, day);
            fixture_redis(&fixture, "PFADD %s everyday only-%d", key, ages[k]);
        }
    }
    struct answer answer = fixture_get(&fixture, "/v1/stats");
    cr_assert_eq(answer.status, 200);
    cr_assert(has(&answer, "\"users\":40,\"posts\":80,\"comments\":6,"), "%s", answer.body);
    cr_assert(has(&answer, "\"activeUsers\":{\"day\":8,\"week\":12,\"month\":16}"), "%s",
              answer.body);
    cr_assert(has(&answer, "\"generation\":\"1700000000\""), "%s", answer.body);
    cr_assert(has(&answer, "\"freshnessSeconds\":"), "%s", answer.body);
}

static void set_totals(int64_t generation, int users)
{
    for (int32_t i = 0; i < FIXTURE_PARTITIONS; i++) {
        char key[TALLY_VIEW_KEY_BYTES];
        tally_view_totals_key(key, generation, i);
        fixture_redis(&fixture, "HSET %s users %d posts 0 comments 0", key, users);
    }
}

Test(query, stats_follow_a_generation_that_is_switched_while_they_are_computed)
{
    set_totals(GENERATION, 1);
    set_totals(GENERATION + 1, 2);
    /* Asked at once, before the next look at the generation. */
    fixture_make_generation(&fixture, GENERATION + 1);
    struct answer answer = fixture_get(&fixture, "/v1/stats");
    cr_assert_eq(answer.status, 200, "%s", answer.body);
    cr_assert(has(&answer, "\"users\":8,"), "%s", answer.body);
}

Test(query, stats_are_refused_while_totals_are_missing)
{
    char key[TALLY_VIEW_KEY_BYTES];
    set_totals(GENERATION, 1);
    tally_view_totals_key(key, GENERATION, 1);
    fixture_redis(&fixture, "DEL %s", key);
    struct answer answer = fixture_get(&fixture, "/v1/stats");
    cr_assert_eq(answer.status, 503);
    cr_assert(has(&answer, "read-model-incomplete"), "%s", answer.body);
    set_totals(GENERATION, 1);
    cr_assert_eq(fixture_get(&fixture, "/v1/stats").status, 200);
}

/*
 * Redis that fails.
 */

Test(query_alone, a_silent_redis_is_503_and_comes_back)
{
    fixture_make_generation(&fixture, GENERATION);
    fixture_set_user(&fixture, GENERATION, 42, ALICE);
    fixture_serve(&fixture, 200);
    fixture_await_complete(&fixture, true);
    kill(fixture.server.process, SIGSTOP);
    struct answer answer = fixture_get(&fixture, "/v1/users/42");
    cr_assert_eq(answer.status, 503, "%d", answer.status);
    cr_assert(has(&answer, "urn:tally:problem:unavailable"), "%s", answer.body);
    char reason[256];
    int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    while (tally_query_check_redis(fixture.query, reason))
        cr_assert(tally_clock_monotonic_us() < give_up_us, "the loss is not noticed");
    answer = fixture_get(&fixture, "/v1/users/42");
    cr_assert_eq(answer.status, 503);
    cr_assert_str_neq(answer.retry_after, "");
    cr_assert_gt(fixture_metric(&fixture, "tally_breaker_state{dependency=\"redis\",thread=\"0\"}"),
                 0);
    cr_assert_eq(
        fixture_metric(&fixture, "tally_breaker_opened_total{dependency=\"redis\",thread=\"0\"}"),
        1);
    kill(fixture.server.process, SIGCONT);
    cr_assert_eq(fixture_await_status(&fixture, "/v1/users/42", 200).status, 200);
}

Test(query, a_connection_that_redis_closes_is_made_again)
{
    for (int i = 0; i < 20; i++) {
        cr_assert(fixture_redis(&fixture, "CLIENT KILL TYPE normal SKIPME yes") >= 0);
        cr_assert_eq(fixture_await_status(&fixture, "/v1/users/42", 200).status, 200);
    }
}

Test(query_alone, a_wrong_database_or_password_never_answers_reads)
{
    fixture_redis(&fixture, "CONFIG SET requirepass secret");
    fixture_redis(&fixture, "AUTH secret");
    fixture_make_generation(&fixture, GENERATION);
    fixture_set_user(&fixture, GENERATION, 42, ALICE);
    (void)snprintf(fixture.redis_url, sizeof fixture.redis_url, "redis://:secret@127.0.0.1:%d/0",
                   fixture.server.port);
    fixture_serve(&fixture, 0);
    fixture_await_complete(&fixture, true);
    cr_assert_eq(fixture_get(&fixture, "/v1/users/42").status, 200);
    fixture_redis(&fixture, "CONFIG SET requirepass other");
    fixture_redis(&fixture, "CLIENT KILL TYPE normal SKIPME yes");
    fixture_await_status(&fixture, "/v1/users/42", 503);
    fixture_redis(&fixture, "CONFIG SET requirepass secret");
    cr_assert_eq(fixture_await_status(&fixture, "/v1/users/42", 200).status, 200);
}

/*
 * Start and stop.
 */

static enum tally_status start_on(const char *listen_on, struct tally_error *error)
{
    struct tally_settings settings = fixture.settings;
    (void)snprintf(settings.query_listen, sizeof settings.query_listen, "%s", listen_on);
    struct tally_metrics *metrics = tally_metrics_new();
    struct tally_query *query = NULL;
    const struct tally_query_options options = {&settings, fixture.base, metrics, NULL, NULL};
    enum tally_status status = tally_query_new(&options, &query, error);
    tally_query_free(&query);
    tally_metrics_free(&metrics);
    return status;
}

Test(query, an_address_that_cannot_be_served_is_refused_with_its_name)
{
    struct tally_error error = {0};
    cr_assert_eq(start_on(fixture.settings.query_listen, &error), TALLY_IO);
    cr_assert_not_null(strstr(error.text, fixture.settings.query_listen), "%s", error.text);
    cr_assert_eq(start_on("127.0.0.1:0", &error), TALLY_CONFIG);
    cr_assert_eq(start_on("0.0.0.0:18081", &error), TALLY_CONFIG);
    cr_assert_not_null(strstr(error.text, "TALLY_AUTH"), "%s", error.text);
}

Test(query, a_drain_answers_who_waits_and_ends)
{
    struct request waiting;
    fixture_send(&fixture, &waiting, "GET", "/v1/users/42?minVersion=6", "Prefer: wait=10\r\n");
    await_waiters(1);
    tally_query_drain(fixture.query);
    struct answer answer = fixture_receive(&fixture, &waiting);
    cr_assert_eq(answer.status, 503);
    cr_assert(has(&answer, "stopping"), "%s", answer.body);
    int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    while (!fixture.drained) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "the drain does not end");
        event_base_loop(fixture.base, EVLOOP_NONBLOCK);
    }
}
