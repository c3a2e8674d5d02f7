#include "projector_fixture.h"
#include "service/projector/report.h"

#include "core/clock.h"
#include "core/id.h"
#include "domain/partitioner.h"
#include "kafka/admin.h"
#include "topic.h"
#include "view/position.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t WAIT_US = 120LL * 1000 * 1000;
enum { KAFKA_MS = 60000 };

static void on_delivered(void *context, uintptr_t tag, enum tally_status status, const char *reason)
{
    (void)tag;
    struct fixture *fixture = context;
    cr_assert_eq(status, TALLY_OK, "%s", reason);
    fixture->undelivered--;
}

int32_t fixture_partitions(const struct fixture *fixture)
{
    return fixture->partitions > 0 ? fixture->partitions : FIXTURE_PARTITIONS;
}

/* The producer of fixture->topic, that knows of all of its partitions. */
static void open_producer(struct fixture *fixture)
{
    struct tally_error error = {0};
    const struct tally_producer_options options = {
        .brokers = test_brokers(),
        .topic = fixture->topic,
        .compression = "lz4",
        .queue_messages = 100000,
        .on_delivered = on_delivered,
        .context = fixture,
        .on_log = tally_projector_kafka_log,
        .client_id = "tally-test",
    };
    cr_assert_eq(tally_producer_new(&options, &fixture->producer, &error), TALLY_OK, "%s",
                 error.text);
    int32_t partitions = 0;
    const int64_t give_up_us = tally_clock_monotonic_us() + WAIT_US;
    while (tally_producer_partitions(fixture->producer, 1000, &partitions, &error) != TALLY_OK ||
           partitions != fixture_partitions(fixture)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s", error.text);
        usleep(10000);
    }
}

static void create_topic(const struct fixture *fixture, const char *name, int32_t partitions)
{
    if (fixture->cluster == NULL)
        test_topic_create(name, partitions);
    else
        cr_assert_eq(rd_kafka_mock_topic_create(fixture->cluster, name, partitions, 1),
                     RD_KAFKA_RESP_ERR_NO_ERROR);
}

void fixture_open(struct fixture *fixture)
{
    const int64_t unique = tally_clock_wall_us();
    (void)snprintf(fixture->topic, sizeof fixture->topic, "test.%" PRId64 ".%d", unique, getpid());
    (void)snprintf(fixture->dead_topic, sizeof fixture->dead_topic, "%.48s.dlq", fixture->topic);
    (void)snprintf(fixture->group, sizeof fixture->group, "%s", fixture->topic);
    redis_server_start(&fixture->server, "noeviction");
    fixture->redis = redis_server_open(&fixture->server);
    create_topic(fixture, fixture->topic, FIXTURE_PARTITIONS);
    create_topic(fixture, fixture->dead_topic, 1);
    open_producer(fixture);
}

void fixture_recreate_topic(struct fixture *fixture)
{
    tally_producer_free(&fixture->producer);
    (void)snprintf(fixture->left_topic, sizeof fixture->left_topic, "%s", fixture->topic);
    (void)strncat(fixture->topic, ".b", sizeof fixture->topic - strlen(fixture->topic) - 1);
    test_topic_create(fixture->topic, FIXTURE_PARTITIONS);
    open_producer(fixture);
}

void fixture_widen_topic(struct fixture *fixture, int32_t partitions)
{
    test_topic_widen(fixture->topic, partitions);
    fixture->partitions = partitions;
    tally_producer_free(&fixture->producer);
    open_producer(fixture);
}

void fixture_create_dead_topic(struct fixture *fixture)
{
    test_topic_create(fixture->dead_topic, 1);
}

void fixture_close(struct fixture *fixture)
{
    tally_producer_free(&fixture->producer);
    tally_redis_close(&fixture->redis);
    redis_server_stop(&fixture->server);
    if (fixture->cluster != NULL)
        return;
    test_topic_delete(fixture->topic);
    test_topic_delete(fixture->dead_topic);
    if (fixture->left_topic[0] != '\0')
        test_topic_delete(fixture->left_topic);
}

static void on_ended(void *context)
{
    atomic_store(&((struct projector *)context)->ended, true);
}

void projector_start(struct fixture *fixture, struct projector *projector)
{
    struct tally_settings *settings = &projector->settings;
    struct tally_error error = {0};
    if (settings->projector_batch_events == 0)
        settings->projector_batch_events = 500;
    if (settings->projector_cache_users == 0)
        settings->projector_cache_users = 1000;
    if (settings->projector_stall_ms == 0)
        settings->projector_stall_ms = 15000;
    settings->redis_timeout_ms = 2000;
    (void)snprintf(settings->redis_url, sizeof settings->redis_url, "%s", fixture->server.url);
    (void)snprintf(settings->kafka_brokers, sizeof settings->kafka_brokers, "%s", test_brokers());
    (void)snprintf(settings->topic, sizeof settings->topic, "%s", fixture->topic);
    (void)snprintf(settings->dlq_topic, sizeof settings->dlq_topic, "%s", fixture->dead_topic);
    (void)snprintf(settings->consumer_group, sizeof settings->consumer_group, "%s", fixture->group);
    atomic_store(&projector->ended, false);
    projector->metrics = tally_metrics_new();
    cr_assert_not_null(projector->metrics);
    const struct tally_projector_options options = {
        .settings = settings,
        .metrics = projector->metrics,
        .on_ended = on_ended,
        .context = projector,
    };
    cr_assert_eq(tally_projector_start(&options, &projector->handle, &error), TALLY_OK, "%s",
                 error.text);
}

static void release(struct projector *projector)
{
    tally_projector_free(&projector->handle);
    tally_metrics_free(&projector->metrics);
}

void projector_stop(struct projector *projector)
{
    struct tally_error error = {0};
    tally_projector_stop(projector->handle);
    cr_expect_eq(projector_await_end(projector, &error), TALLY_OK, "%s", error.text);
}

enum tally_status projector_await_end(struct projector *projector, struct tally_error *error)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + WAIT_US;
    while (!atomic_load(&projector->ended)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "the projector does not end");
        usleep(10000);
    }
    const enum tally_status status = tally_projector_failure(projector->handle, error);
    release(projector);
    return status;
}

double projector_metric(struct projector *projector, const char *name)
{
    struct tally_buffer text;
    tally_buffer_init(&text, 1 << 20);
    tally_metrics_render(projector->metrics, &text);
    char line[128];
    (void)snprintf(line, sizeof line, "\n%s ", name);
    const char *found = strstr(tally_buffer_text(&text), line);
    const double value = found != NULL ? strtod(found + strlen(line), NULL) : -1;
    tally_buffer_release(&text);
    return value;
}

void projector_await_metric(struct projector *projector, const char *name, double least)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + WAIT_US;
    while (projector_metric(projector, name) < least) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s stays below %g", name, least);
        usleep(10000);
    }
}

static void queue(struct fixture *fixture, const struct tally_producer_message *message)
{
    struct tally_error error = {0};
    enum tally_status status;
    const int64_t give_up_us = tally_clock_monotonic_us() + WAIT_US;
    while ((status = tally_producer_send(fixture->producer, message, &error)) == TALLY_OVERLOADED) {
        (void)tally_producer_poll(fixture->producer, 10);
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s", error.text);
    }
    cr_assert_eq(status, TALLY_OK, "%s", error.text);
    fixture->undelivered++;
}

static void await_delivery(struct fixture *fixture)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + WAIT_US;
    while (fixture->undelivered > 0) {
        (void)tally_producer_poll(fixture->producer, 10);
        cr_assert(tally_clock_monotonic_us() < give_up_us, "Kafka does not acknowledge");
    }
}

void fixture_send_raw(struct fixture *fixture, int64_t user_id,
                      const struct tally_producer_message *message)
{
    struct tally_producer_message copy = *message;
    copy.partition = tally_partition_of(user_id, fixture_partitions(fixture));
    queue(fixture, &copy);
    await_delivery(fixture);
}

static void queue_event(struct fixture *fixture, const struct tally_event *event)
{
    struct tally_event_headers encoded;
    struct tally_producer_header headers[TALLY_EVENT_HEADER_COUNT];
    char key[TALLY_ID_TEXT_BYTES];
    tally_event_encode_headers(&encoded, event, "/tally/test", NULL);
    for (size_t i = 0; i < encoded.count; i++)
        headers[i] = (struct tally_producer_header){encoded.list[i].name, encoded.list[i].value,
                                                    encoded.list[i].length};
    const struct tally_producer_message message = {
        .partition = tally_partition_of(event->user_id, fixture_partitions(fixture)),
        .key = key,
        .key_length = tally_id_format(event->user_id, key),
        .value = event->value,
        .value_length = event->value_length,
        .headers = headers,
        .header_count = encoded.count,
    };
    queue(fixture, &message);
}

void fixture_send(struct fixture *fixture, const struct tally_event *event)
{
    queue_event(fixture, event);
    await_delivery(fixture);
}

void fixture_send_history(struct fixture *fixture, int64_t user_id, int64_t first, int64_t last)
{
    static const char profile[] = "{\"name\":\"Ada\",\"email\":\"a@b.c\",\"avatar\":null}";
    for (int64_t version = first; version <= last; version++) {
        struct tally_event event = {
            .type = version % 2 == 0 ? TALLY_EVENT_POST_CREATED : TALLY_EVENT_COMMENT_CREATED,
            .user_id = user_id,
            .version = version,
            .timeline = 1,
            .at_us = tally_clock_wall_us(),
            .value = "{}",
        };
        if (version == 1) {
            event.type = TALLY_EVENT_USER_CREATED;
            event.value = profile;
        }
        event.value_length = strlen(event.value);
        queue_event(fixture, &event);
    }
    await_delivery(fixture);
}

const char *fixture_history(int64_t last)
{
    static char text[96];
    (void)snprintf(text, sizeof text, "%" PRId64 " %" PRId64 " %" PRId64 " - -", last, last / 2,
                   (last - 1) / 2);
    return text;
}

int64_t fixture_generation(struct fixture *fixture)
{
    int64_t generation = 0;
    struct tally_error error = {0};
    cr_assert_eq(tally_generation_read(fixture->redis, &generation, &error), TALLY_OK, "%s",
                 error.text);
    return generation;
}

static bool all_applied(struct fixture *fixture, struct tally_kafka_admin *admin)
{
    const int64_t generation = fixture_generation(fixture);
    struct tally_error error = {0};
    for (int32_t i = 0; i < fixture_partitions(fixture); i++) {
        struct tally_position position;
        int64_t low = 0;
        int64_t high = 0;
        if (generation == 0 ||
            tally_position_read(fixture->redis, generation, &i, 1, &position, &error) != TALLY_OK ||
            tally_kafka_admin_watermarks(admin, fixture->topic, i, KAFKA_MS, &low, &high, &error) !=
                TALLY_OK ||
            position.offset != high)
            return false;
    }
    return true;
}

void fixture_await_applied(struct fixture *fixture)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + WAIT_US;
    struct tally_kafka_admin *admin = NULL;
    cr_assert_eq(tally_kafka_admin_new(test_brokers(), &admin, NULL), TALLY_OK);
    while (!all_applied(fixture, admin)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "events are not applied");
        usleep(10000);
    }
    tally_kafka_admin_free(&admin);
}

/* The fields of a user joined by spaces. */
const char *fixture_user(struct fixture *fixture, int64_t user_id)
{
    static char text[256];
    struct tally_error error = {0};
    redisReply *reply = NULL;
    char key[TALLY_VIEW_KEY_BYTES];
    const int64_t generation = fixture_generation(fixture);
    tally_view_user_key(key, generation, tally_partition_of(user_id, fixture_partitions(fixture)),
                        user_id);
    cr_assert_eq(tally_redis_call(fixture->redis, &reply, &error,
                                  "HMGET %s v posts comments deleted flagged", key),
                 TALLY_OK, "%s", error.text);
    text[0] = '\0';
    for (size_t i = 0; i < reply->elements; i++) {
        const char *value = reply->element[i]->str;
        const size_t used = strlen(text);
        (void)snprintf(text + used, sizeof text - used, "%s%s", i > 0 ? " " : "",
                       value != NULL ? value : "-");
    }
    freeReplyObject(reply);
    return text;
}

void fixture_await_version(struct fixture *fixture, int64_t user_id, int64_t version)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + WAIT_US;
    while (strtoll(fixture_user(fixture, user_id), NULL, 10) != version) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "user is at %s",
                  fixture_user(fixture, user_id));
        usleep(10000);
    }
}

const char *fixture_totals(struct fixture *fixture)
{
    static char text[96];
    struct tally_error error = {0};
    struct tally_totals sum = {0};
    for (int32_t i = 0; i < fixture_partitions(fixture); i++) {
        struct tally_position position;
        cr_assert_eq(tally_position_read(fixture->redis, fixture_generation(fixture), &i, 1,
                                         &position, &error),
                     TALLY_OK, "%s", error.text);
        sum.users += position.totals.users;
        sum.posts += position.totals.posts;
        sum.comments += position.totals.comments;
    }
    (void)snprintf(text, sizeof text, "%" PRId64 " %" PRId64 " %" PRId64, sum.users, sum.posts,
                   sum.comments);
    return text;
}
