#include "http/client.h"
#include "test_http_harness.h"

TestSuite(http_client, .timeout = 300);

struct outcome {
    int calls;
    enum tally_status status;
    int http_status;
    char body[256];
    char etag[64];
    char error[256];
    struct tally_http_client **free_client; /* to be freed by the callback */
    struct tally_http_client *again;        /* to be asked again by the callback */
};

static void answered(const struct tally_http_client_answer *answer, void *context);

static void ask(struct tally_http_client *client, struct outcome *outcome, const char *method,
                const char *target, int timeout_ms)
{
    struct tally_error error = {0};
    const struct tally_http_client_request request = {
        .method = method, .target = target, .timeout_ms = timeout_ms};
    cr_assert_eq(tally_http_client_send(client, &request, answered, outcome, &error), TALLY_OK,
                 "%s", error.text);
}

static void answered(const struct tally_http_client_answer *answer, void *context)
{
    struct outcome *outcome = context;
    size_t length;
    const char *body = tally_http_client_body(answer, &length);
    const char *etag = tally_http_client_header(answer, "etag");
    outcome->calls++;
    outcome->status = tally_http_client_status(answer);
    outcome->http_status = tally_http_client_http_status(answer);
    (void)snprintf(outcome->body, sizeof outcome->body, "%.*s", (int)length, body);
    (void)snprintf(outcome->etag, sizeof outcome->etag, "%s", etag != NULL ? etag : "-");
    (void)snprintf(outcome->error, sizeof outcome->error, "%s", tally_http_client_error(answer));
    struct tally_http_client *again = outcome->again;
    outcome->again = NULL;
    if (again != NULL)
        ask(again, outcome, "GET", "/items/2", 0);
    if (outcome->free_client != NULL)
        tally_http_client_free(outcome->free_client);
}

static struct tally_http_client *client_to(struct event_base *base, uint16_t port)
{
    char address[32];
    struct tally_error error = {0};
    struct tally_http_client *client = NULL;
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", port);
    cr_assert_eq(tally_http_client_new(base, address, 1024, &client, &error), TALLY_OK, "%s",
                 error.text);
    return client;
}

Test(http_client, answers_come_once_each_over_one_connection)
{
    struct harness *harness = harness_start(NULL);
    struct tally_http_client *client =
        client_to(harness->base, tally_http_server_port(harness->server));
    struct outcome outcome = {.again = client};
    ask(client, &outcome, "GET", "/items/1?q=x", 0);
    cr_expect_eq(outcome.calls, 0);
    HARNESS_WAIT(harness, outcome.calls == 2);
    cr_expect_eq(outcome.http_status, 200);
    cr_expect_str_eq(outcome.body, "2|-|-|0");
    cr_expect_str_eq(outcome.etag, "\"17\"");
    ask(client, &outcome, "HEAD", "/items/1", 0);
    HARNESS_WAIT(harness, outcome.calls == 3);
    cr_expect_str_eq(outcome.body, "");
    cr_expect_str_eq(outcome.etag, "\"17\"");
    ask(client, &outcome, "GET", "/unchanged", 0);
    HARNESS_WAIT(harness, outcome.calls == 4);
    cr_expect_eq(outcome.http_status, 304);
    ask(client, &outcome, "GET", "/none", 0);
    HARNESS_WAIT(harness, outcome.calls == 5);
    cr_expect_eq(outcome.status, TALLY_OK);
    cr_expect_eq(outcome.http_status, 404);
    cr_expect_eq(tally_http_server_connections(harness->server), 1);
    tally_http_client_free(&client);
    cr_expect_null(client);
    harness_stop(harness);
}

Test(http_client, headers_and_body_of_a_request_arrive)
{
    struct harness *harness = harness_start(NULL);
    struct tally_http_client *client =
        client_to(harness->base, tally_http_server_port(harness->server));
    struct outcome outcome = {0};
    struct tally_error error = {0};
    struct tally_http_client_request request = {.method = "POST",
                                                .target = "/echo",
                                                .headers = "Content-Type: application/json\r\n",
                                                .body = "{\"a\":1}",
                                                .body_length = 7};
    cr_assert_eq(tally_http_client_send(client, &request, answered, &outcome, &error), TALLY_OK);
    cr_expect_eq(tally_http_client_send(client, &request, answered, &outcome, &error),
                 TALLY_INVALID);
    HARNESS_WAIT(harness, outcome.calls == 1);
    cr_expect_str_eq(outcome.body, "{\"a\":1}");
    tally_http_client_free(&client);
    harness_stop(harness);
}

Test(http_client, the_callback_may_free_the_client)
{
    struct harness *harness = harness_start(NULL);
    struct tally_http_client *client =
        client_to(harness->base, tally_http_server_port(harness->server));
    struct outcome outcome = {.free_client = &client};
    ask(client, &outcome, "GET", "/items/1", 0);
    HARNESS_WAIT(harness, outcome.calls == 1);
    cr_expect_null(client);
    harness_stop(harness);
}

Test(http_client, an_answer_that_does_not_come_is_a_timeout_and_the_next_one_connects_anew)
{
    struct harness *harness = harness_start(NULL);
    struct tally_http_client *client =
        client_to(harness->base, tally_http_server_port(harness->server));
    struct outcome outcome = {0};
    int asked = 0;
    /* A time that is over before the server has the request says nothing about its answer. */
    for (int timeout_ms = 30; harness->held == NULL && timeout_ms < 60000; timeout_ms *= 2) {
        ask(client, &outcome, "GET", "/hold", timeout_ms);
        asked++;
        HARNESS_WAIT(harness, outcome.calls == asked);
        cr_expect_eq(outcome.status, TALLY_REQUEST_TIMEOUT);
    }
    cr_assert_not_null(harness->held);
    ask(client, &outcome, "GET", "/items/1", 0);
    asked++;
    HARNESS_WAIT(harness, outcome.calls == asked);
    cr_expect_eq(outcome.status, TALLY_OK);
    tally_http_answer(harness->held, 200, NULL, NULL, 0);
    harness_turn(harness);
    cr_expect_eq(outcome.calls, asked);
    tally_http_client_free(&client);
    harness_stop(harness);
}

/* A server that says what it is told to, once a connection. */
struct script {
    struct harness harness; /* its base and nothing else */
    int listener;
    uint16_t port;
};

/* Takes a port on which nobody listens yet. */
static void script_bind(struct script *script)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    script->harness.base = event_base_new();
    script->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(script->listener, (struct sockaddr *)&address, length), 0);
    cr_assert_eq(getsockname(script->listener, (struct sockaddr *)&address, &length), 0);
    script->port = ntohs(address.sin_port);
}

static void script_open(struct script *script)
{
    script_bind(script);
    cr_assert_eq(listen(script->listener, 5), 0);
}

static void expect_outcome(const char *said, enum tally_status status, int http_status,
                           const char *body)
{
    static struct script script;
    struct outcome outcome = {0};
    char request[1024];
    int fd = -1;
    script_open(&script);
    struct tally_http_client *client = client_to(script.harness.base, script.port);
    ask(client, &outcome, "GET", "/", 5000);
    HARNESS_WAIT(&script.harness, (fd = accept(script.listener, NULL, NULL)) >= 0);
    HARNESS_WAIT(&script.harness, recv(fd, request, sizeof request, MSG_DONTWAIT) > 0);
    cr_assert_eq(send(fd, said, strlen(said), MSG_NOSIGNAL), (ssize_t)strlen(said));
    (void)close(fd);
    HARNESS_WAIT(&script.harness, outcome.calls == 1);
    harness_turn(&script.harness);
    cr_expect_eq(outcome.calls, 1);
    cr_expect_eq(outcome.status, status, "%s: %s", said, outcome.error);
    cr_expect_eq(outcome.http_status, http_status, "%s", said);
    cr_expect_str_eq(outcome.body, body, "%s", said);
    tally_http_client_free(&client);
    (void)close(script.listener);
    event_base_free(script.harness.base);
}

Test(http_client, every_form_of_an_answer_is_read_and_a_broken_one_is_an_error)
{
    expect_outcome("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", TALLY_OK, 200, "hi");
    expect_outcome("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
                   TALLY_OK, 200, "hi");
    expect_outcome("HTTP/1.1 200 OK\r\n\r\nto the end", TALLY_OK, 200, "to the end");
    expect_outcome("HTTP/1.1 100 Continue\r\nETag: x\r\n\r\nHTTP/1.1 201 Created\r\n"
                   "Content-Length: 2\r\n\r\nhi",
                   TALLY_OK, 201, "hi");
    expect_outcome("HTTP/1.1 204 No Content\r\n\r\n", TALLY_OK, 204, "");
    expect_outcome("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", TALLY_IO, 0, "");
    expect_outcome("HTTP/1.1 200 OK\r\nContent-Len", TALLY_IO, 0, "");
    expect_outcome("", TALLY_IO, 0, "");
    expect_outcome("nonsense\r\n\r\n", TALLY_PROTOCOL, 0, "");
    expect_outcome("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
                   TALLY_PROTOCOL, 0, "");
}

Test(http_client, a_body_beyond_the_bound_is_an_error)
{
    char said[2048];
    size_t head = (size_t)sprintf(said, "HTTP/1.1 200 OK\r\nContent-Length: 1025\r\n\r\n");
    memset(said + head, 'x', 1025);
    said[head + 1025] = '\0';
    expect_outcome(said, TALLY_BODY_TOO_LARGE, 0, "");
}

Test(http_client, a_refused_connection_comes_through_the_callback)
{
    static struct script script;
    struct outcome outcome = {0};
    script_bind(&script);
    struct tally_http_client *client = client_to(script.harness.base, script.port);
    for (int i = 1; i <= 3; i++) {
        ask(client, &outcome, "GET", "/", 5000);
        cr_expect_eq(outcome.calls, i - 1);
        HARNESS_WAIT(&script.harness, outcome.calls == i);
        cr_expect_eq(outcome.status, TALLY_UNAVAILABLE, "%s", outcome.error);
    }
    tally_http_client_free(&client);
    (void)close(script.listener);
    event_base_free(script.harness.base);
}

Test(http_client, an_address_that_is_none_is_refused)
{
    struct event_base *base = event_base_new();
    struct tally_http_client *client = NULL;
    struct tally_error error = {0};
    cr_expect_eq(tally_http_client_new(base, "nonsense", 0, &client, &error), TALLY_CONFIG);
    cr_expect_eq(tally_http_client_new(base, "127.0.0.1:", 0, &client, &error), TALLY_CONFIG);
    cr_expect_eq(tally_http_client_new(base, "127.0.0.1:65536", 0, &client, &error), TALLY_CONFIG);
    cr_expect_null(client);
    event_base_free(base);
}
