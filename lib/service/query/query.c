#include "service/query/query.h"

#include "core/clock.h"
#include "core/config.h"
#include "service/query/thread.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    REASON_BYTES = 256,
    STALLED_US = 5000000, /* a loop that has not turned for so long is stuck */
};

struct tally_query {
    struct tally_query_options options;
    struct tally_query_shared shared;
    size_t count;
    struct tally_query_thread threads[];
};

static enum tally_status check_address(const struct tally_settings *settings,
                                       struct tally_error *error)
{
    struct tally_address address;
    enum tally_status status = tally_address_parse(settings->query_listen, &address, error);
    if (status != TALLY_OK)
        return status;
    if (strcmp(settings->auth, "off") == 0 && !tally_address_loopback(&address))
        return tally_fail(error, TALLY_CONFIG,
                          "TALLY_QUERY_LISTEN=%s is not a loopback address, which TALLY_AUTH=off "
                          "demands: everyone who reaches it could read every user",
                          settings->query_listen);
    if (address.port == 0)
        return tally_fail(error, TALLY_CONFIG,
                          "TALLY_QUERY_LISTEN=%s: the threads need one port to share, not 0",
                          settings->query_listen);
    return TALLY_OK;
}

/* With SO_REUSEPORT a port that another tally-query of the same user has would be shared with it
 * silently; without it, binding tells. */
static enum tally_status check_free(const char *listen_on, struct tally_error *error)
{
    struct tally_address address;
    enum tally_status status = tally_address_parse(listen_on, &address, error);
    if (status != TALLY_OK)
        return status;
    char port[8];
    (void)snprintf(port, sizeof port, "%d", address.port);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    int failure = getaddrinfo(address.host, port, &hints, &found);
    if (failure != 0)
        return tally_fail(error, TALLY_CONFIG, "TALLY_QUERY_LISTEN=%s: %s", listen_on,
                          gai_strerror(failure));
    int probe = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, 0);
    const int on = 1;
    if (probe < 0 || setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(probe, found->ai_addr, found->ai_addrlen) != 0)
        status =
            tally_fail(error, TALLY_IO, "TALLY_QUERY_LISTEN=%s: %s", listen_on, strerror(errno));
    if (probe >= 0)
        close(probe);
    freeaddrinfo(found);
    return status;
}

static void on_thread_done(void *context)
{
    struct tally_query *query = context;
    if (atomic_load(&query->shared.done) == query->count)
        query->options.on_drained(query->options.context);
}

static enum tally_status open_all(struct tally_query *query, const struct tally_settings *settings,
                                  struct tally_error *error)
{
    enum tally_status status = tally_wakeup_new(query->options.base, on_thread_done, query,
                                                &query->shared.thread_done, error);
    for (size_t i = 0; status == TALLY_OK && i < query->count; i++)
        status = tally_query_thread_open(&query->threads[i], settings, error);
    for (size_t i = 0; status == TALLY_OK && i < query->count; i++)
        status = tally_query_thread_start(&query->threads[i], error);
    return status;
}

static void register_metrics(struct tally_query *query)
{
    struct tally_query_thread_metrics gauges[64] = {0};
    tally_query_metrics_register(&query->shared.metrics, query->options.metrics);
    tally_query_thread_metrics_register(gauges, query->count, query->options.metrics);
    for (size_t i = 0; i < query->count; i++) {
        query->threads[i].shared = &query->shared;
        query->threads[i].number = i;
        query->threads[i].gauges = gauges[i];
    }
}

enum tally_status tally_query_new(const struct tally_query_options *options,
                                  struct tally_query **out, struct tally_error *error)
{
    const struct tally_settings *settings = options->settings;
    enum tally_status status = check_address(settings, error);
    if (status == TALLY_OK)
        status = check_free(settings->query_listen, error);
    if (status != TALLY_OK)
        return status;
    size_t count = (size_t)settings->query_threads;
    struct tally_query *made = calloc(1, sizeof *made + count * sizeof made->threads[0]);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "query service");
    made->options = *options;
    made->count = count;
    made->shared.drain_ms = settings->drain_ms;
    atomic_store(&made->shared.log_requests, strcmp(settings->log_level, "debug") == 0);
    /* hiredis 0.14 writes to sockets with write(2), which would end the process where the peer has
     * gone. */
    (void)signal(SIGPIPE, SIG_IGN);
    register_metrics(made);
    status = open_all(made, settings, error);
    if (status != TALLY_OK) {
        tally_query_free(&made);
        return status;
    }
    *out = made;
    return TALLY_OK;
}

void tally_query_drain(struct tally_query *query)
{
    for (size_t i = 0; i < query->count; i++)
        tally_query_thread_order(&query->threads[i], TALLY_QUERY_DRAIN);
}

void tally_query_free(struct tally_query **query)
{
    if (*query == NULL)
        return;
    for (size_t i = 0; i < (*query)->count; i++)
        tally_query_thread_close(&(*query)->threads[i]);
    tally_wakeup_free(&(*query)->shared.thread_done);
    free(*query);
    *query = NULL;
}

bool tally_query_alive(void *argument)
{
    struct tally_query *query = argument;
    int64_t now_us = tally_clock_monotonic_us();
    for (size_t i = 0; i < query->count; i++) {
        if (now_us - atomic_load(&query->threads[i].turned_us) > STALLED_US)
            return false;
    }
    return true;
}

bool tally_query_check_redis(void *argument, char reason[REASON_BYTES])
{
    struct tally_query *query = argument;
    for (size_t i = 0; i < query->count; i++) {
        if (atomic_load(&query->threads[i].connected))
            continue;
        (void)snprintf(reason, REASON_BYTES, "thread %zu has no connection to Redis", i);
        return false;
    }
    return true;
}

bool tally_query_check_read_model(void *argument, char reason[REASON_BYTES])
{
    struct tally_query *query = argument;
    for (size_t i = 0; i < query->count; i++) {
        if (atomic_load(&query->threads[i].complete))
            continue;
        (void)snprintf(reason, REASON_BYTES,
                       "the read model is missing or being built, or cannot be read");
        return false;
    }
    return true;
}

void tally_query_log_requests(struct tally_query *query, bool on)
{
    atomic_store_explicit(&query->shared.log_requests, on, memory_order_relaxed);
}
