#include "service/relay/relay_internal.h"

#include "core/clock.h"
#include "core/id.h"
#include "core/log.h"
#include "domain/event.h"
#include "domain/partitioner.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

/* How soon a pause or a refill is noticed; also keeps the session from falling silent. */
static const int64_t ATTEND_INTERVAL_US = TALLY_RELAY_SILENCE_MS * INT64_C(1000) / 6;
static const int64_t PATIENCE_US = 10000000;   /* with an event that Kafka does not acknowledge */
static const int64_t SAVE_INTERVAL_US = 20000; /* while batches follow each other */
static const int64_t COUNT_INTERVAL_US = 2000000;
enum { PAUSED_LOOK_MS = 100, COUNT_FIRST_MS = 100, COUNT_MOST_MS = 1600, COUNT_LOG_MS = 60000 };

void relay_set_failure(struct tally_relay *relay, const char *text)
{
    pthread_mutex_lock(&relay->failure_lock);
    (void)snprintf(relay->failure, sizeof relay->failure, "%s", text);
    pthread_mutex_unlock(&relay->failure_lock);
}

void relay_set_paused(struct tally_relay *relay, const struct tally_relay_orders *orders)
{
    const bool paused = orders != NULL && orders->paused;
    pthread_mutex_lock(&relay->failure_lock);
    relay->pause[0] = '\0';
    if (paused)
        (void)snprintf(relay->pause, sizeof relay->pause, "paused since %s%s%.200s", orders->since,
                       orders->reason[0] != '\0' ? ": " : "", orders->reason);
    pthread_mutex_unlock(&relay->failure_lock);
    tally_metric_set(relay->metrics.paused, paused ? 1 : 0);
    if (paused != relay->paused && orders != NULL)
        tally_log(TALLY_LOG_WARNING, paused ? "relay.paused" : "relay.resumed",
                  TALLY_TEXT("reason", orders->reason));
    relay->paused = paused;
}

void relay_on_delivered(void *context, uintptr_t tag, enum tally_status status, const char *reason)
{
    struct tally_relay *relay = context;
    const bool acknowledged = status == TALLY_OK;
    const bool failed_before = relay->flight.failed;
    /* What was given up at the end of a term still comes back, and is nobody's concern. */
    if (!tally_flight_arrive(&relay->flight, tag, acknowledged))
        return;
    tally_metric_add(acknowledged ? relay->metrics.published : relay->metrics.refused, 1);
    if (acknowledged || failed_before)
        return;
    tally_log(TALLY_LOG_WARNING, "relay.event_refused", TALLY_TEXT("cause", reason));
    relay_set_failure(relay, reason);
}

void relay_mark_turn(struct tally_relay *relay)
{
    atomic_store_explicit(&relay->turned_us, tally_clock_monotonic_us(), memory_order_relaxed);
}

void relay_show_lag(struct tally_relay *relay)
{
    const int64_t age_us = relay->oldest_us > 0 ? tally_clock_wall_us() - relay->oldest_us : 0;
    tally_metric_set(relay->metrics.lag_seconds, age_us > 0 ? (double)age_us / 1e6 : 0);
}

void relay_wait_for_work(struct tally_relay *relay, int64_t timeout_ms)
{
    relay_mark_turn(relay);
    relay_show_lag(relay);
    struct pollfd wake = {.fd = relay->wake_descriptor, .events = POLLIN};
    if (poll(&wake, 1, (int)timeout_ms) == 1) {
        uint64_t count;
        ssize_t got = read(relay->wake_descriptor, &count, sizeof count);
        (void)got; /* it only resets the counter */
    }
}

static bool draining_is_over(const struct tally_relay *relay)
{
    return atomic_load(&relay->stopping) &&
           (relay->drain_until_us == 0 || tally_clock_monotonic_us() >= relay->drain_until_us);
}

/* Saves how far everything has been acknowledged: at once when nothing is under way, else now and
 * then, so that a backlog does not cost a write for each batch. */
static enum tally_status save_landed(struct tally_relay *relay, struct tally_error *error)
{
    tally_flight_land(&relay->flight, &relay->landed);
    int64_t now_us = tally_clock_monotonic_us();
    if (relay->landed.base == NULL ||
        (relay->flight.count > 0 && now_us - relay->saved_us < SAVE_INTERVAL_US))
        return TALLY_OK;
    enum tally_status status = tally_relay_reader_save(relay->reader, &relay->landed, error);
    if (status != TALLY_OK)
        return status;
    tally_relay_position_clear(&relay->landed);
    relay->saved_us = now_us;
    relay->stalled = false;
    relay_set_failure(relay, "");
    if (relay->flight.events == 0)
        relay->oldest_us = 0;
    tally_metric_add(relay->metrics.positions_saved, 1);
    return TALLY_OK;
}

/* Now and then: what an operator wants. */
static enum tally_status attend(struct tally_relay *relay, struct tally_error *error)
{
    const int64_t now_us = tally_clock_monotonic_us();
    if (relay->attended_us != 0 && now_us - relay->attended_us < ATTEND_INTERVAL_US)
        return TALLY_OK;
    struct tally_relay_orders orders;
    enum tally_status status = tally_relay_reader_attend(relay->reader, &orders, error);
    if (status != TALLY_OK)
        return status;
    relay->attended_us = now_us;
    relay_set_paused(relay, &orders);
    return TALLY_OK;
}

/* Asks for the partitions while nothing waits for Kafka. One that is too busy to answer at once is
 * asked again later, and waited for twice as long. */
static enum tally_status ask_for_partitions(struct tally_relay *relay, struct tally_error *error)
{
    int64_t suppressed = 0;
    if (relay->count_timeout_ms == 0)
        relay->count_timeout_ms = COUNT_FIRST_MS;
    const enum tally_status status = relay_count_partitions(relay, relay->count_timeout_ms, error);
    if (status != TALLY_UNAVAILABLE)
        return status;
    if (relay->count_timeout_ms < COUNT_MOST_MS)
        relay->count_timeout_ms *= 2;
    else if (tally_log_allow(&relay->count_limit, COUNT_LOG_MS, &suppressed))
        tally_log(TALLY_LOG_WARNING, "relay.partitions_unknown",
                  TALLY_INTEGER("goes_by", relay->partitions), TALLY_TEXT("cause", error->text),
                  TALLY_INTEGER("suppressed", suppressed));
    return TALLY_OK;
}

/* Asks for the partitions now and then: events that went by an old count would lie where no read
 * model that is built from the new one looks for them. Who cannot reach Kafka for long must not
 * lead, for another process may. */
static enum tally_status look_at_topic(struct tally_relay *relay, int64_t age_us,
                                       struct tally_error *error)
{
    const int64_t since_us = tally_clock_monotonic_us() - relay->asked_us;
    if (age_us > PATIENCE_US && since_us > PATIENCE_US)
        return relay_count_partitions(relay, RELAY_METADATA_TIMEOUT_MS, error);
    if (age_us > PATIENCE_US || since_us < COUNT_INTERVAL_US)
        return TALLY_OK;
    return ask_for_partitions(relay, error);
}

/* A Kafka that answers and acknowledges nothing (too few replicas in sync, say) ends no term: the
 * events are safe where they are. Whoever asks is told. */
static void tell_stall(struct tally_relay *relay, int64_t age_us)
{
    char text[TALLY_ERROR_TEXT_BYTES];
    const int64_t since_us = tally_clock_monotonic_us() - relay->saved_us;
    if (age_us <= PATIENCE_US || since_us <= PATIENCE_US)
        return;
    (void)snprintf(text, sizeof text,
                   "%" PRId64 " events sent, none acknowledged for %" PRId64 " s",
                   relay->flight.events, (since_us < age_us ? since_us : age_us) / 1000000);
    relay_set_failure(relay, text);
    if (!relay->stalled)
        tally_log(TALLY_LOG_WARNING, "relay.stalled", TALLY_TEXT("cause", text));
    relay->stalled = true;
}

/* Nothing keeps it from publishing what there is. */
static void tell_health(struct tally_relay *relay)
{
    if (!relay->stalled)
        relay_set_failure(relay, "");
    if (relay->flight.count == 0)
        relay->oldest_us = 0;
}

/* One look at Kafka's acknowledgements and what follows from them. */
static enum tally_status serve_acknowledgements(struct tally_relay *relay, int wait_ms,
                                                struct tally_error *error)
{
    relay_mark_turn(relay);
    (void)tally_producer_poll(relay->producer, wait_ms);
    const int64_t oldest_us = tally_flight_oldest_us(&relay->flight);
    const int64_t age_us = oldest_us > 0 ? tally_clock_wall_us() - oldest_us : 0;
    if (oldest_us > 0)
        relay->oldest_us = oldest_us;
    relay_show_lag(relay);
    tally_metric_set(relay->metrics.in_flight, (double)relay->flight.events);
    if (tally_producer_fatal(relay->producer, error))
        return error->status;
    if (relay->flight.failed)
        return tally_fail(error, TALLY_IO, "Kafka refused an event");
    enum tally_status status = save_landed(relay, error);
    tell_stall(relay, age_us);
    if (status == TALLY_OK)
        status = look_at_topic(relay, age_us, error);
    return status == TALLY_OK ? attend(relay, error) : status;
}

/* Goes by as many partitions as the topic has, once nothing that went by another count is under
 * way: a rebuild that has seen the new count in the database finds all of that before the ends of
 * the topic, and in PostgreSQL. */
static enum tally_status follow_partitions(struct tally_relay *relay, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    while (status == TALLY_OK && relay->flight.count > 0) {
        status = serve_acknowledgements(relay, 10, error);
        if (status == TALLY_OK && draining_is_over(relay))
            status = tally_fail(error, TALLY_STOPPING, "Kafka did not acknowledge in time");
    }
    if (status == TALLY_OK)
        status = tally_relay_reader_note_partitions(relay->reader, relay->partitions_found, error);
    if (status != TALLY_OK)
        return status;
    if (relay->partitions != 0)
        tally_log(TALLY_LOG_WARNING, "relay.partitions_changed",
                  TALLY_INTEGER("before", relay->partitions),
                  TALLY_INTEGER("now", relay->partitions_found));
    relay->partitions = relay->partitions_found;
    return TALLY_OK;
}

/* Waits until `events` more may be under way. */
static enum tally_status make_room(struct tally_relay *relay, int64_t events,
                                   struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    while (status == TALLY_OK &&
           (tally_flight_full(&relay->flight) ||
            (relay->flight.count > 0 &&
             relay->flight.events + events > relay->settings->relay_in_flight_events))) {
        status = serve_acknowledgements(relay, 10, error);
        if (status == TALLY_OK && draining_is_over(relay))
            status = tally_fail(error, TALLY_STOPPING, "Kafka did not acknowledge in time");
    }
    return status;
}

static enum tally_status send_event(struct tally_relay *relay, const struct tally_event *event,
                                    const char *traceparent, uint64_t number,
                                    struct tally_error *error)
{
    char key[TALLY_ID_TEXT_BYTES];
    struct tally_event_headers headers;
    struct tally_producer_header copies[TALLY_EVENT_HEADER_COUNT];
    tally_event_encode_headers(&headers, event, relay->source, traceparent);
    for (size_t i = 0; i < headers.count; i++)
        copies[i] = (struct tally_producer_header){headers.list[i].name, headers.list[i].value,
                                                   headers.list[i].length};
    const struct tally_producer_message message = {
        .partition = tally_partition_of(event->user_id, relay->partitions),
        .key = key,
        .key_length = tally_id_format(event->user_id, key),
        .value = event->value,
        .value_length = event->value_length,
        .headers = copies,
        .header_count = headers.count,
        .tag = (uintptr_t)number,
    };
    enum tally_status status = tally_producer_send(relay->producer, &message, error);
    while (status == TALLY_OVERLOADED) {
        status = serve_acknowledgements(relay, 10, error);
        if (status == TALLY_OK && draining_is_over(relay))
            status = tally_fail(error, TALLY_STOPPING, "Kafka did not acknowledge in time");
        if (status == TALLY_OK)
            status = tally_producer_send(relay->producer, &message, error);
    }
    return status;
}

/* Sends a batch. One without events departs too: the position moves by it once what went before is
 * acknowledged. */
static enum tally_status publish(struct tally_relay *relay, struct tally_relay_batch *batch,
                                 struct tally_error *error)
{
    struct tally_event event = {0};
    const char *traceparent = NULL;
    enum tally_status status = make_room(relay, batch->count, error);
    if (status == TALLY_OK && batch->count > 0)
        status = tally_relay_batch_event(batch, 0, &event, &traceparent, error);
    if (status != TALLY_OK)
        return status;
    uint64_t number = tally_flight_depart(&relay->flight, &batch->after, batch->count, event.at_us);
    for (int i = 0; i < batch->count && status == TALLY_OK; i++) {
        status = tally_relay_batch_event(batch, i, &event, &traceparent, error);
        if (status == TALLY_OK)
            status = send_event(relay, &event, traceparent, number, error);
    }
    return status;
}

/* While it is paused: reads nothing, but lands what is on its way. True where the term is to end.
 */
static bool stand_paused(struct tally_relay *relay, enum tally_status *status,
                         struct tally_error *error)
{
    const bool stopping = atomic_load(&relay->stopping);
    *status = serve_acknowledgements(relay, 0, error);
    if (*status != TALLY_OK || (stopping && relay->flight.count == 0))
        return true;
    if (draining_is_over(relay)) {
        *status = tally_fail(error, TALLY_STOPPING, "Kafka did not acknowledge in time");
        return true;
    }
    tell_health(relay);
    relay_wait_for_work(relay, PAUSED_LOOK_MS);
    return false;
}

enum tally_status relay_lead(struct tally_relay *relay, struct tally_error *error)
{
    enum tally_status status = attend(relay, error);
    int64_t pause_ms = 1;
    while (status == TALLY_OK) {
        if (relay->partitions != relay->partitions_found) {
            status = follow_partitions(relay, error);
            continue;
        }
        if (relay->paused) {
            if (stand_paused(relay, &status, error))
                return status;
            continue;
        }
        if (draining_is_over(relay))
            return tally_fail(error, TALLY_STOPPING, "there was more to publish than time for it");
        /* Asked before the read: what was committed before the stop must be found by it. */
        const bool stopping = atomic_load(&relay->stopping);
        struct tally_relay_batch batch;
        status = tally_relay_reader_next(relay->reader, &batch, error);
        if (status != TALLY_OK)
            break;
        tally_metric_set(relay->metrics.catching_up, batch.more ? 1 : 0);
        const bool empty = batch.count == 0 && !batch.more;
        if (!empty)
            status = publish(relay, &batch, error);
        tally_relay_batch_clear(&batch);
        if (status == TALLY_OK)
            status = serve_acknowledgements(relay, 0, error);
        if (status != TALLY_OK || !empty) {
            pause_ms = 1;
            continue;
        }
        tell_health(relay);
        if (stopping && relay->flight.count == 0)
            break;
        relay_wait_for_work(relay, pause_ms);
        if (pause_ms < relay->settings->relay_poll_most_ms)
            pause_ms *= 2;
        if (pause_ms > relay->settings->relay_poll_most_ms)
            pause_ms = relay->settings->relay_poll_most_ms;
    }
    return status;
}
