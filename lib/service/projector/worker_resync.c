#include "service/projector/worker.h"

#include "core/clock.h"
#include "view/generation.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    WATERMARK_MS = 3000,
    LOG_INTERVAL_MS = 5000,
    MISSING_US = 5 * 1000 * 1000,
    ASK_AGAIN_US = 15 * 1000 * 1000,
};

/* Begins a read model where there is none, if the log is whole. */
static enum tally_status begin_generation(struct tally_worker *worker, int64_t *live,
                                          struct tally_error *error)
{
    const int32_t count = worker->topology.partitions;
    int64_t *lows = calloc(2 * (size_t)count, sizeof *lows);
    if (lows == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "watermarks");
    int64_t *highs = lows + count;
    enum tally_status status = TALLY_OK;
    for (int32_t i = 0; i < count && status == TALLY_OK; i++) {
        tally_report_turn(worker->report);
        status = tally_worker_stopping(worker)
                     ? tally_fail(error, TALLY_UNAVAILABLE, "the projector is stopping")
                     : tally_tip_ask(worker->tip, i, WATERMARK_MS, &lows[i], &highs[i], error);
    }
    if (status == TALLY_OK)
        status = tally_log_whole(lows, count, error);
    const int64_t now = tally_clock_wall_us() / 1000000;
    const struct tally_generation generation = {
        .number = now > worker->last_generation ? now : worker->last_generation + 1,
        .cluster = worker->topology.cluster,
        .partitions = count,
        .until = highs,
    };
    if (status == TALLY_OK)
        status = tally_generation_create(worker->redis, &generation, live, error);
    if (status == TALLY_OK && *live == generation.number)
        tally_log(TALLY_LOG_WARNING, "projector.generation_begun",
                  TALLY_INTEGER("generation", *live), TALLY_INTEGER("partitions", count),
                  TALLY_TEXT("reason", "there was no read model; it is built from the log"));
    free(lows);
    return status;
}

/* Finds the live generation, or begins one. */
static enum tally_status find_generation(struct tally_worker *worker, struct tally_error *error)
{
    int64_t live = 0;
    enum tally_status status = tally_generation_read(worker->redis, &live, error);
    if (status == TALLY_OK && live == 0)
        status = begin_generation(worker, &live, error);
    if (status != TALLY_OK)
        return status;
    if (live == 0) /* flushed in this very moment */
        return tally_fail(error, TALLY_UNAVAILABLE, "the read model has just been flushed");
    if (live != worker->model->generation) {
        tally_model_lose_all(worker->model);
        worker->model->generation = live;
        if (live > worker->last_generation)
            worker->last_generation = live;
    }
    return TALLY_OK;
}

/* A position that is missing means loss, unless the generation itself has just gone, or has just
 * been made by another projector whose positions were flushed meanwhile: it makes them again at
 * once.
 */
static enum tally_status confirm_missing(struct tally_worker *worker, struct tally_error *error)
{
    int64_t live = 0;
    struct tally_error cause = *error;
    enum tally_status status = tally_generation_read(worker->redis, &live, error);
    if (status != TALLY_OK)
        return status;
    if (live != worker->model->generation)
        return tally_fail(error, TALLY_UNAVAILABLE, "the live generation has just changed");
    const int64_t now_us = tally_clock_monotonic_us();
    if (worker->position_missing_us == 0)
        worker->position_missing_us = now_us;
    *error = cause;
    if (now_us - worker->position_missing_us < MISSING_US)
        error->status = TALLY_UNAVAILABLE;
    return error->status;
}

/* Whether a lost partition can be resumed. One that Kafka has not answered for, since its broker is
 * away, waits for the tip to get an answer: the question would hold all others up. */
static bool is_due(const struct tally_worker *worker, int32_t id)
{
    const struct tally_watch *watch = &worker->watches[id];
    return worker->model->partitions[id].standing == TALLY_PARTITION_LOST &&
           (watch->unanswered_us == 0 ||
            tally_tip_read(worker->tip, id).asked_at_ms != watch->unanswered_tip_ms ||
            tally_clock_monotonic_us() - watch->unanswered_us > ASK_AGAIN_US);
}

static bool any_due(const struct tally_worker *worker)
{
    for (int32_t i = 0; i < worker->model->partition_count; i++) {
        if (is_due(worker, i))
            return true;
    }
    return false;
}

/* What is asked of Kafka for a partition that goes back to its position. */
struct return_trip {
    int32_t id;
    bool answered;
    struct tally_position position;
    struct tally_log log;
};

/* Asks for the log's ends of one partition; the more have not been answered for, the shorter it
 * waits. */
static enum tally_status ask_ends(struct tally_worker *worker, struct return_trip *trip,
                                  size_t unanswered, struct tally_error *error)
{
    struct tally_log *log = &trip->log;
    struct tally_watch *watch = &worker->watches[trip->id];
    log->cluster = worker->topology.cluster;
    log->partitions = worker->topology.partitions;
    tally_report_turn(worker->report); /* a slow Kafka is no stuck loop */
    if (tally_worker_stopping(worker))
        return tally_fail(error, TALLY_UNAVAILABLE, "the projector is stopping");
    const enum tally_status status = tally_tip_ask(
        worker->tip, trip->id, WATERMARK_MS / (1 + (int)unanswered), &log->low, &log->high, error);
    trip->answered = status == TALLY_OK;
    watch->unanswered_us = trip->answered ? 0 : tally_clock_monotonic_us();
    watch->unanswered_tip_ms = tally_tip_read(worker->tip, trip->id).asked_at_ms;
    return status;
}

/* Asks for the log's ends and for the record before each position, by which a topic that was made
 * anew is known where its offsets happen to fit. Where it fails, some may be answered. */
static enum tally_status ask_logs(struct tally_worker *worker, struct return_trip *trips,
                                  size_t count, struct tally_consumer_start *starts,
                                  int64_t *timestamps_ms, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    size_t marked = 0;
    size_t unanswered = 0;
    for (size_t i = 0; i < count; i++) {
        const struct tally_log *log = &trips[i].log;
        const struct tally_position *position = &trips[i].position;
        const enum tally_status asked = ask_ends(worker, &trips[i], unanswered, error);
        if (asked != TALLY_OK) {
            status = asked;
            unanswered++;
        } else if (position->mark_ms > 0 && position->offset > log->low &&
                   position->offset <= log->high) {
            starts[marked++] = (struct tally_consumer_start){trips[i].id, position->offset - 1};
        }
    }
    tally_report_turn(worker->report);
    const enum tally_status peeked =
        tally_tip_peek(worker->tip, starts, marked, WATERMARK_MS, timestamps_ms, error);
    for (size_t i = 0; i < count && peeked != TALLY_OK; i++)
        trips[i].answered = false;
    for (size_t i = 0, next = 0; i < count && peeked == TALLY_OK && next < marked; i++)
        if (trips[i].id == starts[next].partition)
            trips[i].log.mark_ms = timestamps_ms[next++];
    return peeked != TALLY_OK ? peeked : status;
}

static enum tally_status resume(struct tally_worker *worker, const struct return_trip *trip,
                                struct tally_error *error)
{
    const struct tally_position *position = &trip->position;
    enum tally_status status = tally_position_check(position, trip->id, &trip->log, error);
    if (status != TALLY_OK)
        return position->present ? status : confirm_missing(worker, error);
    tally_partition_resume(&worker->model->partitions[trip->id], position);
    struct tally_watch *watch = &worker->watches[trip->id];
    const int64_t now_us = tally_clock_monotonic_us();
    /* To come back to where it stands is no progress. */
    const bool still = watch->progress_us != 0 && watch->progress_offset == position->offset;
    *watch = (struct tally_watch){
        .progress_us = still ? watch->progress_us : now_us,
        .progress_offset = position->offset,
        .resumed_us = now_us,
        .doubted_us = watch->doubted_us,
        .doubted_offset = watch->doubted_offset,
    };
    tally_log(TALLY_LOG_INFO, "projector.partition_resumed", TALLY_INTEGER("partition", trip->id),
              TALLY_INTEGER("generation", worker->model->generation),
              TALLY_INTEGER("epoch", position->epoch), TALLY_INTEGER("offset", position->offset),
              TALLY_INTEGER("behind", trip->log.high - position->offset));
    return TALLY_OK;
}

/* The partitions to be resumed; the users of all that are not current are forgotten. */
static size_t list_lost(struct tally_worker *worker, int32_t *lost)
{
    size_t count = 0;
    for (int32_t i = 0; i < worker->model->partition_count; i++) {
        if (worker->model->partitions[i].standing != TALLY_PARTITION_CURRENT)
            tally_users_drop(worker->model->users, i);
        if (is_due(worker, i))
            lost[count++] = i;
    }
    return count;
}

/* FENCED: it is sealed. Read after the positions too: a seal that is set later bumps the epochs
 * that were just read, so that what they are used for is refused. */
static enum tally_status await_switch(struct tally_worker *worker, struct tally_error *error)
{
    int64_t sealed = 0;
    enum tally_status status = tally_generation_sealed(worker->redis, &sealed, error);
    if (status == TALLY_OK && sealed == worker->model->generation)
        status = tally_fail(error, TALLY_FENCED,
                            "generation %" PRId64 " is being replaced by another one", sealed);
    return status;
}

/* Resumes what Kafka has answered for; the first that does not fit its log ends it. */
static enum tally_status resume_answered(struct tally_worker *worker,
                                         const struct return_trip *trips, size_t count,
                                         struct tally_error *error)
{
    for (size_t i = 0; i < count; i++) {
        const enum tally_status status =
            trips[i].answered ? resume(worker, &trips[i], error) : TALLY_OK;
        if (status != TALLY_OK)
            return status;
    }
    worker->position_missing_us = 0;
    return TALLY_OK;
}

static enum tally_status resume_lost(struct tally_worker *worker, struct tally_error *error)
{
    const size_t most = (size_t)worker->model->partition_count;
    enum tally_status status = TALLY_NO_MEMORY;
    int32_t *lost = calloc(most, sizeof *lost);
    struct tally_position *positions = calloc(most, sizeof *positions);
    struct return_trip *trips = calloc(most, sizeof *trips);
    struct tally_consumer_start *starts = calloc(most, sizeof *starts);
    int64_t *timestamps_ms = calloc(most, sizeof *timestamps_ms);
    if (lost == NULL || positions == NULL || trips == NULL || starts == NULL ||
        timestamps_ms == NULL) {
        (void)tally_fail(error, TALLY_NO_MEMORY, "positions");
        goto memory;
    }
    const size_t count = list_lost(worker, lost);
    const int64_t raise = 1 + (int64_t)tally_random_below(&worker->random, UINT32_MAX);
    status = tally_position_claim(worker->redis, worker->model->generation, lost, count, raise,
                                  positions, error);
    /* The first write of a connection: a server that answers may refuse every one. */
    tally_report_say(worker->report, TALLY_REPORT_REDIS, status == TALLY_OK ? NULL : error->text);
    if (status == TALLY_OK)
        status = await_switch(worker, error);
    for (size_t i = 0; i < count && status == TALLY_OK; i++)
        trips[i] = (struct return_trip){.id = lost[i], .position = positions[i]};
    if (status == TALLY_OK) {
        struct tally_error why = {0};
        status = ask_logs(worker, trips, count, starts, timestamps_ms, error);
        const enum tally_status resumed = resume_answered(worker, trips, count, &why);
        if (resumed != TALLY_OK) {
            status = resumed;
            *error = why;
        }
    }
memory:
    free(lost);
    free(positions);
    free(trips);
    free(starts);
    free(timestamps_ms);
    return status;
}

/* Lets Kafka deliver all current partitions from where they stand. */
static enum tally_status assign_current(struct tally_worker *worker, struct tally_error *error)
{
    struct tally_model *model = worker->model;
    struct tally_consumer_start *starts = calloc((size_t)model->partition_count, sizeof *starts);
    if (starts == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "assignment");
    size_t count = 0;
    for (int32_t i = 0; i < model->partition_count; i++) {
        if (model->partitions[i].standing != TALLY_PARTITION_CURRENT || worker->paused)
            continue;
        model->partitions[i].next = model->partitions[i].folded;
        starts[count++] = (struct tally_consumer_start){i, model->partitions[i].folded};
    }
    enum tally_status status = tally_consumer_assign(worker->consumer, starts, count, error);
    free(starts);
    return status;
}

void tally_worker_resync(struct tally_worker *worker)
{
    if (worker->redis == NULL || tally_clock_monotonic_us() < worker->retry_us ||
        (!worker->reassign && !any_due(worker)))
        return;
    struct tally_error error = {0};
    enum tally_status status = TALLY_OK;
    if (any_due(worker)) {
        /* A partition that goes back to its position must not be given what was fetched beyond it,
         * also where this attempt fails halfway: nothing is delivered until all is assigned anew.
         */
        worker->reassign = true;
        tally_metric_add(worker->metrics->resyncs, 1);
        status = tally_consumer_assign(worker->consumer, NULL, 0, &error);
        if (status == TALLY_OK)
            status = find_generation(worker, &error);
        if (status == TALLY_OK)
            status = await_switch(worker, &error);
    }
    if (status == TALLY_OK)
        status = resume_lost(worker, &error);
    /* Also where some are not resumed: the others go on. */
    if (!tally_redis_broken(worker->redis)) {
        struct tally_error why = {0};
        const enum tally_status assigned = assign_current(worker, &why);
        worker->reassign = assigned != TALLY_OK;
        if (status == TALLY_OK) {
            status = assigned;
            error = why;
        }
    }
    if (status == TALLY_OK)
        return;
    if (tally_redis_broken(worker->redis)) {
        tally_worker_disconnect(worker, &error);
        return;
    }
    int64_t suppressed = 0;
    if (tally_log_allow(&worker->trouble_limit, LOG_INTERVAL_MS, &suppressed))
        tally_log(TALLY_LOG_WARNING, "projector.resync_failed", TALLY_TEXT("reason", error.text),
                  TALLY_INTEGER("suppressed", suppressed));
    tally_worker_back_off(worker, &error);
    if (status == TALLY_CONFIG || status == TALLY_PROTOCOL)
        tally_worker_fail(worker, &error);
}
