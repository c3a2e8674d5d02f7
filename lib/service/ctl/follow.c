#include "service/ctl/follow.h"

#include "service/projector/dead_letters.h"
#include "service/projector/load.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BATCH_EVENTS = 2000,
    CACHE_USERS = 200000,
    POLL_MS = 20,
    WATERMARK_MS = 10000,
    TOPOLOGY_MS = 10000,
    LETTER_WAIT_MS = 10000,
};

struct tally_follower {
    const struct tally_settings *settings;
    const struct tally_topology *topology;
    int64_t *letters_from;
    bool from_beginning;
    struct tally_consumer *consumer;
    struct tally_redis *redis;
    struct tally_apply_encoder encoder;
    struct tally_dead_letters *letters;
    struct tally_model *model;
    struct tally_round round;
    _Atomic int64_t *applied;
    _Atomic int64_t events;
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    atomic_bool ended;
    struct tally_error failure; /* written before `ended` */
};

void tally_follow_kafka_log(int level, const char *text)
{
    (void)level;
    (void)fprintf(stderr, "tallyctl: Kafka: %s\n", text);
}

static enum tally_status open_servers(struct tally_follower *follower, struct tally_error *error)
{
    const struct tally_settings *settings = follower->settings;
    const struct tally_consumer_options consumer = {
        .brokers = settings->kafka_brokers,
        .topic = settings->topic,
        .group = settings->consumer_group, /* never joined, and nothing is committed */
        .instance_id = "",
        .on_log = tally_follow_kafka_log,
    };
    const struct tally_dead_letter_options letters = {
        .brokers = settings->kafka_brokers,
        .topic = settings->dlq_topic,
        .source_topic = settings->topic,
    };
    enum tally_status status = tally_redis_open_text(
        settings->redis_url, settings->redis_timeout_ms, &follower->redis, error);
    if (status == TALLY_OK)
        status =
            tally_script_load(follower->redis, tally_script_apply, follower->encoder.sha, error);
    if (status == TALLY_OK)
        status = tally_dead_letters_new(&letters, &follower->letters, error);
    if (status == TALLY_OK)
        status = tally_consumer_new(&consumer, &follower->consumer, error);
    return status;
}

/* Resumes a partition from its position, if it is the caller's and fits the log. */
static enum tally_status resume(struct tally_follower *follower, int32_t id, int64_t epoch,
                                struct tally_error *error)
{
    struct tally_position position;
    struct tally_log log = {.cluster = follower->topology->cluster,
                            .partitions = follower->topology->partitions};
    enum tally_status status =
        tally_position_read(follower->redis, follower->model->generation, &id, 1, &position, error);
    if (status == TALLY_OK)
        status = tally_consumer_watermarks(follower->consumer, id, WATERMARK_MS, &log.low,
                                           &log.high, error);
    if (status == TALLY_OK)
        status = tally_position_check(&position, id, &log, error);
    if (status != TALLY_OK)
        return status;
    if (position.epoch != epoch)
        return tally_fail(error, TALLY_FENCED, "partition %d: another writer has taken over", id);
    tally_partition_resume(&follower->model->partitions[id], &position);
    atomic_store(&follower->applied[id], position.offset);
    return TALLY_OK;
}

static enum tally_status resume_all(struct tally_follower *follower, const int64_t *epochs,
                                    struct tally_error *error)
{
    const int32_t partitions = follower->topology->partitions;
    struct tally_consumer_start *starts = calloc((size_t)partitions, sizeof *starts);
    if (starts == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "assignment");
    enum tally_status status = TALLY_OK;
    for (int32_t i = 0; i < partitions && status == TALLY_OK; i++) {
        status = resume(follower, i, epochs[i], error);
        starts[i] = (struct tally_consumer_start){i, follower->model->partitions[i].next};
    }
    if (status == TALLY_OK)
        status = tally_consumer_assign(follower->consumer, starts, (size_t)partitions, error);
    free(starts);
    return status;
}

/* Only records that the live projector has not come to yet are news for the dead letters. */
static void mask_letters(struct tally_follower *follower)
{
    for (size_t i = 0; i < follower->round.count; i++) {
        struct tally_round_item *item = &follower->round.items[i];
        if (item->outcome == TALLY_OUTCOME_POISON &&
            item->record.offset < follower->letters_from[item->record.partition])
            item->outcome = TALLY_OUTCOME_DROPPED;
    }
}

static enum tally_status receive_calls(struct tally_follower *follower, struct tally_error *error)
{
    enum tally_status outcome = TALLY_OK;
    for (size_t i = 0; i < follower->round.call_count; i++) {
        const struct tally_round_call *call = &follower->round.calls[i];
        redisReply *reply = NULL;
        enum tally_status status = tally_redis_receive(follower->redis, &reply, error);
        if (status != TALLY_OK)
            return status;
        struct tally_error why = {0};
        status = tally_apply_outcome(reply, &why);
        freeReplyObject(reply);
        if (status == TALLY_OK) {
            follower->model->partitions[call->partition].applied = call->to_offset;
            atomic_store(&follower->applied[call->partition], call->to_offset);
        } else if (outcome == TALLY_OK) {
            outcome = tally_fail(error, status, "generation %" PRId64 ", partition %d: %s",
                                 follower->model->generation, call->partition, why.text);
        }
    }
    return outcome;
}

enum tally_status tally_follow_check_partitions(struct tally_consumer *consumer,
                                                const struct tally_topology *begun,
                                                struct tally_error *error)
{
    struct tally_topology now;
    enum tally_status status = tally_consumer_topology(consumer, TOPOLOGY_MS, &now, error);
    if (status == TALLY_OK && now.partitions != begun->partitions)
        status = tally_fail(error, TALLY_CONFIG,
                            "the topic has %" PRId32 " partitions now, and the new generation was "
                            "begun for %" PRId32 ": the same command again begins another one",
                            now.partitions, begun->partitions);
    return status;
}

/* An event whose key belongs to another partition is set aside where the topic has as many
 * partitions as the generation. */
static enum tally_status check_misplaced(struct tally_follower *follower, struct tally_error *error)
{
    const struct tally_round_item *misplaced = follower->round.misplaced;
    if (misplaced == NULL)
        return TALLY_OK;
    if (!follower->from_beginning)
        return tally_follow_check_partitions(follower->consumer, follower->topology, error);
    return tally_fail(error, TALLY_CONFIG,
                      "partition %d, offset %" PRId64 ": %s; the log holds events that went by "
                      "another partition count: use --from database",
                      misplaced->record.partition, misplaced->record.offset, misplaced->poison);
}

static enum tally_status apply_round(struct tally_follower *follower, struct tally_error *error)
{
    struct tally_round *round = &follower->round;
    size_t loaded = 0;
    enum tally_status status = check_misplaced(follower, error);
    if (status != TALLY_OK)
        return status;
    status = tally_load_ask(round, follower->model, follower->redis, &loaded, error);
    if (status == TALLY_OK && loaded > 0)
        status = tally_load_answer(round, follower->model, follower->redis, error);
    tally_load_end(follower->model);
    if (status == TALLY_OK)
        status = tally_round_fold(round, follower->model, &follower->encoder, error);
    if (status == TALLY_OK) {
        mask_letters(follower);
        status = tally_dead_letters_write(follower->letters, round, LETTER_WAIT_MS, error);
    }
    if (status == TALLY_OK)
        status = tally_redis_append_raw(follower->redis, round->out.data, round->out.length, error);
    if (status == TALLY_OK)
        status = receive_calls(follower, error);
    atomic_fetch_add(&follower->events, (int64_t)round->count);
    tally_round_clear(round);
    tally_users_trim(follower->model->users);
    return status;
}

/* What is no record. What librdkafka goes on trying is waited for. */
static enum tally_status on_event(const struct tally_consumer_event *event,
                                  struct tally_error *error)
{
    switch (event->kind) {
    case TALLY_CONSUMED_LOG_LOST:
        return tally_fail(error, TALLY_CONFIG,
                          "partition %d: Kafka has dropped events before they were applied; "
                          "`tallyctl rebuild --restart` starts anew",
                          event->partition);
    case TALLY_CONSUMED_NO_TOPIC:
    case TALLY_CONSUMED_FATAL:
        return tally_fail(error, TALLY_IO, "%s", event->error.text);
    default:
        return TALLY_OK;
    }
}

static enum tally_status turn(struct tally_follower *follower, struct tally_error *error)
{
    struct tally_consumer_event event;
    enum tally_status status = TALLY_OK;
    int wait_ms = POLL_MS;
    while (follower->round.count < follower->round.most && status == TALLY_OK) {
        tally_consumer_poll(follower->consumer, wait_ms, &event);
        wait_ms = 0;
        if (event.kind == TALLY_CONSUMED_NOTHING)
            break;
        if (event.kind == TALLY_CONSUMED_RECORD)
            (void)tally_round_take(&follower->round, follower->model, &event.record);
        else
            status = on_event(&event, error);
    }
    if (status == TALLY_OK && follower->round.count > 0)
        status = apply_round(follower, error);
    return status;
}

static void *run(void *argument)
{
    struct tally_follower *follower = argument;
    enum tally_status status = TALLY_OK;
    while (status == TALLY_OK && !atomic_load(&follower->stopping))
        status = turn(follower, &follower->failure);
    if (status != TALLY_OK)
        atomic_store(&follower->ended, true);
    return NULL;
}

enum tally_status tally_follower_start(const struct tally_follow_options *options,
                                       struct tally_follower **follower, struct tally_error *error)
{
    const int32_t partitions = options->topology->partitions;
    struct tally_follower *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "follower");
    made->settings = options->settings;
    made->topology = options->topology;
    made->from_beginning = options->from_beginning;
    tally_apply_encoder_init(&made->encoder);
    made->letters_from = calloc((size_t)partitions, sizeof *made->letters_from);
    made->applied = calloc((size_t)partitions, sizeof *made->applied);
    made->model = tally_model_new(partitions, CACHE_USERS);
    if (made->letters_from == NULL || made->applied == NULL || made->model == NULL ||
        !tally_round_init(&made->round, BATCH_EVENTS)) {
        tally_follower_free(&made);
        return tally_fail(error, TALLY_NO_MEMORY, "state of %d partitions", partitions);
    }
    for (int32_t i = 0; i < partitions; i++)
        made->letters_from[i] = options->letters_from[i];
    made->model->generation = options->generation;
    enum tally_status status = open_servers(made, error);
    if (status == TALLY_OK)
        status = resume_all(made, options->epochs, error);
    if (status == TALLY_OK && pthread_create(&made->thread, NULL, run, made) != 0)
        status = tally_fail(error, TALLY_NO_MEMORY, "the thread that applies the log");
    made->started = status == TALLY_OK;
    if (status == TALLY_OK)
        *follower = made;
    else
        tally_follower_free(&made);
    return status;
}

enum tally_status tally_follower_stop(struct tally_follower *follower, struct tally_error *error)
{
    if (follower->started) {
        atomic_store(&follower->stopping, true);
        (void)pthread_join(follower->thread, NULL);
        follower->started = false;
    }
    return tally_follower_check(follower, error);
}

void tally_follower_free(struct tally_follower **follower)
{
    struct tally_follower *gone = *follower;
    if (gone == NULL)
        return;
    (void)!tally_follower_stop(gone, NULL);
    tally_round_release(&gone->round);
    tally_consumer_close(&gone->consumer);
    tally_dead_letters_free(&gone->letters);
    tally_redis_close(&gone->redis);
    tally_apply_encoder_release(&gone->encoder);
    tally_model_free(&gone->model);
    free(gone->applied);
    free(gone->letters_from);
    free(gone);
    *follower = NULL;
}

int64_t tally_follower_applied(const struct tally_follower *follower, int32_t partition)
{
    return atomic_load(&follower->applied[partition]);
}

int64_t tally_follower_events(const struct tally_follower *follower)
{
    return atomic_load(&follower->events);
}

enum tally_status tally_follower_check(struct tally_follower *follower, struct tally_error *error)
{
    if (!atomic_load(&follower->ended))
        return TALLY_OK;
    return tally_fail(error, follower->failure.status, "%s", follower->failure.text);
}
