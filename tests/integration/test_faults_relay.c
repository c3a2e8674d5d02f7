/* Calls that publishing makes of malloc, the system and the libraries fail once: every committed
 * event is published all the same, in each user's order, and without a failure once. */
#include "core/clock.h"
#include "core/log.h"
#include "database.h"
#include "domain/event.h"
#include "faults.h"
#include "kafka/consumer.h"
#include "service/relay/relay.h"
#include "store/relay_position.h"
#include "topic.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARTITIONS = 2, USERS = 3, BATCH = 2, VERSIONS = 2, RUNS_MOST = 2000, CALLS_MOST = 60 };
enum { HEADERS_MOST = 32, SILENCE_MS = 600000, POLL_MS = 100 };
static const int64_t PATIENCE_US = INT64_C(150) * 1000000;

static struct test_database database;
static struct tally_settings settings;
static struct tally_consumer *consumer;
static int64_t appended;         /* versions of each user */
static int64_t published[USERS]; /* the last version of each user that was seen in Kafka */

/* Version `appended` + 1 of every user: more than a batch, so that there is a backlog. */
static void append_events(void)
{
    char sql[256];
    appended++;
    (void)snprintf(sql, sizeof sql,
                   "insert into events (user_id, version, type, timeline, traceparent)"
                   " select n, %" PRId64 ", 'post.created', 1, '00-%032d-%016d-01'"
                   " from generate_series(1, %d) as n",
                   appended, 1, 1, USERS);
    test_database_run(database.connection, sql);
}

static void open_all(void)
{
    test_database_create(&database);
    settings = (struct tally_settings){
        .relay_batch_events = BATCH,
        .relay_poll_most_ms = 20,
        .relay_in_flight_events = 1000,
        .drain_ms = 150000,
    };
    (void)snprintf(settings.pg_dsn, sizeof settings.pg_dsn, "%s", database.dsn);
    (void)snprintf(settings.kafka_brokers, sizeof settings.kafka_brokers, "%s", test_brokers());
    (void)snprintf(settings.topic, sizeof settings.topic, "%s", database.name);
    (void)snprintf(settings.kafka_compression, sizeof settings.kafka_compression, "lz4");
    tally_log_set_level(TALLY_LOG_ERROR);
}

static void close_all(void)
{
    test_database_drop(&database);
}

TestSuite(faults_relay, .init = open_all, .fini = close_all, .timeout = 600);

static enum tally_status lead(struct tally_relay_reader *reader, struct tally_error *error)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    bool leading = false;
    bool started_over = false;
    enum tally_status status = tally_relay_reader_lead(reader, &leading, &started_over, error);
    /* The lock of the run before is free once the server notices. */
    while (status == TALLY_OK && !leading) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "it is not elected");
        usleep(1000);
        status = tally_relay_reader_lead(reader, &leading, &started_over, error);
    }
    bool adopted = !started_over;
    while (status == TALLY_OK && !adopted)
        status = tally_relay_reader_adopt(reader, &adopted, error);
    return status;
}

static enum tally_status take(const struct tally_relay_batch *batch, int64_t *versions,
                              struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (int i = 0; i < batch->count && status == TALLY_OK; i++) {
        struct tally_event event;
        const char *traceparent = NULL;
        status = tally_relay_batch_event(batch, i, &event, &traceparent, error);
        if (status == TALLY_OK)
            cr_expect_eq(event.version, ++versions[event.user_id - 1], "after %s failed",
                         faults_failed());
    }
    return status;
}

static enum tally_status read_all(struct tally_relay_reader *reader, struct tally_error *error)
{
    int64_t versions[USERS] = {0};
    struct tally_relay_orders orders;
    bool more = true;
    enum tally_status status = tally_relay_reader_attend(reader, &orders, error);
    while (status == TALLY_OK && more) {
        struct tally_relay_batch batch;
        status = tally_relay_reader_next(reader, &batch, error);
        if (status != TALLY_OK)
            break;
        more = batch.count > 0 || batch.more;
        status = take(&batch, versions, error);
        if (status == TALLY_OK)
            status = tally_relay_reader_save(reader, &batch.after, error);
        tally_relay_batch_clear(&batch);
    }
    for (int i = 0; i < USERS && status == TALLY_OK; i++)
        cr_expect_eq(versions[i], VERSIONS, "after %s failed", faults_failed());
    return status;
}

static enum tally_status lead_and_read(struct tally_error *error)
{
    struct tally_relay_reader *reader = NULL;
    enum tally_status status =
        tally_relay_reader_open(database.dsn, BATCH, SILENCE_MS, &reader, error);
    if (status == TALLY_OK)
        status = lead(reader, error);
    if (status == TALLY_OK)
        status = read_all(reader, error);
    tally_relay_reader_close(&reader);
    return status;
}

Test(faults_relay, every_event_is_read_in_order_or_it_is_said_why_not)
{
    for (int i = 0; i < VERSIONS; i++)
        append_events();
    /* Each leader finds the position of another database, and starts over. */
    test_database_run(
        database.connection,
        "create function forget() returns trigger language plpgsql as"
        " $$begin new.system_identifier = 1; return new; end$$;"
        "create trigger forget before update of snapshot on relay_position for each row"
        " when (new.snapshot is not null) execute function forget()");
    const long calls = faults_each(lead_and_read, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 40);
    cr_expect_lt(calls, RUNS_MOST);
}

/* --- the thread ------------------------------------------------------------------------------ */

static void on_log(int level, const char *text)
{
    (void)level, (void)text;
}

static void open_topic(void)
{
    struct tally_consumer_start starts[PARTITIONS];
    struct tally_error error = {0};
    const struct tally_consumer_options options = {
        .brokers = test_brokers(),
        .topic = settings.topic,
        .group = settings.topic,
        .instance_id = "",
        .on_log = on_log,
    };
    test_topic_create(settings.topic, PARTITIONS);
    cr_assert_eq(tally_consumer_new(&options, &consumer, &error), TALLY_OK, "%s", error.text);
    for (int32_t i = 0; i < PARTITIONS; i++)
        starts[i] = (struct tally_consumer_start){i, 0};
    cr_assert_eq(tally_consumer_assign(consumer, starts, PARTITIONS, &error), TALLY_OK, "%s",
                 error.text);
}

static void close_topic(void)
{
    tally_consumer_abandon(&consumer);
    test_topic_delete(settings.topic);
}

/* One event, which is the next of its user or, as after a failure, one that was seen before. True
 * where it is a repeat. */
static bool is_repeat(struct tally_record *record)
{
    struct tally_record_header raw[HEADERS_MOST];
    struct tally_header headers[HEADERS_MOST];
    struct tally_event event;
    struct tally_error error = {0};
    const size_t count = tally_record_headers(record, raw, HEADERS_MOST);
    for (size_t i = 0; i < count; i++)
        headers[i] = (struct tally_header){raw[i].name, raw[i].value, raw[i].length};
    cr_assert_eq(tally_event_decode(&event, record->key, record->key_length, record->value,
                                    record->value_length, headers, count, &error),
                 TALLY_OK, "after %s failed: %s", faults_failed(), error.text);
    tally_record_release(record);
    int64_t *version = &published[event.user_id - 1];
    cr_assert_leq(event.version, *version + 1, "after %s failed: user %" PRId64, faults_failed(),
                  event.user_id);
    const bool repeated = event.version <= *version;
    *version = repeated ? *version : event.version;
    return repeated;
}

static bool all_published(void)
{
    bool all = true;
    for (int i = 0; i < USERS; i++)
        all = all && published[i] == appended;
    return all;
}

/* Returns how many events came again. */
static int await_published(void)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    int repeats = 0;
    while (!all_published()) {
        struct tally_consumer_event event;
        cr_assert(tally_clock_monotonic_us() < give_up_us, "after %s failed: not published",
                  faults_failed());
        tally_consumer_poll(consumer, POLL_MS, &event);
        if (event.kind == TALLY_CONSUMED_RECORD)
            repeats += is_repeat(&event.record);
    }
    return repeats;
}

static bool was_broken_off(struct tally_metrics *metrics)
{
    struct tally_buffer text;
    tally_buffer_init(&text, 1 << 20);
    tally_metrics_render(metrics, &text);
    const bool never = strstr(tally_buffer_text(&text), "\ntally_relay_failures_total 0") != NULL;
    tally_buffer_release(&text);
    return !never;
}

static enum tally_status publish(struct tally_error *error)
{
    static bool broken_off = false;
    struct tally_metrics *metrics = tally_metrics_new();
    struct tally_relay *relay = NULL;
    /* What the relay before repeated may come behind the last event that was awaited of it; and
     * what it could not save, this one repeats. */
    const bool may_repeat = broken_off;
    append_events();
    enum tally_status status = tally_relay_start(&settings, metrics, &relay, error);
    if (status == TALLY_OK) {
        const int repeats = await_published();
        cr_assert(tally_relay_stop(&relay), "it does not stop after %s failed", faults_failed());
        broken_off = was_broken_off(metrics);
        cr_expect(repeats == 0 || broken_off || may_repeat, "%d events came again", repeats);
    }
    tally_metrics_free(&metrics);
    return status;
}

Test(faults_relay, every_event_is_published_in_order, .init = open_topic, .fini = close_topic)
{
    const long calls = faults_each_place(publish, FAULTS_OF_NEW_THREADS, CALLS_MOST);
    cr_expect_gt(calls, 40 / FAULTS_STRIDE);
}

static enum tally_status start_and_stop(struct tally_error *error)
{
    struct tally_metrics *metrics = tally_metrics_new();
    struct tally_relay *relay = NULL;
    if (metrics == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "metrics");
    enum tally_status status = tally_relay_start(&settings, metrics, &relay, error);
    cr_assert(tally_relay_stop(&relay), "it does not stop after %s failed", faults_failed());
    tally_metrics_free(&metrics);
    return status;
}

Test(faults_relay, it_is_started_or_says_why_not)
{
    const long calls = faults_each(start_and_stop, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 3);
    cr_expect_lt(calls, RUNS_MOST);
}
