/*
 * Metrics of tally-command.
 */
#ifndef TALLY_SERVICE_COMMAND_METRICS_H
#define TALLY_SERVICE_COMMAND_METRICS_H

#include "core/metrics.h"
#include "store/command.h"

/* Routes have the numbers of their commands; one more for what no route took. */
#define TALLY_COMMAND_ROUTES (TALLY_COMMAND_KIND_COUNT + 1)
/* 2xx to 5xx. */
#define TALLY_COMMAND_CLASSES 4

struct tally_command_metrics {
    struct tally_metric *requests[TALLY_COMMAND_ROUTES][TALLY_COMMAND_CLASSES];
    struct tally_histogram *latency[TALLY_COMMAND_ROUTES];
    struct tally_metric *commands[TALLY_COMMAND_KIND_COUNT][TALLY_STATUS_COUNT];
    struct tally_metric *replayed; /* answers from a stored outcome */
    struct tally_histogram *batch_commands;
    struct tally_histogram *batch_seconds;
    struct tally_metric *batches_replayed;
    struct tally_metric *batches_lost;
    struct tally_metric *swept;
    struct tally_metric *keys_expired;
    struct tally_metric *queue;
    struct tally_metric *connections_up;
    struct tally_metric *breaker_state;
    struct tally_metric *breaker_opened;
    struct tally_metric *http_connections;
};

/* `routes` are the labels of the requests, TALLY_COMMAND_ROUTES of them. */
void tally_command_metrics_register(struct tally_command_metrics *metrics,
                                    const char *const *routes, struct tally_metrics *registry);

#endif
