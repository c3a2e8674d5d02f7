#include "service/command/command.h"

#include "core/clock.h"
#include "core/config.h"
#include "service/command/internal.h"
#include "store/migrate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REASON_BYTES = 256,
    QUEUE_BYTES = 256 << 20,
    BATCH_BYTES = 8 << 20,
};

static enum tally_status check_address(const struct tally_settings *settings,
                                       struct tally_error *error)
{
    struct tally_address address;
    enum tally_status status = tally_address_parse(settings->command_listen, &address, error);
    if (status != TALLY_OK)
        return status;
    if (strcmp(settings->auth, "off") == 0 && !tally_address_loopback(&address))
        return tally_fail(error, TALLY_CONFIG,
                          "TALLY_COMMAND_LISTEN=%s is not a loopback address, which TALLY_AUTH=off "
                          "demands: everyone who reaches it could write as anyone",
                          settings->command_listen);
    return TALLY_OK;
}

static void on_failure(const struct tally_error *error, void *context)
{
    struct tally_command_service *service = context;
    int64_t suppressed = 0;
    if (!tally_log_news(&service->failures, error->text, &suppressed))
        return;
    tally_log(TALLY_LOG_WARNING, "command.postgresql",
              TALLY_TEXT("status", tally_status_slug(error->status)),
              TALLY_TEXT("cause", error->text), TALLY_INTEGER("suppressed", suppressed));
}

static void on_breaker(const struct tally_breaker *breaker, void *context)
{
    struct tally_command_service *service = context;
    if (tally_breaker_refuses(breaker)) {
        tally_metric_add(service->metrics.breaker_opened, 1);
        tally_log(TALLY_LOG_WARNING, "breaker.opened", TALLY_TEXT("dependency", "postgresql"),
                  TALLY_TEXT("cause", breaker->cause.text));
        return;
    }
    const int64_t refused_us = tally_clock_monotonic_us() - breaker->opened_us;
    tally_log(TALLY_LOG_INFO, "breaker.closed", TALLY_TEXT("dependency", "postgresql"),
              TALLY_REAL("seconds_open", (double)refused_us / 1e6));
}

static void on_batch(const struct tally_batch_report *report, void *context)
{
    struct tally_command_metrics *metrics = &((struct tally_command_service *)context)->metrics;
    tally_histogram_observe(metrics->batch_commands, (double)report->commands);
    tally_histogram_observe(metrics->batch_seconds, (double)report->duration_us / 1e6);
    if (report->replayed)
        tally_metric_add(metrics->batches_replayed, 1);
    if (report->lost)
        tally_metric_add(metrics->batches_lost, 1);
}

static void on_committed(void *context)
{
    const struct tally_command_service_options *options =
        &((struct tally_command_service *)context)->options;
    if (options->on_committed != NULL)
        options->on_committed(options->context);
}

static void on_work(int64_t swept, int64_t expired, void *context)
{
    struct tally_command_metrics *metrics = &((struct tally_command_service *)context)->metrics;
    tally_metric_add(metrics->swept, swept);
    tally_metric_add(metrics->keys_expired, expired);
}

static void refresh_gauges(void *context)
{
    struct tally_command_service *service = context;
    struct tally_command_metrics *metrics = &service->metrics;
    tally_metric_set(metrics->queue, (double)tally_batcher_waiting(service->batcher));
    tally_metric_set(metrics->connections_up,
                     (double)tally_batcher_connections_up(service->batcher));
    tally_metric_set(metrics->breaker_state, tally_batcher_breaker(service->batcher)->state);
    tally_metric_set(metrics->http_connections,
                     (double)tally_http_server_connections(service->server));
}

static enum tally_status start_store(struct tally_command_service *service,
                                     struct tally_error *error)
{
    const struct tally_settings *settings = service->options.settings;
    const struct tally_batcher_options batcher = {
        .dsn = settings->pg_dsn,
        .connections = (size_t)settings->command_connections,
        .limits = {.queue_most = (size_t)settings->command_queue_most,
                   .queue_bytes = QUEUE_BYTES,
                   .batch_most = (size_t)settings->command_batch_most,
                   .batch_bytes = BATCH_BYTES},
        .timeout_ms = settings->command_timeout_ms,
        .patience_ms = settings->breaker_ms,
        .on_committed = on_committed,
        .on_breaker = on_breaker,
        .on_batch = on_batch,
        .on_failure = on_failure,
        .context = service,
    };
    const struct tally_janitor_options janitor = {
        .dsn = settings->pg_dsn,
        .retention_days = settings->events_retention_days,
        .timeout_ms = settings->command_timeout_ms,
        .on_work = on_work,
        .on_committed = on_committed,
        .on_failure = on_failure,
        .context = service,
    };
    enum tally_status status =
        tally_batcher_new(service->options.base, &batcher, &service->batcher, error);
    if (status == TALLY_OK)
        status = tally_janitor_new(service->options.base, &janitor, &service->janitor, error);
    return status;
}

static enum tally_status listen_for_requests(struct tally_command_service *service,
                                             struct tally_error *error)
{
    const struct tally_settings *settings = service->options.settings;
    const struct tally_http_server_options options = {
        .listen = settings->command_listen,
        .max_connections = (size_t)settings->http_connections_most,
        .on_done = tally_command_observe,
        .observer_context = service,
    };
    return tally_http_server_new(service->options.base, &options, tally_command_routes,
                                 TALLY_COMMAND_KIND_COUNT, service, &service->server, error);
}

enum tally_status tally_command_service_new(const struct tally_command_service_options *options,
                                            struct tally_command_service **service,
                                            struct tally_error *error)
{
    enum tally_status status = check_address(options->settings, error);
    if (status != TALLY_OK)
        return status;
    struct tally_command_service *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "command service");
    made->options = *options;
    tally_random_seed_from_system(&made->random);
    tally_command_metrics_register(&made->metrics, tally_command_route_labels, options->metrics);
    status = start_store(made, error);
    if (status == TALLY_OK)
        status = listen_for_requests(made, error);
    if (status != TALLY_OK) {
        tally_command_service_free(&made);
        return status;
    }
    tally_metrics_on_render(options->metrics, refresh_gauges, made);
    *service = made;
    return TALLY_OK;
}

uint16_t tally_command_service_port(const struct tally_command_service *service)
{
    return tally_http_server_port(service->server);
}

static void on_batcher_drained(void *context)
{
    struct tally_command_service *service = context;
    service->options.on_drained(service->options.context);
}

/* Requests first: what still comes in on open connections is answered, and only then is nothing new
 * for the batcher. */
static void on_http_drained(void *context)
{
    struct tally_command_service *service = context;
    tally_batcher_drain(service->batcher, on_batcher_drained, service);
}

void tally_command_service_drain(struct tally_command_service *service)
{
    tally_http_server_drain(service->server, (int)service->options.settings->drain_ms,
                            on_http_drained, service);
}

void tally_command_service_free(struct tally_command_service **service)
{
    struct tally_command_service *gone = *service;
    if (gone == NULL)
        return;
    /* The batcher first: it holds commands that live in the exchanges. */
    tally_batcher_free(&gone->batcher);
    tally_janitor_free(&gone->janitor);
    tally_http_server_free(&gone->server);
    free(gone);
    *service = NULL;
}

bool tally_command_check_postgresql(void *argument, char reason[REASON_BYTES])
{
    struct tally_command_service *service = argument;
    const struct tally_breaker *breaker = tally_batcher_breaker(service->batcher);
    const bool refuses = tally_breaker_refuses(breaker);
    if (!refuses && tally_batcher_connections_up(service->batcher) > 0)
        return true;
    (void)snprintf(reason, REASON_BYTES, "%s", refuses ? breaker->cause.text : "no connection yet");
    return false;
}

bool tally_command_check_schema(void *argument, char reason[REASON_BYTES])
{
    struct tally_command_service *service = argument;
    int64_t version = tally_janitor_schema_version(service->janitor);
    if (version < tally_schema_version_needed())
        (void)snprintf(reason, REASON_BYTES,
                       "the schema has version %lld, this build needs %d: run tallyctl migrate",
                       (long long)version, tally_schema_version_needed());
    else if (!tally_janitor_kept_events(service->janitor))
        (void)snprintf(reason, REASON_BYTES, "the event partitions have not been kept yet");
    else
        return true;
    return false;
}
