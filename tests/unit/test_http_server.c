#include "test_http_harness.h"

TestSuite(http_server, .timeout = 300);

#define HELLO "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
#define HELLO_ANSWER "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
#define ECHO(fields, body) \
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" fields "\r\n" body
#define ECHO_ANSWER(length, body) \
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " length "\r\n\r\n" body

static size_t connections(const struct harness *harness)
{
    return tally_http_server_connections(harness->server);
}

/* Closes with a reset, as a process that is killed with unread bytes does. */
static void reset(int fd)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none), 0);
    (void)close(fd);
}

struct accepted {
    const char *name;
    const char *bytes;
    const char *answer;
};

static const struct accepted rows[] = {
    {"plain", HELLO, HELLO_ANSWER},
    {"an empty line before the request", "\r\n" HELLO, HELLO_ANSWER},
    {"host with a port", "GET /hello HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", HELLO_ANSWER},
    {"IPv6 host", "GET /hello HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", HELLO_ANSWER},
    {"absolute-form", "GET http://A:80/hello HTTP/1.1\r\nHost: a:80\r\n\r\n", HELLO_ANSWER},
    {"Upgrade is ignored",
     "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", HELLO_ANSWER},
    {"HTTP/1.0 that asks to stay",
     "GET /hello HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"
     "Connection: keep-alive\r\n\r\nhello"},
    {"content-length of zero where none is taken",
     "DELETE /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", HELLO_ANSWER},
    {"body by length", ECHO("Content-Length: 7\r\n", "{\"a\":1}"), ECHO_ANSWER("7", "{\"a\":1}")},
    {"blanks round the length", ECHO("Content-Length:   2  \r\n", "{}"), ECHO_ANSWER("2", "{}")},
    {"chunked body", ECHO("Transfer-Encoding: chunked\r\n", "3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n"),
     ECHO_ANSWER("7", "{\"a\":1}")},
    {"chunked in capitals, with extensions",
     ECHO("transfer-ENCODING: Chunked\r\n", "2;name=\"v\";x\r\n{}\r\n00;end\r\n\r\n"),
     ECHO_ANSWER("2", "{}")},
    {"empty chunked body", ECHO("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
     ECHO_ANSWER("0", "")},
    {"no body where one is taken", "POST /echo HTTP/1.1\r\nHost: a\r\n\r\n", ECHO_ANSWER("0", "")},
    {"media type with charset",
     "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: Application/JSON; Charset=UTF-8\r\n"
     "Content-Length: 2\r\n\r\n{}",
     ECHO_ANSWER("2", "{}")},
    {"parameters and headers",
     "GET /items/a%2Fb?x&q=1+2%26 HTTP/1.1\r\nHost: a\r\nX-Test:\t  first one "
     "\t\r\nx-test:\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 20\r\nETag: \"17\"\r\n\r\n"
     "a/b|1 2&|first one|2"},
    {"empty header", "GET /items/1 HTTP/1.1\r\nHost: a\r\nX-Test:\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\nETag: \"17\"\r\n\r\n"
     "1|-||1"},
    {"304 has no body", "GET /unchanged HTTP/1.1\r\nHost: a\r\n\r\n",
     "HTTP/1.1 304 Not Modified\r\n\r\n"},
    {"OPTIONS of a path", "OPTIONS /hello HTTP/1.1\r\nHost: a\r\n\r\n",
     "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, DELETE, OPTIONS\r\n\r\n"},
    {"OPTIONS of the server", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
     "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, POST, DELETE, OPTIONS\r\n\r\n"},
};

Test(http_server, requests_are_answered_alike_whole_and_byte_by_byte_on_one_connection)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_expect_str_eq(harness_ask(harness, fd, rows[i].bytes, 1), rows[i].answer, "%s: %s",
                         rows[i].name, harness->reply);
        harness_forget(harness);
        for (const char *byte = rows[i].bytes; *byte != '\0'; byte++)
            harness_put(harness, fd, byte, 1);
        HARNESS_WAIT(harness, ((void)harness_read(harness, fd), harness_answers(harness) >= 1));
        cr_expect_str_eq(harness_reply(harness), rows[i].answer, "%s byte by byte: %s",
                         rows[i].name, harness->reply);
    }
    cr_expect_eq(connections(harness), 1);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, pipelined_requests_are_answered_in_order)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    char bytes[4096] = "";
    char wanted[4096] = "";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strlen(bytes) + strlen(rows[i].bytes) > 2048)
            break;
        strcat(bytes, rows[i].bytes);
        strcat(wanted, rows[i].answer);
    }
    const char *reply = harness_ask(harness, fd, bytes, 12);
    cr_expect_eq(strncmp(wanted, reply, strlen(reply)), 0, "%s", reply);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, a_later_request_waits_for_the_answer_that_is_pending)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    harness_put_text(harness, fd, HELLO "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n" HELLO);
    HARNESS_WAIT(harness, ((void)harness_read(harness, fd), harness_answers(harness) == 1));
    HARNESS_WAIT(harness, harness->held != NULL);
    cr_expect_eq(harness->handled, 2);
    tally_http_answer(harness->held, 202, NULL, NULL, 0);
    HARNESS_WAIT(harness, ((void)harness_read(harness, fd), harness_answers(harness) == 3));
    cr_expect_str_eq(harness_reply(harness), HELLO_ANSWER
                     "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n" HELLO_ANSWER);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, head_has_the_length_of_get_and_no_body)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    harness_put_text(harness, fd, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n" HELLO);
    HARNESS_WAIT(harness, ((void)harness_read(harness, fd),
                           strstr(harness->reply, "\r\n\r\nhello") != NULL));
    cr_expect_str_eq(
        harness_reply(harness),
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n" HELLO_ANSWER);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, unknown_paths_and_methods_keep_the_connection)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    const char *reply = harness_ask(harness, fd, "GET /none HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    cr_expect_eq(strncmp(reply, "HTTP/1.1 404 ", 13), 0, "%s", reply);
    cr_expect_not_null(strstr(reply, "{\"type\":\"urn:tally:problem:not-found\","));
    reply = harness_ask(harness, fd, "PATCH /hello HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    cr_expect_eq(strncmp(reply, "HTTP/1.1 405 ", 13), 0, "%s", reply);
    cr_expect_not_null(strstr(reply, "\r\nAllow: GET, HEAD, DELETE, OPTIONS\r\n"), "%s", reply);
    reply = harness_ask(harness, fd, "GET /items/ HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    cr_expect_eq(strncmp(reply, "HTTP/1.1 404 ", 13), 0, "%s", reply);
    reply = harness_ask(harness, fd, "GET /hello/ HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    cr_expect_eq(strncmp(reply, "HTTP/1.1 404 ", 13), 0, "%s", reply);
    cr_expect_str_eq(harness->observed_pattern, "GET -");
    cr_expect_str_eq(harness_ask(harness, fd, HELLO, 1), HELLO_ANSWER);
    cr_expect_str_eq(harness->observed_pattern, "GET /hello");
    cr_expect_eq(harness->observed_status, 200);
    cr_expect_eq(connections(harness), 1);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, connections_close_when_asked_and_in_http_1_0)
{
    struct harness *harness = harness_start(NULL);
    const char closing[] = "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n" HELLO;
    const char old[] = "GET /hello HTTP/1.0\r\nHost: a\r\n\r\n" HELLO;
    const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"
                          "Connection: close\r\n\r\nhello";
    cr_expect_str_eq(harness_ask_to_close(harness, closing, strlen(closing), 1000), answer);
    cr_expect_str_eq(harness_ask_to_close(harness, old, strlen(old), 1000), answer);
    harness_stop(harness);
}

Test(http_server, a_client_that_only_stops_sending_gets_its_answers)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    harness_put_text(harness, fd, HELLO HELLO);
    cr_assert_eq(shutdown(fd, SHUT_WR), 0);
    HARNESS_WAIT(harness, harness_read(harness, fd));
    cr_expect_str_eq(harness_reply(harness), HELLO_ANSWER HELLO_ANSWER);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, a_client_that_goes_while_its_answer_is_pending_harms_nothing)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    harness_put_text(harness, fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    HARNESS_WAIT(harness, harness->held != NULL);
    reset(fd);
    HARNESS_WAIT(harness, connections(harness) == 0);
    cr_expect_str_eq(tally_http_route_pattern(harness->held), "/hold");
    tally_http_answer(harness->held, 200, "text/plain", "late", 4);
    cr_expect_eq(harness->observed, 1);
    fd = harness_dial(harness);
    cr_expect_str_eq(harness_ask(harness, fd, HELLO, 1), HELLO_ANSWER);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, a_header_that_would_break_the_answer_apart_becomes_a_500)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    const char *reply = harness_ask(harness, fd, "GET /bad-header HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    cr_expect_eq(strncmp(reply, "HTTP/1.1 500 ", 13), 0, "%s", reply);
    cr_expect_null(strstr(reply, "Injected"));
    cr_expect_str_eq(harness_ask(harness, fd, HELLO, 1), HELLO_ANSWER);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, expect_100_continue_is_told_to_go_on_before_the_body_comes)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    cr_expect_str_eq(
        harness_ask(harness, fd, ECHO("Expect: 100-Continue\r\nContent-Length: 2\r\n", ""), 1),
        "HTTP/1.1 100 Continue\r\n\r\n");
    cr_expect_str_eq(harness_ask(harness, fd, "{}", 1), ECHO_ANSWER("2", "{}"));
    /* The body is there already: nothing to tell. */
    cr_expect_str_eq(
        harness_ask(harness, fd, ECHO("Expect: 100-continue\r\nContent-Length: 2\r\n", "{}"), 1),
        ECHO_ANSWER("2", "{}"));
    const char *reply =
        harness_ask(harness, fd, ECHO("Expect: 100-continue\r\nContent-Length: 70000\r\n", ""), 1);
    cr_expect_eq(strncmp(reply, "HTTP/1.1 413 ", 13), 0, "%s", reply);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, a_body_of_the_limit_passes_by_length_and_in_chunks)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    static char bytes[70000];
    size_t head = (size_t)sprintf(bytes, ECHO("Content-Length: 65536\r\n", ""));
    memset(bytes + head, '1', 65536);
    bytes[head + 65536] = '\0';
    cr_expect_str_eq(strstr(harness_ask(harness, fd, bytes, 1), "\r\n\r\n") + 4, bytes + head);
    head = (size_t)sprintf(bytes, ECHO("Transfer-Encoding: chunked\r\n", "10000\r\n"));
    memset(bytes + head, '2', 65536);
    strcpy(bytes + head + 65536, "\r\n0\r\n\r\n");
    const char *body = strstr(harness_ask(harness, fd, bytes, 1), "\r\n\r\n") + 4;
    cr_expect_eq(strlen(body), 65536);
    cr_expect_eq(strspn(body, "2"), 65536);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, a_head_that_does_not_end_gets_408)
{
    struct harness *harness =
        harness_start(&(struct tally_http_server_options){.head_timeout_ms = 50});
    const char bytes[] = "GET /hello HTTP/1.1\r\nHost:";
    const char *reply = harness_ask_to_close(harness, bytes, strlen(bytes), 1);
    cr_expect_eq(strncmp(reply, "HTTP/1.1 408 ", 13), 0, "%s", reply);
    harness_stop(harness);
}

Test(http_server, a_body_that_does_not_end_gets_408)
{
    struct harness *harness =
        harness_start(&(struct tally_http_server_options){.body_timeout_ms = 50});
    const char bytes[] = ECHO("Content-Length: 10\r\n", "{");
    const char *reply = harness_ask_to_close(harness, bytes, strlen(bytes), 1000);
    cr_expect_eq(strncmp(reply, "HTTP/1.1 408 ", 13), 0, "%s", reply);
    harness_stop(harness);
}

Test(http_server, an_idle_connection_is_closed_without_a_word)
{
    struct harness *harness =
        harness_start(&(struct tally_http_server_options){.idle_timeout_ms = 50});
    cr_expect_str_eq(harness_ask_to_close(harness, "", 0, 1), "");
    cr_expect_str_eq(harness_ask_to_close(harness, HELLO, strlen(HELLO), 1000), HELLO_ANSWER);
    harness_stop(harness);
}

Test(http_server, a_client_that_never_closes_after_the_last_answer_is_cut)
{
    struct harness *harness =
        harness_start(&(struct tally_http_server_options){.linger_timeout_ms = 50});
    int fd = harness_dial(harness);
    harness_put_text(harness, fd, "nonsense\r\n\r\n");
    HARNESS_WAIT(harness, ((void)harness_read(harness, fd), harness_answers(harness) == 1));
    HARNESS_WAIT(harness, connections(harness) == 0);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, a_client_that_does_not_read_is_bounded_and_cut)
{
    struct harness *harness =
        harness_start(&(struct tally_http_server_options){.write_timeout_ms = 100});
    int fd = harness_dial(harness);
    for (int i = 0; i < 20; i++)
        harness_put_text(harness, fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    HARNESS_WAIT(harness, connections(harness) == 0);
    cr_expect_eq(harness->handled, 1, "%d answers were kept for it", harness->handled);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, a_large_answer_arrives_whole)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    static char bytes[65536];
    size_t total = 0;
    harness_put_text(harness, fd, "GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for (ssize_t got = 1; got != 0;) {
        HARNESS_WAIT(harness, (got = recv(fd, bytes, sizeof bytes, 0)) >= 0);
        total += (size_t)got;
    }
    cr_expect_gt(total, (size_t)HARNESS_BIG_BYTES);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, connections_beyond_the_bound_get_503_and_room_comes_back)
{
    struct harness *harness =
        harness_start(&(struct tally_http_server_options){.max_connections = 1});
    int first = harness_dial(harness);
    cr_expect_str_eq(harness_ask(harness, first, HELLO, 1), HELLO_ANSWER);
    int second = harness_dial(harness);
    const char *reply = harness_ask(harness, second, HELLO, 1);
    cr_expect_eq(strncmp(reply, "HTTP/1.1 503 ", 13), 0, "%s", reply);
    cr_expect_not_null(strstr(reply, "\r\nRetry-After: 1\r\n"));
    cr_expect_not_null(strstr(reply, "\r\nConnection: close\r\n"));
    int waiting[40];
    for (size_t i = 0; i < 40; i++)
        waiting[i] = harness_dial(harness);
    HARNESS_WAIT(harness, connections(harness) == 17);
    (void)close(second);
    (void)close(first);
    for (size_t i = 0; i < 40; i++)
        (void)close(waiting[i]);
    HARNESS_WAIT(harness, connections(harness) == 0);
    first = harness_dial(harness);
    cr_expect_str_eq(harness_ask(harness, first, HELLO, 1), HELLO_ANSWER);
    (void)close(first);
    harness_stop(harness);
}

static void count_drained(void *context)
{
    ((struct harness *)context)->drained++;
}

Test(http_server, a_drain_answers_what_has_begun_and_what_waits_and_closes_the_rest)
{
    struct harness *harness = harness_start(NULL);
    int idle = harness_dial(harness);
    cr_expect_str_eq(harness_ask(harness, idle, HELLO, 1), HELLO_ANSWER);
    int held = harness_dial(harness);
    harness_put_text(harness, held, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    HARNESS_WAIT(harness, harness->held != NULL);
    int begun = harness_dial(harness);
    harness_put_text(harness, begun, "GET /hello HTTP/1.1\r\n");
    HARNESS_WAIT(harness, connections(harness) == 3);
    int waiting = harness_dial(harness); /* in the backlog: no turn of the loop in between */
    cr_assert_gt(send(waiting, HELLO, strlen(HELLO), 0), 0);
    harness_forget(harness);
    tally_http_server_drain(harness->server, 5000, count_drained, harness);
    cr_expect_eq(harness->drained, 0);
    HARNESS_WAIT(harness, harness_read(harness, idle));
    cr_expect_str_eq(harness->reply, "");
    HARNESS_WAIT(harness, harness_read(harness, waiting));
    cr_expect_not_null(strstr(harness->reply, "HTTP/1.1 200 OK\r\n"));
    cr_expect_not_null(strstr(harness->reply, "\r\nConnection: close\r\n"));
    (void)close(waiting);
    harness_forget(harness);
    harness_put_text(harness, begun, "Host: a\r\n\r\n");
    HARNESS_WAIT(harness, harness_read(harness, begun));
    cr_expect_not_null(strstr(harness->reply, "HTTP/1.1 200 OK\r\n"));
    (void)close(begun);
    cr_expect_eq(harness->drained, 0);
    harness_forget(harness);
    tally_http_answer(harness->held, 200, "text/plain", "held", 4);
    HARNESS_WAIT(harness, harness_read(harness, held));
    cr_expect_not_null(strstr(harness->reply, "\r\nConnection: close\r\n"));
    (void)close(held);
    HARNESS_WAIT(harness, harness->drained == 1);
    (void)close(idle);
    harness_turn(harness);
    cr_expect_eq(harness->drained, 1);
    harness_stop(harness);
}

Test(http_server, a_request_that_was_on_its_way_to_an_idle_connection_is_answered_in_a_drain)
{
    struct harness *harness = harness_start(NULL);
    int idle = harness_dial(harness);
    cr_expect_str_eq(harness_ask(harness, idle, HELLO, 1), HELLO_ANSWER);
    harness_forget(harness);
    tally_http_server_drain(harness->server, 60000, count_drained, harness);
    harness_turn(harness);
    harness_put_text(harness, idle, HELLO);
    HARNESS_WAIT(harness, harness_read(harness, idle));
    cr_expect_not_null(strstr(harness->reply, "HTTP/1.1 200 OK\r\n"));
    cr_expect_not_null(strstr(harness->reply, "\r\nConnection: close\r\n"));
    HARNESS_WAIT(harness, harness->drained == 1);
    (void)close(idle);
    harness_stop(harness);
}

Test(http_server, a_drain_ends_at_its_deadline_and_late_answers_harm_nothing)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    harness_put_text(harness, fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    HARNESS_WAIT(harness, harness->held != NULL);
    tally_http_server_drain(harness->server, 50, count_drained, harness);
    HARNESS_WAIT(harness, harness->drained == 1);
    tally_http_answer(harness->held, 200, NULL, NULL, 0);
    harness_turn(harness);
    cr_expect_eq(harness->drained, 1);
    (void)close(fd);
    harness_stop(harness);
}

static void free_drained(void *context)
{
    struct harness *harness = context;
    harness->drained++;
    tally_http_server_free(&harness->server);
}

Test(http_server, the_drained_callback_may_free_the_server)
{
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    cr_expect_str_eq(harness_ask(harness, fd, HELLO, 1), HELLO_ANSWER);
    tally_http_server_drain(harness->server, 5000, free_drained, harness);
    HARNESS_WAIT(harness, harness->drained == 1);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, a_drain_closes_a_connection_whose_answer_is_still_being_taken)
{
    static char bytes[65536];
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    harness_put_text(harness, fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    HARNESS_WAIT(harness, harness->handled == 1);
    tally_http_server_drain(harness->server, 60000, count_drained, harness);
    for (ssize_t got = 1; got != 0;)
        HARNESS_WAIT(harness, (got = recv(fd, bytes, sizeof bytes, 0)) >= 0);
    HARNESS_WAIT(harness, harness->drained == 1);
    (void)close(fd);
    harness_stop(harness);
}

Test(http_server, the_listener_is_closed_by_a_drain)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char listen_on[32];
    const int on = 1;
    /* Holds the port without listening on it, so that nobody else can once the server has left it.
     */
    const int holder = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(setsockopt(holder, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    cr_assert_eq(bind(holder, (struct sockaddr *)&address, length), 0);
    cr_assert_eq(getsockname(holder, (struct sockaddr *)&address, &length), 0);
    (void)snprintf(listen_on, sizeof listen_on, "127.0.0.1:%u", ntohs(address.sin_port));
    const struct tally_http_server_options options = {.listen = listen_on};
    struct harness *harness = harness_start(&options);
    const int before = socket(AF_INET, SOCK_STREAM, 0);
    cr_expect_eq(connect(before, (struct sockaddr *)&address, length), 0);
    (void)close(before);
    tally_http_server_drain(harness->server, 50, count_drained, harness);
    HARNESS_WAIT(harness, harness->drained == 1);
    const int after = socket(AF_INET, SOCK_STREAM, 0);
    cr_expect_neq(connect(after, (struct sockaddr *)&address, length), 0);
    (void)close(after);
    (void)close(holder);
    harness_stop(harness);
}

Test(http_server, two_servers_share_a_port_only_with_reuse_port)
{
    struct event_base *base = event_base_new();
    struct tally_http_server *first = NULL;
    struct tally_http_server *second = NULL;
    struct tally_error error = {0};
    struct tally_http_server_options options = {.listen = "127.0.0.1:0", .reuse_port = true};
    cr_assert_eq(tally_http_server_new(base, &options, harness_routes, 1, NULL, &first, &error),
                 TALLY_OK);
    char address[32];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", tally_http_server_port(first));
    options.listen = address;
    cr_expect_eq(tally_http_server_new(base, &options, harness_routes, 1, NULL, &second, &error),
                 TALLY_OK);
    tally_http_server_free(&second);
    options.reuse_port = false;
    cr_expect_eq(tally_http_server_new(base, &options, harness_routes, 1, NULL, &second, &error),
                 TALLY_IO);
    cr_expect_null(second);
    options.listen = "nonsense";
    cr_expect_eq(tally_http_server_new(base, &options, harness_routes, 1, NULL, &second, &error),
                 TALLY_CONFIG);
    tally_http_server_free(&first);
    event_base_free(base);
}

static void expect_json(struct harness *harness, int fd, const char *body, size_t length,
                        bool accepted)
{
    char bytes[1024];
    size_t head =
        (size_t)sprintf(bytes,
                        "POST /json HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\n\r\n",
                        length);
    memcpy(bytes + head, body, length);
    harness_forget(harness);
    harness_put(harness, fd, bytes, head + length);
    HARNESS_WAIT(harness, ((void)harness_read(harness, fd), harness_answers(harness) == 1));
    const char *wanted = accepted ? "HTTP/1.1 200 " : "HTTP/1.1 400 ";
    cr_expect_eq(strncmp(harness->reply, wanted, 13), 0, "%.*s: %s", (int)length, body,
                 harness->reply);
}

Test(http_server, only_one_sound_json_object_is_taken_as_a_body)
{
    static const struct {
        bool accepted;
        const char *text;
        size_t length;
    } bodies[] = {
#define BODY(accepted, text) {accepted, text, sizeof text - 1}
        BODY(true, "{}"),
        BODY(true, " {\"a\":[1,{\"b\":\"\\u00e9\"}]} \n"),
        BODY(true,
             "{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"}"),
        BODY(true,
             "{\"a\":\"\\\"{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{\"}"),
        BODY(false, ""),
        BODY(false, "[]"),
        BODY(false, "\"a\""),
        BODY(false, "null"),
        BODY(false, "{\"a\":1,\"a\":2}"),
        BODY(false, "{\"a\":1} x"),
        BODY(false, "{} {}"),
        BODY(false, "{\"a\":1"),
        BODY(false, "{\"a\":\"\xff\"}"),
        BODY(false, "{\"a\":\"\xed\xa0\x80\"}"),
        BODY(false, "{\"a\":\"\\u0000\"}"),
        BODY(false, "{\"a\":\"b\0c\"}"),
        BODY(false, "{}\0"),
        BODY(false, "{\"a\":NaN}"),
#undef BODY
    };
    struct harness *harness = harness_start(NULL);
    int fd = harness_dial(harness);
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        expect_json(harness, fd, bodies[i].text, bodies[i].length, bodies[i].accepted);
    for (size_t depth = 64; depth <= 65; depth++) {
        char body[256] = "{\"a\":";
        size_t length = 5;
        memset(body + length, '[', depth - 1);
        memset(body + length + depth - 1, ']', depth - 1);
        length += 2 * (depth - 1);
        body[length++] = '}';
        expect_json(harness, fd, body, length, depth == 64);
    }
    (void)close(fd);
    harness_stop(harness);
}
