#include "service/query/metrics.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *pattern;
    const char *label;
} routes[TALLY_QUERY_ROUTE_COUNT] = {
    [TALLY_QUERY_ROUTE_USER] = {"/v1/users/{id}", "/v1/users/{id}"},
    [TALLY_QUERY_ROUTE_USERS] = {"/v1/users", "/v1/users"},
    [TALLY_QUERY_ROUTE_STATS] = {"/v1/stats", "/v1/stats"},
    [TALLY_QUERY_ROUTE_NONE] = {"", "none"},
};

void tally_query_metrics_register(struct tally_query_metrics *metrics,
                                  struct tally_metrics *registry)
{
    char labels[128];
    for (int route = 0; route < TALLY_QUERY_ROUTE_COUNT; route++) {
        for (int class = 0; class < TALLY_QUERY_CLASSES; class ++) {
            (void)snprintf(labels, sizeof labels, "route=\"%s\",status=\"%dxx\"",
                           routes[route].label, class + 2);
            metrics->requests[route][class] = tally_metrics_counter(
                registry, "tally_query_requests_total", "Requests answered", labels);
        }
    }
    for (int route = 0; route < TALLY_QUERY_ROUTE_COUNT; route++) {
        (void)snprintf(labels, sizeof labels, "route=\"%s\"", routes[route].label);
        metrics->latency[route] = tally_metrics_histogram(
            registry, "tally_query_request_seconds",
            "Time from a request's first byte to its answer, waits for a version included", labels,
            tally_latency_bounds_seconds, tally_latency_bounds_count);
    }
    metrics->reads = tally_metrics_counter(registry, "tally_query_reads_total",
                                           "Users that requests asked for", "");
    metrics->reads_sent =
        tally_metrics_counter(registry, "tally_query_reads_sent_total",
                              "Users read from Redis; the others shared such a read", "");
    metrics->misses = tally_metrics_counter(registry, "tally_query_misses_total",
                                            "Users that were not there, and confirmed so", "");
    metrics->flushes = tally_metrics_counter(registry, "tally_query_redis_writes_total",
                                             "Turns of a loop that wrote to Redis", "");
    metrics->redis_errors = tally_metrics_counter(
        registry, "tally_query_redis_errors_total",
        "Reads that Redis failed or did not answer in time, and connections lost", "");
}

void tally_query_thread_metrics_register(struct tally_query_thread_metrics *threads, size_t count,
                                         struct tally_metrics *registry)
{
    static const struct {
        const char *name;
        const char *help;
        size_t offset;
        const char *label; /* before the thread's */
        bool counts;
    } rows[] = {
        {"tally_breaker_state",
         "0 closed; 1 half-open, 2 open: requests that need the server are refused at once",
         offsetof(struct tally_query_thread_metrics, breaker_state), "dependency=\"redis\",",
         false},
        {"tally_breaker_opened_total", "Times the breaker has opened",
         offsetof(struct tally_query_thread_metrics, breaker_opened), "dependency=\"redis\",",
         true},
        {"tally_query_read_model_complete", "1 while every partition can be read",
         offsetof(struct tally_query_thread_metrics, complete), "", false},
        {"tally_query_reads_in_flight", "Reads not answered yet",
         offsetof(struct tally_query_thread_metrics, in_flight), "", false},
        {"tally_query_waiters", "Requests waiting for a version",
         offsetof(struct tally_query_thread_metrics, waiters), "", false},
        {"tally_query_connections", "Client connections that are open",
         offsetof(struct tally_query_thread_metrics, connections), "", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t thread = 0; thread < count; thread++) {
            char labels[64];
            (void)snprintf(labels, sizeof labels, "%sthread=\"%zu\"", rows[i].label, thread);
            struct tally_metric *metric =
                rows[i].counts ? tally_metrics_counter(registry, rows[i].name, rows[i].help, labels)
                               : tally_metrics_gauge(registry, rows[i].name, rows[i].help, labels);
            *(struct tally_metric **)(void *)((char *)&threads[thread] + rows[i].offset) = metric;
        }
    }
}

enum tally_query_route tally_query_route_of(const char *pattern)
{
    for (int i = 0; pattern != NULL && i < TALLY_QUERY_ROUTE_NONE; i++) {
        if (strcmp(pattern, routes[i].pattern) == 0)
            return (enum tally_query_route)i;
    }
    return TALLY_QUERY_ROUTE_NONE;
}

void tally_query_metrics_request(struct tally_query_metrics *metrics, enum tally_query_route route,
                                 int http_status, int64_t duration_us)
{
    int class = http_status / 100 - 2;
    if (class >= 0 && class < TALLY_QUERY_CLASSES)
        tally_metric_add(metrics->requests[route][class], 1);
    tally_histogram_observe(metrics->latency[route], (double)duration_us / 1e6);
}

void tally_query_metrics_reads(struct tally_query_metrics *metrics,
                               const struct tally_lookup_health *before,
                               const struct tally_lookup_health *after)
{
    tally_metric_add(metrics->reads, after->reads - before->reads);
    tally_metric_add(metrics->reads_sent, after->reads_sent - before->reads_sent);
    tally_metric_add(metrics->misses, after->misses - before->misses);
    tally_metric_add(metrics->flushes, after->flushes - before->flushes);
    tally_metric_add(metrics->redis_errors, after->redis_errors - before->redis_errors);
}
