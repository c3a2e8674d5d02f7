/*
 * Answers GET /v1/users/{id} with one constant answer, on the HTTP layer alone: the limit that the
 * read API is measured against.
 */
#include "core/status.h"
#include "http/http.h"
#include "loop/loop.h"

#include <argp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS_MOST = 16, THREADS_MOST = 64 };

struct options {
    const char *listen;
    const char *body;
    size_t body_length;
    long threads;
    size_t header_count;
    struct {
        const char *name;
        const char *value;
    } headers[HEADERS_MOST];
};

static const struct argp_option option_table[] = {
    {"listen", 'l', "HOST:PORT", 0, "Address to listen on, with a port", 0},
    {"threads", 't', "N", 0, "Event loops, which share the address (1)", 0},
    {"header", 'H', "NAME: VALUE", 0, "Header of the answer, may be given again", 0},
    {"body", 'b', "TEXT", 0, "Body of the answer, called application/json", 0},
    {0},
};

static void add_header(struct options *options, char *argument, struct argp_state *state)
{
    char *colon = strstr(argument, ": ");
    if (colon == NULL || options->header_count == HEADERS_MOST)
        argp_error(state, "a header is 'NAME: VALUE', and there are at most %d", HEADERS_MOST);
    *colon = '\0';
    options->headers[options->header_count].name = argument;
    options->headers[options->header_count].value = colon + 2;
    options->header_count++;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'l':
        options->listen = argument;
        return 0;
    case 't':
        options->threads = strtol(argument, NULL, 10);
        if (options->threads < 1 || options->threads > THREADS_MOST)
            argp_error(state, "threads are 1 to %d", THREADS_MOST);
        return 0;
    case 'H':
        add_header(options, argument, state);
        return 0;
    case 'b':
        options->body = argument;
        options->body_length = strlen(argument);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void answer(struct tally_http_exchange *exchange, void *context)
{
    const struct options *options = context;
    for (size_t i = 0; i < options->header_count; i++)
        tally_http_answer_header(exchange, options->headers[i].name, options->headers[i].value);
    tally_http_answer(exchange, 200, "application/json", options->body, options->body_length);
}

static const struct tally_http_route routes[] = {
    {.method = "GET", .pattern = "/v1/users/{id}", .handler = answer},
};

static int fail(const char *what)
{
    fprintf(stderr, "bench_constant_server: %s\n", what);
    return EXIT_FAILURE;
}

static void *run_loop(void *base)
{
    event_base_dispatch(base);
    return NULL;
}

/* One loop and its server in a thread of its own; both live as long as the process. */
static bool start_thread(struct options *options)
{
    struct event_base *base = tally_loop_new();
    struct tally_http_server *server = NULL;
    struct tally_error error = {0};
    const struct tally_http_server_options http = {.listen = options->listen, .reuse_port = true};
    if (base == NULL || tally_http_server_new(base, &http, routes, 1, options, &server, &error)) {
        fprintf(stderr, "bench_constant_server: %s\n", error.text);
        return false;
    }
    pthread_t thread;
    return pthread_create(&thread, NULL, run_loop, base) == 0 && pthread_detach(thread) == 0;
}

int main(int argc, char **argv)
{
    struct options options = {.listen = "127.0.0.1:8090", .body = "", .threads = 1};
    const struct argp argp = {.options = option_table,
                              .parser = parse_option,
                              .doc = "Answers GET /v1/users/{id} with one constant answer."};
    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
        return EXIT_FAILURE;
    sigset_t stopping;
    sigemptyset(&stopping);
    sigaddset(&stopping, SIGTERM);
    sigaddset(&stopping, SIGINT);
    /* Before the threads, which inherit it: the signal is for sigwait() alone. */
    if (pthread_sigmask(SIG_BLOCK, &stopping, NULL) != 0)
        return fail("cannot block the signals");
    for (long i = 0; i < options.threads; i++) {
        if (!start_thread(&options))
            return fail("cannot start a thread");
    }
    int received = 0;
    return sigwait(&stopping, &received) == 0 ? EXIT_SUCCESS : fail("cannot wait for a signal");
}
