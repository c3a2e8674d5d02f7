/* Every call that the write path makes of malloc, the system and the libraries fails once: the
 * request gets an answer or its connection ends, and the next one is served. */
#include "core/clock.h"
#include "core/config.h"
#include "core/log.h"
#include "database.h"
#include "faults.h"
#include "http/client.h"
#include "loop/loop.h"
#include "service/command/command.h"

#include <criterion/criterion.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

enum { WAIT_US = 120 * 1000000, RUNS_MOST = 2000 };

static struct test_database database;
static struct tally_settings settings;
static struct event_base *base;
static struct event *tick;
static struct tally_metrics *metrics;
static struct tally_command_service *service;
static int requests;

struct answer {
    bool done;
    enum tally_status status;
    int http_status;
    char text[512];
};

static void start(void)
{
    static struct tally_config config;
    struct tally_error error = {0};
    test_database_create(&database);
    config = (struct tally_config){.program = TALLY_PROGRAM_COMMAND};
    cr_assert_eq(tally_config_load(&config, &error), TALLY_OK, "%s", error.text);
    settings = config.settings;
    settings.command_connections = 1;
    (void)snprintf(settings.command_listen, sizeof settings.command_listen, "127.0.0.1:0");
    (void)snprintf(settings.pg_dsn, sizeof settings.pg_dsn, "%s", database.dsn);
    tally_log_set_level(TALLY_LOG_ERROR);
    base = tally_loop_new();
    tick = faults_tick(base);
}

static void stop(void)
{
    event_free(tick);
    event_base_free(base);
    test_database_drop(&database);
}

TestSuite(faults_write, .init = start, .fini = stop, .timeout = 600);

static bool is_ready(void)
{
    char reason[256];
    return tally_command_check_postgresql(service, reason) &&
           tally_command_check_schema(service, reason);
}

static void on_answer(const struct tally_http_client_answer *received, void *context)
{
    struct answer *answer = context;
    size_t length;
    answer->status = tally_http_client_status(received);
    answer->http_status = tally_http_client_http_status(received);
    (void)snprintf(answer->text, sizeof answer->text, "%s%s", tally_http_client_error(received),
                   tally_http_client_body(received, &length));
    answer->done = true;
}

static bool turn_until(const bool *done)
{
    const int64_t due_us = tally_clock_monotonic_us() + WAIT_US;
    while (tally_clock_monotonic_us() < due_us && !(done != NULL ? *done : is_ready()))
        event_base_loop(base, EVLOOP_ONCE);
    return done != NULL ? *done : is_ready();
}

static enum tally_status ask(struct tally_http_client *client, const char *method,
                             const char *target, const char *body, struct tally_error *error)
{
    struct answer answer = {0};
    char headers[96];
    (void)snprintf(headers, sizeof headers,
                   "Content-Type: application/json\r\nIdempotency-Key: k%d\r\n", requests);
    const struct tally_http_client_request request = {
        .method = method,
        .target = target,
        .headers = headers,
        .body = body,
        .body_length = strlen(body),
    };
    enum tally_status status = tally_http_client_send(client, &request, on_answer, &answer, error);
    if (status != TALLY_OK)
        return status;
    cr_assert(turn_until(&answer.done), "no answer and no end after %s failed", faults_failed());
    if (answer.status != TALLY_OK)
        return tally_fail(error, answer.status, "%s", answer.text);
    if (answer.http_status != 201)
        return tally_fail(error, TALLY_INTERNAL, "%d %s", answer.http_status, answer.text);
    return TALLY_OK;
}

static enum tally_status write_user(struct tally_error *error)
{
    struct tally_http_client *client = NULL;
    char address[32];
    char body[128];
    cr_assert(turn_until(NULL), "the service is not ready after %s failed", faults_failed());
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", tally_command_service_port(service));
    (void)snprintf(body, sizeof body, "{\"name\":\"a\",\"email\":\"a%d@example.org\"}", requests++);
    enum tally_status status = tally_http_client_new(base, address, 0, &client, error);
    if (status == TALLY_OK)
        status = ask(client, "POST", "/v1/users", body, error);
    tally_http_client_free(&client);
    event_base_loop(base, EVLOOP_NONBLOCK);
    return status;
}

static enum tally_status start_service(struct tally_error *error)
{
    const struct tally_command_service_options options = {&settings, base, metrics,
                                                          NULL,      NULL, NULL};
    return tally_command_service_new(&options, &service, error);
}

Test(faults_write, a_request_is_answered_or_ended)
{
    struct tally_error error = {0};
    metrics = tally_metrics_new();
    cr_assert_eq(start_service(&error), TALLY_OK, "%s", error.text);
    const long calls = faults_each(write_user, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 20);
    cr_expect_lt(calls, RUNS_MOST);
    tally_command_service_free(&service);
    tally_metrics_free(&metrics);
}
