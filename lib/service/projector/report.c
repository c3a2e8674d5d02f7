#include "service/projector/report.h"

#include "core/clock.h"
#include "core/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* Partitions with metrics of their own; the sums hold for any number. */
enum { PARTITIONS_SHOWN = 64 };

struct shown {
    struct tally_metric *events;
    struct tally_metric *seconds;
};

struct tally_report {
    struct tally_metrics *registry;
    struct tally_report_metrics metrics;
    struct tally_metric *lag_events;
    struct tally_metric *lag_seconds;
    struct tally_metric *owned;
    struct tally_metric *paused;
    struct shown shown[PARTITIONS_SHOWN];
    int32_t shown_count; /* registered; the rendering thread's alone */
    atomic_llong last_turn_us;
    atomic_bool stuck;
    pthread_mutex_t mutex;                                         /* guards what follows */
    char reasons[TALLY_REPORT_ASPECTS][TALLY_REPORT_REASON_BYTES]; /* "": all is well */
    char pause[TALLY_REPORT_REASON_BYTES];                         /* "": not paused */
    int32_t partition_count;
    struct tally_report_lag *lags; /* owned, partition_count of them */
};

static void show_partitions(struct tally_report *report, int32_t count)
{
    char labels[32];
    /* Metrics of one name stand together. */
    for (int32_t i = 0; i < count; i++) {
        (void)snprintf(labels, sizeof labels, "partition=\"%d\"", i);
        report->shown[i].events = tally_metrics_gauge(
            report->registry, "tally_projector_partition_lag_events",
            "Events of an owned partition that are not yet in the read model", labels);
    }
    for (int32_t i = 0; i < count; i++) {
        (void)snprintf(labels, sizeof labels, "partition=\"%d\"", i);
        report->shown[i].seconds = tally_metrics_gauge(
            report->registry, "tally_projector_partition_lag_seconds",
            "Time since the read model last held all of an owned partition", labels);
    }
    report->shown_count = count;
}

static void on_render(void *context)
{
    struct tally_report *report = context;
    double events = 0;
    double seconds = 0;
    int owned = 0;
    pthread_mutex_lock(&report->mutex);
    const int32_t count = report->partition_count;
    if (report->shown_count == 0 && count > 0)
        show_partitions(report, count < PARTITIONS_SHOWN ? count : PARTITIONS_SHOWN);
    for (int32_t i = 0; i < count; i++) {
        const struct tally_report_lag *lag = &report->lags[i];
        events += (double)lag->events;
        seconds = lag->seconds > seconds ? lag->seconds : seconds;
        owned += lag->owned;
        if (i < report->shown_count) {
            tally_metric_set(report->shown[i].events, (double)lag->events);
            tally_metric_set(report->shown[i].seconds, lag->seconds);
        }
    }
    pthread_mutex_unlock(&report->mutex);
    tally_metric_set(report->lag_events, events);
    tally_metric_set(report->lag_seconds, seconds);
    tally_metric_set(report->owned, owned);
}

static void register_metrics(struct tally_report *report, struct tally_metrics *metrics)
{
    char labels[48];
    struct tally_report_metrics *own = &report->metrics;
    for (int i = 0; i < TALLY_OUTCOME_COUNT; i++) {
        (void)snprintf(labels, sizeof labels, "outcome=\"%s\"",
                       tally_outcome_text((enum tally_outcome)i));
        own->events[i] = tally_metrics_counter(metrics, "tally_projector_events_total",
                                               "Events read, by what became of them", labels);
    }
    own->calls = tally_metrics_counter(metrics, "tally_projector_apply_calls_total",
                                       "Calls of the apply script", "");
    own->refusals = tally_metrics_counter(
        metrics, "tally_projector_refusals_total",
        "Apply calls refused because the position was not the expected one", "");
    own->resyncs = tally_metrics_counter(metrics, "tally_projector_resyncs_total",
                                         "Times that positions were read again from Redis", "");
    own->redis_connects = tally_metrics_counter(metrics, "tally_projector_redis_connects_total",
                                                "Connections made to Redis", "");
    own->consumer_restarts =
        tally_metrics_counter(metrics, "tally_projector_consumer_restarts_total",
                              "Kafka consumers given up because they stood still", "");
    own->cached_users =
        tally_metrics_gauge(metrics, "tally_projector_cached_users", "User states in memory", "");
    own->loaded_users = tally_metrics_counter(metrics, "tally_projector_loaded_users_total",
                                              "User states read from Redis", "");
    own->lost_users =
        tally_metrics_counter(metrics, "tally_projector_lost_users_total",
                              "Users whose keys turned out to be gone from Redis", "");
    own->round_seconds = tally_metrics_histogram(
        metrics, "tally_projector_round_seconds",
        "Time from the first record of a round to Redis' confirmation of all of it", "",
        tally_latency_bounds_seconds, tally_latency_bounds_count);
    report->lag_events = tally_metrics_gauge(
        metrics, "tally_projector_lag_events",
        "Events of the owned partitions that are not yet in the read model", "");
    report->lag_seconds =
        tally_metrics_gauge(metrics, "tally_projector_lag_seconds",
                            "The longest lag in seconds of all owned partitions", "");
    report->owned = tally_metrics_gauge(metrics, "tally_projector_owned_partitions",
                                        "Partitions that this projector owns", "");
    report->paused = tally_metrics_gauge(metrics, "tally_projector_paused",
                                         "Whether an operator has paused the projectors.", "");
}

struct tally_report *tally_report_new(struct tally_metrics *metrics)
{
    struct tally_report *report = calloc(1, sizeof *report);
    if (report == NULL)
        return NULL;
    report->registry = metrics;
    pthread_mutex_init(&report->mutex, NULL);
    for (int i = 0; i < TALLY_REPORT_ASPECTS; i++)
        (void)snprintf(report->reasons[i], TALLY_REPORT_REASON_BYTES, "starting");
    register_metrics(report, metrics);
    tally_metrics_on_render(metrics, on_render, report);
    tally_report_turn(report);
    return report;
}

void tally_report_free(struct tally_report **report)
{
    if (*report == NULL)
        return;
    pthread_mutex_destroy(&(*report)->mutex);
    free((*report)->lags);
    free(*report);
    *report = NULL;
}

struct tally_report_metrics *tally_report_metrics(struct tally_report *report)
{
    return &report->metrics;
}

void tally_report_say(struct tally_report *report, enum tally_report_aspect aspect,
                      const char *reason)
{
    pthread_mutex_lock(&report->mutex);
    (void)snprintf(report->reasons[aspect], TALLY_REPORT_REASON_BYTES, "%s",
                   reason != NULL ? reason : "");
    pthread_mutex_unlock(&report->mutex);
}

bool tally_report_ask(struct tally_report *report, enum tally_report_aspect aspect,
                      char reason[TALLY_REPORT_REASON_BYTES])
{
    pthread_mutex_lock(&report->mutex);
    const bool well = report->reasons[aspect][0] == '\0';
    const char *note = aspect == TALLY_REPORT_PROGRESS ? report->pause : "";
    (void)snprintf(reason, TALLY_REPORT_REASON_BYTES, "%s", well ? note : report->reasons[aspect]);
    pthread_mutex_unlock(&report->mutex);
    return well;
}

void tally_report_pause(struct tally_report *report, const char *note)
{
    pthread_mutex_lock(&report->mutex);
    (void)snprintf(report->pause, sizeof report->pause, "%s", note != NULL ? note : "");
    pthread_mutex_unlock(&report->mutex);
    tally_metric_set(report->paused, note != NULL ? 1 : 0);
}

bool tally_report_partitions(struct tally_report *report, int32_t partitions)
{
    struct tally_report_lag *lags = calloc((size_t)partitions, sizeof *lags);
    if (lags == NULL)
        return false;
    pthread_mutex_lock(&report->mutex);
    report->lags = lags;
    report->partition_count = partitions;
    pthread_mutex_unlock(&report->mutex);
    return true;
}

void tally_report_set_lag(struct tally_report *report, int32_t partition,
                          const struct tally_report_lag *lag)
{
    pthread_mutex_lock(&report->mutex);
    if (partition < report->partition_count)
        report->lags[partition] = *lag;
    pthread_mutex_unlock(&report->mutex);
}

void tally_report_turn(struct tally_report *report)
{
    atomic_store_explicit(&report->last_turn_us, tally_clock_monotonic_us(), memory_order_relaxed);
}

int64_t tally_report_last_turn_us(const struct tally_report *report)
{
    return atomic_load_explicit(&report->last_turn_us, memory_order_relaxed);
}

void tally_report_stuck(struct tally_report *report, bool stuck)
{
    atomic_store_explicit(&report->stuck, stuck, memory_order_relaxed);
}

bool tally_report_is_stuck(const struct tally_report *report)
{
    return atomic_load_explicit(&report->stuck, memory_order_relaxed);
}

void tally_projector_kafka_log(int level, const char *text)
{
    tally_log(TALLY_LOG_INFO, "projector.kafka_client", TALLY_INTEGER("syslog_level", level),
              TALLY_TEXT("text", text));
}
