#include "service/relay/relay_internal.h"

#include "core/clock.h"
#include "core/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    STANDBY_FIRST_MS = 500, /* between two attempts to lead: a takeover takes at most twice this */
    STANDBY_MOST_MS = 1000,
    RETRY_FIRST_MS = 50,
    RETRY_MOST_MS = 3000,
    STOP_GRACE_MS = 3000, /* for the thread to notice that its time is over */
};

/* Longer than any statement may take (store/relay_position.h). */
static const int64_t STUCK_US = (TALLY_RELAY_STATEMENT_MS + 30000) * INT64_C(1000);

enum relay_state { STATE_STARTING, STATE_STANDBY, STATE_LEADING, STATE_BACKING_OFF };

static const char *const state_texts[] = {
    [STATE_STARTING] = "starting",
    [STATE_STANDBY] = "standby",
    [STATE_LEADING] = "leading",
    [STATE_BACKING_OFF] = "backing-off",
};

static void set_state(struct tally_relay *relay, enum relay_state state)
{
    atomic_store(&relay->state, (int)state);
    tally_metric_set(relay->metrics.leading, state == STATE_LEADING ? 1 : 0);
}

/* Waits `delay_ms` or until the service stops, whatever is committed meanwhile: that is for whoever
 * leads. */
static void stand_aside(struct tally_relay *relay, int64_t delay_ms)
{
    int64_t until_us = tally_clock_monotonic_us() + delay_ms * 1000;
    while (!atomic_load(&relay->stopping) && delay_ms > 0) {
        relay_wait_for_work(relay, delay_ms);
        delay_ms = (until_us - tally_clock_monotonic_us()) / 1000;
    }
}

static void on_kafka_log(int level, const char *text)
{
    tally_log(TALLY_LOG_INFO, "relay.kafka_client", TALLY_INTEGER("syslog_level", level),
              TALLY_TEXT("text", text));
}

static enum tally_status open_producer(struct tally_relay *relay, struct tally_error *error)
{
    const struct tally_producer_options options = {
        .brokers = relay->settings->kafka_brokers,
        .topic = relay->settings->topic,
        .compression = relay->settings->kafka_compression,
        .queue_messages = relay->settings->relay_in_flight_events * 2,
        .on_delivered = relay_on_delivered,
        .context = relay,
        .on_log = on_kafka_log,
        .client_id = "tally-relay",
    };
    if (relay->producer != NULL)
        return TALLY_OK;
    enum tally_status status = tally_producer_new(&options, &relay->producer, error);
    if (status == TALLY_OK)
        tally_producer_notify(relay->producer, relay->wake_descriptor);
    return status;
}

enum tally_status relay_count_partitions(struct tally_relay *relay, int timeout_ms,
                                         struct tally_error *error)
{
    const enum tally_status status =
        tally_producer_partitions(relay->producer, timeout_ms, &relay->partitions_found, error);
    relay->asked_us = tally_clock_monotonic_us();
    return status;
}

/* Makes the events of another database this one's, piece by piece. */
static enum tally_status adopt(struct tally_relay *relay, struct tally_error *error)
{
    bool done = false;
    enum tally_status status = TALLY_OK;
    while (status == TALLY_OK && !done) {
        relay_mark_turn(relay);
        status = tally_relay_reader_adopt(relay->reader, &done, error);
        if (status == TALLY_OK && !done && atomic_load(&relay->stopping))
            status = tally_fail(error, TALLY_STOPPING, "the events are not all adopted yet");
    }
    return status;
}

/* Connects to PostgreSQL and waits to be elected. `*leading` is false where the service stops
 * first. */
static enum tally_status stand_for_election(struct tally_relay *relay, bool *leading,
                                            struct tally_error *error)
{
    bool started_over = false;
    struct tally_backoff standby = {.first_ms = STANDBY_FIRST_MS, .most_ms = STANDBY_MOST_MS};
    enum tally_status status =
        tally_relay_reader_open(relay->settings->pg_dsn, relay->settings->relay_batch_events,
                                TALLY_RELAY_SILENCE_MS, &relay->reader, error);
    *leading = false;
    while (status == TALLY_OK && !*leading && !atomic_load(&relay->stopping)) {
        status = tally_relay_reader_lead(relay->reader, leading, &started_over, error);
        if (status != TALLY_OK || *leading)
            break;
        set_state(relay, STATE_STANDBY);
        relay_set_failure(relay, "");
        relay->oldest_us = 0; /* whatever this one broke off at is the leader's now */
        stand_aside(relay, tally_backoff_next_ms(&standby, &relay->random));
    }
    if (status != TALLY_OK || !*leading)
        return status;
    const char *database = tally_relay_reader_database(relay->reader);
    (void)snprintf(relay->source, sizeof relay->source, "/tally/%s", database);
    relay->saved_us = tally_clock_monotonic_us();
    status = started_over ? adopt(relay, error) : TALLY_OK;
    if (status != TALLY_OK)
        return status;
    relay->attended_us = 0;
    tally_log(started_over ? TALLY_LOG_WARNING : TALLY_LOG_INFO,
              started_over ? "relay.database_changed" : "relay.leading",
              TALLY_TEXT("database", database),
              TALLY_INTEGER("epoch", tally_relay_reader_epoch(relay->reader)));
    return TALLY_OK;
}

/* Leaves nothing of this term for the next: what Kafka still acknowledges belongs to no batch. */
static void end_term(struct tally_relay *relay)
{
    relay_set_paused(relay, NULL);
    tally_relay_reader_close(&relay->reader);
    struct tally_error fatal;
    const bool dead = relay->producer != NULL && tally_producer_fatal(relay->producer, &fatal);
    if (dead)
        (void)tally_producer_poll(relay->producer, 0); /* for why it refused an event */
    tally_flight_clear(&relay->flight);
    tally_relay_position_clear(&relay->landed);
    relay->stalled = false;
    relay->partitions = 0;
    relay->count_timeout_ms = 0;
    tally_metric_set(relay->metrics.in_flight, 0);
    tally_metric_set(relay->metrics.catching_up, 0);
    /* Purging what is under way would make it fatal for the next term. */
    if (dead || (relay->producer != NULL && tally_producer_outstanding(relay->producer) > 0))
        tally_producer_free(&relay->producer);
}

/* Whether the term that began then was one to be followed by another at once. One that ends at an
 * event which no relay can send has sent what stands before it, and would do so again and again. */
static bool got_somewhere(const struct tally_relay *relay, int64_t began_us)
{
    return relay->saved_us > began_us ||
           tally_clock_monotonic_us() - began_us >= RETRY_MOST_MS * INT64_C(1000);
}

/* One term: from a working connection to Kafka, without which nobody should lead, to the failure or
 * the stop that ends it. */
static enum tally_status serve_term(struct tally_relay *relay, struct tally_backoff *retry,
                                    struct tally_error *error)
{
    bool leading = false;
    enum tally_status status = open_producer(relay, error);
    if (status == TALLY_OK)
        status = relay_count_partitions(relay, RELAY_METADATA_TIMEOUT_MS, error);
    if (status == TALLY_OK)
        status = stand_for_election(relay, &leading, error);
    if (status != TALLY_OK || !leading)
        return status;
    /* Again, since the wait for the election may have been long. */
    status = relay_count_partitions(relay, RELAY_METADATA_TIMEOUT_MS, error);
    if (status != TALLY_OK)
        return status;
    set_state(relay, STATE_LEADING);
    const int64_t began_us = relay->saved_us;
    status = relay_lead(relay, error);
    if (got_somewhere(relay, began_us))
        retry->attempts = 0;
    return status;
}

static void log_end(struct tally_relay *relay, const struct tally_error *error)
{
    int64_t suppressed = 0;
    if (tally_log_news(&relay->failures, error->text, &suppressed))
        tally_log(TALLY_LOG_WARNING, "relay.term_ended",
                  TALLY_TEXT("code", tally_status_slug(error->status)),
                  TALLY_TEXT("cause", error->text), TALLY_INTEGER("suppressed", suppressed));
}

static void *run(void *argument)
{
    struct tally_relay *relay = argument;
    struct tally_backoff retry = {.first_ms = RETRY_FIRST_MS, .most_ms = RETRY_MOST_MS};
    while (!atomic_load(&relay->stopping)) {
        struct tally_error error = {0};
        enum tally_status status = serve_term(relay, &retry, &error);
        end_term(relay);
        if (status == TALLY_OK)
            continue;
        set_state(relay, STATE_BACKING_OFF);
        relay_set_failure(relay, error.text);
        tally_metric_add(relay->metrics.failures, 1);
        log_end(relay, &error);
        stand_aside(relay, tally_backoff_next_ms(&retry, &relay->random));
    }
    tally_producer_free(&relay->producer);
    return NULL;
}

static void register_metrics(struct relay_metrics *metrics, struct tally_metrics *registry)
{
    metrics->leading =
        tally_metrics_gauge(registry, "tally_relay_leading",
                            "Whether this process publishes the database's events.", "");
    metrics->published = tally_metrics_counter(registry, "tally_relay_published_total",
                                               "Events that Kafka has acknowledged.", "");
    metrics->refused =
        tally_metrics_counter(registry, "tally_relay_refused_total",
                              "Events that Kafka did not take; they are sent again.", "");
    metrics->in_flight = tally_metrics_gauge(registry, "tally_relay_in_flight_events",
                                             "Events sent and not acknowledged.", "");
    metrics->lag_seconds =
        tally_metrics_gauge(registry, "tally_relay_lag_seconds",
                            "Age of the oldest event that is sent and not acknowledged; it goes on "
                            "growing after a failure, until that event is published.",
                            "");
    metrics->catching_up = tally_metrics_gauge(registry, "tally_relay_catching_up",
                                               "Whether the backlog is larger than one batch.", "");
    metrics->positions_saved = tally_metrics_counter(registry, "tally_relay_positions_saved_total",
                                                     "Times the position was saved.", "");
    metrics->paused = tally_metrics_gauge(registry, "tally_relay_paused",
                                          "Whether this process leads and is paused.", "");
    metrics->failures =
        tally_metrics_counter(registry, "tally_relay_failures_total",
                              "Times publishing was broken off and begun again.", "");
}

enum tally_status tally_relay_start(const struct tally_settings *settings,
                                    struct tally_metrics *metrics, struct tally_relay **relay,
                                    struct tally_error *error)
{
    struct tally_relay *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "relay");
    made->settings = settings;
    relay_mark_turn(made);
    register_metrics(&made->metrics, metrics);
    tally_random_seed_from_system(&made->random);
    pthread_mutex_init(&made->failure_lock, NULL);
    made->wake_descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int failure = made->wake_descriptor < 0 ? errno : 0;
    if (failure == 0)
        failure = pthread_create(&made->thread, NULL, run, made);
    if (failure != 0) {
        if (made->wake_descriptor >= 0)
            close(made->wake_descriptor);
        pthread_mutex_destroy(&made->failure_lock);
        free(made);
        return tally_fail(error, TALLY_IO, "relay thread: %s", strerror(failure));
    }
    *relay = made;
    return TALLY_OK;
}

void tally_relay_wake(struct tally_relay *relay)
{
    const uint64_t one = 1;
    ssize_t written = write(relay->wake_descriptor, &one, sizeof one);
    (void)written; /* it can only fail where the counter is full, and then the relay is awake */
}

void tally_relay_drain(struct tally_relay *relay)
{
    /* The thread reads it only once `stopping` is set, after this. */
    if (relay->drain_until_us == 0)
        relay->drain_until_us =
            tally_clock_monotonic_us() + relay->settings->drain_ms * INT64_C(1000);
}

bool tally_relay_stop(struct tally_relay **relay)
{
    struct tally_relay *gone = *relay;
    if (gone == NULL)
        return true;
    tally_relay_drain(gone);
    atomic_store(&gone->stopping, true);
    tally_relay_wake(gone);
    const int64_t left_us = gone->drain_until_us - tally_clock_monotonic_us();
    const int64_t give_up_us =
        tally_clock_wall_us() + (left_us > 0 ? left_us : 0) + STOP_GRACE_MS * INT64_C(1000);
    const struct timespec give_up = {.tv_sec = give_up_us / 1000000,
                                     .tv_nsec = give_up_us % 1000000 * 1000};
    if (pthread_timedjoin_np(gone->thread, NULL, &give_up) != 0)
        return false;
    close(gone->wake_descriptor);
    pthread_mutex_destroy(&gone->failure_lock);
    free(gone);
    *relay = NULL;
    return true;
}

bool tally_relay_alive(struct tally_relay *relay)
{
    long long turned_us = atomic_load_explicit(&relay->turned_us, memory_order_relaxed);
    return tally_clock_monotonic_us() - turned_us < STUCK_US;
}

void tally_relay_state(struct tally_relay *relay, const char **state, char *failure,
                       size_t failure_bytes)
{
    *state = state_texts[atomic_load(&relay->state)];
    pthread_mutex_lock(&relay->failure_lock);
    (void)snprintf(failure, failure_bytes, "%s", relay->failure);
    if (relay->pause[0] != '\0')
        *state = "paused";
    pthread_mutex_unlock(&relay->failure_lock);
}

bool tally_relay_pause_note(void *context, char reason[256])
{
    struct tally_relay *relay = context;
    pthread_mutex_lock(&relay->failure_lock);
    (void)snprintf(reason, 256, "%s", relay->pause);
    pthread_mutex_unlock(&relay->failure_lock);
    return true;
}
