/* Every call that the adapters of Kafka make of malloc, the system and librdkafka fails once: each
 * step says so, and the next attempt is right. */
#include "core/clock.h"
#include "faults.h"
#include "kafka/admin.h"
#include "kafka/consumer.h"
#include "kafka/producer.h"
#include "kafka/scan.h"
#include "topic.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARTITION = 1, PARTITIONS = 2, RUNS_MOST = 2000, JOINS_MOST = 12 };
enum { ASK_MS = 30000, POLL_MS = 100 };
static const int64_t PATIENCE_US = INT64_C(120) * 1000000;

static char topic[64];
static int others;                 /* topics that were made in its name */
static int64_t sent;               /* messages that Kafka has */
static int undelivered;            /* messages of this run */
static struct tally_error refused; /* why one of them was */

static void open_topic(void)
{
    (void)snprintf(topic, sizeof topic, "faults.%" PRId64 ".%d", tally_clock_wall_us(), getpid());
    test_topic_create(topic, PARTITIONS);
}

static void name_other(char name[80], int number)
{
    (void)snprintf(name, 80, "%s.%d", topic, number);
}

static void close_topic(void)
{
    char name[80];
    for (int i = 0; i < others; i++) {
        name_other(name, i);
        test_topic_delete(name);
    }
    test_topic_delete(topic);
}

TestSuite(faults_kafka, .init = open_topic, .fini = close_topic, .timeout = 600);

static void on_log(int level, const char *text)
{
    (void)level, (void)text;
}

static void on_delivered(void *context, uintptr_t tag, enum tally_status status, const char *reason)
{
    (void)context;
    undelivered--;
    cr_expect_eq(tag, 7);
    if (status == TALLY_OK)
        sent++;
    else
        (void)tally_fail(&refused, status, "%s", reason);
}

static enum tally_status send_one(struct tally_producer *producer, struct tally_error *error)
{
    const struct tally_producer_header headers[] = {{"a", "1", 1}, {"b", "22", 2}};
    const struct tally_producer_message message = {
        .partition = PARTITION,
        .key = "k",
        .key_length = 1,
        .value = "v",
        .value_length = 1,
        .headers = headers,
        .header_count = 2,
        .tag = 7,
    };
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    enum tally_status status = tally_producer_send(producer, &message, error);
    while (status == TALLY_OVERLOADED && tally_clock_monotonic_us() < give_up_us) {
        (void)tally_producer_poll(producer, POLL_MS);
        status = tally_producer_send(producer, &message, error);
    }
    undelivered += status == TALLY_OK;
    return status;
}

static enum tally_status produce(struct tally_producer *producer, struct tally_error *error)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    int32_t partitions = 0;
    enum tally_status status = tally_producer_partitions(producer, ASK_MS, &partitions, error);
    if (status == TALLY_OK)
        status = send_one(producer, error);
    if (status == TALLY_OK)
        status = send_one(producer, error);
    while (undelivered > 0) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "after %s failed", faults_failed());
        (void)tally_producer_poll(producer, POLL_MS);
    }
    return status == TALLY_OK && refused.status != TALLY_OK
               ? tally_fail(error, refused.status, "%s", refused.text)
               : status;
}

static enum tally_status open_and_produce(struct tally_error *error)
{
    const struct tally_producer_options options = {
        .brokers = test_brokers(),
        .topic = topic,
        .compression = "lz4",
        .queue_messages = 1000,
        .on_delivered = on_delivered,
        .on_log = on_log,
        .client_id = "tally-test",
    };
    struct tally_producer *producer = NULL;
    undelivered = 0;
    refused.status = TALLY_OK;
    enum tally_status status = tally_producer_new(&options, &producer, error);
    if (status == TALLY_OK)
        status = produce(producer, error);
    tally_producer_free(&producer);
    return status;
}

Test(faults_kafka, a_message_is_taken_or_refused)
{
    const long calls = faults_each(open_and_produce, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 20);
    cr_expect_lt(calls, RUNS_MOST);
}

/* What the records must be, but for headers where these are what cannot be read. */
static void expect_record(const struct tally_record *record, int64_t offset)
{
    struct tally_record_header headers[4];
    const size_t count = tally_record_headers(record, headers, 4);
    cr_expect_eq(record->partition, PARTITION);
    cr_expect_eq(record->offset, offset);
    cr_expect_eq(record->value_length, 1);
    cr_expect(count == 2 || strstr(faults_failed(), "header") != NULL,
              "%zu headers after %s failed", count, faults_failed());
}

static enum tally_status read_all(struct tally_consumer *consumer, struct tally_error *error)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    const struct tally_consumer_start start = {PARTITION, 0};
    enum tally_status status = tally_consumer_assign(consumer, &start, 1, error);
    for (int64_t next = 0; status == TALLY_OK && next < sent;) {
        struct tally_consumer_event event;
        cr_assert(tally_clock_monotonic_us() < give_up_us, "after %s failed", faults_failed());
        tally_consumer_poll(consumer, POLL_MS, &event);
        if (event.kind != TALLY_CONSUMED_RECORD)
            continue;
        expect_record(&event.record, next++);
        tally_record_forget_headers(&event.record);
        tally_record_release(&event.record);
    }
    return status;
}

static enum tally_status consume(struct tally_consumer *consumer, struct tally_error *error)
{
    const struct tally_consumer_start start = {PARTITION, 0};
    struct tally_topology topology = {0};
    int64_t low = 0, high = 0, timestamp_ms = 0;
    enum tally_status status = tally_consumer_topology(consumer, ASK_MS, &topology, error);
    cr_expect(status != TALLY_OK || topology.partitions == PARTITIONS);
    if (status == TALLY_OK)
        status = tally_consumer_watermarks(consumer, PARTITION, ASK_MS, &low, &high, error);
    cr_expect(status != TALLY_OK || high == sent);
    if (status == TALLY_OK)
        status = tally_consumer_peek(consumer, &start, 1, ASK_MS, &timestamp_ms, error);
    cr_expect(status != TALLY_OK || timestamp_ms > 0);
    return status == TALLY_OK ? read_all(consumer, error) : status;
}

typedef enum tally_status consumer_work(struct tally_consumer *consumer, struct tally_error *error);

static enum tally_status with_consumer(consumer_work *work, struct tally_error *error)
{
    const struct tally_consumer_options options = {.brokers = test_brokers(),
                                                   .topic = topic,
                                                   .group = topic,
                                                   .instance_id = "",
                                                   .on_log = on_log};
    struct tally_consumer *consumer = NULL;
    enum tally_status status = tally_consumer_new(&options, &consumer, error);
    if (status == TALLY_OK)
        status = work(consumer, error);
    tally_consumer_close(&consumer);
    return status;
}

static enum tally_status open_and_consume(struct tally_error *error)
{
    return with_consumer(consume, error);
}

static void send_two(void)
{
    struct tally_error error = {0};
    cr_assert_eq(open_and_produce(&error), TALLY_OK, "%s", error.text);
}

Test(faults_kafka, records_are_read_or_it_is_said_why_not)
{
    send_two();
    const long calls = faults_each(open_and_consume, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 20);
    cr_expect_lt(calls, RUNS_MOST);
}

/* Both partitions come to be owned, whatever else the group tells before. */
static enum tally_status join(struct tally_consumer *consumer, struct tally_error *error)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    size_t owned = 0;
    enum tally_status status = tally_consumer_join(consumer, error);
    while (status == TALLY_OK && owned < PARTITIONS) {
        struct tally_consumer_event event;
        cr_assert(tally_clock_monotonic_us() < give_up_us, "after %s failed", faults_failed());
        tally_consumer_poll(consumer, POLL_MS, &event);
        (void)tally_consumer_owned(consumer, &owned);
    }
    if (status == TALLY_OK)
        status = read_all(consumer, error);
    if (status == TALLY_OK)
        tally_consumer_store(consumer, PARTITION, sent);
    return status;
}

static enum tally_status open_and_join(struct tally_error *error)
{
    return with_consumer(join, error);
}

Test(faults_kafka, a_member_owns_its_partitions_or_says_why_not)
{
    send_two();
    cr_expect_gt(faults_each_place(open_and_join, FAULTS_OF_THIS_THREAD, JOINS_MOST),
                 5 / FAULTS_STRIDE);
}

static bool on_record(void *context, const struct tally_record *record, int64_t timestamp_ms)
{
    int64_t *next = context;
    char text[8];
    cr_expect_gt(timestamp_ms, 0);
    tally_record_header_text(record, "b", text, sizeof text);
    cr_expect(strcmp(text, "22") == 0 || strstr(faults_failed(), "header") != NULL);
    expect_record(record, (*next)++);
    return true;
}

static enum tally_status scan(struct tally_error *error)
{
    int64_t next = 0, reached = 0;
    const struct tally_scan scan = {.brokers = test_brokers(),
                                    .topic = topic,
                                    .partition = PARTITION,
                                    .from = 0,
                                    .to = sent,
                                    .timeout_ms = ASK_MS,
                                    .on_record = on_record,
                                    .context = &next};
    const enum tally_status status = tally_scan_run(&scan, &reached, error);
    cr_expect(status != TALLY_OK || (reached == sent && next == sent));
    return status;
}

Test(faults_kafka, a_stretch_is_scanned_or_it_is_said_why_not)
{
    send_two();
    const long calls = faults_each(scan, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 10);
    cr_expect_lt(calls, RUNS_MOST);
}

static void on_config(void *context, const char *name, const char *value)
{
    if (strcmp(name, "retention.ms") == 0)
        (void)snprintf(context, 24, "%s", value);
}

/* A topic of this run's own. */
static enum tally_status create(struct tally_kafka_admin *admin, struct tally_error *error)
{
    char name[80];
    char retention[24] = "";
    const struct tally_kafka_topic_config config = {"retention.ms", "3600000"};
    const struct tally_kafka_new_topic wanted = {name, 1, 1, &config, 1};
    bool existed = true;
    name_other(name, others++);
    enum tally_status status = tally_kafka_admin_create(admin, &wanted, ASK_MS, &existed, error);
    if (status == TALLY_OK)
        status = tally_kafka_admin_configs(admin, name, ASK_MS, on_config, retention, error);
    cr_expect(status != TALLY_OK || (!existed && strcmp(retention, config.value) == 0),
              "retention.ms is %s after %s failed", retention, faults_failed());
    return status;
}

static enum tally_status ask(struct tally_kafka_admin *admin, struct tally_error *error)
{
    static struct tally_kafka_group group;
    const int64_t before[PARTITIONS] = {0};
    int64_t low = -1, high = -1;
    int brokers = 0;
    int32_t partitions = 0;
    enum tally_status status =
        tally_kafka_admin_topic(admin, topic, ASK_MS, &brokers, &partitions, error);
    cr_expect(status != TALLY_OK || (brokers == 1 && partitions == PARTITIONS));
    if (status == TALLY_OK)
        status = tally_kafka_admin_watermarks(admin, topic, PARTITION, ASK_MS, &low, &high, error);
    cr_expect(status != TALLY_OK || (low == 0 && high == sent));
    if (status == TALLY_OK)
        status = tally_kafka_admin_delete_before(admin, topic, before, PARTITIONS, ASK_MS, error);
    if (status == TALLY_OK)
        status = tally_kafka_admin_group(admin, topic, ASK_MS, &group, error);
    cr_expect(status != TALLY_OK || strcmp(group.state, "Dead") == 0, "%s", group.state);
    return status;
}

static enum tally_status administer(struct tally_error *error)
{
    struct tally_kafka_admin *admin = NULL;
    enum tally_status status = tally_kafka_admin_new(test_brokers(), &admin, error);
    if (status == TALLY_OK)
        status = ask(admin, error);
    if (status == TALLY_OK)
        status = create(admin, error);
    tally_kafka_admin_free(&admin);
    return status;
}

Test(faults_kafka, a_tool_is_answered_or_says_why_not)
{
    send_two();
    const long calls = faults_each(administer, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 10);
    cr_expect_lt(calls, RUNS_MOST);
}
