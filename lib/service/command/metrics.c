#include "service/command/metrics.h"

#include <stdio.h>

enum { LABELS_BYTES = 128 };

/* What a command can come to; other statuses are counted nowhere. */
static const enum tally_status outcomes[] = {
    TALLY_OK,          TALLY_USER_NOT_FOUND,   TALLY_POST_NOT_FOUND, TALLY_COMMENT_NOT_FOUND,
    TALLY_EMAIL_TAKEN, TALLY_VERSION_MISMATCH, TALLY_KEY_IN_USE,     TALLY_KEY_REUSED,
    TALLY_OVERLOADED,  TALLY_UNAVAILABLE,      TALLY_INTERNAL,       TALLY_OUTCOME_UNKNOWN,
    TALLY_STOPPING,    TALLY_NO_MEMORY,
};

static void register_requests(struct tally_command_metrics *metrics, const char *const *routes,
                              struct tally_metrics *registry)
{
    char labels[LABELS_BYTES];
    for (int route = 0; route < TALLY_COMMAND_ROUTES; route++) {
        for (int class = 0; class < TALLY_COMMAND_CLASSES; class ++) {
            (void)snprintf(labels, sizeof labels, "route=\"%s\",status=\"%dxx\"", routes[route],
                           class + 2);
            metrics->requests[route][class] = tally_metrics_counter(
                registry, "tally_command_requests_total", "Requests answered", labels);
        }
    }
    for (int route = 0; route < TALLY_COMMAND_ROUTES; route++) {
        (void)snprintf(labels, sizeof labels, "route=\"%s\"", routes[route]);
        metrics->latency[route] =
            tally_metrics_histogram(registry, "tally_command_request_seconds",
                                    "Time from a request's first byte to its answer", labels,
                                    tally_latency_bounds_seconds, tally_latency_bounds_count);
    }
}

static void register_commands(struct tally_command_metrics *metrics, struct tally_metrics *registry)
{
    char labels[LABELS_BYTES];
    for (unsigned kind = 0; kind < TALLY_COMMAND_KIND_COUNT; kind++) {
        for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++) {
            (void)snprintf(labels, sizeof labels, "kind=\"%s\",outcome=\"%s\"",
                           tally_command_kind_text((enum tally_command_kind)kind),
                           tally_status_slug(outcomes[i]));
            metrics->commands[kind][outcomes[i]] =
                tally_metrics_counter(registry, "tally_command_commands_total",
                                      "Commands by what became of them", labels);
        }
    }
    metrics->replayed =
        tally_metrics_counter(registry, "tally_command_idempotent_replays_total",
                              "Commands answered with the stored outcome of an earlier one", "");
}

static void register_batches(struct tally_command_metrics *metrics, struct tally_metrics *registry)
{
    static const double sizes[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
    metrics->batch_commands =
        tally_metrics_histogram(registry, "tally_command_batch_commands", "Commands in a batch", "",
                                sizes, sizeof sizes / sizeof sizes[0]);
    metrics->batch_seconds = tally_metrics_histogram(
        registry, "tally_command_batch_seconds", "Time from sending a batch to its commit", "",
        tally_latency_bounds_seconds, tally_latency_bounds_count);
    metrics->batches_replayed = tally_metrics_counter(
        registry, "tally_command_batches_replayed_total",
        "Batches that met an SQL error and were run again command by command", "");
    metrics->batches_lost =
        tally_metrics_counter(registry, "tally_command_batches_lost_total",
                              "Batches whose connection was lost before the answer", "");
}

void tally_command_metrics_register(struct tally_command_metrics *metrics,
                                    const char *const *routes, struct tally_metrics *registry)
{
    register_requests(metrics, routes, registry);
    register_commands(metrics, registry);
    register_batches(metrics, registry);
    metrics->swept =
        tally_metrics_counter(registry, "tally_command_swept_rows_total",
                              "Rows of deleted users and posts removed in the background", "");
    metrics->keys_expired =
        tally_metrics_counter(registry, "tally_command_idempotency_keys_expired_total",
                              "Idempotency keys forgotten after their day", "");
    metrics->queue = tally_metrics_gauge(registry, "tally_command_queue_commands",
                                         "Commands waiting for a batch", "");
    metrics->connections_up =
        tally_metrics_gauge(registry, "tally_command_pg_connections_up",
                            "PostgreSQL connections that carry batches and are up", "");
    metrics->breaker_state = tally_metrics_gauge(
        registry, "tally_breaker_state",
        "0 closed; 1 half-open, 2 open: requests that need the server are refused at once",
        "dependency=\"postgresql\"");
    metrics->breaker_opened =
        tally_metrics_counter(registry, "tally_breaker_opened_total",
                              "Times the breaker has opened", "dependency=\"postgresql\"");
    metrics->http_connections = tally_metrics_gauge(registry, "tally_command_http_connections",
                                                    "Client connections that are open", "");
}
