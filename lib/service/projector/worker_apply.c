#include "service/projector/load.h"
#include "service/projector/worker.h"

#include "core/clock.h"

#include <string.h>

enum { LETTER_WAIT_MS = 10000, LOG_INTERVAL_MS = 1000, DOUBT_US = 5 * 1000 * 1000 };

/* Users whose keys turned out to be gone from Redis: when their counts were written, or by an event
 * that is not their first. */
static void tell_lost_users(struct tally_worker *worker, int32_t partition, int64_t users)
{
    int64_t suppressed = 0;
    if (users == 0)
        return;
    tally_metric_add(worker->metrics->lost_users, users);
    if (tally_log_allow(&worker->lost_limit, LOG_INTERVAL_MS, &suppressed))
        tally_log(TALLY_LOG_ERROR, "projector.users_lost", TALLY_INTEGER("users", users),
                  TALLY_INTEGER("partition", partition),
                  TALLY_TEXT("reason",
                             "keys of users were evicted or removed from Redis; these are "
                             "flagged, and others may be missing unseen: `tallyctl repair "
                             "--all-differing` restores them"),
                  TALLY_INTEGER("suppressed", suppressed));
}

/* One reply of an apply call. */
static enum tally_status receive_outcome(struct tally_worker *worker,
                                         const struct tally_round_call *call,
                                         struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_receive(worker->redis, &reply, error);
    if (status != TALLY_OK)
        return status;
    status = tally_apply_outcome(reply, error);
    if (status == TALLY_OK)
        tell_lost_users(worker, call->partition, tally_apply_lost_users(reply));
    freeReplyObject(reply);
    struct tally_partition *partition = &worker->model->partitions[call->partition];
    if (status == TALLY_OK && partition->standing == TALLY_PARTITION_CURRENT) {
        partition->applied = call->to_offset;
    } else if (status == TALLY_FENCED) {
        tally_metric_add(worker->metrics->refusals, 1);
        /* Also of a partition that has gone to another member meanwhile: it may be the reason. */
        if (!partition->refused)
            tally_log(TALLY_LOG_WARNING, "projector.refused",
                      TALLY_INTEGER("partition", call->partition),
                      TALLY_INTEGER("offset", call->to_offset), TALLY_TEXT("reason", error->text));
        partition->refused = true;
        tally_model_lose(worker->model, call->partition);
        status = TALLY_OK;
    }
    return status;
}

/* What the calls have brought about: there is no trouble any more, and Kafka is told, for the tools
 * that look there, how far each partition is. */
static void note_applied(struct tally_worker *worker, const struct tally_round *round)
{
    for (size_t i = 0; i < round->call_count; i++) {
        const struct tally_round_call *call = &round->calls[i];
        const struct tally_partition *partition = &worker->model->partitions[call->partition];
        if (call->events == 0 || partition->standing != TALLY_PARTITION_CURRENT ||
            partition->applied != call->to_offset)
            continue;
        worker->trouble.status = TALLY_OK;
        worker->stuck_consumers = 0;
        tally_report_stuck(worker->report, false);
        tally_consumer_store(worker->consumer, call->partition, call->to_offset);
    }
}

bool tally_worker_collect_round(struct tally_worker *worker, struct tally_round *round)
{
    struct tally_error error = {0};
    for (size_t i = 0; i < round->call_count; i++) {
        enum tally_status status = receive_outcome(worker, &round->calls[i], &error);
        if (status == TALLY_OK)
            continue;
        tally_worker_disconnect(worker, &error);
        /* Not the connection's fault, and the same again after the next: stop and say so. */
        if (status == TALLY_PROTOCOL)
            tally_worker_fail(worker, &error);
        return false;
    }
    note_applied(worker, round);
    /* Only what Redis has written shows that it is well: it may answer and refuse every write. */
    if (round->call_count > 0)
        worker->backoff.attempts = 0;
    return true;
}

static bool collect_flight(struct tally_worker *worker, struct tally_flight *flight)
{
    if (!flight->sent)
        return true;
    if (!tally_worker_collect_round(worker, &flight->round))
        return false;
    flight->sent = false;
    tally_round_clear(&flight->round);
    tally_histogram_observe(worker->metrics->round_seconds,
                            (double)(tally_clock_monotonic_us() - flight->started_us) / 1e6);
    return true;
}

void tally_worker_collect_oldest(struct tally_worker *worker)
{
    (void)collect_flight(worker, &worker->flights[worker->current]);
}

void tally_worker_collect_all(struct tally_worker *worker)
{
    for (size_t i = 0; i < TALLY_WORKER_ROUNDS; i++) {
        if (!collect_flight(worker, &worker->flights[(worker->current + i) % TALLY_WORKER_ROUNDS]))
            return;
    }
}

bool tally_worker_in_flight(const struct tally_worker *worker)
{
    for (size_t i = 0; i < TALLY_WORKER_ROUNDS; i++) {
        if (worker->flights[i].sent)
            return true;
    }
    return false;
}

static void log_item(enum tally_log_level level, const char *name,
                     const struct tally_round_item *item, int64_t suppressed)
{
    char trace[TALLY_TRACE_ID_BYTES];
    tally_trace_id(item->parent, trace);
    tally_log(
        level, name, TALLY_TEXT("trace_id", trace), TALLY_INTEGER("user", item->event.user_id),
        TALLY_INTEGER("version", item->event.version),
        TALLY_TEXT("type", item->poison == NULL ? tally_event_type_text(item->event.type) : NULL),
        TALLY_TEXT("outcome", tally_outcome_text(item->outcome)),
        TALLY_TEXT("reason", item->poison), TALLY_INTEGER("partition", item->record.partition),
        TALLY_INTEGER("offset", item->record.offset), TALLY_INTEGER("suppressed", suppressed));
}

/* Counts and logs what became of a round's records. */
static void account(struct tally_worker *worker, const struct tally_round *round)
{
    const bool verbose = atomic_load_explicit(worker->verbose, memory_order_relaxed);
    size_t counts[TALLY_OUTCOME_COUNT] = {0};
    for (size_t i = 0; i < round->count; i++) {
        const struct tally_round_item *item = &round->items[i];
        int64_t suppressed = 0;
        counts[item->outcome]++;
        tell_lost_users(worker, item->record.partition, item->lost);
        const bool anomaly = item->outcome != TALLY_OUTCOME_APPLIED &&
                             item->outcome != TALLY_OUTCOME_DUPLICATE &&
                             item->outcome != TALLY_OUTCOME_DROPPED;
        if (anomaly && tally_log_allow(&worker->anomaly_limit, LOG_INTERVAL_MS, &suppressed))
            log_item(TALLY_LOG_WARNING, "projector.anomaly", item, suppressed);
        else if (verbose)
            log_item(TALLY_LOG_DEBUG, "projector.event", item, 0);
    }
    for (int i = 0; i < TALLY_OUTCOME_COUNT; i++) {
        if (counts[i] > 0)
            tally_metric_add(worker->metrics->events[i], (int64_t)counts[i]);
    }
    worker->summary_events += (int64_t)round->count;
}

/* Reads the states of users met for the first time. What is in flight is collected on the way, for
 * its replies come first. */
static enum tally_status load_users(struct tally_worker *worker, struct tally_round *round,
                                    struct tally_error *error)
{
    size_t loaded = 0;
    enum tally_status status = tally_load_ask(round, worker->model, worker->redis, &loaded, error);
    if (status != TALLY_OK || loaded == 0)
        return status;
    tally_metric_add(worker->metrics->loaded_users, (int64_t)loaded);
    tally_worker_collect_all(worker);
    if (worker->redis == NULL)
        return TALLY_OK;
    return tally_load_answer(round, worker->model, worker->redis, error);
}

/* Nothing of it is sent; its partitions go back to their positions, which are compared with the
 * log on the way. */
static void lose_partitions(struct tally_worker *worker, const struct tally_round *round)
{
    for (size_t i = 0; i < round->count; i++)
        tally_model_lose(worker->model, round->items[i].record.partition);
}

/* The dead letters could not be written, or memory ran out: the round is read again after a pause.
 */
static void give_up_round(struct tally_worker *worker, const struct tally_round *round,
                          const struct tally_error *error)
{
    lose_partitions(worker, round);
    tally_worker_back_off(worker, error);
    int64_t suppressed = 0;
    if (tally_log_allow(&worker->letter_limit, LOG_INTERVAL_MS, &suppressed))
        tally_log(TALLY_LOG_ERROR, "projector.round_given_up", TALLY_TEXT("reason", error->text),
                  TALLY_INTEGER("events", round->count), TALLY_INTEGER("suppressed", suppressed));
}

/* Whether the round has a gap or a repeat, whose position then is to be compared with the log: a
 * topic that was made anew and filled again beyond the position goes on under the consumer's feet,
 * skips what it holds before, and shows again what was applied. Each is doubted once, a partition
 * not more often than every DOUBT_US, since a relay that died repeats as well. A gap of a user who
 * was flagged before has its reason: an event of theirs was set aside. */
static bool log_in_doubt(struct tally_worker *worker, const struct tally_round *round)
{
    const int64_t now_us = tally_clock_monotonic_us();
    for (size_t i = 0; i < round->count; i++) {
        const struct tally_round_item *item = &round->items[i];
        struct tally_watch *watch = &worker->watches[item->record.partition];
        const bool odd = (item->outcome == TALLY_OUTCOME_GAP && !item->flagged) ||
                         item->outcome == TALLY_OUTCOME_DUPLICATE;
        if (!odd || item->record.offset == watch->doubted_offset ||
            (watch->doubted_us != 0 && now_us - watch->doubted_us <= DOUBT_US))
            continue;
        watch->doubted_offset = item->record.offset;
        watch->doubted_us = now_us;
        return true;
    }
    return false;
}

/* Whether Redis still stands where this projector left a partition: it may have lost data, gone
 * back, or be another's to write, since the position was read. */
static bool is_still_there(struct tally_worker *worker, int32_t id)
{
    const struct tally_partition *partition = &worker->model->partitions[id];
    const int64_t epoch = partition->epoch;
    struct tally_position position = {0};
    struct tally_error error;
    tally_worker_collect_all(worker);
    if (worker->redis == NULL)
        return false;
    if (tally_position_read(worker->redis, worker->model->generation, &id, 1, &position, &error) !=
        TALLY_OK) {
        tally_worker_disconnect(worker, &error);
        return false;
    }
    return position.present && position.epoch == epoch && position.offset == partition->applied;
}

/* Whether every poison of the round is this projector's to tell of. Dead letters are written before
 * the position moves, so that none is lost; a round that the fence will refuse would leave letters
 * that the next reader of these records writes again. */
static bool may_write_letters(struct tally_worker *worker, const struct tally_round *round)
{
    int32_t asked = -1;
    for (size_t i = 0; i < round->count; i++) {
        const struct tally_round_item *item = &round->items[i];
        if (item->outcome != TALLY_OUTCOME_POISON || item->record.partition == asked)
            continue;
        asked = item->record.partition;
        if (!is_still_there(worker, asked))
            return false;
    }
    return true;
}

/* An event whose key belongs to another partition is set aside where the topic has as many
 * partitions as the read model. Where it has more the event may be as it should, and the projector
 * ends. */
static enum tally_status check_misplaced(struct tally_worker *worker,
                                         const struct tally_round *round, struct tally_error *error)
{
    if (round->misplaced == NULL)
        return TALLY_OK;
    worker->topology_doubted = true;
    tally_worker_check_topic(worker);
    if (!worker->topology_doubted)
        return TALLY_OK;
    return tally_fail(error, TALLY_UNAVAILABLE,
                      "%s, and Kafka has not confirmed the topic's partition count",
                      round->misplaced->poison);
}

static void send_round(struct tally_worker *worker, struct tally_flight *flight)
{
    struct tally_error error = {0};
    struct tally_round *round = &flight->round;
    enum tally_status status = load_users(worker, round, &error);
    tally_load_end(worker->model);
    if (status != TALLY_OK)
        tally_worker_disconnect(worker, &error);
    if (worker->redis == NULL) {
        if (status == TALLY_PROTOCOL)
            tally_worker_fail(worker, &error);
        return;
    }
    status = check_misplaced(worker, round, &error);
    if (worker->fatal.status != TALLY_OK)
        return;
    if (status == TALLY_OK)
        status = tally_round_fold(round, worker->model, &worker->encoder, &error);
    if (status == TALLY_OK && (log_in_doubt(worker, round) || !may_write_letters(worker, round))) {
        lose_partitions(worker, round);
        return;
    }
    if (status == TALLY_OK)
        status = tally_dead_letters_write(worker->letters, round, LETTER_WAIT_MS, &error);
    if (status != TALLY_OK) {
        const bool final =
            status == TALLY_CONFIG &&
            (round->headless == NULL || is_still_there(worker, round->headless->record.partition));
        give_up_round(worker, round, &error);
        if (final)
            tally_worker_fail(worker, &error);
        return;
    }
    if (round->call_count > 0) {
        status = tally_redis_append_raw(worker->redis, round->out.data, round->out.length, &error);
        if (status == TALLY_OK)
            status = tally_redis_flush(worker->redis, &error);
        if (status != TALLY_OK) {
            tally_worker_disconnect(worker, &error);
            return;
        }
        tally_metric_add(worker->metrics->calls, (int64_t)round->call_count);
        flight->sent = true;
    }
    account(worker, round);
}

void tally_worker_send(struct tally_worker *worker)
{
    struct tally_flight *flight = &worker->flights[worker->current];
    send_round(worker, flight);
    if (flight->sent) {
        tally_round_drop_items(&flight->round);
        worker->current = (worker->current + 1) % TALLY_WORKER_ROUNDS;
    } else {
        tally_round_clear(&flight->round);
    }
    tally_users_trim(worker->model->users);
    tally_metric_set(worker->metrics->cached_users,
                     (double)tally_users_count(worker->model->users));
}
