#include "model_fixture.h"

#include "core/clock.h"
#include "domain/partitioner.h"
#include "service/ctl/verify.h"
#include "view/keys.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const int64_t WAIT_US = 120LL * 1000 * 1000;

void model_open(struct model_fixture *model)
{
    struct tally_settings *settings = &model->settings;
    test_database_create(&model->database);
    fixture_open(&model->log);
    projector_start(&model->log, &model->projector);
    *settings = model->projector.settings;
    (void)snprintf(settings->pg_dsn, sizeof settings->pg_dsn, "%s", model->database.dsn);
    fixture_await_applied(&model->log);
}

void model_close(struct model_fixture *model)
{
    fixture_close(&model->log);
    test_database_drop(&model->database);
}

void model_write(struct model_fixture *model, int64_t user_id, int64_t first, int64_t last)
{
    char sql[512];
    for (int64_t version = first; version <= last; version++) {
        const int64_t id = user_id * 1000 + version;
        if (version == 1)
            (void)snprintf(sql, sizeof sql,
                           "insert into users (id, name, email, version) values (%" PRId64
                           ", 'Ada', '%" PRId64 "@b.c', 1)",
                           user_id, user_id);
        else if (version % 2 == 0)
            (void)snprintf(sql, sizeof sql,
                           "insert into posts (id, author_id, body) values (%" PRId64 ", %" PRId64
                           ", 'x')",
                           id, user_id);
        else
            (void)snprintf(sql, sizeof sql,
                           "insert into comments (id, post_id, author_id, body) values (%" PRId64
                           ", %" PRId64 ", %" PRId64 ", 'x')",
                           id, user_id * 1000 + 2, user_id);
        test_database_run(model->database.connection, sql);
    }
    (void)snprintf(sql, sizeof sql, "update users set version = %" PRId64 " where id = %" PRId64,
                   last, user_id);
    test_database_run(model->database.connection, sql);
}

void model_publish(struct model_fixture *model, int64_t user_id, int64_t first, int64_t last)
{
    if (first == 1) {
        char profile[96];
        (void)snprintf(profile, sizeof profile,
                       "{\"name\":\"Ada\",\"email\":\"%" PRId64 "@b.c\",\"avatar\":null}", user_id);
        const struct tally_event created = {
            .type = TALLY_EVENT_USER_CREATED,
            .user_id = user_id,
            .version = 1,
            .timeline = 1,
            .at_us = tally_clock_wall_us(),
            .value = profile,
            .value_length = strlen(profile),
        };
        fixture_send(&model->log, &created);
        first = 2;
    }
    fixture_send_history(&model->log, user_id, first, last);
}

void model_add(struct model_fixture *model, int64_t user_id, int64_t first, int64_t last)
{
    model_write(model, user_id, first, last);
    model_publish(model, user_id, first, last);
}

static void on_difference(void *context, const struct tally_verify_difference *difference)
{
    (void)context;
    cr_expect(false, "user %" PRId64 " %s: expected %s, found %s", difference->user_id,
              difference->field, difference->expected, difference->found);
}

void model_expect_equal(struct model_fixture *model)
{
    const struct tally_verify_options options = {
        .pg_dsn = model->settings.pg_dsn,
        .redis_url = model->settings.redis_url,
        .redis_timeout_ms = 5000,
        .grace_ms = 30000,
        .pending_most = 1000,
        .on_difference = on_difference,
    };
    struct tally_verify_result result;
    struct tally_error error = {0};
    /* Totals are compared only while no transaction is open on the whole server, where other tests
     * are at work too. */
    const int64_t give_up_us = tally_clock_monotonic_us() + WAIT_US;
    do {
        cr_assert_eq(tally_verify_run(&options, &result, &error), TALLY_OK, "%s", error.text);
        cr_assert_eq(result.differences, 0);
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s", result.totals_reason);
    } while (!result.totals_compared);
}

static void user_key(struct model_fixture *model, int64_t generation, int64_t user_id,
                     char key[TALLY_VIEW_KEY_BYTES])
{
    if (generation == 0)
        generation = fixture_generation(&model->log);
    tally_view_user_key(key, generation,
                        tally_partition_of(user_id, fixture_partitions(&model->log)), user_id);
}

const char *model_field(struct model_fixture *model, int64_t generation, int64_t user_id,
                        const char *field)
{
    static char text[128];
    char key[TALLY_VIEW_KEY_BYTES];
    redisReply *reply = NULL;
    struct tally_error error = {0};
    user_key(model, generation, user_id, key);
    cr_assert_eq(tally_redis_call(model->log.redis, &reply, &error, "HGET %s %s", key, field),
                 TALLY_OK, "%s", error.text);
    (void)snprintf(text, sizeof text, "%s", reply->str != NULL ? reply->str : "-");
    freeReplyObject(reply);
    return text;
}

void model_set_field(struct model_fixture *model, int64_t generation, int64_t user_id,
                     const char *field, const char *value)
{
    char key[TALLY_VIEW_KEY_BYTES];
    redisReply *reply = NULL;
    struct tally_error error = {0};
    user_key(model, generation, user_id, key);
    cr_assert_eq(
        tally_redis_call(model->log.redis, &reply, &error, "HSET %s %s %s", key, field, value),
        TALLY_OK, "%s", error.text);
    freeReplyObject(reply);
}
