/* Every call that the read model's adapter makes fails once: each step says so, and the next
 * attempt is right. */
#include "core/clock.h"
#include "faults.h"
#include "loop/loop.h"
#include "redis_server.h"
#include "view/apply.h"
#include "view/generation.h"
#include "view/lookup.h"
#include "view/pause.h"

#include <criterion/criterion.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

enum { RUNS_MOST = 2000, WAIT_US = 120 * 1000000, USER = 7 };

static struct redis_server server;
static struct tally_redis_url url;
static struct event_base *base;
static struct event *tick;
static struct tally_lookup *lookup;

static void start(void)
{
    struct tally_error error = {0};
    redis_server_start(&server, "noeviction");
    cr_assert_eq(tally_redis_url_parse(server.url, &url, &error), TALLY_OK, "%s", error.text);
    base = tally_loop_new();
    tick = faults_tick(base);
}

static void stop(void)
{
    event_free(tick);
    event_base_free(base);
    redis_server_stop(&server);
}

TestSuite(faults_redis, .init = start, .fini = stop, .timeout = 600);

static enum tally_status apply_user(struct tally_redis *redis, int64_t generation,
                                    const struct tally_position *position,
                                    struct tally_error *error)
{
    static const struct tally_user_state state = {
        .version = 3, .posts = 1, .comments = 1, .timeline = 1};
    static char name[] = "Ada";
    static char email[] = "a@b.c";
    const struct tally_profile profile = {.name = name, .email = email};
    const struct tally_apply_user user = {.user_id = USER,
                                          .state = &state,
                                          .parts = TALLY_APPLY_RECORD | TALLY_APPLY_PROFILE,
                                          .profile = &profile,
                                          .day = 0};
    const struct tally_apply apply = {.generation = generation,
                                      .epoch = position->epoch,
                                      .from_offset = position->offset,
                                      .to_offset = position->offset + 1,
                                      .event_at_ms = 1,
                                      /* Fresh whenever the Redis was started. */
                                      .fresh_at_ms = INT64_C(4000000000000),
                                      .totals = {1, 1, 1},
                                      .totals_changed = true,
                                      .users = &user,
                                      .user_count = 1,
                                      .days = {"2026-11-22"},
                                      .day_count = 1};
    struct tally_apply_encoder encoder;
    struct tally_buffer out;
    redisReply *reply = NULL;
    tally_apply_encoder_init(&encoder);
    tally_buffer_init(&out, 1 << 20);
    enum tally_status status = tally_script_load(redis, tally_script_apply, encoder.sha, error);
    if (status == TALLY_OK)
        status = tally_apply_encode(&encoder, &apply, &out, error);
    if (status == TALLY_OK)
        status = tally_redis_append_raw(redis, out.data, out.length, error);
    if (status == TALLY_OK)
        status = tally_redis_receive(redis, &reply, error);
    if (status == TALLY_OK)
        status = tally_apply_outcome(reply, error);
    if (reply != NULL)
        freeReplyObject(reply);
    tally_buffer_release(&out);
    tally_apply_encoder_release(&encoder);
    return status;
}

static enum tally_status use(struct tally_redis *redis, struct tally_error *error)
{
    const int64_t until = 0;
    const int32_t partition = 0;
    const struct tally_generation wanted = {
        .number = 1795348800, .cluster = "c", .partitions = 1, .until = &until};
    struct tally_position position = {0};
    struct tally_view_pause pause;
    struct tally_generation_entry entries[TALLY_GENERATIONS_MOST];
    int64_t generation = 0;
    size_t count = 0;
    enum tally_status status = tally_redis_check_server(redis, error);
    if (status == TALLY_OK)
        status = tally_generation_create(redis, &wanted, &generation, error);
    if (status == TALLY_OK)
        status = tally_position_claim(redis, generation, &partition, 1, 1, &position, error);
    if (status == TALLY_OK)
        status = tally_generation_sealed(redis, &generation, error);
    if (status == TALLY_OK)
        status = tally_generation_read(redis, &generation, error);
    if (status == TALLY_OK)
        status = apply_user(redis, generation, &position, error);
    if (status == TALLY_OK)
        status = tally_view_pause_set(redis, 1, "why", error);
    if (status == TALLY_OK)
        status = tally_view_pause_read(redis, &pause, error);
    if (status == TALLY_OK)
        status = tally_view_pause_clear(redis, error);
    if (status == TALLY_OK)
        status = tally_generation_list(redis, entries, &count, error);
    return status;
}

static enum tally_status connect_and_use(struct tally_error *error)
{
    struct tally_redis *redis = NULL;
    enum tally_status status = tally_redis_open(&url, 5000, &redis, error);
    if (status == TALLY_OK)
        status = use(redis, error);
    tally_redis_close(&redis);
    return status;
}

Test(faults_redis, what_a_projector_writes_is_written_or_said_not_to_be)
{
    const long calls = faults_each(connect_and_use, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 20);
    cr_expect_lt(calls, RUNS_MOST);
}

struct outcome {
    bool done;
    enum tally_status status;
};

static void on_user(enum tally_status status, const struct tally_lookup_user *user, void *context)
{
    struct outcome *outcome = context;
    cr_expect(!outcome->done, "called back twice after %s failed", faults_failed());
    cr_expect(status != TALLY_OK || user->version == 3);
    *outcome = (struct outcome){true, status};
}

static void on_count(enum tally_status status, const struct tally_lookup_stats *stats,
                     void *context)
{
    struct outcome *outcome = context;
    cr_expect(!outcome->done, "called back twice after %s failed", faults_failed());
    cr_expect(status != TALLY_OK || stats->users == 1);
    *outcome = (struct outcome){true, status};
}

static enum tally_status await(const struct outcome *outcome, struct tally_error *error)
{
    const int64_t due_us = tally_clock_monotonic_us() + WAIT_US;
    while (!outcome->done && tally_clock_monotonic_us() < due_us)
        event_base_loop(base, EVLOOP_ONCE);
    cr_assert(outcome->done, "never called back after %s failed", faults_failed());
    return outcome->status == TALLY_OK
               ? TALLY_OK
               : tally_fail(error, outcome->status, "%s", tally_status_slug(outcome->status));
}

static bool complete(void)
{
    struct tally_lookup_health health;
    tally_lookup_health(lookup, &health);
    return health.complete;
}

static void await_complete(void)
{
    const int64_t due_us = tally_clock_monotonic_us() + WAIT_US;
    while (!complete() && tally_clock_monotonic_us() < due_us)
        event_base_loop(base, EVLOOP_ONCE);
    cr_assert(complete(), "no read model after %s failed", faults_failed());
}

static enum tally_status look_up(struct tally_error *error)
{
    struct outcome read = {0};
    struct outcome counted = {0};
    await_complete();
    enum tally_status status = tally_lookup_read(lookup, USER, on_user, &read, error);
    if (status == TALLY_OK)
        status = await(&read, error);
    if (status == TALLY_OK)
        status = tally_lookup_count(lookup, on_count, &counted, error);
    return status == TALLY_OK ? await(&counted, error) : status;
}

static enum tally_status open_lookup(struct tally_error *error)
{
    const struct tally_lookup_options options = {.redis_url = server.url,
                                                 .timeout_ms = 5000,
                                                 .patience_ms = 5000,
                                                 .in_flight_most = 16,
                                                 .waiters_most = 4};
    return tally_lookup_new(base, &options, &lookup, error);
}

static enum tally_status look_up_anew(struct tally_error *error)
{
    enum tally_status status = open_lookup(error);
    if (status == TALLY_OK)
        status = look_up(error);
    tally_lookup_free(&lookup);
    event_base_loop(base, EVLOOP_NONBLOCK);
    return status;
}

Test(faults_redis, a_read_is_answered_or_refused)
{
    struct tally_error error = {0};
    cr_assert_eq(connect_and_use(&error), TALLY_OK, "%s", error.text);
    cr_assert_eq(open_lookup(&error), TALLY_OK, "%s", error.text);
    const long calls = faults_each(look_up, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 10);
    cr_expect_lt(calls, RUNS_MOST);
    tally_lookup_free(&lookup);
}

Test(faults_redis, a_reader_connects_or_says_why_not)
{
    struct tally_error error = {0};
    cr_assert_eq(connect_and_use(&error), TALLY_OK, "%s", error.text);
    const long calls = faults_each(look_up_anew, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 10);
    cr_expect_lt(calls, RUNS_MOST);
}
