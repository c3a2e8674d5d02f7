#include "kafka/consumer.h"

#include "core/clock.h"
#include "kafka/watermarks.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEEK_POLL_MS = 100 };

struct tally_consumer {
    rd_kafka_t *handle;
    rd_kafka_topic_t *topic;
    int32_t *owned; /* TALLY_CONSUMER_PARTITIONS_MOST of them */
    size_t owned_count;
    bool ownership_changed;
    struct tally_error trouble; /* of the error callback; OK: none */
    rd_kafka_resp_err_t trouble_code;
    void (*on_log)(int level, const char *text);
};

/* Records who owns what and assigns nothing; see tally_consumer_assign(). */
static void on_rebalance(rd_kafka_t *handle, rd_kafka_resp_err_t kind,
                         rd_kafka_topic_partition_list_t *partitions, void *opaque)
{
    struct tally_consumer *consumer = opaque;
    consumer->owned_count = 0;
    consumer->ownership_changed = true;
    if (kind != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        rd_kafka_assign(handle, NULL);
        return;
    }
    for (int i = 0; i < partitions->cnt && i < TALLY_CONSUMER_PARTITIONS_MOST; i++)
        consumer->owned[consumer->owned_count++] = partitions->elems[i].partition;
    rd_kafka_topic_partition_list_t *nothing = rd_kafka_topic_partition_list_new(0);
    rd_kafka_assign(handle, nothing);
    rd_kafka_topic_partition_list_destroy(nothing);
}

static void on_error(rd_kafka_t *handle, int failure, const char *reason, void *opaque)
{
    (void)handle;
    struct tally_consumer *consumer = opaque;
    consumer->trouble_code = (rd_kafka_resp_err_t)failure;
    (void)tally_fail(&consumer->trouble, TALLY_UNAVAILABLE, "%s: %s",
                     rd_kafka_err2name((rd_kafka_resp_err_t)failure), reason);
}

static void on_log(const rd_kafka_t *handle, int level, const char *facility, const char *text)
{
    (void)facility;
    const struct tally_consumer *consumer = rd_kafka_opaque(handle);
    consumer->on_log(level, text);
}

static enum tally_status configure(rd_kafka_conf_t *conf,
                                   const struct tally_consumer_options *options,
                                   struct tally_error *error)
{
    const struct {
        const char *name;
        const char *value;
    } rows[] = {
        {"bootstrap.servers", options->brokers},
        {"client.id", "tally-projector"},
        {"group.id", options->group},
        {"group.instance.id", options->instance_id},
        {"partition.assignment.strategy", "range"},
        /* The shortest that brokers allow by default: a member that died is replaced after it. */
        {"session.timeout.ms", "6000"},
        {"heartbeat.interval.ms", "2000"},
        {"enable.auto.commit", "true"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "error"},
        {"fetch.min.bytes", "1"},
        {"fetch.wait.max.ms", "25"},
        {"fetch.error.backoff.ms", "100"},
        {"fetch.message.max.bytes", "1048576"},
        /* Bounds of what is fetched ahead, over all partitions. */
        {"queued.min.messages", "20000"},
        {"queued.max.messages.kbytes", "65536"},
        /* A link that has gone silent is given up then; longer than a join may take, which waits
         * for the session of a member that has gone. */
        {"socket.timeout.ms", "10000"},
        {"reconnect.backoff.ms", "50"},
        {"reconnect.backoff.max.ms", "2000"},
        /* How soon a change of the partition count is noticed. */
        {"topic.metadata.refresh.interval.ms", "5000"},
        {"socket.nagle.disable", "true"},
        {"log_level", "3"},
    };
    char reason[256];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].value[0] == '\0')
            continue;
        if (rd_kafka_conf_set(conf, rows[i].name, rows[i].value, reason, sizeof reason) !=
            RD_KAFKA_CONF_OK)
            return tally_fail(error, TALLY_CONFIG, "librdkafka: %s", reason);
    }
    return TALLY_OK;
}

enum tally_status tally_consumer_new(const struct tally_consumer_options *options,
                                     struct tally_consumer **consumer, struct tally_error *error)
{
    char reason[256];
    enum tally_status status;
    struct tally_consumer *made = calloc(1, sizeof *made);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (made != NULL)
        made->owned = calloc(TALLY_CONSUMER_PARTITIONS_MOST, sizeof *made->owned);
    if (made == NULL || made->owned == NULL || conf == NULL) {
        status = tally_fail(error, TALLY_NO_MEMORY, "Kafka consumer");
        goto conf;
    }
    status = configure(conf, options, error);
    if (status != TALLY_OK)
        goto conf;
    made->on_log = options->on_log;
    rd_kafka_conf_set_opaque(conf, made);
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, on_log);
    made->handle = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof reason);
    if (made->handle == NULL) {
        status = tally_fail(error, TALLY_CONFIG, "librdkafka: %s", reason);
        goto conf;
    }
    conf = NULL; /* belongs to the handle now */
    rd_kafka_poll_set_consumer(made->handle);
    made->topic = rd_kafka_topic_new(made->handle, options->topic, NULL);
    if (made->topic == NULL) {
        tally_consumer_abandon(&made);
        return tally_fail(error, TALLY_CONFIG, "topic %s: %s", options->topic,
                          rd_kafka_err2str(rd_kafka_last_error()));
    }
    *consumer = made;
    return TALLY_OK;
conf:
    if (conf != NULL)
        rd_kafka_conf_destroy(conf);
    if (made != NULL)
        free(made->owned);
    free(made);
    return status;
}

enum tally_status tally_consumer_join(struct tally_consumer *consumer, struct tally_error *error)
{
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, rd_kafka_topic_name(consumer->topic),
                                      RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t failure = rd_kafka_subscribe(consumer->handle, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    if (failure != RD_KAFKA_RESP_ERR_NO_ERROR)
        return tally_fail(error, TALLY_IO, "subscribe to %s: %s",
                          rd_kafka_topic_name(consumer->topic), rd_kafka_err2str(failure));
    return TALLY_OK;
}

static void release(struct tally_consumer **consumer, int flags)
{
    struct tally_consumer *gone = *consumer;
    if (gone->topic != NULL)
        rd_kafka_topic_destroy(gone->topic);
    rd_kafka_destroy_flags(gone->handle, flags);
    free(gone->owned);
    free(gone);
    *consumer = NULL;
}

void tally_consumer_close(struct tally_consumer **consumer)
{
    if (*consumer == NULL)
        return;
    rd_kafka_consumer_close((*consumer)->handle);
    release(consumer, 0);
}

void tally_consumer_abandon(struct tally_consumer **consumer)
{
    if (*consumer != NULL)
        release(consumer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

enum tally_status tally_consumer_topology(struct tally_consumer *consumer, int timeout_ms,
                                          struct tally_topology *topology,
                                          struct tally_error *error)
{
    *topology = (struct tally_topology){0};
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t failure =
        rd_kafka_metadata(consumer->handle, 0, consumer->topic, &metadata, timeout_ms);
    if (failure != RD_KAFKA_RESP_ERR_NO_ERROR)
        return tally_fail(error, TALLY_UNAVAILABLE, "Kafka's metadata: %s",
                          rd_kafka_err2str(failure));
    const rd_kafka_metadata_topic_t *topic = metadata->topic_cnt == 1 ? metadata->topics : NULL;
    const char *name = rd_kafka_topic_name(consumer->topic);
    enum tally_status status = TALLY_OK;
    if (topic == NULL || topic->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        status = tally_fail(error, TALLY_NOT_FOUND,
                            "topic %s does not exist; `tallyctl topics create` makes it", name);
    else if (topic->err != RD_KAFKA_RESP_ERR_NO_ERROR || topic->partition_cnt == 0)
        status = tally_fail(error, TALLY_UNAVAILABLE, "topic %s: %s", name,
                            rd_kafka_err2str(topic->err));
    else if (topic->partition_cnt > TALLY_CONSUMER_PARTITIONS_MOST)
        status = tally_fail(error, TALLY_CONFIG, "topic %s has %d partitions; at most %d are read",
                            name, topic->partition_cnt, TALLY_CONSUMER_PARTITIONS_MOST);
    else
        topology->partitions = topic->partition_cnt;
    rd_kafka_metadata_destroy(metadata);
    if (status != TALLY_OK)
        return status;
    char *cluster = rd_kafka_clusterid(consumer->handle, timeout_ms);
    if (cluster == NULL || strlen(cluster) >= sizeof topology->cluster)
        status = tally_fail(error, TALLY_UNAVAILABLE, "Kafka does not tell its cluster id");
    else
        memcpy(topology->cluster, cluster, strlen(cluster));
    if (cluster != NULL)
        rd_kafka_mem_free(consumer->handle, cluster);
    return status;
}

enum tally_status tally_consumer_watermarks(struct tally_consumer *consumer, int32_t partition,
                                            int timeout_ms, int64_t *low, int64_t *high,
                                            struct tally_error *error)
{
    const char *name = rd_kafka_topic_name(consumer->topic);
    rd_kafka_resp_err_t failure =
        tally_kafka_watermarks(consumer->handle, name, partition, timeout_ms, low, high);
    if (failure != RD_KAFKA_RESP_ERR_NO_ERROR)
        return tally_fail(error, TALLY_UNAVAILABLE, "watermarks of %s partition %d: %s", name,
                          partition, rd_kafka_err2str(failure));
    return TALLY_OK;
}

/* How a failed message is told. */
static enum tally_consumed failure_kind(rd_kafka_t *handle, rd_kafka_resp_err_t failure)
{
    switch (failure) {
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        return TALLY_CONSUMED_LOG_LOST;
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        return TALLY_CONSUMED_NO_TOPIC;
    default:
        return rd_kafka_fatal_error(handle, NULL, 0) != RD_KAFKA_RESP_ERR_NO_ERROR
                   ? TALLY_CONSUMED_FATAL
                   : TALLY_CONSUMED_TROUBLE;
    }
}

static int64_t timestamp_of(const rd_kafka_message_t *message)
{
    rd_kafka_timestamp_type_t kind;
    const int64_t timestamp_ms = rd_kafka_message_timestamp(message, &kind);
    return kind == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || timestamp_ms < 0 ? 0 : timestamp_ms;
}

static void tell_message(struct tally_consumer *consumer, rd_kafka_message_t *message,
                         struct tally_consumer_event *event)
{
    event->partition = message->partition;
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        event->kind = TALLY_CONSUMED_RECORD;
        event->record = (struct tally_record){
            .partition = message->partition,
            .offset = message->offset,
            .key = message->key,
            .key_length = message->key_len,
            .value = message->payload,
            .value_length = message->len,
            .timestamp_ms = timestamp_of(message),
            .handle = message,
        };
        return;
    }
    event->kind = failure_kind(consumer->handle, message->err);
    (void)tally_fail(&event->error, TALLY_IO, "%s: %s", rd_kafka_err2name(message->err),
                     rd_kafka_message_errstr(message));
    rd_kafka_message_destroy(message);
}

void tally_consumer_poll(struct tally_consumer *consumer, int timeout_ms,
                         struct tally_consumer_event *event)
{
    *event = (struct tally_consumer_event){.kind = TALLY_CONSUMED_NOTHING, .partition = -1};
    if (!consumer->ownership_changed && consumer->trouble.status == TALLY_OK) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer->handle, timeout_ms);
        if (message != NULL) {
            tell_message(consumer, message, event);
            return;
        }
    }
    if (consumer->ownership_changed) {
        consumer->ownership_changed = false;
        event->kind = TALLY_CONSUMED_OWNERSHIP;
    } else if (consumer->trouble.status != TALLY_OK) {
        event->kind = failure_kind(consumer->handle, consumer->trouble_code);
        event->error = consumer->trouble;
        consumer->trouble.status = TALLY_OK;
    }
}

size_t tally_record_headers(const struct tally_record *record, struct tally_record_header *headers,
                            size_t most)
{
    if (record->handle == NULL) {
        const size_t given = record->header_count < most ? record->header_count : most;
        for (size_t i = 0; i < given; i++)
            headers[i] = record->headers[i];
        return given;
    }
    rd_kafka_headers_t *list = NULL;
    if (rd_kafka_message_headers(record->handle, &list) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return 0;
    size_t count = 0;
    const void *value = NULL;
    while (count < most &&
           rd_kafka_header_get_all(list, count, &headers[count].name, &value,
                                   &headers[count].length) == RD_KAFKA_RESP_ERR_NO_ERROR)
        headers[count++].value = value;
    return count;
}

void tally_record_forget_headers(struct tally_record *record)
{
    rd_kafka_headers_t *list = NULL;
    if (record->handle != NULL &&
        rd_kafka_message_detach_headers(record->handle, &list) == RD_KAFKA_RESP_ERR_NO_ERROR)
        rd_kafka_headers_destroy(list);
}

void tally_record_release(struct tally_record *record)
{
    if (record->handle != NULL)
        rd_kafka_message_destroy(record->handle);
    record->handle = NULL;
}

const int32_t *tally_consumer_owned(const struct tally_consumer *consumer, size_t *count)
{
    *count = consumer->owned_count;
    return consumer->owned;
}

enum tally_status tally_consumer_assign(struct tally_consumer *consumer,
                                        const struct tally_consumer_start *starts, size_t count,
                                        struct tally_error *error)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
    const char *name = rd_kafka_topic_name(consumer->topic);
    for (size_t i = 0; i < count; i++)
        rd_kafka_topic_partition_list_add(list, name, starts[i].partition)->offset =
            starts[i].offset;
    rd_kafka_resp_err_t failure = rd_kafka_assign(consumer->handle, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (failure != RD_KAFKA_RESP_ERR_NO_ERROR)
        return tally_fail(error, TALLY_IO, "assign: %s", rd_kafka_err2str(failure));
    return TALLY_OK;
}

enum tally_status tally_consumer_peek(struct tally_consumer *consumer,
                                      const struct tally_consumer_start *starts, size_t count,
                                      int timeout_ms, int64_t *timestamps_ms,
                                      struct tally_error *error)
{
    const int64_t due_us = tally_clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    size_t missing = count;
    for (size_t i = 0; i < count; i++)
        timestamps_ms[i] = -1;
    enum tally_status status =
        count > 0 ? tally_consumer_assign(consumer, starts, count, error) : TALLY_OK;
    while (status == TALLY_OK && missing > 0 && tally_clock_monotonic_us() < due_us) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer->handle, PEEK_POLL_MS);
        if (message == NULL)
            continue;
        const bool gone = failure_kind(consumer->handle, message->err) == TALLY_CONSUMED_LOG_LOST;
        for (size_t i = 0; i < count; i++) {
            if (timestamps_ms[i] != -1 || starts[i].partition != message->partition ||
                (message->err != RD_KAFKA_RESP_ERR_NO_ERROR && !gone))
                continue;
            timestamps_ms[i] =
                gone || message->offset != starts[i].offset ? 0 : timestamp_of(message);
            missing--;
        }
        rd_kafka_message_destroy(message);
    }
    if (count > 0)
        (void)rd_kafka_assign(consumer->handle, NULL);
    if (status == TALLY_OK && missing > 0)
        status = tally_fail(error, TALLY_UNAVAILABLE,
                            "Kafka has not sent %zu of %zu records within %d ms", missing, count,
                            timeout_ms);
    return status;
}

void tally_consumer_store(struct tally_consumer *consumer, int32_t partition, int64_t next)
{
    /* It fails where the partition has just been taken away, and then its new owner says it. */
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, rd_kafka_topic_name(consumer->topic), partition)
        ->offset = next;
    (void)rd_kafka_offsets_store(consumer->handle, list);
    rd_kafka_topic_partition_list_destroy(list);
}
