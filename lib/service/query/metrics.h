/*
 * Metrics of the read API. Any thread, after tally_query_metrics_register().
 */
#ifndef TALLY_SERVICE_QUERY_METRICS_H
#define TALLY_SERVICE_QUERY_METRICS_H

#include "core/metrics.h"
#include "view/lookup.h"

enum tally_query_route {
    TALLY_QUERY_ROUTE_USER,
    TALLY_QUERY_ROUTE_USERS,
    TALLY_QUERY_ROUTE_STATS,
    TALLY_QUERY_ROUTE_NONE, /* refused before a route was found */
    TALLY_QUERY_ROUTE_COUNT
};

enum { TALLY_QUERY_CLASSES = 4 }; /* 2xx to 5xx */

struct tally_query_metrics {
    struct tally_metric *requests[TALLY_QUERY_ROUTE_COUNT][TALLY_QUERY_CLASSES];
    struct tally_histogram *latency[TALLY_QUERY_ROUTE_COUNT];
    struct tally_metric *reads;
    struct tally_metric *reads_sent;
    struct tally_metric *misses;
    struct tally_metric *flushes;
    struct tally_metric *redis_errors;
};

/* What one thread shows. */
struct tally_query_thread_metrics {
    struct tally_metric *breaker_state;
    struct tally_metric *breaker_opened;
    struct tally_metric *complete;
    struct tally_metric *in_flight;
    struct tally_metric *waiters;
    struct tally_metric *connections;
};

void tally_query_metrics_register(struct tally_query_metrics *metrics,
                                  struct tally_metrics *registry);
void tally_query_thread_metrics_register(struct tally_query_thread_metrics *threads, size_t count,
                                         struct tally_metrics *registry);

/* `pattern` is the route's, NULL for none. */
enum tally_query_route tally_query_route_of(const char *pattern);
void tally_query_metrics_request(struct tally_query_metrics *metrics, enum tally_query_route route,
                                 int http_status, int64_t duration_us);
/* Adds what a thread's lookup did between two looks at its health. */
void tally_query_metrics_reads(struct tally_query_metrics *metrics,
                               const struct tally_lookup_health *before,
                               const struct tally_lookup_health *after);

#endif
