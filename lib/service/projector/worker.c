#include "service/projector/worker.h"

#include "core/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    TOPOLOGY_MS = 2000,
    TOPIC_WAIT_US = 30 * 1000 * 1000,
    RETRY_MS = 500,
    IDLE_WAIT_MS = 100,
    BUSY_WAIT_MS = 0,
};

static struct tally_consumer_options consumer_options(const struct tally_worker *worker)
{
    const struct tally_settings *settings = worker->options->settings;
    return (struct tally_consumer_options){
        .brokers = settings->kafka_brokers,
        .topic = settings->topic,
        .group = settings->consumer_group,
        .instance_id = worker->instance_id,
        .on_log = tally_projector_kafka_log,
    };
}

void tally_worker_fail(struct tally_worker *worker, const struct tally_error *error)
{
    if (worker->fatal.status == TALLY_OK)
        worker->fatal = *error;
}

enum tally_status tally_worker_open(struct tally_worker *worker, struct tally_error *error)
{
    const struct tally_settings *settings = worker->options->settings;
    const struct tally_consumer_options options = consumer_options(worker);
    const struct tally_dead_letter_options letters = {
        .brokers = settings->kafka_brokers,
        .topic = settings->dlq_topic,
        .source_topic = settings->topic,
        .stopping = worker->stopping,
    };
    worker->metrics = tally_report_metrics(worker->report);
    worker->backoff = (struct tally_backoff){.first_ms = 50, .most_ms = 2000};
    worker->join_backoff = (struct tally_backoff){.first_ms = 100, .most_ms = 5000};
    tally_random_seed_from_system(&worker->random);
    tally_apply_encoder_init(&worker->encoder);
    enum tally_status status = tally_redis_url_parse(settings->redis_url, &worker->url, error);
    if (status == TALLY_OK)
        status = tally_consumer_new(&options, &worker->consumer, error);
    if (status == TALLY_OK)
        status = tally_dead_letters_new(&letters, &worker->letters, error);
    const size_t most = (size_t)settings->projector_batch_events;
    bool room = tally_round_init(&worker->pulse, 1);
    for (size_t i = 0; i < TALLY_WORKER_ROUNDS; i++)
        room = tally_round_init(&worker->flights[i].round, most) && room;
    if (status == TALLY_OK && !room)
        status = tally_fail(error, TALLY_NO_MEMORY, "rounds of %zu events", most);
    if (status != TALLY_OK)
        tally_worker_close(worker);
    return status;
}

void tally_worker_close(struct tally_worker *worker)
{
    tally_tip_stop(&worker->tip);
    for (size_t i = 0; i < TALLY_WORKER_ROUNDS; i++)
        tally_round_release(&worker->flights[i].round);
    tally_round_release(&worker->pulse);
    tally_consumer_close(&worker->consumer);
    tally_dead_letters_free(&worker->letters);
    tally_redis_close(&worker->redis);
    tally_apply_encoder_release(&worker->encoder);
    tally_model_free(&worker->model);
    free(worker->watches);
    worker->watches = NULL;
}

bool tally_worker_stopping(const struct tally_worker *worker)
{
    return atomic_load_explicit(worker->stopping, memory_order_relaxed) ||
           worker->fatal.status != TALLY_OK;
}

/* Waits for Kafka and the topic. A topic that is missing at the start may be on its way, but not
 * for ever: then somebody has to make it, and an exit says so louder than a red probe. */
static void await_topology(struct tally_worker *worker)
{
    struct tally_error error = {0};
    const int64_t started_us = tally_clock_monotonic_us();
    enum tally_status status = TALLY_UNAVAILABLE;
    while (!tally_worker_stopping(worker)) {
        tally_report_turn(worker->report);
        status = tally_consumer_topology(worker->consumer, TOPOLOGY_MS, &worker->topology, &error);
        if (status == TALLY_OK)
            return;
        tally_report_say(worker->report, TALLY_REPORT_KAFKA, error.text);
        int64_t suppressed = 0;
        if (tally_log_allow(&worker->trouble_limit, 5000, &suppressed))
            tally_log(TALLY_LOG_WARNING, "projector.waiting_for_kafka",
                      TALLY_TEXT("reason", error.text));
        if (status == TALLY_CONFIG ||
            (status == TALLY_NOT_FOUND && tally_clock_monotonic_us() - started_us > TOPIC_WAIT_US))
            tally_worker_fail(worker, &error);
        else
            usleep(RETRY_MS * 1000);
    }
}

/* A static member that comes back gets what it had, without partitions that were added meanwhile:
 * therefore it is another member where the topic has another partition count. */
static enum tally_status become_static(struct tally_worker *worker, struct tally_error *error)
{
    const char *given = worker->options->settings->group_instance_id;
    if (given[0] == '\0')
        return TALLY_OK;
    (void)snprintf(worker->instance_id, sizeof worker->instance_id, "%s.of-%" PRId32, given,
                   worker->topology.partitions);
    tally_consumer_abandon(&worker->consumer);
    const struct tally_consumer_options options = consumer_options(worker);
    return tally_consumer_new(&options, &worker->consumer, error);
}

static enum tally_status join(struct tally_worker *worker, struct tally_error *error)
{
    const int32_t partitions = worker->topology.partitions;
    const struct tally_consumer_options options = consumer_options(worker); /* for no member */
    worker->model =
        tally_model_new(partitions, (size_t)worker->options->settings->projector_cache_users);
    worker->watches = calloc((size_t)partitions, sizeof *worker->watches);
    if (worker->model == NULL || worker->watches == NULL ||
        !tally_report_partitions(worker->report, partitions))
        return tally_fail(error, TALLY_NO_MEMORY, "state of %d partitions", partitions);
    enum tally_status status = tally_tip_start(&options, partitions, &worker->tip, error);
    if (status == TALLY_OK)
        status = become_static(worker, error);
    if (status != TALLY_OK)
        return status;
    tally_report_say(worker->report, TALLY_REPORT_KAFKA, "joining the consumer group");
    tally_log(TALLY_LOG_INFO, "projector.joining",
              TALLY_TEXT("group", worker->options->settings->consumer_group),
              TALLY_TEXT("topic", worker->options->settings->topic),
              TALLY_TEXT("cluster", worker->topology.cluster),
              TALLY_INTEGER("partitions", partitions));
    return tally_consumer_join(worker->consumer, error);
}

void tally_worker_replace_consumer(struct tally_worker *worker)
{
    struct tally_error error = {0};
    const struct tally_consumer_options options = consumer_options(worker);
    for (size_t i = 0; i < TALLY_WORKER_ROUNDS; i++) {
        /* Records belong to the consumer that gave them. */
        if (!worker->flights[i].sent)
            tally_round_clear(&worker->flights[i].round);
    }
    tally_model_own(worker->model, NULL, 0);
    worker->joined = false;
    tally_report_say(worker->report, TALLY_REPORT_KAFKA, "joining the consumer group again");
    tally_metric_add(worker->metrics->consumer_restarts, 1);
    tally_consumer_abandon(&worker->consumer);
    /* Two members with one instance id would throw each other out without end. */
    usleep((useconds_t)tally_backoff_next_ms(&worker->join_backoff, &worker->random) * 1000);
    enum tally_status status = tally_consumer_new(&options, &worker->consumer, &error);
    if (status == TALLY_OK)
        status = tally_consumer_join(worker->consumer, &error);
    if (status != TALLY_OK)
        tally_worker_fail(worker, &error);
}

/* One turn: back to a known state where there is none, take what is there, send it. While Redis
 * works on one round the next is gathered and folded; when nothing comes, the replies are waited
 * for first, so that they are never late. */
static void turn(struct tally_worker *worker)
{
    tally_report_turn(worker->report);
    tally_worker_connect(worker);
    if (worker->reassign || tally_model_incomplete(worker->model)) {
        tally_worker_collect_all(worker);
        tally_worker_resync(worker);
    }
    tally_worker_collect_oldest(worker);
    tally_worker_gather(worker, tally_worker_in_flight(worker) ? BUSY_WAIT_MS : IDLE_WAIT_MS);
    if (worker->fatal.status != TALLY_OK)
        return;
    if (worker->flights[worker->current].round.count > 0)
        tally_worker_send(worker);
    else
        tally_worker_collect_all(worker);
    tally_worker_pulse(worker);
}

void tally_worker_run(struct tally_worker *worker)
{
    struct tally_error error = {0};
    await_topology(worker);
    if (tally_worker_stopping(worker))
        return;
    if (join(worker, &error) != TALLY_OK) {
        tally_worker_fail(worker, &error);
        return;
    }
    while (!tally_worker_stopping(worker))
        turn(worker);
    if (worker->redis != NULL && worker->fatal.status == TALLY_OK)
        tally_worker_collect_all(worker);
}
