/* Calls that a projector makes of malloc, the system and the libraries fail once: it goes on, or
 * ends and says why, and every event is counted once all the same. */
#include "core/clock.h"
#include "core/log.h"
#include "faults.h"
#include "projector_fixture.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of a run from start to stop, which takes long, and of one of a projector at work. */
enum { CALLS_OF_TERM = 40, CALLS_AT_WORK = 45, RUNS_MOST = 200, VERSIONS = 3 };
static const int64_t PATIENCE_US = INT64_C(150) * 1000000;

static struct fixture fixture;
static struct projector projector;
static int64_t users; /* that were created: 1 to `users`, every other one of them poisoned */

static void open_all(void)
{
    tally_log_set_level(TALLY_LOG_ERROR);
    fixture_open(&fixture);
}

static void close_all(void)
{
    if (projector.handle != NULL)
        projector_stop(&projector);
    fixture_close(&fixture);
}

TestSuite(faults_projector, .init = open_all, .fini = close_all, .timeout = 600);

/* The next user's events, and a record of the user after, who is named by nothing else. */
static void send_some(void)
{
    char key[24];
    (void)snprintf(key, sizeof key, "%" PRId64, users + 2);
    const struct tally_producer_message poison = {
        .key = key, .key_length = strlen(key), .value = "x", .value_length = 1};
    fixture_send_history(&fixture, users + 1, 1, VERSIONS);
    fixture_send_raw(&fixture, users + 2, &poison);
    users += 2;
}

static bool is(int64_t user_id, const char *expected)
{
    return strcmp(fixture_user(&fixture, user_id), expected) == 0;
}

/* A record whose headers cannot be read is one that nobody can apply: then its user is flagged. */
static bool is_poisoned(int64_t user_id)
{
    const char *user = fixture_user(&fixture, user_id);
    return strstr(faults_failed(), "header") != NULL && strcmp(strrchr(user, ' '), " 1") == 0;
}

static bool is_applied(void)
{
    const bool there = fixture_generation(&fixture) != 0;
    return there && is(users, "- - - - 1") &&
           (is(users - 1, fixture_history(VERSIONS)) || is_poisoned(users - 1));
}

/* Until all is applied, or the projector has ended by itself: then `error` says why. */
static enum tally_status await_applied(struct tally_error *error)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    while (!is_applied() && !atomic_load(&projector.ended)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "after %s failed: %s, %s",
                  faults_failed(), fixture_user(&fixture, users - 1),
                  fixture_user(&fixture, users));
        usleep(2000);
    }
    return atomic_load(&projector.ended) ? projector_await_end(&projector, error) : TALLY_OK;
}

static enum tally_status start_and_apply(struct tally_error *error)
{
    send_some();
    projector_start(&fixture, &projector);
    enum tally_status status = await_applied(error);
    if (status == TALLY_OK)
        projector_stop(&projector);
    return status;
}

/* The totals are what the users have, whatever failed when. */
static void expect_totals(void)
{
    char expected[96];
    int64_t count = 0, posts = 0, comments = 0;
    for (int64_t id = 1; id <= users; id++) {
        char *rest = NULL;
        if (strtoll(fixture_user(&fixture, id), &rest, 10) == 0)
            continue;
        count++;
        posts += strtoll(rest, &rest, 10);
        comments += strtoll(rest, &rest, 10);
    }
    cr_expect_eq(count, users / 2);
    (void)snprintf(expected, sizeof expected, "%" PRId64 " %" PRId64 " %" PRId64, count, posts,
                   comments);
    cr_expect_str_eq(fixture_totals(&fixture), expected);
}

Test(faults_projector, a_term_applies_everything_or_ends_and_says_why)
{
    const long calls = faults_each_place(start_and_apply, FAULTS_OF_OTHER_THREADS, CALLS_OF_TERM);
    cr_expect_gt(calls, 20 / FAULTS_STRIDE);
    expect_totals();
}

static enum tally_status apply(struct tally_error *error)
{
    if (projector.handle == NULL)
        projector_start(&fixture, &projector);
    send_some();
    return await_applied(error);
}

Test(faults_projector, a_projector_at_work_applies_everything_or_ends_and_says_why)
{
    const long calls = faults_each_place(apply, FAULTS_OF_OTHER_THREADS, CALLS_AT_WORK);
    cr_expect_gt(calls, 20 / FAULTS_STRIDE);
    expect_totals();
}

static void on_ended(void *context)
{
    atomic_store((atomic_bool *)context, true);
}

static enum tally_status start_and_stop(struct tally_error *error)
{
    /* What a projector that could not be started has told the metrics of stays. */
    static struct tally_metrics *metrics[2 * RUNS_MOST];
    static size_t count;
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    struct tally_projector *handle = NULL;
    atomic_bool ended = false;
    struct tally_metrics *own = tally_metrics_new();
    const struct tally_projector_options options = {
        .settings = &projector.settings, .metrics = own, .on_ended = on_ended, .context = &ended};
    if (own == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "metrics");
    metrics[count++] = own;
    const enum tally_status status = tally_projector_start(&options, &handle, error);
    if (status != TALLY_OK)
        return status;
    tally_projector_stop(handle);
    while (!atomic_load(&ended)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "it does not end");
        usleep(1000);
    }
    tally_projector_free(&handle);
    tally_metrics_free(&metrics[--count]);
    return TALLY_OK;
}

Test(faults_projector, it_is_started_or_says_why_not)
{
    projector_start(&fixture, &projector); /* for its settings */
    projector_stop(&projector);
    const long calls = faults_each(start_and_stop, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 20);
    cr_expect_lt(calls, RUNS_MOST);
}
