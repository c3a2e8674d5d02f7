#include "service/projector/worker.h"

#include "core/clock.h"

#include <string.h>

enum { LOG_INTERVAL_MS = 5000, TOPIC_GONE_US = 5 * 1000000, TOPOLOGY_MS = 2000 };

static void on_no_topic(struct tally_worker *worker, const struct tally_error *error)
{
    if (worker->topic_missing_us == 0)
        worker->topic_missing_us = tally_clock_monotonic_us();
    tally_report_say(worker->report, TALLY_REPORT_KAFKA, error->text);
}

static void fail_count(struct tally_worker *worker, const char *least, int32_t count)
{
    struct tally_error error;
    (void)tally_fail(&error, TALLY_CONFIG,
                     "the topic has %s%d partitions now, and the read model was built from %d; "
                     "`tallyctl rebuild` builds it anew",
                     least, count, worker->topology.partitions);
    tally_worker_fail(worker, &error);
}

/* Another topic of the same name, or another cluster, than this projector began with. */
static void compare_topology(struct tally_worker *worker, const struct tally_topology *topology)
{
    struct tally_error error;
    if (topology->partitions != worker->topology.partitions)
        fail_count(worker, "", topology->partitions);
    if (strcmp(topology->cluster, worker->topology.cluster) == 0)
        return;
    (void)tally_fail(&error, TALLY_CONFIG,
                     "the read model was built from Kafka cluster %s, and this is %s; correct "
                     "TALLY_KAFKA_BROKERS or run `tallyctl rebuild`",
                     worker->topology.cluster, topology->cluster);
    tally_worker_fail(worker, &error);
}

/* The model has no place for a partition that was added, whose events would be skipped. */
static void check_owned(struct tally_worker *worker, const int32_t *owned, size_t count)
{
    int32_t last = -1;
    for (size_t i = 0; i < count; i++)
        last = owned[i] > last ? owned[i] : last;
    if (last >= worker->topology.partitions)
        fail_count(worker, "at least ", last + 1);
}

static void on_ownership(struct tally_worker *worker)
{
    size_t count = 0;
    const int32_t *owned = tally_consumer_owned(worker->consumer, &count);
    check_owned(worker, owned, count);
    tally_model_own(worker->model, owned, count);
    for (int32_t i = 0; i < worker->model->partition_count; i++)
        tally_tip_watch(worker->tip, i,
                        worker->model->partitions[i].standing != TALLY_PARTITION_FOREIGN);
    worker->reassign = true;
    worker->joined = true;
    worker->owned_ms = tally_clock_wall_us() / 1000;
    worker->join_backoff.attempts = 0;
    tally_report_say(worker->report, TALLY_REPORT_KAFKA, NULL);
    tally_log(TALLY_LOG_INFO, "projector.ownership", TALLY_INTEGER("partitions", count));
    worker->topology_doubted = true;
    tally_worker_check_topic(worker);
}

void tally_worker_check_topic(struct tally_worker *worker)
{
    struct tally_topology topology;
    struct tally_error error = {0};
    if (worker->topic_missing_us == 0 && !worker->topology_doubted)
        return;
    const enum tally_status status =
        tally_consumer_topology(worker->consumer, TOPOLOGY_MS, &topology, &error);
    if (status == TALLY_OK) {
        worker->topology_doubted = false;
        compare_topology(worker, &topology);
        if (worker->topic_missing_us == 0)
            return;
        worker->topic_missing_us = 0;
        tally_report_say(worker->report, TALLY_REPORT_KAFKA, NULL);
        /* It may be another topic of the same name, whose offsets happen to fit: each position is
         * compared with the log again. */
        tally_model_lose_all(worker->model);
    } else if (status == TALLY_NOT_FOUND) {
        on_no_topic(worker, &error);
        if (tally_clock_monotonic_us() - worker->topic_missing_us > TOPIC_GONE_US)
            tally_worker_fail(worker, &error);
    } else if (status == TALLY_CONFIG) {
        tally_worker_fail(worker, &error);
    }
}

static void on_trouble(struct tally_worker *worker, const struct tally_error *error)
{
    int64_t suppressed = 0;
    worker->trouble = *error;
    if (tally_log_allow(&worker->trouble_limit, LOG_INTERVAL_MS, &suppressed))
        tally_log(TALLY_LOG_WARNING, "projector.kafka_trouble", TALLY_TEXT("reason", error->text),
                  TALLY_INTEGER("suppressed", suppressed));
}

/* What is no record. False where the round must end here. */
static bool on_event(struct tally_worker *worker, const struct tally_consumer_event *event)
{
    switch (event->kind) {
    case TALLY_CONSUMED_OWNERSHIP:
        on_ownership(worker);
        return false;
    case TALLY_CONSUMED_LOG_LOST:
        /* The position is compared with the watermarks again, which finds the cause and its name.
         */
        on_trouble(worker, &event->error);
        if (event->partition >= 0 && event->partition < worker->model->partition_count)
            tally_model_lose(worker->model, event->partition);
        return false;
    case TALLY_CONSUMED_NO_TOPIC:
        on_no_topic(worker, &event->error);
        return false;
    case TALLY_CONSUMED_TROUBLE:
        on_trouble(worker, &event->error);
        return true;
    case TALLY_CONSUMED_FATAL:
        on_trouble(worker, &event->error);
        tally_worker_replace_consumer(worker);
        return false;
    default:
        return false;
    }
}

void tally_worker_gather(struct tally_worker *worker, int timeout_ms)
{
    struct tally_flight *flight = &worker->flights[worker->current];
    struct tally_round *round = &flight->round;
    struct tally_consumer_event event;
    for (int wait_ms = timeout_ms; round->count < round->most; wait_ms = 0) {
        tally_consumer_poll(worker->consumer, wait_ms, &event);
        if (event.kind == TALLY_CONSUMED_RECORD) {
            if (tally_round_take(round, worker->model, &event.record) && round->count == 1)
                flight->started_us = tally_clock_monotonic_us();
        } else if (!on_event(worker, &event)) {
            break;
        }
    }
}
