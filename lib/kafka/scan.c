#include "kafka/scan.h"

#include "core/clock.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <string.h>

enum { REASON_BYTES = 256, HEADERS_MOST = 64, POLL_MS = 200 };

static void stay_silent(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
    (void)client, (void)level, (void)facility, (void)text;
}

static enum tally_status open_client(const char *brokers, rd_kafka_t **client,
                                     struct tally_error *error)
{
    const char *const options[][2] = {
        {"bootstrap.servers", brokers},
        {"client.id", "tallyctl"},
        /* assign() needs a group id; without a subscription no group comes to be. */
        {"group.id", "tallyctl"},
        {"allow.auto.create.topics", "false"},
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"enable.partition.eof", "true"},
        {"auto.offset.reset", "error"},
        {"fetch.wait.max.ms", "25"},
        {"queued.max.messages.kbytes", "65536"},
        {"reconnect.backoff.max.ms", "500"},
    };
    char reason[REASON_BYTES];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (conf == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "Kafka client");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (rd_kafka_conf_set(conf, options[i][0], options[i][1], reason, sizeof reason) !=
            RD_KAFKA_CONF_OK) {
            rd_kafka_conf_destroy(conf);
            return tally_fail(error, TALLY_CONFIG, "%s: %s", options[i][0], reason);
        }
    rd_kafka_conf_set_log_cb(conf, stay_silent);
    *client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof reason);
    if (*client != NULL)
        return TALLY_OK;
    rd_kafka_conf_destroy(conf);
    return tally_fail(error, TALLY_CONFIG, "Kafka client: %s", reason);
}

static enum tally_status assign(rd_kafka_t *client, const struct tally_scan *scan,
                                struct tally_error *error)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, scan->topic, scan->partition)->offset = scan->from;
    rd_kafka_resp_err_t failure = rd_kafka_assign(client, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (failure != RD_KAFKA_RESP_ERR_NO_ERROR)
        return tally_fail(error, TALLY_IO, "assign: %s", rd_kafka_err2str(failure));
    return TALLY_OK;
}

static bool tell_record(const struct tally_scan *scan, rd_kafka_message_t *message)
{
    rd_kafka_timestamp_type_t kind;
    const int64_t timestamp_ms = rd_kafka_message_timestamp(message, &kind);
    const struct tally_record record = {
        .partition = message->partition,
        .offset = message->offset,
        .key = message->key,
        .key_length = message->key_len,
        .value = message->payload,
        .value_length = message->len,
        .handle = message,
    };
    return scan->on_record(scan->context, &record,
                           kind == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? -1 : timestamp_ms);
}

/* What one message means; `*go_on` is false at the end. */
static enum tally_status take(const struct tally_scan *scan, rd_kafka_message_t *message,
                              int64_t *reached, bool *go_on, struct tally_error *error)
{
    switch (message->err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        *go_on = message->offset < scan->to && tell_record(scan, message);
        *reached = message->offset < scan->to ? message->offset + 1 : scan->to;
        *go_on = *go_on && *reached < scan->to;
        return TALLY_OK;
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        /* The offsets up to the end may be empty: nothing of them is left to be read. */
        *reached = scan->to;
        *go_on = false;
        return TALLY_OK;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        return tally_fail(error, TALLY_CONFIG, "partition %d of %s no longer holds offset %lld",
                          scan->partition, scan->topic, (long long)*reached);
    default:
        return TALLY_OK; /* librdkafka goes on trying */
    }
}

enum tally_status tally_scan_run(const struct tally_scan *scan, int64_t *reached,
                                 struct tally_error *error)
{
    const int64_t due_us = tally_clock_monotonic_us() + scan->timeout_ms * 1000;
    *reached = scan->from;
    if (scan->from >= scan->to)
        return TALLY_OK;
    rd_kafka_t *client = NULL;
    enum tally_status status = open_client(scan->brokers, &client, error);
    if (status != TALLY_OK)
        return status;
    status = assign(client, scan, error);
    bool go_on = true;
    bool answered = false;
    while (status == TALLY_OK && go_on && tally_clock_monotonic_us() < due_us) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(client, POLL_MS);
        if (message == NULL)
            continue;
        status = take(scan, message, reached, &go_on, error);
        answered = answered || !go_on || *reached > scan->from;
        rd_kafka_message_destroy(message);
    }
    if (status == TALLY_OK && !answered)
        status =
            tally_fail(error, TALLY_UNAVAILABLE, "Kafka sent nothing of %s partition %d in %lld ms",
                       scan->topic, scan->partition, (long long)scan->timeout_ms);
    rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    return status;
}

void tally_record_header_text(const struct tally_record *record, const char *name, char *text,
                              size_t bytes)
{
    struct tally_record_header headers[HEADERS_MOST];
    const size_t count = tally_record_headers(record, headers, HEADERS_MOST);
    text[0] = '\0';
    for (size_t i = 0; i < count; i++)
        if (strcmp(headers[i].name, name) == 0 && headers[i].value != NULL)
            (void)snprintf(text, bytes, "%.*s", (int)headers[i].length, headers[i].value);
}
