/*
 * Fuzzer of the HTTP server: the input is what a client sends on one connection.
 *
 * The first byte says in what portions. Whatever comes: no crash, every answer is well-formed, and
 * bytes behind a rejected request reach no handler. Not part of the default build:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -DLLHTTP_STRICT_MODE=1 \
 *     -Ilib -I<llhttp headers> tests/fuzz/fuzz_http.c <sources of lib/http> \
 *     lib/core/{status,buffer,arena,clock}.c <sources of llhttp> -levent_core -ljansson
 */
#include "http/internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct event_base *base;
static struct tally_http_server *server;

static void handle_text(struct tally_http_exchange *exchange, void *context)
{
    (void)context;
    const char *id = tally_http_path_parameter(exchange, "id");
    const char *query = tally_http_query_parameter(exchange, "q");
    const char *match = tally_http_header(exchange, "If-Match");
    const size_t matches = tally_http_header_count(exchange, "If-Match");
    if ((match != NULL) != (matches > 0) || (id != NULL && !tally_http_is_utf8(id, strlen(id))) ||
        (query != NULL && !tally_http_is_utf8(query, strlen(query))))
        abort();
    if (match != NULL)
        tally_http_answer_header(exchange, "ETag", match);
    tally_http_answer(exchange, 200, "text/plain", id != NULL ? id : "-",
                      id != NULL ? strlen(id) : 1);
}

static void handle_json(struct tally_http_exchange *exchange, void *context)
{
    (void)context;
    struct tally_error error;
    json_t *value;
    enum tally_status status = tally_http_json(exchange, &value, &error);
    if (status != TALLY_OK) {
        tally_http_answer_problem(exchange, status, "%s", error.text);
        return;
    }
    json_decref(value);
    size_t length;
    const char *body = tally_http_body(exchange, &length);
    if (body[length] != '\0')
        abort();
    tally_http_answer(exchange, 201, "application/json", body, length);
}

static const struct tally_http_route routes[] = {
    {.method = "GET", .pattern = "/a", .handler = handle_text},
    {.method = "GET", .pattern = "/i/{id}", .handler = handle_text},
    {.method = "POST", .pattern = "/j", .handler = handle_json, .takes_body = true},
};

static void start(void)
{
    struct tally_error error;
    const struct tally_http_server_options options = {
        .listen = "127.0.0.1:0", .head_bytes = 512, .body_bytes = 256};
    base = event_base_new();
    if (base == NULL || tally_http_server_new(base, &options, routes, 3, NULL, &server, &error))
        abort();
}

/* Answers start with a status line; a broken one would show as anything else. */
static void drain(int fd, bool *started)
{
    char bytes[8192];
    ssize_t got;
    while ((got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
        if (!*started && got >= 9 && memcmp(bytes, "HTTP/1.1 ", 9) != 0)
            abort();
        *started = true;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    bool started = false;
    if (server == NULL)
        start();
    if (size == 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0)
        return 0;
    size_t step = data[0] > 0 ? data[0] : size;
    struct tally_http_connection *connection = tally_http_connection_new(server, pair[0], false);
    if (connection == NULL)
        abort();
    DL_APPEND(server->open, connection);
    server->open_count++;
    for (size_t at = 1; at < size; at += step) {
        size_t here = size - at < step ? size - at : step;
        if (send(pair[1], data + at, here, MSG_NOSIGNAL) < 0)
            break;
        (void)event_base_loop(base, EVLOOP_NONBLOCK);
        drain(pair[1], &started);
    }
    (void)shutdown(pair[1], SHUT_WR);
    for (int turn = 0; turn < 8 && server->open_count > 0; turn++) {
        (void)event_base_loop(base, EVLOOP_NONBLOCK);
        drain(pair[1], &started);
    }
    (void)close(pair[1]);
    for (int turn = 0; turn < 8 && server->closed != NULL; turn++)
        (void)event_base_loop(base, EVLOOP_NONBLOCK);
    if (server->open_count != 0 || server->closed != NULL)
        abort();
    return 0;
}
