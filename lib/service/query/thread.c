#include "service/query/thread.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/trace.h"
#include "service/query/document.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum {
    TICK_US = 100000,
    FIRST_TICK_US = 5000,    /* until Redis has been heard of */
    FIRST_REDIS_MS = 1000,   /* longest wait for that before the first request is answered */
    READS_MOST = 16384,      /* in flight in one thread */
    SCRATCH_BYTES = 4 << 20, /* 100 users with profiles of the greatest size */
    ARENA_BYTES = 4 << 20,   /* of one request */
};

static const struct tally_http_route routes[] = {
    {.method = "GET", .pattern = "/v1/users/{id}", .handler = tally_query_serve_user},
    {.method = "GET", .pattern = "/v1/users", .handler = tally_query_serve_users},
    {.method = "GET", .pattern = "/v1/stats", .handler = tally_query_serve_stats},
};

/*
 * Answers.
 */

void tally_query_answer_problem(struct tally_http_exchange *exchange, enum tally_status status,
                                const char *detail)
{
    tally_http_answer_header(exchange, "Cache-Control", "no-store");
    if (detail != NULL)
        tally_http_answer_problem(exchange, status, "%s", detail);
    else
        tally_http_answer_problem(exchange, status, NULL);
}

void tally_query_answer_scratch(struct tally_query_thread *thread,
                                struct tally_http_exchange *exchange)
{
    struct tally_buffer *scratch = &thread->scratch;
    if (scratch->failed)
        tally_query_answer_problem(exchange, TALLY_NO_MEMORY, NULL);
    else
        tally_http_answer(exchange, 200, "application/json", scratch->data, scratch->length);
}

void tally_query_answer_freshness(struct tally_http_exchange *exchange, int64_t fresh_at_ms)
{
    tally_http_answer_header(exchange, "Cache-Control",
                             "private, max-age=0, stale-while-revalidate=5, stale-if-error=60");
    int64_t lag_ms = tally_query_lag_ms(fresh_at_ms, tally_clock_wall_us() / 1000);
    if (lag_ms < 0)
        return;
    char text[24];
    (void)snprintf(text, sizeof text, "%lld", (long long)lag_ms);
    tally_http_answer_header(exchange, "Tally-Lag-Ms", text);
}

static void log_request(struct tally_query_thread *thread,
                        const struct tally_http_exchange *exchange, int http_status,
                        int64_t duration_us)
{
    struct tally_trace trace;
    char trace_id[TALLY_TRACE_ID_BYTES];
    tally_trace_start(&trace, tally_http_header(exchange, "traceparent"), &thread->random);
    tally_trace_id(trace.parent, trace_id);
    tally_log(TALLY_LOG_DEBUG, "query.request", TALLY_TEXT("trace_id", trace_id),
              TALLY_TEXT("method", tally_http_method(exchange)),
              TALLY_TEXT("route", tally_http_route_pattern(exchange)),
              TALLY_INTEGER("status", http_status),
              TALLY_REAL("seconds", (double)duration_us / 1e6));
}

static void on_answered(const struct tally_http_exchange *exchange, int http_status,
                        int64_t duration_us, void *context)
{
    struct tally_query_thread *thread = context;
    tally_query_metrics_request(&thread->shared->metrics,
                                tally_query_route_of(tally_http_route_pattern(exchange)),
                                http_status, duration_us);
    if (atomic_load_explicit(&thread->shared->log_requests, memory_order_relaxed))
        log_request(thread, exchange, http_status, duration_us);
}

/*
 * Life.
 */

/* Shows how it stands to the main thread. */
static void publish(struct tally_query_thread *thread)
{
    struct tally_lookup_health health;
    tally_lookup_health(thread->lookup, &health);
    if (health.connected != thread->published.connected)
        tally_log(health.connected ? TALLY_LOG_INFO : TALLY_LOG_WARNING,
                  health.connected ? "breaker.closed" : "breaker.opened",
                  TALLY_TEXT("dependency", "redis"), TALLY_INTEGER("thread", thread->number),
                  TALLY_TEXT("cause", health.connected ? "" : health.reason));
    if (health.complete != thread->published.complete)
        tally_log(TALLY_LOG_INFO,
                  health.complete ? "query.read_model_complete" : "query.read_model_incomplete",
                  TALLY_INTEGER("generation", health.generation),
                  TALLY_INTEGER("partitions", health.partitions),
                  TALLY_TEXT("cause", health.reason));
    tally_query_metrics_reads(&thread->shared->metrics, &thread->published, &health);
    tally_metric_set(thread->gauges.breaker_state, health.breaker);
    tally_metric_add(thread->gauges.breaker_opened, health.losses - thread->published.losses);
    tally_metric_set(thread->gauges.complete, health.complete);
    tally_metric_set(thread->gauges.in_flight, (double)health.in_flight);
    tally_metric_set(thread->gauges.waiters, (double)health.waiters);
    tally_metric_set(thread->gauges.connections,
                     (double)tally_http_server_connections(thread->server));
    atomic_store(&thread->connected, health.connected);
    atomic_store(&thread->complete, health.complete);
    thread->published = health;
}

static void on_tick(void *argument)
{
    struct tally_query_thread *thread = argument;
    atomic_store(&thread->turned_us, tally_clock_monotonic_us());
    publish(thread);
    /* Who asks in the moment of a restart is answered a moment later rather than refused. */
    const int64_t since_us = tally_clock_monotonic_us() - thread->opened_us;
    if (!thread->accepting &&
        (thread->published.complete || since_us >= FIRST_REDIS_MS * INT64_C(1000))) {
        thread->accepting = true;
        tally_http_server_accept(thread->server);
    }
    /* Requests that came in before the drain may start a wait after it. */
    if (thread->draining)
        tally_lookup_end_waits(thread->lookup);
    tally_timer_set(thread->tick, thread->accepting ? TICK_US : FIRST_TICK_US);
}

static void on_drained(void *context)
{
    struct tally_query_thread *thread = context;
    event_base_loopbreak(thread->base);
}

static void on_order(void *context)
{
    struct tally_query_thread *thread = context;
    int order = atomic_load(&thread->order);
    if (order == TALLY_QUERY_STOP) {
        event_base_loopbreak(thread->base);
    } else if (order == TALLY_QUERY_DRAIN && !thread->draining) {
        thread->draining = true;
        tally_lookup_end_waits(thread->lookup);
        /* A tenth of the time is left for the rest of the way out. */
        tally_http_server_drain(thread->server, (int)(thread->shared->drain_ms * 9 / 10),
                                on_drained, thread);
    }
}

static void *run(void *argument)
{
    struct tally_query_thread *thread = argument;
    event_base_dispatch(thread->base);
    atomic_fetch_add(&thread->shared->done, 1);
    tally_wakeup_signal(thread->shared->thread_done);
    return NULL;
}

enum tally_status tally_query_thread_open(struct tally_query_thread *thread,
                                          const struct tally_settings *settings,
                                          struct tally_error *error)
{
    tally_buffer_init(&thread->scratch, SCRATCH_BYTES);
    tally_random_seed_from_system(&thread->random);
    thread->base = tally_loop_new();
    if (thread->base == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "event loop");
    enum tally_status status =
        tally_wakeup_new(thread->base, on_order, thread, &thread->wakeup, error);
    if (status == TALLY_OK)
        status = tally_timer_new(thread->base, on_tick, thread, &thread->tick, error);
    const struct tally_lookup_options lookup = {
        .redis_url = settings->redis_url,
        .timeout_ms = settings->redis_timeout_ms,
        .patience_ms = settings->breaker_ms,
        .in_flight_most = READS_MOST,
        .waiters_most = (size_t)settings->query_waiters_most,
    };
    if (status == TALLY_OK)
        status = tally_lookup_new(thread->base, &lookup, &thread->lookup, error);
    /* The limit is the process', and the kernel spreads connections over the threads. */
    size_t threads = (size_t)settings->query_threads;
    const struct tally_http_server_options server = {
        .listen = settings->query_listen,
        .reuse_port = true,
        .accept_after_ms = FIRST_REDIS_MS,
        .max_connections = ((size_t)settings->http_connections_most + threads - 1) / threads,
        .arena_bytes = ARENA_BYTES,
        .on_done = on_answered,
        .observer_context = thread,
    };
    if (status == TALLY_OK)
        status =
            tally_http_server_new(thread->base, &server, routes, sizeof routes / sizeof routes[0],
                                  thread, &thread->server, error);
    thread->opened_us = tally_clock_monotonic_us();
    atomic_store(&thread->turned_us, thread->opened_us);
    if (status == TALLY_OK)
        tally_timer_set(thread->tick, 0);
    return status;
}

enum tally_status tally_query_thread_start(struct tally_query_thread *thread,
                                           struct tally_error *error)
{
    /* Signals are the main thread's. */
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&thread->id, NULL, run, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0)
        return tally_fail(error, TALLY_NO_MEMORY, "thread: %s", strerror(failure));
    thread->started = true;
    return TALLY_OK;
}

void tally_query_thread_order(struct tally_query_thread *thread, enum tally_query_order order)
{
    atomic_store(&thread->order, (int)order);
    tally_wakeup_signal(thread->wakeup);
}

void tally_query_thread_close(struct tally_query_thread *thread)
{
    if (thread->started) {
        tally_query_thread_order(thread, TALLY_QUERY_STOP);
        pthread_join(thread->id, NULL);
    }
    /* The lookups first: they answer what they still have, and need the exchanges for that. */
    tally_lookup_free(&thread->lookup);
    tally_http_server_free(&thread->server);
    tally_timer_free(&thread->tick);
    tally_wakeup_free(&thread->wakeup);
    if (thread->base != NULL)
        event_base_free(thread->base);
    thread->base = NULL;
    tally_buffer_release(&thread->scratch);
}
