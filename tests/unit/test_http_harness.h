/*
 * A server on an event base of the test's own thread, and raw sockets to talk to it. Every wait is
 * for a condition and ends the test after a minute.
 */
#ifndef TALLY_TEST_HTTP_HARNESS_H
#define TALLY_TEST_HTTP_HARNESS_H

#include "core/clock.h"
#include "http/http.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HARNESS_REPLY_BYTES = 1 << 20, HARNESS_BIG_BYTES = 8 << 20 };

struct harness {
    struct event_base *base;
    struct tally_http_server *server;
    struct tally_http_exchange *held; /* what /hold has not answered */
    int handled;
    int observed;
    int observed_status;
    char observed_pattern[64];
    int drained;
    char *big;
    char reply[HARNESS_REPLY_BYTES];
    size_t reply_length;
};

static inline void handle_hello(struct tally_http_exchange *exchange, void *context)
{
    ((struct harness *)context)->handled++;
    tally_http_answer(exchange, 200, "text/plain", "hello", 5);
}

static inline void handle_echo(struct tally_http_exchange *exchange, void *context)
{
    size_t length;
    const char *body = tally_http_body(exchange, &length);
    ((struct harness *)context)->handled++;
    tally_http_answer(exchange, 200, "application/json", body, length);
}

static inline void handle_json(struct tally_http_exchange *exchange, void *context)
{
    struct tally_error error;
    json_t *value;
    ((struct harness *)context)->handled++;
    enum tally_status status = tally_http_json(exchange, &value, &error);
    if (status != TALLY_OK) {
        tally_http_answer_problem(exchange, status, "%s", error.text);
        return;
    }
    json_decref(value);
    tally_http_answer(exchange, 200, NULL, NULL, 0);
}

static inline void handle_item(struct tally_http_exchange *exchange, void *context)
{
    char text[256];
    const char *query = tally_http_query_parameter(exchange, "q");
    const char *header = tally_http_header(exchange, "x-test");
    ((struct harness *)context)->handled++;
    int length =
        snprintf(text, sizeof text, "%s|%s|%s|%zu", tally_http_path_parameter(exchange, "id"),
                 query != NULL ? query : "-", header != NULL ? header : "-",
                 tally_http_header_count(exchange, "X-TEST"));
    tally_http_answer_header(exchange, "ETag", "\"17\"");
    tally_http_answer(exchange, 200, "text/plain", text, (size_t)length);
}

static inline void handle_hold(struct tally_http_exchange *exchange, void *context)
{
    ((struct harness *)context)->handled++;
    ((struct harness *)context)->held = exchange;
}

static inline void handle_big(struct tally_http_exchange *exchange, void *context)
{
    struct harness *harness = context;
    harness->handled++;
    tally_http_answer(exchange, 200, "text/plain", harness->big, HARNESS_BIG_BYTES);
}

static inline void handle_unchanged(struct tally_http_exchange *exchange, void *context)
{
    ((struct harness *)context)->handled++;
    tally_http_answer(exchange, 304, "text/plain", "hello", 5);
}

static inline void handle_bad_header(struct tally_http_exchange *exchange, void *context)
{
    ((struct harness *)context)->handled++;
    tally_http_answer_header(exchange, "Location", "/x\r\nInjected: yes");
    tally_http_answer(exchange, 200, NULL, NULL, 0);
}

static const struct tally_http_route harness_routes[] = {
    {.method = "GET", .pattern = "/hello", .handler = handle_hello},
    {.method = "DELETE", .pattern = "/hello", .handler = handle_hello},
    {.method = "POST", .pattern = "/echo", .handler = handle_echo, .takes_body = true},
    {.method = "POST",
     .pattern = "/lines",
     .handler = handle_echo,
     .takes_body = true,
     .media_type = "application/x-ndjson",
     .body_bytes = 10},
    {.method = "POST", .pattern = "/json", .handler = handle_json, .takes_body = true},
    {.method = "GET", .pattern = "/items/{id}", .handler = handle_item},
    {.method = "GET", .pattern = "/hold", .handler = handle_hold},
    {.method = "GET", .pattern = "/big", .handler = handle_big},
    {.method = "GET", .pattern = "/unchanged", .handler = handle_unchanged},
    {.method = "GET", .pattern = "/bad-header", .handler = handle_bad_header},
};

static inline void harness_observe(const struct tally_http_exchange *exchange, int http_status,
                                   int64_t duration_us, void *context)
{
    struct harness *harness = context;
    const char *pattern = tally_http_route_pattern(exchange);
    cr_assert_geq(duration_us, 0);
    harness->observed++;
    harness->observed_status = http_status;
    (void)snprintf(harness->observed_pattern, sizeof harness->observed_pattern, "%s %s",
                   tally_http_method(exchange), pattern != NULL ? pattern : "-");
}

static inline struct harness *harness_start(const struct tally_http_server_options *options)
{
    struct harness *harness = calloc(1, sizeof *harness);
    struct tally_http_server_options used = {0};
    struct tally_error error = {0};
    if (options != NULL)
        used = *options;
    if (used.listen == NULL)
        used.listen = "127.0.0.1:0";
    used.on_done = harness_observe;
    used.observer_context = harness;
    harness->base = event_base_new();
    harness->big = malloc(HARNESS_BIG_BYTES);
    memset(harness->big, 'b', HARNESS_BIG_BYTES);
    enum tally_status status = tally_http_server_new(
        harness->base, &used, harness_routes, sizeof harness_routes / sizeof harness_routes[0],
        harness, &harness->server, &error);
    cr_assert_eq(status, TALLY_OK, "%s", error.text);
    return harness;
}

static inline void harness_stop(struct harness *harness)
{
    tally_http_server_free(&harness->server);
    event_base_free(harness->base);
    free(harness->big);
    free(harness);
}

static inline int harness_dial(const struct harness *harness)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons(tally_http_server_port(harness->server)),
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static inline void harness_turn(struct harness *harness)
{
    (void)event_base_loop(harness->base, EVLOOP_NONBLOCK);
}

/* Turns the loop until `condition` holds. */
#define HARNESS_WAIT(harness, condition)                                                \
    do {                                                                                \
        int64_t limit_us = tally_clock_monotonic_us() + INT64_C(60000000);              \
        while (!(condition)) {                                                          \
            harness_turn(harness);                                                      \
            if (condition)                                                              \
                break;                                                                  \
            (void)poll(NULL, 0, 1);                                                     \
            cr_assert_lt(tally_clock_monotonic_us(), limit_us, "waited in vain for %s", \
                         #condition);                                                   \
        }                                                                               \
    } while (0)

static inline void harness_put(struct harness *harness, int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t sent = send(fd, at, length, MSG_NOSIGNAL);
        if (sent < 0)
            return; /* the server has closed; what it said before is what counts */
        at += sent;
        length -= (size_t)sent;
        harness_turn(harness);
    }
}

static inline void harness_put_text(struct harness *harness, int fd, const char *text)
{
    harness_put(harness, fd, text, strlen(text));
}

/* Reads what is there; true once the server has closed. */
static inline bool harness_read(struct harness *harness, int fd)
{
    for (;;) {
        size_t room = sizeof harness->reply - 1 - harness->reply_length;
        cr_assert_gt(room, 0);
        ssize_t got = recv(fd, harness->reply + harness->reply_length, room, 0);
        if (got <= 0)
            return got == 0 || errno != EAGAIN;
        harness->reply_length += (size_t)got;
        harness->reply[harness->reply_length] = '\0';
    }
}

/* How many whole answers (with Content-Length or none) the reply holds. */
static inline int harness_answers(const struct harness *harness)
{
    int count = 0;
    const char *at = harness->reply;
    const char *end = harness->reply + harness->reply_length;
    for (;;) {
        const char *head_end = strstr(at, "\r\n\r\n");
        if (head_end == NULL)
            return count;
        const char *length = strstr(at, "Content-Length: ");
        at = head_end + 4;
        if (length != NULL && length < head_end)
            at += strtoul(length + 16, NULL, 10);
        if (at > end)
            return count;
        count++;
    }
}

static inline void harness_forget(struct harness *harness)
{
    harness->reply_length = 0;
    harness->reply[0] = '\0';
}

/* The reply without its Date lines, which differ from second to second. */
static inline const char *harness_reply(struct harness *harness)
{
    char *date;
    while ((date = strstr(harness->reply, "Date: ")) != NULL) {
        char *rest = strstr(date, "\r\n") + 2;
        memmove(date, rest, strlen(rest) + 1);
    }
    harness->reply_length = strlen(harness->reply);
    return harness->reply;
}

/* Sends and waits for `count` whole answers. */
static inline const char *harness_ask(struct harness *harness, int fd, const char *text, int count)
{
    harness_forget(harness);
    harness_put_text(harness, fd, text);
    HARNESS_WAIT(harness, ((void)harness_read(harness, fd), harness_answers(harness) >= count));
    return harness_reply(harness);
}

/* Sends on a new connection, whole or byte by byte, and reads until the server closes. */
static inline const char *harness_ask_to_close(struct harness *harness, const void *bytes,
                                               size_t length, size_t step)
{
    int fd = harness_dial(harness);
    harness_forget(harness);
    for (size_t at = 0; at < length; at += step)
        harness_put(harness, fd, (const char *)bytes + at, length - at < step ? length - at : step);
    HARNESS_WAIT(harness, harness_read(harness, fd));
    (void)close(fd);
    HARNESS_WAIT(harness, tally_http_server_connections(harness->server) == 0);
    return harness_reply(harness);
}

#endif
