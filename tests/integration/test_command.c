#include "core/clock.h"
#include "core/config.h"
#include "database.h"
#include "http/client.h"
#include "loop/loop.h"
#include "service/command/command.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { WAIT_US = 120 * 1000000, CLIENTS = 20 };

static struct test_database database;
static struct tally_settings settings;
static struct event_base *base;
static struct event *tick;
static struct tally_metrics *metrics;
static struct tally_command_service *service;
static struct tally_http_client *clients[CLIENTS];

struct answer {
    int status;
    char body[1024];
    char tag[64];
    char location[64];
    char type[64];
    bool replayed;
    bool retry_after;
    bool done;
};

static void on_tick(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor;
    (void)what;
    (void)argument;
}

static void turn_until(bool (*done)(void *context), void *context)
{
    int64_t deadline_us = tally_clock_monotonic_us() + WAIT_US;
    while (!done(context)) {
        cr_assert_lt(tally_clock_monotonic_us(), deadline_us, "nothing more happens");
        event_base_loop(base, EVLOOP_ONCE);
    }
}

static bool ready(void *context)
{
    char reason[256] = "";
    return tally_command_check_postgresql(context, reason) &&
           tally_command_check_schema(context, reason);
}

static void load_settings(const char *dsn)
{
    static struct tally_config config;
    struct tally_error error = {0};
    config = (struct tally_config){.program = TALLY_PROGRAM_COMMAND};
    cr_assert_eq(tally_config_load(&config, &error), TALLY_OK, "%s", error.text);
    settings = config.settings;
    (void)snprintf(settings.command_listen, sizeof settings.command_listen, "127.0.0.1:0");
    (void)snprintf(settings.pg_dsn, sizeof settings.pg_dsn, "%s", dsn);
}

static enum tally_status start_service(struct tally_error *error)
{
    const struct tally_command_service_options options = {&settings, base, metrics,
                                                          NULL,      NULL, NULL};
    return tally_command_service_new(&options, &service, error);
}

static void start_loop(void)
{
    const struct timeval period = {0, 20000};
    base = tally_loop_new();
    metrics = tally_metrics_new();
    tick = event_new(base, -1, EV_PERSIST, on_tick, NULL);
    event_add(tick, &period);
}

static void start_clients(void)
{
    struct tally_error error = {0};
    char address[32];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", tally_command_service_port(service));
    for (int i = 0; i < CLIENTS; i++)
        cr_assert_eq(tally_http_client_new(base, address, 0, &clients[i], &error), TALLY_OK, "%s",
                     error.text);
}

static void start(void)
{
    struct tally_error error = {0};
    test_database_create(&database);
    start_loop();
    load_settings(database.dsn);
    cr_assert_eq(start_service(&error), TALLY_OK, "%s", error.text);
    turn_until(ready, service);
    start_clients();
}

static void stop_loop(void)
{
    for (int i = 0; i < CLIENTS; i++)
        tally_http_client_free(&clients[i]);
    tally_command_service_free(&service);
    tally_metrics_free(&metrics);
    event_free(tick);
    event_base_free(base);
}

static void stop(void)
{
    stop_loop();
    test_database_drop(&database);
}

TestSuite(command, .init = start, .fini = stop, .timeout = 300);
TestSuite(command_start, .timeout = 300);

static void copy_header(char *to, size_t bytes, const struct tally_http_client_answer *answer,
                        const char *name)
{
    const char *value = tally_http_client_header(answer, name);
    (void)snprintf(to, bytes, "%s", value != NULL ? value : "");
}

static void on_answer(const struct tally_http_client_answer *received, void *context)
{
    struct answer *answer = context;
    size_t length;
    answer->status = tally_http_client_http_status(received);
    (void)snprintf(answer->body, sizeof answer->body, "%s",
                   tally_http_client_body(received, &length));
    copy_header(answer->tag, sizeof answer->tag, received, "ETag");
    copy_header(answer->location, sizeof answer->location, received, "Location");
    copy_header(answer->type, sizeof answer->type, received, "Content-Type");
    answer->replayed = tally_http_client_header(received, "Idempotent-Replayed") != NULL;
    answer->retry_after = tally_http_client_header(received, "Retry-After") != NULL;
    answer->done = true;
}

static bool answered(void *context)
{
    return ((struct answer *)context)->done;
}

static void begin_request(int client, const char *method, const char *target, const char *headers,
                          const char *body, struct answer *answer)
{
    struct tally_error error = {0};
    char lines[512];
    *answer = (struct answer){0};
    (void)snprintf(lines, sizeof lines, "%s%s",
                   body != NULL ? "Content-Type: application/json\r\n" : "",
                   headers != NULL ? headers : "");
    const struct tally_http_client_request request = {
        .method = method,
        .target = target,
        .headers = lines,
        .body = body,
        .body_length = body != NULL ? strlen(body) : 0,
    };
    cr_assert_eq(tally_http_client_send(clients[client], &request, on_answer, answer, &error),
                 TALLY_OK, "%s", error.text);
}

static struct answer request(const char *method, const char *target, const char *headers,
                             const char *body)
{
    struct answer answer;
    begin_request(0, method, target, headers, body, &answer);
    turn_until(answered, &answer);
    return answer;
}

/* A member of the answer's JSON object as text; numbers too. */
static const char *member(const struct answer *answer, const char *name)
{
    static char text[4][128];
    static unsigned turn;
    char *out = text[turn++ % 4];
    json_t *object = json_loads(answer->body, 0, NULL);
    cr_assert_not_null(object, "%d: %s", answer->status, answer->body);
    const json_t *value = json_object_get(object, name);
    if (json_is_integer(value))
        (void)snprintf(out, 128, "%lld", (long long)json_integer_value(value));
    else
        (void)snprintf(out, 128, "%s", json_is_string(value) ? json_string_value(value) : "");
    json_decref(object);
    return out;
}

static const char *made(const struct answer *answer, const char *location)
{
    char expected[128];
    cr_assert_eq(answer->status, 201, "%d: %s", answer->status, answer->body);
    const char *id = member(answer, "id");
    (void)snprintf(expected, sizeof expected, "%s%s", location, id);
    cr_assert_str_eq(answer->location, expected);
    (void)snprintf(expected, sizeof expected, "\"%s\"", member(answer, "version"));
    cr_assert_str_eq(answer->tag, expected);
    return id;
}

/* Copied, since member() reuses its texts. */
struct id {
    char text[24];
};

static struct id make_user(const char *email)
{
    struct id id;
    char body[128];
    (void)snprintf(body, sizeof body, "{\"name\":\"Ada\",\"email\":\"%s\"}", email);
    struct answer answer = request("POST", "/v1/users", NULL, body);
    (void)snprintf(id.text, sizeof id.text, "%s", made(&answer, "/v1/users/"));
    return id;
}

static struct id make_post(struct id author)
{
    struct id id;
    char body[128];
    (void)snprintf(body, sizeof body, "{\"authorId\":\"%s\",\"body\":\"A post.\"}", author.text);
    struct answer answer = request("POST", "/v1/posts", NULL, body);
    cr_assert_str_eq(member(&answer, "userId"), author.text);
    (void)snprintf(id.text, sizeof id.text, "%s", made(&answer, "/v1/posts/"));
    return id;
}

static struct answer with_id(const char *method, const char *pattern, struct id id,
                             const char *headers, const char *body)
{
    char target[128];
    const char *place = strchr(pattern, '*');
    (void)snprintf(target, sizeof target, "%.*s%s%s", (int)(place - pattern), pattern, id.text,
                   place + 1);
    return request(method, target, headers, body);
}

static void expect_problem(struct answer answer, int status, const char *slug)
{
    char type[128];
    (void)snprintf(type, sizeof type, "urn:tally:problem:%s", slug);
    cr_expect_eq(answer.status, status, "%d: %s", answer.status, answer.body);
    cr_expect_str_eq(member(&answer, "type"), type);
    cr_expect_str_eq(answer.type, "application/problem+json");
}

Test(command, every_write_answers_with_ids_version_and_tag)
{
    struct id ada = make_user("ada@example.org");
    struct id post = make_post(ada);
    struct id comment;
    char body[128];
    (void)snprintf(body, sizeof body, "{\"authorId\":\"%s\",\"body\":\"A comment.\"}", ada.text);
    struct answer answer = with_id("POST", "/v1/posts/*/comments", post, NULL, body);
    (void)snprintf(comment.text, sizeof comment.text, "%s", made(&answer, "/v1/comments/"));
    answer = with_id("DELETE", "/v1/comments/*", comment, NULL, NULL);
    cr_assert_eq(answer.status, 200);
    cr_assert_str_eq(member(&answer, "id"), comment.text);
    cr_assert_str_eq(member(&answer, "version"), "4");
    answer = with_id("DELETE", "/v1/posts/*", post, NULL, NULL);
    cr_assert_eq(answer.status, 200);
    cr_assert_str_eq(answer.tag, "\"5\"");
    cr_assert_str_eq(answer.location, "");
    answer = with_id("PATCH", "/v1/users/*", ada, NULL, "{\"name\":\"Countess\"}");
    cr_assert_eq(answer.status, 200);
    cr_assert_str_eq(member(&answer, "userId"), ada.text);
    answer = with_id("DELETE", "/v1/users/*", ada, NULL, NULL);
    cr_assert_eq(answer.status, 202);
    cr_assert_str_eq(answer.tag, "\"7\"");
}

Test(command, refusals_are_problems_with_their_own_type)
{
    struct id ada = make_user("ada@example.org");
    struct id none = {"1"};
    struct id word = {"abc"};
    const char *post = "{\"authorId\":\"1\",\"body\":\"b\"}";
    expect_problem(
        request("POST", "/v1/users", NULL, "{\"name\":\"a\",\"email\":\"ADA@example.org\"}"), 409,
        "email-taken");
    expect_problem(request("POST", "/v1/users", NULL, "{\"name\":\"a\"}"), 400, "invalid-request");
    expect_problem(request("POST", "/v1/users", NULL, "[1]"), 400, "invalid-request");
    expect_problem(request("POST", "/v1/posts", NULL, post), 404, "user-not-found");
    expect_problem(with_id("POST", "/v1/posts/*/comments", none, NULL, post), 404,
                   "post-not-found");
    expect_problem(with_id("POST", "/v1/posts/*/comments", word, NULL, post), 404,
                   "post-not-found");
    expect_problem(with_id("DELETE", "/v1/posts/*", none, NULL, NULL), 404, "post-not-found");
    expect_problem(with_id("DELETE", "/v1/comments/*", none, NULL, NULL), 404, "comment-not-found");
    expect_problem(with_id("DELETE", "/v1/users/*", none, NULL, NULL), 404, "user-not-found");
    expect_problem(with_id("PATCH", "/v1/users/*", word, NULL, "{\"name\":\"a\"}"), 404,
                   "user-not-found");
    expect_problem(with_id("PATCH", "/v1/users/*", ada, NULL, "{}"), 400, "invalid-request");
    expect_problem(with_id("GET", "/v1/users/*", ada, NULL, NULL), 405, "method-not-allowed");
    cr_assert_eq(test_database_number(database.connection, "select count(*) from events"), 1);
}

Test(command, if_match_lets_only_the_version_it_names_through)
{
    struct id ada = make_user("ada@example.org");
    const char *change = "{\"name\":\"Countess\"}";
    expect_problem(with_id("PATCH", "/v1/users/*", ada, "If-Match: \"2\"\r\n", change), 412,
                   "version-mismatch");
    cr_assert_eq(with_id("PATCH", "/v1/users/*", ada, "If-Match: \"1\"\r\n", change).status, 200);
    cr_assert_eq(with_id("PATCH", "/v1/users/*", ada, "If-Match: *\r\n", change).status, 200);
    expect_problem(with_id("PATCH", "/v1/users/*", ada, "If-Match: W/\"3\"\r\n", change), 400,
                   "invalid-request");
    expect_problem(
        with_id("PATCH", "/v1/users/*", ada, "If-Match: \"3\"\r\nIf-Match: \"4\"\r\n", change), 400,
        "invalid-request");
    expect_problem(with_id("DELETE", "/v1/users/*", ada, "If-Match: \"1\"\r\n", NULL), 412,
                   "version-mismatch");
    struct id post = make_post(ada);
    expect_problem(with_id("DELETE", "/v1/posts/*", post, "If-Match: \"4\"\r\n", NULL), 400,
                   "invalid-request");
    cr_assert_eq(with_id("DELETE", "/v1/users/*", ada, "If-Match: \"4\"\r\n", NULL).status, 202);
}

Test(command, a_repeated_request_gets_the_stored_answer)
{
    struct id ada = make_user("ada@example.org");
    char body[128];
    (void)snprintf(body, sizeof body, "{\"authorId\":\"%s\",\"body\":\"A post.\"}", ada.text);
    struct answer first = request("POST", "/v1/posts", "Idempotency-Key: \"k-1\"\r\n", body);
    struct answer again = request("POST", "/v1/posts", "Idempotency-Key: k-1\r\n", body);
    cr_assert_eq(first.status, 201);
    cr_assert_not(first.replayed);
    cr_assert(again.replayed);
    cr_assert_eq(again.status, 201);
    cr_assert_str_eq(again.body, first.body);
    cr_assert_str_eq(again.location, first.location);
    body[strlen(body) - 3] = '!';
    expect_problem(request("POST", "/v1/posts", "Idempotency-Key: k-1\r\n", body), 422,
                   "idempotency-key-reused");
    expect_problem(request("POST", "/v1/posts", "Idempotency-Key: \"\"\r\n", body), 400,
                   "invalid-request");
    cr_assert_eq(test_database_number(database.connection, "select count(*) from posts"), 1);
}

struct crowd {
    struct answer answers[CLIENTS];
};

static bool all_answered(void *context)
{
    struct crowd *crowd = context;
    for (int i = 0; i < CLIENTS; i++) {
        if (!crowd->answers[i].done)
            return false;
    }
    return true;
}

Test(command, of_20_requests_with_one_key_at_once_one_is_made_and_the_others_may_retry)
{
    static struct crowd crowd;
    struct id ada = make_user("ada@example.org");
    char body[128];
    int created = 0;
    (void)snprintf(body, sizeof body, "{\"authorId\":\"%s\",\"body\":\"A post.\"}", ada.text);
    for (int i = 0; i < CLIENTS; i++)
        begin_request(i, "POST", "/v1/posts", "Idempotency-Key: same\r\n", body, &crowd.answers[i]);
    turn_until(all_answered, &crowd);
    for (int i = 0; i < CLIENTS; i++) {
        const struct answer *answer = &crowd.answers[i];
        created += answer->status == 201 && !answer->replayed;
        if (answer->status != 201) {
            expect_problem(*answer, 409, "idempotency-key-in-use");
            cr_expect(answer->retry_after);
        }
    }
    cr_assert_eq(created, 1);
    cr_assert_eq(test_database_number(database.connection, "select count(*) from posts"), 1);
}

Test(command, the_trace_of_the_request_goes_into_its_event)
{
    const char *headers =
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    struct answer answer =
        request("POST", "/v1/users", headers, "{\"name\":\"a\",\"email\":\"a@example.org\"}");
    cr_assert_eq(answer.status, 201);
    cr_assert_eq(test_database_number(database.connection,
                                      "select count(*) from events where traceparent like"
                                      " '00-0af7651916cd43dd8448eb211c80319c-%-01' and traceparent"
                                      " not like '%b7ad6b7169203331%'"),
                 1);
    make_user("b@example.org");
    cr_assert_eq(test_database_number(database.connection,
                                      "select count(*) from events where length(traceparent) = 55"),
                 2, "a trace is started where none came");
}

static bool both_connected(void *context)
{
    (void)context;
    struct tally_buffer out;
    tally_buffer_init(&out, 1 << 20);
    tally_metrics_render(metrics, &out);
    const bool both =
        strstr(tally_buffer_text(&out), "tally_command_pg_connections_up 2\n") != NULL;
    tally_buffer_release(&out);
    return both;
}

Test(command, metrics_count_requests_and_outcomes)
{
    struct tally_buffer out;
    struct id none = {"1"};
    make_user("ada@example.org");
    expect_problem(with_id("DELETE", "/v1/posts/*", none, NULL, NULL), 404, "post-not-found");
    turn_until(both_connected, NULL);
    tally_buffer_init(&out, 1 << 20);
    tally_metrics_render(metrics, &out);
    const char *text = tally_buffer_text(&out);
    cr_expect_not_null(
        strstr(text, "tally_command_requests_total{route=\"POST /v1/users\",status=\"2xx\"} 1\n"));
    cr_expect_not_null(strstr(text, "tally_command_commands_total{kind=\"delete_post\",outcome="
                                    "\"post-not-found\"} 1\n"));
    cr_expect_not_null(strstr(text, "tally_breaker_state{dependency=\"postgresql\"} 0\n"));
    tally_buffer_release(&out);
}

Test(command, the_sweeper_finishes_what_a_deleted_user_leaves)
{
    struct id ada = make_user("ada@example.org");
    make_post(ada);
    cr_assert_eq(with_id("DELETE", "/v1/users/*", ada, NULL, NULL).status, 202);
    int64_t deadline_us = tally_clock_monotonic_us() + WAIT_US;
    while (test_database_number(database.connection, "select count(*) from posts") > 0) {
        cr_assert_lt(tally_clock_monotonic_us(), deadline_us);
        event_base_loop(base, EVLOOP_ONCE);
    }
}

static bool refuses(void *context)
{
    (void)context;
    return request("POST", "/v1/users", NULL, "{\"name\":\"a\",\"email\":\"a@b\"}").status == 503;
}

Test(command_start, without_postgresql_it_starts_unready_and_refuses_at_once)
{
    struct tally_error error = {0};
    char reason[256] = "";
    start_loop();
    load_settings("host=127.0.0.1 port=1 dbname=none");
    cr_assert_eq(start_service(&error), TALLY_OK, "%s", error.text);
    start_clients();
    turn_until(refuses, NULL);
    struct answer answer = request("POST", "/v1/users", NULL, "{\"name\":\"a\",\"email\":\"a@b\"}");
    expect_problem(answer, 503, "unavailable");
    cr_assert(answer.retry_after);
    cr_assert_not(tally_command_check_postgresql(service, reason));
    cr_assert_neq(reason[0], '\0');
    stop_loop();
}

Test(command_start, without_authentication_it_listens_on_loopback_only)
{
    struct tally_error error = {0};
    start_loop();
    load_settings("host=127.0.0.1 port=1 dbname=none");
    (void)snprintf(settings.command_listen, sizeof settings.command_listen, "0.0.0.0:0");
    cr_assert_eq(start_service(&error), TALLY_CONFIG);
    cr_assert_not_null(strstr(error.text, "TALLY_AUTH"));
    stop_loop();
}
