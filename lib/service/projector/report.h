/*
 * Report: what the projector's thread says of itself to the thread that answers /readyz and
 * /metrics. Every function from any thread, unless it says otherwise.
 */
#ifndef TALLY_SERVICE_PROJECTOR_REPORT_H
#define TALLY_SERVICE_PROJECTOR_REPORT_H

#include "core/metrics.h"
#include "service/projector/round.h"

/* The aspects of health, one check of /readyz each. */
enum tally_report_aspect {
    TALLY_REPORT_KAFKA,    /* topic found, group joined */
    TALLY_REPORT_REDIS,    /* connected, and fit to hold the read model */
    TALLY_REPORT_PROGRESS, /* what is there gets applied */
    TALLY_REPORT_ASPECTS
};

#define TALLY_REPORT_REASON_BYTES 256

struct tally_report;

/* Metrics that the projector's thread counts up itself; lock-free. */
struct tally_report_metrics {
    struct tally_metric *events[TALLY_OUTCOME_COUNT];
    struct tally_metric *calls;
    struct tally_metric *refusals;
    struct tally_metric *resyncs;
    struct tally_metric *redis_connects;
    struct tally_metric *consumer_restarts;
    struct tally_metric *cached_users;
    struct tally_metric *loaded_users;
    struct tally_metric *lost_users;
    struct tally_histogram *round_seconds;
};

struct tally_report_lag {
    bool owned;
    int64_t events; /* not yet applied */
    double seconds; /* since the read model last held all of the partition; 0: it does */
};

/* Registers its metrics; `metrics` must outlive it. From the thread that renders them. NULL where
 * there is no memory. */
struct tally_report *tally_report_new(struct tally_metrics *metrics);
/* After the last render. */
void tally_report_free(struct tally_report **report);

struct tally_report_metrics *tally_report_metrics(struct tally_report *report);

/* `reason` NULL: all is well. */
void tally_report_say(struct tally_report *report, enum tally_report_aspect aspect,
                      const char *reason);
/* False where something is wrong; `reason` says what. Where it is true, `reason` is "" or a note.
 */
bool tally_report_ask(struct tally_report *report, enum tally_report_aspect aspect,
                      char reason[TALLY_REPORT_REASON_BYTES]);

/* An operator has paused the projector, for the reason `note`; NULL: it goes on. That is no
 * failure: asked for progress, the report says yes, and gives the note. */
void tally_report_pause(struct tally_report *report, const char *note);

/* The partition count is known: metrics for each appear at the next render. At most once. False
 * where there is no memory. */
bool tally_report_partitions(struct tally_report *report, int32_t partitions) TALLY_MUST_CHECK;
void tally_report_set_lag(struct tally_report *report, int32_t partition,
                          const struct tally_report_lag *lag);

/* The projector's loop turns; and when it last did, monotonic µs. */
void tally_report_turn(struct tally_report *report);
int64_t tally_report_last_turn_us(const struct tally_report *report);
/* Nothing helps but another process; false again once something is applied. */
void tally_report_stuck(struct tally_report *report, bool stuck);
bool tally_report_is_stuck(const struct tally_report *report);

/* Logs what librdkafka says. Any thread. */
void tally_projector_kafka_log(int level, const char *text);

#endif
