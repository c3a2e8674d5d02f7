/*
 * What relay.c (the thread and its terms) and publish.c (what a leader does) share.
 */
#ifndef TALLY_SERVICE_RELAY_INTERNAL_H
#define TALLY_SERVICE_RELAY_INTERNAL_H

#include "core/log.h"
#include "core/random.h"
#include "kafka/producer.h"
#include "service/relay/flight.h"
#include "service/relay/relay.h"
#include "store/relay_position.h"

#include <pthread.h>
#include <stdatomic.h>

enum { RELAY_SOURCE_BYTES = 64 };

struct relay_metrics {
    struct tally_metric *leading;
    struct tally_metric *published;
    struct tally_metric *refused;
    struct tally_metric *in_flight;
    struct tally_metric *lag_seconds;
    struct tally_metric *catching_up;
    struct tally_metric *positions_saved;
    struct tally_metric *failures;
    struct tally_metric *paused;
};

struct tally_relay {
    const struct tally_settings *settings;
    struct relay_metrics metrics;
    pthread_t thread;
    int wake_descriptor;
    atomic_bool stopping;
    atomic_int state;       /* enum relay_state */
    atomic_llong turned_us; /* monotonic: the thread was last seen going on */
    pthread_mutex_t failure_lock;
    char failure[TALLY_ERROR_TEXT_BYTES];
    char pause[TALLY_ERROR_TEXT_BYTES]; /* since when and why; "": not paused */

    /* The rest belongs to the thread. */
    struct tally_random random;
    struct tally_log_repeat failures;
    struct tally_producer *producer;
    int32_t partitions_found; /* of the topic, when Kafka was last asked */
    int32_t partitions;       /* that events go by; 0: none yet in this term */
    struct tally_relay_reader *reader;
    struct tally_flight flight;
    struct tally_relay_position landed; /* acknowledged, not saved yet; base NULL: nothing */
    char source[RELAY_SOURCE_BYTES];    /* ce_source */
    int64_t asked_us;                   /* monotonic; when Kafka was last asked for partitions */
    int count_timeout_ms; /* of that, while events are published; 0: not asked in this term */
    struct tally_log_limit count_limit;
    int64_t saved_us;    /* monotonic; when the position was saved */
    int64_t attended_us; /* monotonic; when the orders were read */
    int64_t oldest_us;   /* wall clock; of what is not acknowledged, also after a term; 0: none */
    bool paused;
    bool stalled;           /* Kafka acknowledges nothing, and the failure says so */
    int64_t drain_until_us; /* monotonic, once stopping; 0: not told to */
};

/* All from the relay's thread, but for relay_set_failure(). */
/* The thread goes on; called at least once in each of its loops. */
void relay_mark_turn(struct tally_relay *relay);
void relay_set_failure(struct tally_relay *relay, const char *text);
/* Asks Kafka how many partitions there are. */
enum tally_status relay_count_partitions(struct tally_relay *relay, int timeout_ms,
                                         struct tally_error *error) TALLY_MUST_CHECK;
/* For that: the leader must not fall silent. */
#define RELAY_METADATA_TIMEOUT_MS (TALLY_RELAY_SILENCE_MS * 2 / 3)
/* NULL: nobody has paused it. */
void relay_set_paused(struct tally_relay *relay, const struct tally_relay_orders *orders);
/* The producer's callback; its context is the relay. */
tally_producer_delivered relay_on_delivered;
/* The age of that event as it is now. */
void relay_show_lag(struct tally_relay *relay);
/* Waits for a wake-up, for Kafka, or for `timeout_ms`. */
void relay_wait_for_work(struct tally_relay *relay, int64_t timeout_ms);
/* Publishes until something fails, or the service stops and all is acknowledged and saved. */
enum tally_status relay_lead(struct tally_relay *relay, struct tally_error *error) TALLY_MUST_CHECK;

#endif
