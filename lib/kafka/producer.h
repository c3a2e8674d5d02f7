/*
 * Producer: an idempotent Kafka producer with explicit partitions (librdkafka).
 *
 * Messages of one partition arrive in the order they were sent, each acknowledged by all in-sync
 * replicas (enable.idempotence, acks=all), however long Kafka is away (message.timeout.ms=0), and
 * none behind one that was refused (enable.gapless.guarantee). A broker knows what comes behind by
 * the numbers that the producer gave before, and takes any number of a producer that it does not
 * know: therefore the first message to a partition is under way alone.
 * All calls from one thread; delivery callbacks come from tally_producer_poll() in that thread.
 */
#ifndef TALLY_KAFKA_PRODUCER_H
#define TALLY_KAFKA_PRODUCER_H

#include "core/status.h"

#include <stdint.h>

struct tally_producer;

struct tally_producer_header {
    const char *name;
    const char *value;
    size_t length;
};

/* Once for every message that tally_producer_send() took. TALLY_OK: it is in the log. Anything
 * else: it is not known to be, and `reason` says why. `tag` is what was given to send. */
typedef void tally_producer_delivered(void *context, uintptr_t tag, enum tally_status status,
                                      const char *reason);

/* What librdkafka has to say of its connections, with its syslog level; any thread. */
typedef void tally_producer_logged(int level, const char *text);

struct tally_producer_options {
    const char *brokers;     /* "host:port,…" */
    const char *topic;       /* that every message goes to */
    const char *compression; /* lz4, zstd or none */
    int64_t queue_messages;  /* bound of what waits for acknowledgement */
    tally_producer_delivered *on_delivered;
    void *context;
    tally_producer_logged *on_log; /* never NULL */
    const char *client_id;         /* what brokers call it */
};

struct tally_producer_message {
    int32_t partition;
    const char *key;
    size_t key_length;
    const char *value; /* NULL: a tombstone */
    size_t value_length;
    const struct tally_producer_header *headers;
    size_t header_count;
    uintptr_t tag;
};

/* Connects lazily. CONFIG: librdkafka refuses an option. */
enum tally_status tally_producer_new(const struct tally_producer_options *options,
                                     struct tally_producer **producer,
                                     struct tally_error *error) TALLY_MUST_CHECK;
/* Gives up what has not been acknowledged, after telling it to the callback. */
void tally_producer_free(struct tally_producer **producer);

/* Partitions of the topic; waits at most `timeout_ms`. UNAVAILABLE: no broker answers; NOT_FOUND:
 * no such topic. */
enum tally_status tally_producer_partitions(struct tally_producer *producer, int timeout_ms,
                                            int32_t *partitions,
                                            struct tally_error *error) TALLY_MUST_CHECK;
/* Copies the message into the queue; its partition is one of those that the topic has. OVERLOADED:
 * the queue is full, or the first message to the partition is not acknowledged yet; poll and send
 * again. */
enum tally_status tally_producer_send(struct tally_producer *producer,
                                      const struct tally_producer_message *message,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* Serves callbacks for up to `timeout_ms` or until at least one came; returns how many. */
int tally_producer_poll(struct tally_producer *producer, int timeout_ms);
/* Writes to this eventfd whenever there is something to poll for; -1 ends it. */
void tally_producer_notify(struct tally_producer *producer, int event_descriptor);
/* Drops all that is queued or in flight; each is told to the callback by the next polls. With
 * messages in flight the producer becomes fatal, sooner or later. */
void tally_producer_purge(struct tally_producer *producer);
/* Messages that no callback has come for. */
int tally_producer_outstanding(struct tally_producer *producer);
/* A state that only a new producer ends (an idempotence error, a message refused for good); false
 * where there is none. */
bool tally_producer_fatal(struct tally_producer *producer, struct tally_error *error);

#endif
