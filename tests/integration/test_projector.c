#include "projector_fixture.h"
#include "service/projector/report.h"
#include "topic.h"

#include "core/clock.h"
#include "core/id.h"
#include "core/random.h"
#include "domain/partitioner.h"
#include "kafka/admin.h"
#include "kafka/consumer.h"
#include "view/keys.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { USERS = 40, FIRST_USER = 1000 };
static const int64_t PATIENCE_US = 120LL * 1000 * 1000;

TestSuite(projector, .timeout = 300);

static struct tally_event event_of(int64_t user_id, int64_t version, enum tally_event_type type)
{
    return (struct tally_event){.type = type,
                                .user_id = user_id,
                                .version = version,
                                .timeline = 1,
                                .at_us = tally_clock_wall_us()};
}

static void send_all(struct fixture *fixture, int64_t first, int64_t last)
{
    for (int64_t user = FIRST_USER; user < FIRST_USER + USERS; user++)
        fixture_send_history(fixture, user, first, last);
}

static void expect_all(struct fixture *fixture, int64_t last)
{
    char totals[64];
    for (int64_t user = FIRST_USER; user < FIRST_USER + USERS; user++)
        cr_expect_str_eq(fixture_user(fixture, user), fixture_history(last));
    (void)snprintf(totals, sizeof totals, "%d %lld %lld", USERS, USERS * (long long)(last / 2),
                   USERS * (long long)((last - 1) / 2));
    cr_expect_str_eq(fixture_totals(fixture), totals);
}

static void flush(struct fixture *fixture)
{
    redisReply *reply = NULL;
    cr_assert_eq(tally_redis_call(fixture->redis, &reply, NULL, "FLUSHALL"), TALLY_OK);
    freeReplyObject(reply);
}

Test(projector, counts_every_event_once_however_often_it_comes)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    fixture_open(&fixture);
    send_all(&fixture, 1, 6);
    projector_start(&fixture, &projector);
    send_all(&fixture, 4, 9); /* an overlap, as a relay that starts again sends it */
    send_all(&fixture, 1, 3); /* late duplicates */
    send_all(&fixture, 10, 12);
    fixture_await_applied(&fixture);
    expect_all(&fixture, 12);
    cr_expect_eq(projector_metric(&projector, "tally_projector_events_total{outcome=\"gap\"}"), 0);
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, forgets_nothing_with_a_memory_for_few_users)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    projector.settings.projector_cache_users = 3;
    projector.settings.projector_batch_events = 7;
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 4);
    send_all(&fixture, 2, 8);
    fixture_await_applied(&fixture);
    expect_all(&fixture, 8);
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, flags_a_user_with_a_gap_and_no_other)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    fixture_open(&fixture);
    fixture_send_history(&fixture, 1, 1, 3);
    fixture_send_history(&fixture, 1, 6, 7);
    fixture_send_history(&fixture, 2, 1, 4);
    projector_start(&fixture, &projector);
    fixture_await_applied(&fixture);
    cr_expect_str_eq(fixture_user(&fixture, 1), "7 2 2 - 1");
    cr_expect_str_eq(fixture_user(&fixture, 2), fixture_history(4));
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, keeps_a_deleted_user_deleted)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    const struct tally_event gone = event_of(1, 6, TALLY_EVENT_USER_DELETED);
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    fixture_send_history(&fixture, 1, 1, 5);
    fixture_send(&fixture, &gone);
    fixture_send_history(&fixture, 1, 1, 5);
    fixture_await_applied(&fixture);
    cr_expect_str_eq(fixture_user(&fixture, 1), "6 - - 1 -");
    cr_expect_str_eq(fixture_totals(&fixture), "0 0 0");
    redisReply *reply = NULL;
    cr_assert_eq(
        tally_redis_call(fixture.redis, &reply, NULL, "EVAL %s 0",
                         "local n = 0 for _, k in ipairs(redis.call('KEYS', '*user:1')) do "
                         "n = n + redis.call('HEXISTS', k, 'name') + "
                         "redis.call('HEXISTS', k, 'email') end return n"),
        TALLY_OK);
    cr_expect_eq(reply->integer, 0, "the personal data is gone");
    freeReplyObject(reply);
    projector_stop(&projector);
    fixture_close(&fixture);
}

/* The first record of the dead letters. */
static void expect_letter(const struct fixture *fixture, const char *key, const char *reason)
{
    struct tally_consumer *consumer = NULL;
    struct tally_consumer_event event;
    const struct tally_consumer_start start = {0, 0};
    const struct tally_consumer_options options = {getenv("TALLY_KAFKA_BROKERS"),
                                                   fixture->dead_topic, fixture->group, "",
                                                   tally_projector_kafka_log};
    cr_assert_eq(tally_consumer_new(&options, &consumer, NULL), TALLY_OK);
    cr_assert_eq(tally_consumer_assign(consumer, &start, 1, NULL), TALLY_OK);
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    do {
        tally_consumer_poll(consumer, 100, &event);
        cr_assert(tally_clock_monotonic_us() < give_up_us, "there is no dead letter");
    } while (event.kind != TALLY_CONSUMED_RECORD);
    cr_expect(event.record.key_length == strlen(key) &&
              memcmp(event.record.key, key, strlen(key)) == 0);
    struct tally_record_header headers[32];
    const size_t count = tally_record_headers(&event.record, headers, 32);
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found += strcmp(headers[i].name, "custom") == 0;
        found += strcmp(headers[i].name, "tally_source_offset") == 0;
        found += strcmp(headers[i].name, "tally_reason") == 0 &&
                 memmem(headers[i].value, headers[i].length, reason, strlen(reason)) != NULL;
    }
    cr_expect_eq(found, 3);
    tally_record_release(&event.record);
    tally_consumer_abandon(&consumer);
}

Test(projector, sets_poison_aside_and_goes_on)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    const struct tally_producer_header headers[] = {{"custom", "kept", 4}};
    const struct tally_producer_message message = {.key = "1",
                                                   .key_length = 1,
                                                   .value = "x",
                                                   .value_length = 1,
                                                   .headers = headers,
                                                   .header_count = 1};
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    fixture_send_history(&fixture, 1, 1, 3);
    fixture_send_raw(&fixture, 1, &message);
    fixture_send_history(&fixture, 1, 4, 5);
    fixture_send_history(&fixture, 2, 1, 5);
    fixture_await_applied(&fixture);
    cr_expect_str_eq(fixture_user(&fixture, 1), "5 2 2 - 1");
    cr_expect_str_eq(fixture_user(&fixture, 2), fixture_history(5));
    expect_letter(&fixture, "1", "ce_specversion");
    projector_stop(&projector);
    fixture_close(&fixture);
}

/* A letter is larger than the record that it holds. */
Test(projector, sets_poison_aside_that_is_as_large_as_kafka_takes_it)
{
    enum { LARGE = 1040000 };
    struct fixture fixture = {0};
    struct projector projector = {0};
    struct tally_random random;
    char *value = malloc(LARGE);
    const struct tally_producer_header headers[] = {{"custom", "kept", 4}};
    const struct tally_producer_message message = {.key = "1",
                                                   .key_length = 1,
                                                   .value = value,
                                                   .value_length = LARGE,
                                                   .headers = headers,
                                                   .header_count = 1};
    cr_assert_not_null(value);
    tally_random_seed(&random, 1);
    for (size_t i = 0; i < LARGE; i++)
        value[i] = (char)tally_random_below(&random, 256); /* nothing makes it smaller */
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    fixture_send_history(&fixture, 1, 1, 3);
    fixture_send_raw(&fixture, 1, &message);
    fixture_send_history(&fixture, 1, 4, 5);
    fixture_await_applied(&fixture);
    cr_expect_str_eq(fixture_user(&fixture, 1), "5 2 2 - 1");
    expect_letter(&fixture, "1", "ce_specversion");
    projector_stop(&projector);
    fixture_close(&fixture);
    free(value);
}

Test(projector, goes_on_from_its_position_after_a_restart)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 5);
    fixture_await_applied(&fixture);
    const int64_t generation = fixture_generation(&fixture);
    projector_stop(&projector);
    send_all(&fixture, 6, 9);
    projector_start(&fixture, &projector);
    fixture_await_applied(&fixture);
    expect_all(&fixture, 9);
    cr_expect_eq(fixture_generation(&fixture), generation);
    cr_expect_eq(projector_metric(&projector, "tally_projector_events_total{outcome=\"applied\"}"),
                 USERS * 4);
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, builds_a_flushed_read_model_again_under_another_number)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 5);
    fixture_await_applied(&fixture);
    const int64_t generation = fixture_generation(&fixture);
    flush(&fixture);
    send_all(&fixture, 6, 8);
    fixture_await_applied(&fixture);
    expect_all(&fixture, 8);
    cr_expect_neq(fixture_generation(&fixture), generation);
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, survives_a_redis_that_restarts_empty)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    char reason[256];
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 5);
    fixture_await_applied(&fixture);
    tally_redis_close(&fixture.redis);
    redis_server_stop(&fixture.server);
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    while (tally_projector_redis_ready(projector.handle, reason)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "the loss is not noticed");
        usleep(10000);
    }
    send_all(&fixture, 6, 8);
    redis_server_restart(&fixture.server);
    fixture.redis = redis_server_open(&fixture.server);
    fixture_await_applied(&fixture);
    expect_all(&fixture, 8);
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, reads_its_position_again_when_another_writer_has_moved_it)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    redisReply *reply = NULL;
    char key[TALLY_VIEW_KEY_BYTES];
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 5);
    fixture_await_applied(&fixture);
    for (int32_t i = 0; i < FIXTURE_PARTITIONS; i++) {
        /* As a repair does; the position goes back too, as after a failover. */
        tally_view_position_key(key, fixture_generation(&fixture), i);
        cr_assert_eq(tally_redis_call(fixture.redis, &reply, NULL, "HSET %s epoch 2 offset 1", key),
                     TALLY_OK);
        freeReplyObject(reply);
    }
    projector_await_metric(&projector, "tally_projector_refusals_total", 1);
    send_all(&fixture, 6, 7);
    fixture_await_applied(&fixture);
    expect_all(&fixture, 7);
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, shares_the_partitions_with_others_that_come_and_go)
{
    struct fixture fixture = {0};
    struct projector first = {0};
    struct projector second = {0};
    fixture_open(&fixture);
    projector_start(&fixture, &first);
    send_all(&fixture, 1, 4);
    fixture_await_applied(&fixture);
    projector_start(&fixture, &second);
    send_all(&fixture, 5, 7);
    projector_await_metric(&second, "tally_projector_owned_partitions", 1);
    send_all(&fixture, 8, 9);
    fixture_await_applied(&fixture);
    projector_stop(&second);
    send_all(&fixture, 10, 11);
    projector_await_metric(&first, "tally_projector_owned_partitions", FIXTURE_PARTITIONS);
    fixture_await_applied(&fixture);
    expect_all(&fixture, 11);
    projector_stop(&first);
    fixture_close(&fixture);
}

Test(projector, projectors_that_start_together_begin_one_generation)
{
    struct fixture fixture = {0};
    struct projector projectors[3] = {0};
    fixture_open(&fixture);
    send_all(&fixture, 1, 5);
    for (int i = 0; i < 3; i++)
        projector_start(&fixture, &projectors[i]);
    fixture_await_applied(&fixture);
    expect_all(&fixture, 5);
    for (int i = 0; i < 3; i++)
        projector_stop(&projectors[i]);
    fixture_close(&fixture);
}

Test(projector, stops_by_name_where_the_read_model_is_of_another_cluster)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    struct tally_error error = {0};
    redisReply *reply = NULL;
    char key[TALLY_VIEW_KEY_BYTES];
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 2);
    fixture_await_applied(&fixture);
    projector_stop(&projector);
    for (int32_t i = 0; i < FIXTURE_PARTITIONS; i++) {
        tally_view_position_key(key, fixture_generation(&fixture), i);
        cr_assert_eq(tally_redis_call(fixture.redis, &reply, NULL, "HSET %s cluster other", key),
                     TALLY_OK);
        freeReplyObject(reply);
    }
    projector_start(&fixture, &projector);
    cr_expect_eq(projector_await_end(&projector, &error), TALLY_CONFIG);
    cr_expect_not_null(strstr(error.text, "cluster other"), "%s", error.text);
    fixture_close(&fixture);
}

Test(projector, stops_by_name_where_the_topic_was_made_anew_and_its_offsets_fit)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    struct tally_error error = {0};
    fixture_open(&fixture);
    fixture_send_history(&fixture, 1, 1, 5);
    projector_start(&fixture, &projector);
    fixture_await_applied(&fixture);
    projector_stop(&projector);
    /* The same log again is no other log. */
    projector_start(&fixture, &projector);
    fixture_send_history(&fixture, 1, 6, 6);
    fixture_await_applied(&fixture);
    projector_stop(&projector);
    fixture_recreate_topic(&fixture);
    fixture_send_history(&fixture, 1, 1, 8);
    projector_start(&fixture, &projector);
    cr_assert_eq(projector_await_end(&projector, &error), TALLY_CONFIG, "%s", error.text);
    cr_assert_not_null(strstr(error.text, "recreated"), "%s", error.text);
    cr_assert_str_eq(fixture_user(&fixture, 1), fixture_history(6));
    fixture_close(&fixture);
}

static int64_t letters(const struct fixture *fixture)
{
    struct tally_kafka_admin *admin = NULL;
    struct tally_error error = {0};
    int64_t low = 0, high = 0;
    cr_assert_eq(tally_kafka_admin_new(getenv("TALLY_KAFKA_BROKERS"), &admin, &error), TALLY_OK,
                 "%s", error.text);
    cr_assert_eq(
        tally_kafka_admin_watermarks(admin, fixture->dead_topic, 0, 60000, &low, &high, &error),
        TALLY_OK, "%s", error.text);
    tally_kafka_admin_free(&admin);
    return high;
}

/* The relay has seen the new count before the projector: its events are no dead letters. */
Test(projector, stops_by_name_where_events_go_by_more_partitions_than_it_knows_of)
{
    enum { WIDER = FIXTURE_PARTITIONS + 1 };
    struct fixture fixture = {0};
    struct projector projector = {0};
    struct tally_error error = {0};
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 5);
    fixture_await_applied(&fixture);
    fixture_widen_topic(&fixture, WIDER);
    send_all(&fixture, 6, 6);
    cr_assert_eq(projector_await_end(&projector, &error), TALLY_CONFIG, "%s", error.text);
    cr_assert_not_null(strstr(error.text, "partitions now"), "%s", error.text);
    cr_assert_eq(letters(&fixture), 0);
    fixture_close(&fixture);
}

static void remove_key(struct fixture *fixture, const char *key)
{
    redisReply *reply = NULL;
    cr_assert_eq(tally_redis_call(fixture->redis, &reply, NULL, "DEL %s", key), TALLY_OK);
    freeReplyObject(reply);
}

Test(projector, stops_by_name_where_a_position_is_lost)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    struct tally_error error = {0};
    char key[TALLY_VIEW_KEY_BYTES];
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 2);
    fixture_await_applied(&fixture);
    tally_view_position_key(key, fixture_generation(&fixture), 1);
    remove_key(&fixture, key);
    cr_expect_eq(projector_await_end(&projector, &error), TALLY_CONFIG);
    cr_expect_not_null(strstr(error.text, "tallyctl rebuild"), "%s", error.text);
    fixture_close(&fixture);
}

Test(projector, restores_totals_that_are_gone_and_stops_by_name_where_it_never_knew_them)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    struct tally_error error = {0};
    redisReply *reply = NULL;
    char key[TALLY_VIEW_KEY_BYTES];
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 2);
    fixture_await_applied(&fixture);
    tally_view_totals_key(key, fixture_generation(&fixture), 1);
    remove_key(&fixture, key);
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    for (long long there = 0; there == 0;) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "the totals are not restored");
        usleep(10000);
        cr_assert_eq(tally_redis_call(fixture.redis, &reply, NULL, "EXISTS %s", key), TALLY_OK);
        there = reply->integer;
        freeReplyObject(reply);
    }
    expect_all(&fixture, 2);
    projector_stop(&projector);
    remove_key(&fixture, key);
    projector_start(&fixture, &projector);
    cr_expect_eq(projector_await_end(&projector, &error), TALLY_CONFIG);
    cr_expect_not_null(strstr(error.text, "tallyctl rebuild"), "%s", error.text);
    fixture_close(&fixture);
}

Test(projector, flags_a_known_user_whose_key_is_gone)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    redisReply *reply = NULL;
    char key[TALLY_VIEW_KEY_BYTES];
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 2);
    fixture_await_applied(&fixture);
    tally_view_user_key(key, fixture_generation(&fixture),
                        tally_partition_of(FIRST_USER, FIXTURE_PARTITIONS), FIRST_USER);
    remove_key(&fixture, key);
    fixture_send_history(&fixture, FIRST_USER, 3, 3);
    fixture_await_applied(&fixture);
    cr_assert_eq(tally_redis_call(fixture.redis, &reply, NULL, "HMGET %s v flagged", key),
                 TALLY_OK);
    cr_expect_str_eq(reply->element[0]->str, "3");
    cr_expect_str_eq(reply->element[1]->str, "1");
    freeReplyObject(reply);
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, refuses_a_redis_that_evicts_keys)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    struct tally_error error = {0};
    redisReply *reply = NULL;
    fixture_open(&fixture);
    cr_assert_eq(
        tally_redis_call(fixture.redis, &reply, NULL, "CONFIG SET maxmemory-policy allkeys-lru"),
        TALLY_OK);
    freeReplyObject(reply);
    projector_start(&fixture, &projector);
    cr_expect_eq(projector_await_end(&projector, &error), TALLY_CONFIG);
    cr_expect_not_null(strstr(error.text, "noeviction"), "%s", error.text);
    fixture_close(&fixture);
}

Test(projector, stops_by_name_where_redis_is_told_to_evict_keys_later)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    struct tally_error error = {0};
    redisReply *reply = NULL;
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    send_all(&fixture, 1, 2);
    fixture_await_applied(&fixture);
    cr_assert_eq(
        tally_redis_call(fixture.redis, &reply, NULL, "CONFIG SET maxmemory-policy allkeys-lru"),
        TALLY_OK);
    freeReplyObject(reply);
    cr_expect_eq(projector_await_end(&projector, &error), TALLY_CONFIG);
    cr_expect_not_null(strstr(error.text, "noeviction"), "%s", error.text);
    fixture_close(&fixture);
}

/* Waits until the check of progress in /readyz says `ready`; returns its reason. */
static const char *await_progress(struct projector *projector, bool ready)
{
    static char reason[256];
    const int64_t give_up_us = tally_clock_monotonic_us() + 60LL * 1000 * 1000;
    while (tally_projector_progress_ready(projector->handle, reason) != ready) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "ready stays %d", !ready);
        usleep(10000);
    }
    return reason;
}

Test(projector, is_unready_with_the_reason_while_a_dead_letter_cannot_be_written)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    const struct tally_producer_message poison = {
        .key = "1", .key_length = 1, .value = "x", .value_length = 1};
    projector.settings.projector_stall_ms = 1000;
    fixture_open(&fixture);
    test_topic_delete(fixture.dead_topic);
    (void)strncat(fixture.dead_topic, ".none",
                  sizeof fixture.dead_topic - strlen(fixture.dead_topic) - 1);
    projector_start(&fixture, &projector);
    fixture_send_history(&fixture, 1, 1, 3);
    fixture_await_applied(&fixture);
    (void)await_progress(&projector, true);
    fixture_send_raw(&fixture, 1, &poison);
    const char *reason = await_progress(&projector, false);
    cr_expect_not_null(strstr(reason, "has made no progress"), "%s", reason);
    cr_expect_not_null(strstr(reason, ".none does not exist"), "%s", reason);
    /* However often it is tried again. */
    const double resyncs = projector_metric(&projector, "tally_projector_resyncs_total");
    while (projector_metric(&projector, "tally_projector_resyncs_total") < resyncs + 3) {
        char text[256];
        cr_assert_not(tally_projector_progress_ready(projector.handle, text));
        usleep(1000);
    }
    cr_expect_eq(projector_metric(&projector, "tally_projector_consumer_restarts_total"), 0);
    fixture_create_dead_topic(&fixture);
    (void)await_progress(&projector, true);
    fixture_await_applied(&fixture);
    cr_expect_str_eq(fixture_user(&fixture, 1), "3 1 1 - 1");
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, stops_while_kafka_refuses_a_dead_letter_and_writes_it_the_next_time)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    const struct tally_producer_header headers[] = {{"custom", "kept", 4}};
    const struct tally_producer_message poison = {.key = "1",
                                                  .key_length = 1,
                                                  .value = "x",
                                                  .value_length = 1,
                                                  .headers = headers,
                                                  .header_count = 1};
    projector.settings.projector_stall_ms = 1000;
    fixture_open(&fixture);
    test_topic_delete(fixture.dead_topic);
    (void)strncat(fixture.dead_topic, ".narrow",
                  sizeof fixture.dead_topic - strlen(fixture.dead_topic) - 1);
    test_topic_create_with(fixture.dead_topic, 1, "max.message.bytes", "10");
    projector_start(&fixture, &projector);
    fixture_send_history(&fixture, 1, 1, 3);
    fixture_await_applied(&fixture);
    (void)await_progress(&projector, true);
    fixture_send_raw(&fixture, 1, &poison);
    fixture_send_history(&fixture, 1, 4, 5);
    const char *reason = await_progress(&projector, false);
    cr_expect_not_null(strstr(reason, "Message size too large"), "%s", reason);
    projector_stop(&projector);
    cr_expect_str_eq(fixture_user(&fixture, 1), fixture_history(3));
    test_topic_delete(fixture.dead_topic);
    (void)strncat(fixture.dead_topic, ".wide",
                  sizeof fixture.dead_topic - strlen(fixture.dead_topic) - 1);
    fixture_create_dead_topic(&fixture);
    projector_start(&fixture, &projector);
    fixture_await_applied(&fixture);
    cr_expect_str_eq(fixture_user(&fixture, 1), "5 2 2 - 1");
    expect_letter(&fixture, "1", "ce_specversion");
    projector_stop(&projector);
    fixture_close(&fixture);
}

static void remove_user(struct fixture *fixture, int64_t user_id)
{
    char key[TALLY_VIEW_KEY_BYTES];
    tally_view_user_key(key, fixture_generation(fixture),
                        tally_partition_of(user_id, FIXTURE_PARTITIONS), user_id);
    remove_key(fixture, key);
}

Test(projector, flags_and_counts_a_user_whose_key_is_gone_whatever_it_knows_of_them)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    struct tally_event event = event_of(1, 3, TALLY_EVENT_POST_CREATED);
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    fixture_send_history(&fixture, 1, 1, 2);
    fixture_send_history(&fixture, 2, 1, 2);
    fixture_await_applied(&fixture);
    /* Remembered, and written as a whole since the timeline is another one. */
    remove_user(&fixture, 1);
    event.timeline = 2;
    fixture_send(&fixture, &event);
    fixture_await_applied(&fixture);
    cr_expect_str_eq(fixture_user(&fixture, 1), "3 2 0 - 1");
    projector_await_metric(&projector, "tally_projector_lost_users_total", 1);
    projector_stop(&projector);
    /* Not remembered. */
    remove_user(&fixture, 2);
    projector_start(&fixture, &projector);
    fixture_send_history(&fixture, 2, 3, 4);
    fixture_await_applied(&fixture);
    cr_expect_str_eq(fixture_user(&fixture, 2), "4 1 1 - lost");
    projector_await_metric(&projector, "tally_projector_lost_users_total", 1);
    cr_expect_eq(projector_metric(&projector, "tally_projector_lost_users_total"), 1);
    projector_stop(&projector);
    fixture_close(&fixture);
}

Test(projector, goes_back_to_no_position_for_the_gap_that_a_poison_leaves)
{
    struct fixture fixture = {0};
    struct projector projector = {0};
    const struct tally_producer_message poison = {
        .key = "1", .key_length = 1, .value = "x", .value_length = 1};
    fixture_open(&fixture);
    projector_start(&fixture, &projector);
    fixture_send_history(&fixture, 1, 1, 3);
    fixture_await_applied(&fixture);
    const double resyncs = projector_metric(&projector, "tally_projector_resyncs_total");
    fixture_send_raw(&fixture, 1, &poison); /* instead of version 4 */
    fixture_send_history(&fixture, 1, 5, 6);
    fixture_await_applied(&fixture);
    cr_expect_eq(projector_metric(&projector, "tally_projector_events_total{outcome=\"gap\"}"), 1);
    cr_expect_eq(projector_metric(&projector, "tally_projector_resyncs_total"), resyncs);
    projector_stop(&projector);
    fixture_close(&fixture);
}

/* Some user of that partition. */
static int64_t user_of(int32_t partition)
{
    int64_t user_id = FIRST_USER;
    while (tally_partition_of(user_id, FIXTURE_PARTITIONS) != partition)
        user_id++;
    return user_id;
}

/* A real cluster of two brokers, one of which is down, is more than this suite starts. */
Test(projector, applies_what_can_be_had_while_the_leader_of_a_partition_is_down)
{
    enum { THERE = 1, AWAY = 2, ITS_PARTITION = FIXTURE_PARTITIONS - 1 };
    char reason[256];
    struct fixture fixture = {0};
    struct projector projector = {0};
    rd_kafka_t *host = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), reason, sizeof reason);
    cr_assert_not_null(host, "%s", reason);
    fixture.cluster = rd_kafka_mock_cluster_new(host, 2);
    cr_assert_not_null(fixture.cluster);
    setenv("TALLY_KAFKA_BROKERS", rd_kafka_mock_cluster_bootstraps(fixture.cluster), 1);
    fixture_open(&fixture);
    for (int32_t i = 0; i < FIXTURE_PARTITIONS; i++)
        rd_kafka_mock_partition_set_leader(fixture.cluster, fixture.topic, i,
                                           i == ITS_PARTITION ? AWAY : THERE);
    rd_kafka_mock_coordinator_set(fixture.cluster, "group", fixture.group, THERE);
    projector_start(&fixture, &projector);
    for (int32_t i = 0; i < FIXTURE_PARTITIONS; i++)
        fixture_send_history(&fixture, user_of(i), 1, 3);
    fixture_await_applied(&fixture);
    fixture_send_history(&fixture, user_of(ITS_PARTITION), 4, 6);
    fixture_await_applied(&fixture);
    rd_kafka_mock_broker_set_down(fixture.cluster, AWAY);
    for (int32_t i = 0; i < ITS_PARTITION; i++)
        fixture_send_history(&fixture, user_of(i), 4, 5);
    for (int32_t i = 0; i < ITS_PARTITION; i++)
        fixture_await_version(&fixture, user_of(i), 5);
    /* One that starts now knows no partition yet. */
    projector_stop(&projector);
    projector_start(&fixture, &projector);
    for (int32_t i = 0; i < ITS_PARTITION; i++)
        fixture_send_history(&fixture, user_of(i), 6, 7);
    for (int32_t i = 0; i < ITS_PARTITION; i++)
        fixture_await_version(&fixture, user_of(i), 7);
    rd_kafka_mock_broker_set_up(fixture.cluster, AWAY);
    fixture_send_history(&fixture, user_of(ITS_PARTITION), 7, 7);
    fixture_await_applied(&fixture);
    for (int32_t i = 0; i < FIXTURE_PARTITIONS; i++)
        cr_expect_str_eq(fixture_user(&fixture, user_of(i)), fixture_history(7));
    projector_stop(&projector);
    fixture_close(&fixture);
    rd_kafka_mock_cluster_destroy(fixture.cluster);
    rd_kafka_destroy(host);
}
