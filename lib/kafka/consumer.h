/*
 * Consumer: a member of a Kafka consumer group whose start offsets come from elsewhere (librdkafka,
 * eager `range` assignment, static membership where an instance id is given).
 *
 * Kafka says which partitions this member owns; where reading starts, only the owner's own store
 * knows. So a rebalance reads nothing by itself: it is told as TALLY_CONSUMED_OWNERSHIP, and the
 * owner then calls tally_consumer_assign() with explicit offsets, as it does whenever it has to go
 * back. Committed offsets are for lag tools only.
 *
 * Neither seek, pause nor cooperative assignment is used: in librdkafka 2.0.2 each can lose an
 * offset or stall when it meets another (for one: librdkafka issue 2190, assign and pause).
 *
 * One thread, except where a function says otherwise.
 */
#ifndef TALLY_KAFKA_CONSUMER_H
#define TALLY_KAFKA_CONSUMER_H

#include "core/status.h"

#include <stdint.h>

struct tally_consumer;

struct tally_consumer_options {
    const char *brokers;
    const char *topic;
    const char *group;
    const char *instance_id; /* "": dynamic membership */
    /* What librdkafka has to say of its connections, with its syslog level; any thread. Not NULL.
     */
    void (*on_log)(int level, const char *text);
};

#define TALLY_CONSUMER_PARTITIONS_MOST 1024
#define TALLY_CONSUMER_CLUSTER_BYTES 64

/* Connects lazily and joins no group yet. CONFIG: librdkafka refuses an option. */
enum tally_status tally_consumer_new(const struct tally_consumer_options *options,
                                     struct tally_consumer **consumer,
                                     struct tally_error *error) TALLY_MUST_CHECK;
/* Joins the group. */
enum tally_status tally_consumer_join(struct tally_consumer *consumer,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* Commits what is stored, leaves the group (a static member does not) and frees. */
void tally_consumer_close(struct tally_consumer **consumer);
/* Frees without a word to the group: for one that is stuck and might never finish closing. */
void tally_consumer_abandon(struct tally_consumer **consumer);

/* What the cluster says of itself and the topic. */
struct tally_topology {
    char cluster[TALLY_CONSUMER_CLUSTER_BYTES];
    int32_t partitions;
};
/* Waits at most `timeout_ms` twice. UNAVAILABLE: no broker answers; NOT_FOUND: no such topic. */
enum tally_status tally_consumer_topology(struct tally_consumer *consumer, int timeout_ms,
                                          struct tally_topology *topology,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* First kept offset, and the next one to be written, asked of the broker. Any thread, while the
 * consumer exists. */
enum tally_status tally_consumer_watermarks(struct tally_consumer *consumer, int32_t partition,
                                            int timeout_ms, int64_t *low, int64_t *high,
                                            struct tally_error *error) TALLY_MUST_CHECK;

enum tally_consumed {
    TALLY_CONSUMED_NOTHING,   /* the time is over */
    TALLY_CONSUMED_RECORD,    /* release it with tally_record_release() */
    TALLY_CONSUMED_OWNERSHIP, /* tally_consumer_owned() has changed; nothing is assigned */
    TALLY_CONSUMED_LOG_LOST,  /* the log of `partition` does not hold the assigned offset */
    TALLY_CONSUMED_NO_TOPIC,  /* the topic is gone */
    TALLY_CONSUMED_TROUBLE,   /* librdkafka goes on trying; `error` says what happened */
    TALLY_CONSUMED_FATAL,     /* only a new consumer can go on; `error` says why */
};

struct tally_record_header {
    const char *name;
    const char *value; /* may be NULL */
    size_t length;
};

/* A message; the pointers live until it is released. One without a handle can be made by hand, for
 * a simulation of the log. */
struct tally_record {
    int32_t partition;
    int64_t offset;
    const char *key; /* NULL: none */
    size_t key_length;
    const char *value; /* NULL: a tombstone */
    size_t value_length;
    int64_t timestamp_ms; /* Kafka's; 0: none */
    void *handle;         /* librdkafka's message, owned; NULL: none, the headers are these */
    const struct tally_record_header *headers;
    size_t header_count;
};

struct tally_consumer_event {
    enum tally_consumed kind;
    int32_t partition; /* -1: it is of none */
    struct tally_record record;
    struct tally_error error;
};

/* Waits up to `timeout_ms` (0: not at all) for what comes next. Must be called at least every five
 * minutes (max.poll.interval.ms), or the group takes the partitions away. */
void tally_consumer_poll(struct tally_consumer *consumer, int timeout_ms,
                         struct tally_consumer_event *event);

/* The first `most` headers; returns how many. They live until the record is released. */
size_t tally_record_headers(const struct tally_record *record, struct tally_record_header *headers,
                            size_t most);
/* Frees the headers and keeps the rest. librdkafka allocates each header by itself; freed at once
 * they cost a third of what they cost when thousands of records keep theirs. */
void tally_record_forget_headers(struct tally_record *record);
void tally_record_release(struct tally_record *record);

/* The partitions that Kafka gave this member; valid until the next poll. */
const int32_t *tally_consumer_owned(const struct tally_consumer *consumer, size_t *count);

struct tally_consumer_start {
    int32_t partition;
    int64_t offset; /* first to be delivered */
};
/* Reads these partitions from these offsets and no others; what was fetched before and not yet
 * polled is dropped. */
enum tally_status tally_consumer_assign(struct tally_consumer *consumer,
                                        const struct tally_consumer_start *starts, size_t count,
                                        struct tally_error *error) TALLY_MUST_CHECK;
/* Reads the record at each of these starts, for a consumer that never joins: `timestamps_ms`
 * receives Kafka's time of each, 0 where that very offset holds none. Every start must lie between
 * the watermarks. Ends with nothing assigned. UNAVAILABLE: not all came within `timeout_ms`. */
enum tally_status tally_consumer_peek(struct tally_consumer *consumer,
                                      const struct tally_consumer_start *starts, size_t count,
                                      int timeout_ms, int64_t *timestamps_ms,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* Lets the next commit (every five seconds, and at the close) say that the offsets before `next`
 * are done. */
void tally_consumer_store(struct tally_consumer *consumer, int32_t partition, int64_t next);

#endif
