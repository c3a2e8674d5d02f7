/* Every call that reading, and comparing the read model with the write model, makes of malloc, the
 * system and the libraries fails once: it is answered or refused, and the next one is right. */
#include "core/clock.h"
#include "core/log.h"
#include "database.h"
#include "faults.h"
#include "query_fixture.h"
#include "service/ctl/verify.h"

#include <criterion/criterion.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

enum { RUNS_MOST = 1500, WAIT_US = 30 * 1000000, USER = 1 };

static struct test_database database;
static struct fixture fixture;
static struct event *tick;

static void on_tick(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor, (void)what, (void)argument;
}

static void open_all(void)
{
    const struct timeval period = {0, 5000};
    test_database_create(&database);
    test_database_run(database.connection,
                      "insert into users (id, name, email, avatar, version) values"
                      " (1, 'Ann', 'ann@x.test', null, 2);"
                      "insert into posts (id, author_id, body) values (11, 1, 'x')");
    fixture_open(&fixture);
    fixture_make_generation(&fixture, FIXTURE_GENERATION);
    fixture_set_user(&fixture, FIXTURE_GENERATION, USER,
                     "v 2 posts 1 comments 0 name Ann email ann@x.test tl 1");
    fixture_redis(&fixture, "HSET tally:%d:{%d}:totals users 1 posts 1 comments 0",
                  FIXTURE_GENERATION, 0);
    tally_log_set_level(TALLY_LOG_ERROR);
    tick = event_new(fixture.base, -1, EV_PERSIST, on_tick, NULL);
    event_add(tick, &period);
}

static void close_all(void)
{
    event_free(tick);
    fixture_close(&fixture);
    test_database_drop(&database);
}

TestSuite(faults_read, .init = open_all, .fini = close_all, .timeout = 110);

static enum tally_status verify(struct tally_error *error)
{
    struct tally_verify_result result = {0};
    const struct tally_verify_options options = {
        .pg_dsn = database.dsn,
        .redis_url = fixture.redis_url,
        .redis_timeout_ms = 5000,
        .grace_ms = 100,
        .pending_most = 2,
    };
    enum tally_status status = tally_verify_run(&options, &result, error);
    cr_expect(status != TALLY_OK || (result.checked == 1 && result.differences == 0),
              "after %s failed: %lld checked, %lld differ", faults_failed(),
              (long long)result.checked, (long long)result.differences);
    return status;
}

Test(faults_read, verify_is_right_or_says_why_it_cannot_be)
{
    const long calls = faults_each(verify, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls failed", calls);
    cr_expect_gt(calls, 20);
    cr_expect_lt(calls, RUNS_MOST);
}

struct outcome {
    bool done;
    enum tally_status status;
    int http_status;
    char text[512];
};

static void on_answer(const struct tally_http_client_answer *received, void *context)
{
    struct outcome *outcome = context;
    size_t length;
    outcome->status = tally_http_client_status(received);
    outcome->http_status = tally_http_client_http_status(received);
    (void)snprintf(outcome->text, sizeof outcome->text, "%s%s", tally_http_client_error(received),
                   tally_http_client_body(received, &length));
    outcome->done = true;
}

static enum tally_status get(const char *target, struct tally_error *error)
{
    struct tally_http_client *client = NULL;
    struct outcome outcome = {0};
    const struct tally_http_client_request request = {.method = "GET", .target = target};
    const int64_t due_us = tally_clock_monotonic_us() + WAIT_US;
    enum tally_status status =
        tally_http_client_new(fixture.base, fixture.settings.query_listen, 0, &client, error);
    if (status == TALLY_OK)
        status = tally_http_client_send(client, &request, on_answer, &outcome, error);
    while (status == TALLY_OK && !outcome.done && tally_clock_monotonic_us() < due_us)
        event_base_loop(fixture.base, EVLOOP_ONCE);
    tally_http_client_free(&client);
    event_base_loop(fixture.base, EVLOOP_NONBLOCK);
    if (status != TALLY_OK)
        return status;
    cr_assert(outcome.done, "no answer and no end after %s failed", faults_failed());
    if (outcome.status != TALLY_OK)
        return tally_fail(error, outcome.status, "%s", outcome.text);
    if (outcome.http_status != 200)
        return tally_fail(error, TALLY_INTERNAL, "%d %s", outcome.http_status, outcome.text);
    cr_expect_not_null(strstr(outcome.text, "\"postCount\":1"), "%s", outcome.text);
    return TALLY_OK;
}

/* What was lost is connected to again, within the time that a person would wait. */
static enum tally_status read_user(struct tally_error *error)
{
    fixture_await_complete(&fixture, true);
    return get("/v1/users/1", error);
}

Test(faults_read, a_user_is_read_or_refused)
{
    fixture_serve(&fixture, 5000);
    fixture_await_complete(&fixture, true);
    const long calls = faults_each(read_user, FAULTS_OF_ALL_THREADS, RUNS_MOST);
    cr_log_info("%ld calls failed", calls);
    cr_expect_gt(calls, 20);
    cr_expect_lt(calls, RUNS_MOST);
}
