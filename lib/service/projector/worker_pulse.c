#include "service/projector/worker.h"

#include "core/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PULSE_US = 500 * 1000,
    SUMMARY_US = 10 * 1000 * 1000,
    SERVER_US = 5 * 1000 * 1000,
    STUCK_CONSUMERS_MOST = 3,
};

/* Moves fresh_at_ms to the latest time for which it is known that nothing was missing. */
static void note_fresh(struct tally_watch *watch, const struct tally_partition *partition,
                       const struct tally_tip_end *end)
{
    if (end->high >= 0 && partition->applied >= end->high && end->asked_at_ms > watch->fresh_at_ms)
        watch->fresh_at_ms = end->asked_at_ms;
}

static void note_progress(struct tally_watch *watch, const struct tally_partition *partition,
                          int64_t lag, bool paused, int64_t now_us)
{
    const bool known = watch->progress_us != 0;
    if (known && lag > 0 && partition->applied == watch->progress_offset && !paused)
        return;
    watch->progress_us = now_us;
    watch->progress_offset = partition->applied;
}

/* Lag of one owned partition; returns how long, in µs, it has made no progress. */
static int64_t observe(struct tally_worker *worker, int32_t id, int64_t now_us, int64_t now_ms)
{
    const struct tally_partition *partition = &worker->model->partitions[id];
    struct tally_watch *watch = &worker->watches[id];
    struct tally_report_lag lag = {.owned = partition->standing != TALLY_PARTITION_FOREIGN};
    int64_t still_us = 0;
    if (lag.owned) {
        const struct tally_tip_end end = tally_tip_read(worker->tip, id);
        if (partition->standing == TALLY_PARTITION_CURRENT)
            note_fresh(watch, partition, &end);
        lag.events = end.high > partition->applied ? end.high - partition->applied : 0;
        const int64_t since_ms = watch->fresh_at_ms > partition->event_at_ms
                                     ? watch->fresh_at_ms
                                     : partition->event_at_ms;
        if (lag.events > 0 && since_ms > 0 && now_ms > since_ms)
            lag.seconds = (double)(now_ms - since_ms) / 1000;
        note_progress(watch, partition, lag.events, worker->paused, now_us);
        still_us = now_us - watch->progress_us;
    } else if (worker->joined) {
        watch->progress_us = 0;
    }
    tally_report_set_lag(worker->report, id, &lag);
    return still_us;
}

/* Says whether the projector stands still, and gives a consumer up that does so for twice as long
 * while Redis is there. */
static void judge_progress(struct tally_worker *worker, int32_t slowest, int64_t still_us,
                           int64_t now_us)
{
    const int64_t stall_us = worker->options->settings->projector_stall_ms * 1000;
    char reason[TALLY_REPORT_REASON_BYTES];
    if (still_us <= stall_us) {
        tally_report_say(worker->report, TALLY_REPORT_PROGRESS, NULL);
        return;
    }
    (void)snprintf(reason, sizeof reason,
                   "partition %d has made no progress for %" PRId64 " s%s%.160s", slowest,
                   still_us / 1000000, worker->trouble.status != TALLY_OK ? ": " : "",
                   worker->trouble.status != TALLY_OK ? worker->trouble.text : "");
    tally_report_say(worker->report, TALLY_REPORT_PROGRESS, reason);
    /* A partition that goes back to its position again and again has another reason. */
    if (still_us <= 2 * stall_us || now_us - worker->watches[slowest].resumed_us <= 2 * stall_us ||
        worker->redis == NULL ||
        worker->model->partitions[slowest].standing != TALLY_PARTITION_CURRENT)
        return;
    tally_log(TALLY_LOG_ERROR, "projector.consumer_stuck", TALLY_TEXT("reason", reason));
    worker->stuck_consumers++;
    tally_report_stuck(worker->report, worker->stuck_consumers >= STUCK_CONSUMERS_MOST);
    tally_worker_replace_consumer(worker);
}

static void observe_all(struct tally_worker *worker, int64_t now_us)
{
    const int64_t now_ms = tally_clock_wall_us() / 1000;
    int64_t still_us = 0;
    int32_t slowest = 0;
    for (int32_t i = 0; i < worker->model->partition_count; i++) {
        const int64_t still = observe(worker, i, now_us, now_ms);
        if (still > still_us) {
            still_us = still;
            slowest = i;
        }
    }
    judge_progress(worker, slowest, still_us, now_us);
}

/* Says whether Kafka answers: without that nobody knows what is missing. */
static void judge_kafka(struct tally_worker *worker)
{
    const int64_t now_ms = tally_clock_wall_us() / 1000;
    const int64_t most_ms = worker->options->settings->projector_stall_ms;
    int64_t oldest_ms = now_ms;
    char reason[TALLY_REPORT_REASON_BYTES];
    if (!worker->joined || worker->topic_missing_us != 0)
        return;
    for (int32_t i = 0; i < worker->model->partition_count; i++) {
        const struct tally_tip_end end = tally_tip_read(worker->tip, i);
        if (worker->model->partitions[i].standing == TALLY_PARTITION_FOREIGN)
            continue;
        const int64_t answered_ms = end.high >= 0 ? end.asked_at_ms : worker->owned_ms;
        if (answered_ms < oldest_ms)
            oldest_ms = answered_ms;
    }
    (void)snprintf(reason, sizeof reason, "Kafka has not answered for %" PRId64 " s",
                   (now_ms - oldest_ms) / 1000);
    tally_report_say(worker->report, TALLY_REPORT_KAFKA,
                     now_ms - oldest_ms > most_ms ? reason : NULL);
}

/* Appends what has become fresher, and the question which generation is live. */
static enum tally_status append_pulse(struct tally_worker *worker, struct tally_error *error)
{
    struct tally_round *pulse = &worker->pulse;
    enum tally_status status = TALLY_OK;
    for (int32_t i = 0; i < worker->model->partition_count && status == TALLY_OK; i++) {
        struct tally_watch *watch = &worker->watches[i];
        if (worker->model->partitions[i].standing != TALLY_PARTITION_CURRENT ||
            watch->fresh_at_ms <= watch->fresh_written_ms)
            continue;
        watch->fresh_written_ms = watch->fresh_at_ms;
        status = tally_round_heartbeat(pulse, worker->model, &worker->encoder, i,
                                       watch->fresh_at_ms, error);
    }
    if (status == TALLY_OK && pulse->call_count > 0)
        status = tally_redis_append_raw(worker->redis, pulse->out.data, pulse->out.length, error);
    return status;
}

/* Sends the pulse and reads its replies: it is short, and nothing else is in flight. */
static void write_pulse(struct tally_worker *worker)
{
    struct tally_error error = {0};
    int64_t live = 0;
    tally_round_clear(&worker->pulse);
    enum tally_status status = append_pulse(worker, &error);
    if (status == TALLY_OK && !tally_worker_collect_round(worker, &worker->pulse))
        return;
    if (status == TALLY_OK)
        status = tally_generation_read(worker->redis, &live, &error);
    if (status == TALLY_OK)
        status = tally_worker_read_pause(worker, &error);
    if (status != TALLY_OK) {
        tally_worker_disconnect(worker, &error);
        return;
    }
    /* Somebody switched or removed it: the positions written so far are nobody's now. */
    if (worker->model->generation != 0 && live != worker->model->generation)
        tally_model_lose_all(worker->model);
}

/* Whether Redis is still fit to hold the read model: it may be told to evict keys, or be demoted,
 * while it runs. */
static void check_server(struct tally_worker *worker, int64_t now_us)
{
    struct tally_error error = {0};
    if (worker->redis == NULL || now_us < worker->server_us)
        return;
    worker->server_us = now_us + SERVER_US;
    const enum tally_status status = tally_redis_check_server(worker->redis, &error);
    if (status != TALLY_OK)
        tally_worker_disconnect(worker, &error);
    if (status == TALLY_CONFIG)
        tally_worker_fail(worker, &error);
}

static void write_summary(struct tally_worker *worker, int64_t now_us)
{
    if (now_us < worker->summary_us)
        return;
    worker->summary_us = now_us + SUMMARY_US;
    if (worker->summary_events > 0)
        tally_log(TALLY_LOG_INFO, "projector.progress",
                  TALLY_INTEGER("events", worker->summary_events),
                  TALLY_INTEGER("seconds", SUMMARY_US / 1000000),
                  TALLY_INTEGER("generation", worker->model->generation),
                  TALLY_INTEGER("users", tally_users_count(worker->model->users)));
    worker->summary_events = 0;
}

void tally_worker_pulse(struct tally_worker *worker)
{
    const int64_t now_us = tally_clock_monotonic_us();
    if (now_us < worker->pulse_us)
        return;
    worker->pulse_us = now_us + PULSE_US;
    tally_worker_collect_all(worker);
    observe_all(worker, now_us);
    tally_worker_check_topic(worker);
    judge_kafka(worker);
    if (worker->redis != NULL)
        write_pulse(worker);
    check_server(worker, now_us);
    write_summary(worker, now_us);
}
