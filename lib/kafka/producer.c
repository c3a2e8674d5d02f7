#include "kafka/producer.h"

#include "core/clock.h"

#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Far less than a broker remembers a producer that says nothing (producer.id.expiration.ms, a day
 * where nobody has set it). */
static const int64_t INTRODUCED_US = INT64_C(600) * 1000000;

struct partition {
    int64_t acknowledged_us; /* monotonic, of the last message; 0: none yet */
    int64_t outstanding;     /* messages */
};

struct tally_producer {
    rd_kafka_t *handle;
    rd_kafka_topic_t *topic;
    rd_kafka_queue_t *queue; /* of the callbacks; held while it notifies */
    tally_producer_delivered *on_delivered;
    void *context;
    tally_producer_logged *on_log;
    struct partition *partitions; /* owned; those below `partition_count` */
    int32_t partition_count;
};

static void on_report(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
    (void)handle;
    struct tally_producer *producer = opaque;
    struct partition *partition = &producer->partitions[message->partition];
    partition->outstanding--;
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
        partition->acknowledged_us = tally_clock_monotonic_us();
    producer->on_delivered(producer->context, (uintptr_t)message->_private,
                           message->err == RD_KAFKA_RESP_ERR_NO_ERROR ? TALLY_OK : TALLY_IO,
                           rd_kafka_err2str(message->err));
}

static void on_log(const rd_kafka_t *handle, int level, const char *facility, const char *text)
{
    (void)facility;
    const struct tally_producer *producer = rd_kafka_opaque(handle);
    producer->on_log(level, text);
}

static enum tally_status configure(rd_kafka_conf_t *conf,
                                   const struct tally_producer_options *options,
                                   struct tally_error *error)
{
    char queue_messages[24];
    (void)snprintf(queue_messages, sizeof queue_messages, "%lld",
                   (long long)options->queue_messages);
    const struct {
        const char *name;
        const char *value;
    } rows[] = {
        {"bootstrap.servers", options->brokers},
        {"client.id", options->client_id},
        {"enable.idempotence", "true"},
        /* What comes behind a message that a broker refuses for good must not be written either:
         * sent again, the refused one would come too late. The price is that such a refusal, and a
         * purge of messages in flight, is fatal to the producer. */
        {"enable.gapless.guarantee", "true"},
        {"acks", "all"},
        {"max.in.flight", "5"},
        {"message.timeout.ms", "0"},
        {"compression.codec", options->compression},
        /* Long enough to fill a batch under load, short beside the commit that came before. */
        {"linger.ms", "0.5"},
        {"queue.buffering.max.messages", queue_messages},
        {"queue.buffering.max.kbytes", "262144"},
        {"message.max.bytes", "1000000000"}, /* the broker says what is too large, not this */
        {"socket.timeout.ms", "10000"},      /* a link that has gone silent is given up then */
        {"reconnect.backoff.ms", "50"},
        {"reconnect.backoff.max.ms", "2000"},
        {"topic.metadata.refresh.interval.ms", "60000"},
        {"socket.nagle.disable", "true"},
        {"log_level", "3"},
    };
    char reason[256];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rd_kafka_conf_set(conf, rows[i].name, rows[i].value, reason, sizeof reason) !=
            RD_KAFKA_CONF_OK)
            return tally_fail(error, TALLY_CONFIG, "librdkafka: %s", reason);
    }
    return TALLY_OK;
}

enum tally_status tally_producer_new(const struct tally_producer_options *options,
                                     struct tally_producer **producer, struct tally_error *error)
{
    enum tally_status status;
    char reason[256];
    struct tally_producer *made = calloc(1, sizeof *made);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (made == NULL || conf == NULL) {
        status = tally_fail(error, TALLY_NO_MEMORY, "Kafka producer");
        goto conf;
    }
    made->on_delivered = options->on_delivered;
    made->context = options->context;
    made->on_log = options->on_log;
    status = configure(conf, options, error);
    if (status != TALLY_OK)
        goto conf;
    rd_kafka_conf_set_opaque(conf, made);
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    rd_kafka_conf_set_log_cb(conf, on_log);
    made->handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof reason);
    if (made->handle == NULL) {
        status = tally_fail(error, TALLY_CONFIG, "librdkafka: %s", reason);
        goto conf;
    }
    made->topic = rd_kafka_topic_new(made->handle, options->topic, NULL);
    made->queue = rd_kafka_queue_get_main(made->handle);
    if (made->topic == NULL || made->queue == NULL) {
        tally_producer_free(&made);
        return tally_fail(error, TALLY_CONFIG, "topic %s: %s", options->topic,
                          rd_kafka_err2str(rd_kafka_last_error()));
    }
    *producer = made;
    return TALLY_OK;
conf:
    if (conf != NULL)
        rd_kafka_conf_destroy(conf);
    free(made);
    return status;
}

void tally_producer_free(struct tally_producer **producer)
{
    struct tally_producer *gone = *producer;
    if (gone == NULL)
        return;
    tally_producer_purge(gone);
    while (tally_producer_outstanding(gone) > 0 && tally_producer_poll(gone, 1000) > 0) {
    }
    if (gone->queue != NULL) {
        rd_kafka_queue_io_event_enable(gone->queue, -1, NULL, 0);
        rd_kafka_queue_destroy(gone->queue);
    }
    if (gone->topic != NULL)
        rd_kafka_topic_destroy(gone->topic);
    rd_kafka_destroy(gone->handle);
    free(gone->partitions);
    free(gone);
    *producer = NULL;
}

enum tally_status tally_producer_partitions(struct tally_producer *producer, int timeout_ms,
                                            int32_t *partitions, struct tally_error *error)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t failure =
        rd_kafka_metadata(producer->handle, 0, producer->topic, &metadata, timeout_ms);
    if (failure != RD_KAFKA_RESP_ERR_NO_ERROR)
        return tally_fail(error, TALLY_UNAVAILABLE, "Kafka's metadata: %s",
                          rd_kafka_err2str(failure));
    enum tally_status status = TALLY_OK;
    const rd_kafka_metadata_topic_t *topic = metadata->topic_cnt == 1 ? &metadata->topics[0] : NULL;
    if (topic == NULL || topic->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
        topic->partition_cnt == 0)
        status = tally_fail(error, TALLY_NOT_FOUND,
                            "topic %s does not exist; `tallyctl topics create` makes it",
                            rd_kafka_topic_name(producer->topic));
    else if (topic->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        status = tally_fail(error, TALLY_UNAVAILABLE, "topic %s: %s",
                            rd_kafka_topic_name(producer->topic), rd_kafka_err2str(topic->err));
    else
        *partitions = topic->partition_cnt;
    rd_kafka_metadata_destroy(metadata);
    return status;
}

/* The books of `number`, begun where there are none. */
static struct partition *find_partition(struct tally_producer *producer, int32_t number)
{
    if (number >= producer->partition_count) {
        struct partition *grown =
            realloc(producer->partitions, ((size_t)number + 1) * sizeof *grown);
        if (grown == NULL)
            return NULL;
        memset(grown + producer->partition_count, 0,
               (size_t)(number + 1 - producer->partition_count) * sizeof *grown);
        producer->partitions = grown;
        producer->partition_count = number + 1;
    }
    return &producer->partitions[number];
}

/* Whether the leader of the partition would notice that a message before the next was refused. One
 * that does not know the producer takes whatever number comes first. */
static bool is_introduced(const struct partition *partition)
{
    return partition->acknowledged_us > 0 &&
           tally_clock_monotonic_us() - partition->acknowledged_us < INTRODUCED_US;
}

static rd_kafka_headers_t *copy_headers(const struct tally_producer_message *message)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(message->header_count);
    if (headers == NULL)
        return NULL;
    for (size_t i = 0; i < message->header_count; i++) {
        const struct tally_producer_header *header = &message->headers[i];
        if (rd_kafka_header_add(headers, header->name, -1, header->value,
                                (ssize_t)header->length) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            rd_kafka_headers_destroy(headers);
            return NULL;
        }
    }
    return headers;
}

enum tally_status tally_producer_send(struct tally_producer *producer,
                                      const struct tally_producer_message *message,
                                      struct tally_error *error)
{
    struct partition *partition = find_partition(producer, message->partition);
    if (partition == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "partition %" PRId32, message->partition);
    if (partition->outstanding > 0 && !is_introduced(partition))
        return tally_fail(error, TALLY_OVERLOADED,
                          "Kafka has not acknowledged the first message to partition %" PRId32,
                          message->partition);
    rd_kafka_headers_t *headers = copy_headers(message);
    if (headers == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "message headers");
    /* librdkafka takes the headers over where it succeeds. producev's value is not const, although
     * RD_KAFKA_MSG_F_COPY only reads it. */
    rd_kafka_resp_err_t failure = rd_kafka_producev(
        producer->handle, RD_KAFKA_V_RKT(producer->topic), RD_KAFKA_V_PARTITION(message->partition),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(message->key, message->key_length),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)message->value, message->value_length),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE((void *)message->tag), RD_KAFKA_V_END);
    if (failure == RD_KAFKA_RESP_ERR_NO_ERROR) {
        partition->outstanding++;
        return TALLY_OK;
    }
    rd_kafka_headers_destroy(headers);
    if (failure == RD_KAFKA_RESP_ERR__FATAL && tally_producer_fatal(producer, error))
        return error->status;
    return tally_fail(error, failure == RD_KAFKA_RESP_ERR__QUEUE_FULL ? TALLY_OVERLOADED : TALLY_IO,
                      "Kafka does not take the message: %s", rd_kafka_err2str(failure));
}

int tally_producer_poll(struct tally_producer *producer, int timeout_ms)
{
    return rd_kafka_poll(producer->handle, timeout_ms);
}

void tally_producer_notify(struct tally_producer *producer, int event_descriptor)
{
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(producer->queue, event_descriptor, &one, sizeof one);
}

void tally_producer_purge(struct tally_producer *producer)
{
    rd_kafka_purge(producer->handle, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
}

int tally_producer_outstanding(struct tally_producer *producer)
{
    return rd_kafka_outq_len(producer->handle);
}

bool tally_producer_fatal(struct tally_producer *producer, struct tally_error *error)
{
    char reason[TALLY_ERROR_TEXT_BYTES - 32];
    rd_kafka_resp_err_t failure = rd_kafka_fatal_error(producer->handle, reason, sizeof reason);
    if (failure == RD_KAFKA_RESP_ERR_NO_ERROR)
        return false;
    (void)tally_fail(error, TALLY_IO, "the Kafka producer cannot go on: %s", reason);
    return true;
}
