#include "core/clock.h"
#include "query_fixture.h"
#include "view/keys.h"
#include "view/lookup.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GENERATION FIXTURE_GENERATION
#define ALICE "v 5 posts 2 comments 3 name Alice email alice@example.org tl 1"

static struct fixture fixture;
static struct tally_lookup *lookup;

static struct tally_lookup_health health(void)
{
    struct tally_lookup_health now;
    tally_lookup_health(lookup, &now);
    return now;
}

static void turn_until(bool (*condition)(void))
{
    int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    while (!condition()) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s", health().reason);
        event_base_loop(fixture.base, EVLOOP_ONCE);
    }
}

static bool complete(void)
{
    return health().complete;
}

static void open_all(void)
{
    fixture_open(&fixture);
    fixture_make_generation(&fixture, GENERATION);
    fixture_set_user(&fixture, GENERATION, 42, ALICE);
    const struct tally_lookup_options options = {
        .redis_url = fixture.redis_url,
        .timeout_ms = 1000,
        .patience_ms = 750,
        .in_flight_most = 200,
        .waiters_most = 10,
    };
    struct tally_error error = {0};
    cr_assert_eq(tally_lookup_new(fixture.base, &options, &lookup, &error), TALLY_OK, "%s",
                 error.text);
    turn_until(complete);
}

static void close_all(void)
{
    tally_lookup_free(&lookup);
    fixture_close(&fixture);
}

TestSuite(lookup, .init = open_all, .fini = close_all, .timeout = 300);

/* What the callbacks of a test saw. */
static struct {
    size_t answers;
    size_t by_status[TALLY_STATUS_COUNT];
    int64_t version;
    int64_t posts;
} seen;
static size_t expected;

static void on_answer(enum tally_status status, const struct tally_lookup_user *user, void *context)
{
    (void)context;
    seen.answers++;
    seen.by_status[status]++;
    if (status == TALLY_OK) {
        seen.version = user->version;
        seen.posts = user->posts;
    }
}

static bool all_answered(void)
{
    return seen.answers >= expected;
}

static void start(int64_t user_id)
{
    struct tally_error error = {0};
    cr_assert_eq(tally_lookup_read(lookup, user_id, on_answer, NULL, &error), TALLY_OK, "%s",
                 error.text);
    expected++;
}

static void await_answers(void)
{
    turn_until(all_answered);
    cr_assert_eq(seen.answers, expected);
}

static int64_t next_refresh_us; /* not earlier */

/* Waits for a refresh of the positions to be over: the next is 100 ms away. */
static void after_a_refresh(void)
{
    const int64_t flushes = health().flushes;
    const int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    int64_t turned_us = tally_clock_monotonic_us();
    while (health().flushes == flushes) {
        cr_assert(tally_clock_monotonic_us() < give_up_us);
        /* What a turn asks for may leave with the next one. */
        next_refresh_us = turned_us + 100000;
        turned_us = tally_clock_monotonic_us();
        event_base_loop(fixture.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    }
    event_base_loop(fixture.base, EVLOOP_ONCE); /* its replies */
}

/* Reads 100 users in one turn; false where a refresh may have fallen into it, whose write counts
 * too. */
static bool read_in_one_turn(void)
{
    memset(&seen, 0, sizeof seen);
    expected = 0;
    after_a_refresh();
    const int64_t flushes = health().flushes;
    for (int64_t id = 1; id <= 100; id++)
        start(id);
    cr_assert_eq(seen.answers, 0, "never from inside the call");
    event_base_loop(fixture.base, EVLOOP_ONCE); /* one turn: NONBLOCK alone goes on while it can */
    const struct tally_lookup_health after = health();
    const bool undisturbed = tally_clock_monotonic_us() < next_refresh_us;
    if (undisturbed) {
        cr_assert_eq(after.flushes, flushes + 1);
        cr_assert_eq(after.in_flight, 100);
    }
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_OK], 1);
    cr_assert_eq(seen.by_status[TALLY_USER_NOT_FOUND], 99);
    cr_assert_eq(health().in_flight, 0);
    return undisturbed;
}

Test(lookup, reads_of_one_turn_leave_in_one_write)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    while (!read_in_one_turn())
        cr_assert(tally_clock_monotonic_us() < give_up_us, "each turn takes longer than 100 ms");
}

Test(lookup, the_same_user_in_one_turn_is_read_once_and_answered_to_everyone)
{
    int64_t sent = health().reads_sent;
    for (int i = 0; i < 100; i++)
        start(42);
    cr_assert_eq(health().reads_sent, sent + 1);
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_OK], 100);
}

Test(lookup, a_later_turn_never_shares_a_read_that_has_left)
{
    after_a_refresh();
    start(42);
    event_base_loop(fixture.base, EVLOOP_ONCE);
    fixture_set_user(&fixture, GENERATION, 42, "v 6 posts 7");
    int64_t sent = health().reads_sent;
    start(42);
    cr_assert_eq(health().reads_sent, sent + 1);
    await_answers();
    cr_assert_eq(seen.version, 6);
    cr_assert_eq(seen.posts, 7);
}

Test(lookup, more_reads_than_allowed_are_refused_and_never_call_back)
{
    struct tally_error error = {0};
    for (int64_t id = 1; id <= 200; id++)
        start(id);
    cr_assert_eq(tally_lookup_read(lookup, 201, on_answer, NULL, &error), TALLY_OVERLOADED);
    await_answers();
    start(42);
    await_answers();
}

Test(lookup, a_miss_follows_a_generation_that_was_made_anew_between_two_refreshes)
{
    after_a_refresh();
    fixture_redis(&fixture, "FLUSHALL");
    fixture_make_generation(&fixture, GENERATION + 1);
    fixture_set_user(&fixture, GENERATION + 1, 42, "v 9 posts 8 comments 0 name A email a@b.c");
    start(42);
    start(4242);
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_OK], 1);
    cr_assert_eq(seen.version, 9);
    cr_assert_eq(seen.by_status[TALLY_USER_NOT_FOUND], 1);
}

Test(lookup, a_thread_that_slept_through_a_switch_does_not_answer_from_the_old_generation)
{
    after_a_refresh();
    usleep((TALLY_VIEW_TRUST_MS + 50) * 1000);
    fixture_make_generation(&fixture, GENERATION + 1);
    fixture_set_user(&fixture, GENERATION + 1, 42,
                     "v 6 posts 3 comments 3 name Alice email alice@example.org tl 1");
    start(42);
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_OK], 1);
    cr_assert_eq(seen.version, 6);
}

Test(lookup, a_miss_after_a_loss_between_two_refreshes_is_incomplete)
{
    after_a_refresh();
    fixture_redis(&fixture, "FLUSHALL");
    start(42);
    start(4242);
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_READ_MODEL_INCOMPLETE], 2);
}

Test(lookup, a_miss_in_a_partition_that_went_back_between_two_refreshes_is_incomplete)
{
    after_a_refresh();
    fixture_set_position(&fixture, GENERATION, fixture_partition(4242), "offset 50 until 0");
    start(4242);
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_READ_MODEL_INCOMPLETE], 1);
}

Test(lookup, a_silent_redis_fails_reads_once_each_and_then_refuses_them)
{
    kill(fixture.server.process, SIGSTOP);
    for (int64_t id = 1; id <= 50; id++)
        start(id);
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_UNAVAILABLE], 50);
    struct tally_error error = {0};
    cr_assert_eq(tally_lookup_read(lookup, 42, on_answer, NULL, &error), TALLY_UNAVAILABLE);
    cr_assert_str_neq(error.text, "");
    kill(fixture.server.process, SIGCONT);
    turn_until(complete);
    start(42);
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_OK], 1);
}

static void caught_up_now(void)
{
    char fields[64];
    (void)snprintf(fields, sizeof fields, "fresh_at_ms %lld",
                   (long long)(tally_clock_wall_us() / 1000));
    for (int32_t partition = 0; partition < FIXTURE_PARTITIONS; partition++)
        fixture_set_position(&fixture, GENERATION, partition, fields);
}

static bool refused_as_replica(void)
{
    return !health().connected && strstr(health().reason, "the server is a replica") != NULL;
}

static bool known_not_to_be_caught_up(void)
{
    return health().connected && strstr(health().reason, "Redis was started or replaced") != NULL;
}

Test(lookup, a_redis_that_becomes_a_replica_is_not_read_before_it_was_promoted_and_caught_up)
{
    struct tally_error error = {0};
    caught_up_now();
    turn_until(complete);
    fixture_redis(&fixture, "REPLICAOF 127.0.0.1 1"); /* nobody is there */
    turn_until(refused_as_replica);
    cr_assert_eq(tally_lookup_read(lookup, 42, on_answer, NULL, &error), TALLY_UNAVAILABLE);
    fixture_redis(&fixture, "REPLICAOF NO ONE");
    turn_until(known_not_to_be_caught_up);
    caught_up_now();
    turn_until(complete);
    start(42);
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_OK], 1);
}

Test(lookup, waiters_of_one_user_share_its_reads)
{
    struct tally_error error = {0};
    int64_t before = health().reads;
    int64_t deadline_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    for (int i = 0; i < 10; i++)
        cr_assert_eq(tally_lookup_wait(lookup, 42, 6, deadline_us, on_answer, NULL, &error),
                     TALLY_OK);
    expected = 10;
    cr_assert_eq(health().reads, before + 1);
    cr_assert_eq(tally_lookup_wait(lookup, 42, 6, deadline_us, on_answer, NULL, &error),
                 TALLY_OVERLOADED);
    after_a_refresh();
    cr_assert_eq(seen.answers, 0);
    fixture_set_user(&fixture, GENERATION, 42, "v 6");
    await_answers();
    cr_assert_eq(seen.by_status[TALLY_OK], 10);
    cr_assert_eq(health().waiters, 0);
}

Test(lookup, freeing_calls_back_everything_in_flight_once)
{
    struct tally_error error = {0};
    for (int64_t id = 1; id <= 20; id++)
        start(id);
    cr_assert_eq(tally_lookup_wait(lookup, 42, 6, INT64_MAX, on_answer, NULL, &error), TALLY_OK);
    expected++;
    tally_lookup_free(&lookup);
    cr_assert_eq(seen.answers, expected);
    cr_assert_eq(seen.by_status[TALLY_STOPPING], expected);
}
