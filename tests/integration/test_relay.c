/* Publication: every committed event reaches Kafka, in each user's order, whoever leads. */
#include "core/clock.h"
#include "database.h"
#include "domain/event.h"
#include "domain/partitioner.h"
#include "kafka/admin.h"
#include "service/relay/relay.h"
#include "topic.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARTITIONS = 4, PATIENCE_S = 150, USERS_MOST = 1000 };
static const int64_t PATIENCE_US = PATIENCE_S * INT64_C(1000000);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const int64_t BACKLOG_EVENTS = 50000;
static const int64_t MEMORY_BOUND_KIB = INT64_MAX; /* sanitizers keep shadow memory */
#else
static const int64_t BACKLOG_EVENTS = 1000000;
static const int64_t MEMORY_BOUND_KIB = 256 << 10;
#endif

static struct test_database database;
static struct tally_settings settings;
static struct tally_metrics *metrics;

static void create_world(void)
{
    srand((unsigned)tally_clock_wall_us() ^ (unsigned)getpid());
    test_database_create(&database);
    settings = (struct tally_settings){
        .relay_batch_events = 2000,
        .relay_poll_most_ms = 20,
        .relay_in_flight_events = 50000,
        .drain_ms = PATIENCE_S * 1000,
    };
    (void)snprintf(settings.pg_dsn, sizeof settings.pg_dsn, "%s", database.dsn);
    (void)snprintf(settings.kafka_brokers, sizeof settings.kafka_brokers, "%s", test_brokers());
    (void)snprintf(settings.topic, sizeof settings.topic, "%s", database.name);
    (void)snprintf(settings.kafka_compression, sizeof settings.kafka_compression, "lz4");
    test_topic_create(settings.topic, PARTITIONS);
    metrics = tally_metrics_new();
    cr_assert_not_null(metrics);
}

static void destroy_world(void)
{
    tally_metrics_free(&metrics);
    test_topic_delete(settings.topic);
    test_database_drop(&database);
}

TestSuite(relay, .init = create_world, .fini = destroy_world, .timeout = 600);

static struct tally_relay *start_relay(void)
{
    struct tally_relay *relay = NULL;
    struct tally_error error = {0};
    cr_assert_eq(tally_relay_start(&settings, metrics, &relay, &error), TALLY_OK, "%s", error.text);
    return relay;
}

static bool is_leading(struct tally_relay *relay)
{
    const char *state;
    char failure[256];
    tally_relay_state(relay, &state, failure, sizeof failure);
    return strcmp(state, "leading") == 0;
}

static void wait_until_leading(struct tally_relay *relay)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    while (!is_leading(relay)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "it does not lead");
        usleep(10000);
    }
}

/* Whether none of the relays that counted in `registry`, one after the other, was broken off. One
 * that was, as where the machine did something else for as long as PostgreSQL takes for silence,
 * sends again what it had not saved as sent, and may. */
static bool never_broken_off(struct tally_metrics *registry)
{
    static const char sample[] = "\ntally_relay_failures_total ";
    struct tally_buffer text;
    double times = 0;
    tally_buffer_init(&text, 1 << 20);
    tally_metrics_render(registry, &text);
    const char *at = strstr(tally_buffer_text(&text), sample);
    cr_assert_not_null(at);
    for (; at != NULL; at = strstr(at + 1, sample))
        times += strtod(at + strlen(sample), NULL);
    tally_buffer_release(&text);
    return times == 0;
}

/* Another leads: then the first finds out that it does not. */
static void wait_until_broken_off(struct tally_metrics *registry)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    while (never_broken_off(registry)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "two lead at a time");
        usleep(10000);
    }
}

/* Appends `count` events, versions from `first_version`, round robin over `users` users. */
static void append_events(int64_t count, int64_t users, int64_t first_version)
{
    char sql[512];
    (void)snprintf(sql, sizeof sql,
                   "insert into events (user_id, version, type, data, timeline, traceparent)"
                   " select 1000 + n %% %" PRId64 ", n / %" PRId64 " + %" PRId64 ", 'post.created',"
                   " '{\"postId\":\"' || n + 1 || '\"}', 1,"
                   " '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'"
                   " from generate_series(0, %" PRId64 " - 1) as n order by n",
                   users, users, first_version, count);
    test_database_run(database.connection, sql);
}

/* Events in the topic. */
static int64_t count_published(void)
{
    struct tally_error error = {0};
    struct tally_kafka_admin *admin = NULL;
    int64_t total = 0;
    cr_assert_eq(tally_kafka_admin_new(test_brokers(), &admin, &error), TALLY_OK, "%s", error.text);
    for (int32_t partition = 0; partition < PARTITIONS; partition++) {
        int64_t low = 0;
        int64_t high = 0;
        cr_assert_eq(tally_kafka_admin_watermarks(admin, settings.topic, partition, 60000, &low,
                                                  &high, &error),
                     TALLY_OK, "%s", error.text);
        total += high - low;
    }
    tally_kafka_admin_free(&admin);
    return total;
}

static void wait_until_published(int64_t expected)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    for (int64_t found; (found = count_published()) < expected;) {
        cr_assert(tally_clock_monotonic_us() < give_up_us,
                  "%" PRId64 " of %" PRId64 " events were published", found, expected);
        usleep(50000);
    }
}

/* What is there, where nothing was sent twice; more only where a relay was broken off. */
static void expect_published(int64_t expected)
{
    if (never_broken_off(metrics))
        cr_assert_eq(count_published(), expected, "nothing is published twice without a crash");
    else
        cr_assert_geq(count_published(), expected);
}

static rd_kafka_t *open_consumer(void)
{
    char reason[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", test_brokers(), reason, sizeof reason);
    rd_kafka_conf_set(conf, "group.id", database.name, reason, sizeof reason);
    rd_kafka_t *consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof reason);
    cr_assert_not_null(consumer, "%s", reason);
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(PARTITIONS);
    for (int32_t partition = 0; partition < PARTITIONS; partition++)
        rd_kafka_topic_partition_list_add(all, settings.topic, partition)->offset =
            RD_KAFKA_OFFSET_BEGINNING;
    cr_assert_eq(rd_kafka_assign(consumer, all), RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_topic_partition_list_destroy(all);
    return consumer;
}

static void close_consumer(rd_kafka_t *consumer)
{
    rd_kafka_consumer_close(consumer);
    rd_kafka_destroy(consumer);
}

/* Decodes as the projector does. */
static struct tally_event decode(const rd_kafka_message_t *message)
{
    struct tally_header list[TALLY_EVENT_HEADER_COUNT];
    rd_kafka_headers_t *headers = NULL;
    size_t count = 0;
    cr_assert_eq(rd_kafka_message_headers(message, &headers), RD_KAFKA_RESP_ERR_NO_ERROR);
    for (; count < TALLY_EVENT_HEADER_COUNT; count++) {
        const void *value;
        if (rd_kafka_header_get_all(headers, count, &list[count].name, &value,
                                    &list[count].length) != RD_KAFKA_RESP_ERR_NO_ERROR)
            break;
        list[count].value = value;
    }
    struct tally_event event;
    struct tally_error error = {0};
    cr_assert_eq(tally_event_decode(&event, message->key, message->key_len, message->payload,
                                    message->len, list, count, &error),
                 TALLY_OK, "%s", error.text);
    return event;
}

/* Reads the topic until each of `users` users has come to version `last`: in order, without a hole;
 * a repeat of what came before is allowed. */
static void expect_versions(int64_t users, int64_t last)
{
    static int64_t versions[USERS_MOST];
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    int64_t missing = users * last;
    rd_kafka_t *consumer = open_consumer();
    memset(versions, 0, sizeof versions);
    while (missing > 0) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 1000);
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%" PRId64 " events are missing",
                  missing);
        if (message == NULL)
            continue;
        if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            struct tally_event event = decode(message);
            cr_assert(event.user_id >= 1000 && event.user_id < 1000 + users);
            int64_t *version = &versions[event.user_id - 1000];
            cr_assert_eq(message->partition, tally_partition_of(event.user_id, PARTITIONS));
            cr_assert_leq(event.version, *version + 1, "user %" PRId64, event.user_id);
            if (event.version == *version + 1) {
                *version = event.version;
                missing--;
            }
        }
        rd_kafka_message_destroy(message);
    }
    close_consumer(consumer);
}

static int64_t memory_peak_kib(void)
{
    char line[256];
    long long peak = 0;
    FILE *status = fopen("/proc/self/status", "r");
    cr_assert_not_null(status);
    while (fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0)
            peak = strtoll(line + 6, NULL, 10);
    }
    fclose(status);
    return peak;
}

Test(relay, publishes_what_is_committed_as_cloudevents_in_each_users_order)
{
    struct tally_relay *relay = start_relay();
    wait_until_leading(relay);
    for (int round = 0; round < 20; round++) {
        append_events(10, 10, round + 1);
        tally_relay_wake(relay);
    }
    expect_versions(10, 20);
    cr_assert(tally_relay_stop(&relay));
    expect_published(200);
}

Test(relay, drains_a_large_backlog_in_bounded_memory)
{
    append_events(BACKLOG_EVENTS, USERS_MOST, 1);
    int64_t before_kib = memory_peak_kib();
    struct tally_relay *relay = start_relay();
    wait_until_published(BACKLOG_EVENTS);
    int64_t grown_kib = memory_peak_kib() - before_kib;
    expect_versions(USERS_MOST, BACKLOG_EVENTS / USERS_MOST);
    cr_assert(tally_relay_stop(&relay));
    expect_published(BACKLOG_EVENTS);
    cr_assert_lt(grown_kib, MEMORY_BOUND_KIB, "the process grew by %" PRId64 " KiB", grown_kib);
    /* A relay that starts now finds nothing left. */
    const int64_t published = count_published();
    relay = start_relay();
    wait_until_leading(relay);
    append_events(1, 1, BACKLOG_EVENTS / USERS_MOST + 1);
    wait_until_published(published + 1);
    expect_published(BACKLOG_EVENTS + 1);
    cr_assert(tally_relay_stop(&relay));
}

/* That the relay goes by, as the database tells; 0: not yet. */
static int64_t noted_partitions(void)
{
    return test_database_number(database.connection,
                                "select coalesce(partitions, 0) from relay_position");
}

/* Reads what lies behind `ends` until version `last` of `users` users has come: all of it is where
 * that many partitions have it. */
static void expect_by_count(int32_t partitions, const int64_t *ends, int64_t users, int64_t last)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    rd_kafka_t *consumer = open_consumer();
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(partitions);
    for (int32_t i = 0; i < partitions; i++)
        rd_kafka_topic_partition_list_add(all, settings.topic, i)->offset = ends[i];
    cr_assert_eq(rd_kafka_assign(consumer, all), RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_topic_partition_list_destroy(all);
    for (int64_t missing = users; missing > 0;) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 1000);
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%" PRId64 " users are missing",
                  missing);
        if (message != NULL && message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            const struct tally_event event = decode(message);
            cr_assert_eq(message->partition, tally_partition_of(event.user_id, partitions),
                         "user %" PRId64 " version %" PRId64, event.user_id, event.version);
            missing -= event.version == last;
        }
        if (message != NULL)
            rd_kafka_message_destroy(message);
    }
    close_consumer(consumer);
}

Test(relay, nothing_goes_by_an_old_partition_count_once_the_database_tells_the_new_one)
{
    enum { WIDER = PARTITIONS + 1, USERS = 100 };
    int64_t low, ends[WIDER];
    struct tally_error error = {0};
    struct tally_kafka_admin *admin = NULL;
    cr_assert_eq(tally_kafka_admin_new(test_brokers(), &admin, &error), TALLY_OK, "%s", error.text);
    /* Enough that much is under way when the partitions are found. */
    const int64_t backlog = BACKLOG_EVENTS < 300000 ? BACKLOG_EVENTS : 300000;
    append_events(backlog, USERS, 1);
    struct tally_relay *relay = start_relay();
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    while (noted_partitions() != PARTITIONS) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "the relay notes no partitions");
        usleep(10000);
    }
    test_topic_widen(settings.topic, WIDER);
    for (int64_t version = backlog / USERS + 1; noted_partitions() != WIDER; version++) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "the relay sees no more partitions");
        append_events(USERS, USERS, version);
        tally_relay_wake(relay);
    }
    for (int32_t i = 0; i < WIDER; i++)
        cr_assert_eq(
            tally_kafka_admin_watermarks(admin, settings.topic, i, 60000, &low, &ends[i], &error),
            TALLY_OK, "%s", error.text);
    const int64_t last =
        test_database_number(database.connection, "select max(version) + 1 from events");
    append_events(USERS, USERS, last);
    tally_relay_wake(relay);
    expect_by_count(WIDER, ends, USERS, last);
    cr_assert(tally_relay_stop(&relay));
    tally_kafka_admin_free(&admin);
}

Test(relay, a_standby_takes_over_and_nothing_is_lost)
{
    struct tally_metrics *other_metrics = tally_metrics_new();
    struct tally_relay *first = start_relay();
    wait_until_leading(first);
    struct tally_relay *second = NULL;
    struct tally_error error = {0};
    cr_assert_eq(tally_relay_start(&settings, other_metrics, &second, &error), TALLY_OK);
    append_events(500, 5, 1);
    expect_versions(5, 100);
    if (is_leading(second))
        wait_until_broken_off(metrics);
    /* The leader's session ends behind its back, as when its host dies. */
    test_database_run(database.connection,
                      "select pg_terminate_backend(l.pid) from pg_locks l"
                      " join pg_stat_activity a on a.pid = l.pid"
                      " where l.locktype = 'advisory' and a.application_name = 'tally-relay'"
                      " and a.datname = current_database() and l.granted");
    append_events(500, 5, 101);
    expect_versions(5, 200);
    cr_assert(tally_relay_stop(&first));
    append_events(500, 5, 201);
    expect_versions(5, 300);
    wait_until_leading(second);
    cr_assert(tally_relay_stop(&second));
    tally_metrics_free(&other_metrics);
}

Test(relay, waits_for_a_kafka_that_is_not_there_and_publishes_when_it_is)
{
    char real[TALLY_SETTING_TEXT_BYTES];
    memcpy(real, settings.kafka_brokers, sizeof real);
    (void)snprintf(settings.kafka_brokers, sizeof settings.kafka_brokers, "127.0.0.1:1");
    struct tally_relay *relay = start_relay();
    append_events(10, 10, 1);
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    const char *state = "";
    char failure[256] = "";
    /* The state comes first, its reason right after it. */
    while (strcmp(state, "backing-off") != 0 || strstr(failure, "Kafka") == NULL) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s: %s", state, failure);
        usleep(10000);
        tally_relay_state(relay, &state, failure, sizeof failure);
    }
    cr_assert(tally_relay_stop(&relay));
    memcpy(settings.kafka_brokers, real, sizeof real);
    relay = start_relay();
    expect_versions(10, 1);
    cr_assert(tally_relay_stop(&relay));
}

static int64_t whole_positions(void)
{
    return test_database_number(
        database.connection,
        "select count(*) from relay_position where snapshot is not null and target is null");
}

Test(relay, a_backlog_of_an_exact_number_of_batches_ends_with_a_whole_position)
{
    settings.relay_batch_events = 100;
    append_events(300, 10, 1);
    struct tally_relay *relay = start_relay();
    for (int i = 0; i < PATIENCE_S * 100 && whole_positions() == 0; i++)
        usleep(10000);
    cr_assert_eq(whole_positions(), 1, "the relay is still on the way through the backlog");
    cr_assert(tally_relay_stop(&relay));
    expect_published(300);
}

/* Makes another topic in the place of the relay's, which has `name` set to `value`. */
static void configure_topic(const char *name, const char *value)
{
    test_topic_delete(settings.topic);
    (void)snprintf(settings.topic, sizeof settings.topic, "%s.other", database.name);
    test_topic_create_with(settings.topic, PARTITIONS, name, value);
}

/* Sets `name` of the relay's topic to `value`. */
static void alter_topic(const char *name, const char *value)
{
    char reason[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", test_brokers(), reason, sizeof reason);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof reason);
    cr_assert_not_null(client, "%s", reason);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    rd_kafka_ConfigResource_t *resource =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, settings.topic);
    rd_kafka_ConfigResource_set_config(resource, name, value);
    rd_kafka_AlterConfigs(client, &resource, 1, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, PATIENCE_S * 1000);
    cr_assert_not_null(event);
    cr_assert_eq(rd_kafka_event_error(event), RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_event_destroy(event);
    rd_kafka_ConfigResource_destroy(resource);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(client);
}

static double metric(const char *name)
{
    struct tally_buffer text;
    char line[128];
    tally_buffer_init(&text, 1 << 20);
    tally_metrics_render(metrics, &text);
    (void)snprintf(line, sizeof line, "\n%s ", name);
    const char *found = strstr(tally_buffer_text(&text), line);
    cr_assert_not_null(found, "there is no %s", name);
    double value = strtod(found + strlen(line), NULL);
    tally_buffer_release(&text);
    return value;
}

static void wait_for_failure(struct tally_relay *relay, const char *part)
{
    const char *state;
    char failure[256] = "";
    for (int i = 0; i < PATIENCE_S * 100 && strstr(failure, part) == NULL; i++) {
        tally_relay_state(relay, &state, failure, sizeof failure);
        usleep(10000);
    }
    cr_assert_not_null(strstr(failure, part), "%s", failure);
}

static void wait_for_health(struct tally_relay *relay)
{
    const char *state;
    char failure[256] = "?";
    for (int i = 0; i < PATIENCE_S * 100 && failure[0] != '\0'; i++) {
        tally_relay_state(relay, &state, failure, sizeof failure);
        usleep(10000);
    }
    cr_assert_str_eq(failure, "");
}

Test(relay, says_so_when_kafka_answers_and_acknowledges_nothing)
{
    enum { PRODUCE = 0, REFUSALS = 5000 }; /* of attempts, of which there are ten a second */
    char reason[256];
    static rd_kafka_resp_err_t refusals[REFUSALS];
    for (size_t i = 0; i < REFUSALS; i++)
        refusals[i] = RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    rd_kafka_t *host = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), reason, sizeof reason);
    cr_assert_not_null(host, "%s", reason);
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(host, 1);
    rd_kafka_mock_topic_create(cluster, settings.topic, PARTITIONS, 1);
    rd_kafka_mock_push_request_errors_array(cluster, PRODUCE, REFUSALS, refusals);
    (void)snprintf(settings.kafka_brokers, sizeof settings.kafka_brokers, "%s",
                   rd_kafka_mock_cluster_bootstraps(cluster));
    append_events(10, 1, 1);
    struct tally_relay *relay = start_relay();
    wait_for_failure(relay, "10 events sent, none acknowledged");
    cr_assert(is_leading(relay));
    cr_assert_gt(metric("tally_relay_lag_seconds"), 5);
    cr_assert_eq(metric("tally_relay_in_flight_events"), 10);
    rd_kafka_mock_clear_request_errors(cluster, PRODUCE);
    wait_for_health(relay);
    cr_assert_eq(metric("tally_relay_published_total"), 10);
    cr_assert(tally_relay_stop(&relay));
    cr_assert_eq(metric("tally_relay_lag_seconds"), 0);
    cr_assert_eq(metric("tally_relay_in_flight_events"), 0);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(host);
}

/* Appends versions `large` to 20001 of one user; no compression makes the first of them fit. */
static void append_behind_a_large_one(int large)
{
    char sql[512];
    (void)snprintf(sql, sizeof sql,
                   "insert into events (user_id, version, type, data, timeline)"
                   " select 1000, n, 'post.created', json_build_object('postId', '1', 'x',"
                   "  case when n = %d then (select string_agg(md5(random()::text), '')"
                   "   from generate_series(1, 20000)) end)::text, 1"
                   " from generate_series(%d, 20001) as n order by n",
                   large, large);
    test_database_run(database.connection, sql);
}

/* Each attempt at the large one fails; then it fits. */
static void expect_nothing_behind_a_large_one(struct tally_relay *relay, int large)
{
    for (int i = 0; i < PATIENCE_S * 100 && metric("tally_relay_failures_total") < 3; i++)
        usleep(10000);
    cr_assert_geq(metric("tally_relay_failures_total"), 3);
    cr_assert_eq(count_published(), large - 1);
    alter_topic("max.message.bytes", "1000000");
    wait_until_published(20001);
    cr_assert(tally_relay_stop(&relay));
    expect_versions(1, 20001);
}

Test(relay, publishes_nothing_of_a_partition_behind_an_event_that_a_broker_refuses)
{
    configure_topic("max.message.bytes", "500000");
    settings.relay_batch_events = 20001; /* more than librdkafka puts into one request */
    append_events(1, 1, 1);
    struct tally_relay *relay = start_relay();
    for (int i = 0; i < PATIENCE_S * 100 && metric("tally_relay_positions_saved_total") < 1; i++)
        usleep(10000);
    append_behind_a_large_one(2);
    expect_nothing_behind_a_large_one(relay, 2);
}

/* The broker has not heard of the producer before it. */
Test(relay, publishes_nothing_of_a_partition_behind_a_first_event_that_a_broker_refuses)
{
    configure_topic("max.message.bytes", "500000");
    settings.relay_batch_events = 20001; /* more than librdkafka puts into one request */
    append_behind_a_large_one(1);
    expect_nothing_behind_a_large_one(start_relay(), 1);
}

Test(relay, an_event_that_no_relay_can_send_is_tried_again_after_pauses_that_grow)
{
    enum { ATTEMPTS = 14, LEAST_MS = 3000 };
    const int64_t began_us = tally_clock_monotonic_us();
    append_events(1, 1, 1);
    test_database_run(database.connection,
                      "insert into events (user_id, version, type, data, timeline)"
                      " values (1000, 2, 'planet.created', '{}', 1)");
    struct tally_relay *relay = start_relay();
    wait_for_failure(relay, "is not as the schema says");
    for (int i = 0; i < PATIENCE_S * 100 && metric("tally_relay_failures_total") < ATTEMPTS; i++)
        usleep(10000);
    cr_assert_geq(metric("tally_relay_failures_total"), ATTEMPTS);
    cr_assert_gt(tally_clock_monotonic_us() - began_us, LEAST_MS * INT64_C(1000));
    test_database_run(database.connection, "delete from events where type = 'planet.created'");
    for (int i = 0; i < PATIENCE_S * 100 && metric("tally_relay_positions_saved_total") < 1; i++)
        usleep(10000);
    cr_assert(tally_relay_stop(&relay));
    expect_versions(1, 1);
}
