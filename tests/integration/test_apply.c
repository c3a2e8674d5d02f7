#include "redis_server.h"
#include "view/apply.h"
#include "view/position.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { GENERATION = 7, PARTITION = 2, EPOCH = 1 };

struct fixture {
    struct redis_server server;
    struct tally_redis *redis;
    struct tally_apply_encoder encoder;
};

TestSuite(apply, .timeout = 300);
TestSuite(position, .timeout = 300);
TestSuite(redis, .timeout = 300);

static struct fixture setup(void)
{
    struct fixture fixture = {0};
    struct tally_error error = {0};
    const int64_t until[3] = {50, 60, 70};
    const struct tally_generation generation = {GENERATION, "cluster", 3, until};
    int64_t live = 0;
    redis_server_start(&fixture.server, "noeviction");
    fixture.redis = redis_server_open(&fixture.server);
    tally_apply_encoder_init(&fixture.encoder);
    cr_assert_eq(tally_script_load(fixture.redis, tally_script_apply, fixture.encoder.sha, &error),
                 TALLY_OK, "%s", error.text);
    cr_assert_eq(tally_generation_create(fixture.redis, &generation, &live, &error), TALLY_OK, "%s",
                 error.text);
    cr_assert_eq(live, GENERATION);
    return fixture;
}

static void teardown(struct fixture *fixture)
{
    tally_apply_encoder_release(&fixture->encoder);
    tally_redis_close(&fixture->redis);
    redis_server_stop(&fixture->server);
}

/* A call from one offset to another, without users. */
static struct tally_apply step(int64_t from, int64_t to)
{
    return (struct tally_apply){
        .generation = GENERATION,
        .partition = PARTITION,
        .epoch = EPOCH,
        .from_offset = from,
        .to_offset = to,
        .event_at_ms = -1,
        .fresh_at_ms = -1,
    };
}

static void send(struct fixture *fixture, const struct tally_apply *apply)
{
    struct tally_buffer out;
    struct tally_error error = {0};
    tally_buffer_init(&out, 1 << 20);
    cr_assert_eq(tally_apply_encode(&fixture->encoder, apply, &out, &error), TALLY_OK);
    cr_assert_eq(tally_redis_append_raw(fixture->redis, out.data, out.length, &error), TALLY_OK);
    cr_assert_eq(tally_redis_flush(fixture->redis, &error), TALLY_OK);
    tally_buffer_release(&out);
}

static enum tally_status outcome(struct fixture *fixture, struct tally_error *error)
{
    redisReply *reply = NULL;
    cr_assert_eq(tally_redis_receive(fixture->redis, &reply, error), TALLY_OK);
    const enum tally_status status = tally_apply_outcome(reply, error);
    freeReplyObject(reply);
    return status;
}

static void apply_well(struct fixture *fixture, const struct tally_apply *apply)
{
    struct tally_error error = {0};
    send(fixture, apply);
    const enum tally_status status = outcome(fixture, &error);
    cr_assert_eq(status, TALLY_OK, "%s", error.text);
}

/* The answer to a command as text: a string, a number, or the elements with spaces between. */
static const char *ask(struct fixture *fixture, const char *command)
{
    static char text[1024];
    struct tally_error error = {0};
    redisReply *reply = NULL;
    cr_assert_eq(tally_redis_call(fixture->redis, &reply, &error, command), TALLY_OK, "%s",
                 error.text);
    text[0] = '\0';
    if (reply->type == REDIS_REPLY_INTEGER)
        (void)snprintf(text, sizeof text, "%lld", reply->integer);
    else if (reply->type == REDIS_REPLY_STRING)
        (void)snprintf(text, sizeof text, "%s", reply->str);
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        const redisReply *element = reply->element[i];
        const size_t used = strlen(text);
        (void)snprintf(text + used, sizeof text - used, "%s%s", i > 0 ? " " : "",
                       element->type == REDIS_REPLY_NIL ? "-" : element->str);
    }
    freeReplyObject(reply);
    return text;
}

#define POSITION "tally:7:{2}:position"
#define USER_FIELDS " v posts comments name email avatar tl deleted flagged"

Test(apply, writes_users_totals_actives_and_position_in_one_call)
{
    struct fixture fixture = setup();
    struct tally_profile profile = {(char[]){"Ada"}, (char[]){"a@b.c"}, (char[]){"http://x"}};
    const struct tally_user_state created = {.version = 1, .timeline = 3};
    const struct tally_user_state counted = {
        .version = 9, .posts = 4, .comments = 5, .timeline = 3};
    const struct tally_apply_user users[] = {
        {11, &created, TALLY_APPLY_RECORD | TALLY_APPLY_PROFILE, &profile, 0},
        {12, &counted, TALLY_APPLY_COUNTS, NULL, 1},
        {13, &counted, TALLY_APPLY_RECORD, NULL, -1},
    };
    struct tally_apply apply = step(0, 3);
    apply.event_at_ms = 1000;
    apply.fresh_at_ms = 2000;
    apply.totals = (struct tally_totals){3, 8, 10};
    apply.totals_changed = true;
    apply.users = users;
    apply.user_count = 3;
    apply.day_count = 2;
    strcpy(apply.days[0], "2026-11-22");
    strcpy(apply.days[1], "2026-11-23");
    (void)ask(&fixture, "HSET tally:7:{2}:user:12 v 8 posts 3 comments 5 tl 3");
    (void)ask(&fixture, "HSET tally:7:{2}:user:13 v 8 posts 4 comments 4 tl 2");
    apply_well(&fixture, &apply);
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:user:11" USER_FIELDS),
                     "1 0 0 Ada a@b.c http://x 3 - -");
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:user:12" USER_FIELDS), "9 4 5 - - - 3 - -");
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:user:13" USER_FIELDS), "9 4 5 - - - 3 - -");
    cr_expect_str_eq(ask(&fixture, "HMGET " POSITION " epoch offset until cluster partitions "
                                   "event_at_ms fresh_at_ms"),
                     "1 3 70 cluster 3 1000 2000");
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:totals users posts comments"), "3 8 10");
    cr_expect_str_eq(ask(&fixture, "PFCOUNT tally:7:{2}:active:2026-11-22"), "1");
    cr_expect_str_eq(ask(&fixture, "PFCOUNT tally:7:{2}:active:2026-11-23"), "1");
    cr_expect_str_eq(ask(&fixture, "TTL tally:7:{2}:active:2026-11-22"), "3456000");
    teardown(&fixture);
}

Test(apply, repeats_without_harm)
{
    struct fixture fixture = setup();
    const struct tally_user_state state = {.version = 2, .posts = 1, .timeline = 1};
    const struct tally_apply_user user = {11, &state, TALLY_APPLY_RECORD, NULL, 0};
    struct tally_apply apply = step(0, 2);
    apply.totals = (struct tally_totals){1, 1, 0};
    apply.totals_changed = true;
    apply.users = &user;
    apply.user_count = 1;
    apply.day_count = 1;
    strcpy(apply.days[0], "2026-11-22");
    (void)ask(&fixture, "HSET tally:7:{2}:user:11 v 1 posts 0 comments 0 tl 1");
    apply_well(&fixture, &apply);
    (void)ask(&fixture, "HSET " POSITION " offset 0");
    apply_well(&fixture, &apply);
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:user:11" USER_FIELDS), "2 1 0 - - - 1 - -");
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:totals users posts comments"), "1 1 0");
    cr_expect_str_eq(ask(&fixture, "PFCOUNT tally:7:{2}:active:2026-11-22"), "1");
    teardown(&fixture);
}

Test(apply, removes_personal_data_and_counts_with_the_user)
{
    struct fixture fixture = setup();
    const struct tally_user_state state = {.version = 6, .timeline = 2, .deleted = true};
    const struct tally_apply_user user = {11, &state, TALLY_APPLY_RECORD, NULL, -1};
    struct tally_apply apply = step(0, 1);
    (void)ask(&fixture, "HSET tally:7:{2}:user:11 v 5 posts 3 comments 2 name Ada email a@b.c "
                        "avatar x tl 1 flagged 1");
    apply.users = &user;
    apply.user_count = 1;
    apply_well(&fixture, &apply);
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:user:11" USER_FIELDS), "6 - - - - - 2 1 1");
    teardown(&fixture);
}

Test(apply, removes_an_avatar_that_the_profile_no_longer_has)
{
    struct fixture fixture = setup();
    struct tally_profile profile = {(char[]){"Ada"}, (char[]){"a@b.c"}, NULL};
    const struct tally_user_state state = {.version = 6, .timeline = 1};
    const struct tally_apply_user user = {11, &state, TALLY_APPLY_PROFILE, &profile, -1};
    struct tally_apply apply = step(0, 1);
    (void)ask(&fixture, "HSET tally:7:{2}:user:11 v 5 name A email e avatar x tl 1");
    apply.users = &user;
    apply.user_count = 1;
    apply_well(&fixture, &apply);
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:user:11" USER_FIELDS),
                     "6 0 0 Ada a@b.c - 1 - -");
    teardown(&fixture);
}

Test(apply, of_a_flag_alone_invents_no_user)
{
    struct fixture fixture = setup();
    const struct tally_user_state state = {.flagged = true};
    const struct tally_apply_user user = {11, &state, TALLY_APPLY_RECORD, NULL, -1};
    struct tally_apply apply = step(0, 1);
    apply.users = &user;
    apply.user_count = 1;
    apply_well(&fixture, &apply);
    cr_expect_str_eq(ask(&fixture, "HGETALL tally:7:{2}:user:11"), "flagged 1");
    teardown(&fixture);
}

Test(apply, flags_a_known_user_whose_key_is_gone)
{
    struct fixture fixture = setup();
    struct tally_error error = {0};
    redisReply *reply = NULL;
    const struct tally_user_state state = {.version = 9, .posts = 4, .comments = 5, .timeline = 3};
    const struct tally_apply_user users[] = {
        {11, &state, TALLY_APPLY_COUNTS, NULL, -1},
        {12, &state, TALLY_APPLY_COUNTS, NULL, -1},
    };
    struct tally_apply apply = step(0, 1);
    apply.users = users;
    apply.user_count = 2;
    (void)ask(&fixture, "HSET tally:7:{2}:user:11 v 8 posts 3 comments 5 tl 3");
    send(&fixture, &apply);
    cr_assert_eq(tally_redis_receive(fixture.redis, &reply, &error), TALLY_OK);
    cr_expect_eq(tally_apply_lost_users(reply), 1);
    freeReplyObject(reply);
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:user:11" USER_FIELDS), "9 4 5 - - - 3 - -");
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:user:12" USER_FIELDS), "9 4 5 - - - - - 1");
    teardown(&fixture);
}

Test(apply, a_call_that_moves_nothing_restores_totals_that_are_gone_and_no_others)
{
    struct fixture fixture = setup();
    struct tally_apply apply = step(0, 0);
    apply.totals = (struct tally_totals){3, 8, 10};
    apply.totals_changed = true;
    apply_well(&fixture, &apply);
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:totals users posts comments"), "0 0 0");
    (void)ask(&fixture, "DEL tally:7:{2}:totals");
    apply_well(&fixture, &apply);
    cr_expect_str_eq(ask(&fixture, "HMGET tally:7:{2}:totals users posts comments"), "3 8 10");
    teardown(&fixture);
}

static void expect_refusal(struct fixture *fixture, const struct tally_apply *apply,
                           const char *stored)
{
    struct tally_error error = {0};
    send(fixture, apply);
    cr_expect_eq(outcome(fixture, &error), TALLY_FENCED);
    cr_expect_not_null(strstr(error.text, stored), "%s", error.text);
    cr_expect_str_eq(ask(fixture, "EXISTS tally:7:{2}:user:11"), "0");
    cr_expect_str_eq(ask(fixture, "HMGET tally:7:{2}:totals users posts comments"), "0 0 0");
}

Test(apply, is_refused_at_another_position_and_then_writes_nothing)
{
    struct fixture fixture = setup();
    const struct tally_user_state state = {.version = 2, .posts = 1, .timeline = 1};
    const struct tally_apply_user user = {11, &state, TALLY_APPLY_RECORD, NULL, -1};
    struct tally_apply apply = step(5, 6);
    apply.totals_changed = true;
    apply.users = &user;
    apply.user_count = 1;
    expect_refusal(&fixture, &apply, "epoch 1, offset 0");
    apply.from_offset = 0;
    apply.epoch = 2;
    expect_refusal(&fixture, &apply, "epoch 1, offset 0");
    apply.epoch = EPOCH;
    (void)ask(&fixture, "HINCRBY " POSITION " epoch 1");
    expect_refusal(&fixture, &apply, "epoch 2, offset 0");
    (void)ask(&fixture, "DEL " POSITION);
    expect_refusal(&fixture, &apply, "no position");
    cr_expect_str_eq(ask(&fixture, "EXISTS " POSITION), "0");
    teardown(&fixture);
}

Test(apply, a_chain_in_flight_stands_or_falls_with_its_first_call)
{
    struct fixture fixture = setup();
    struct tally_error error;
    const struct tally_apply first = step(0, 10);
    const struct tally_apply second = step(10, 20);
    send(&fixture, &first);
    send(&fixture, &second);
    cr_expect_eq(outcome(&fixture, &error), TALLY_OK);
    cr_expect_eq(outcome(&fixture, &error), TALLY_OK);
    cr_expect_str_eq(ask(&fixture, "HGET " POSITION " offset"), "20");
    /* Another writer was here. */
    (void)ask(&fixture, "HSET " POSITION " offset 25");
    const struct tally_apply third = step(20, 30);
    const struct tally_apply fourth = step(30, 40);
    send(&fixture, &third);
    send(&fixture, &fourth);
    cr_expect_eq(outcome(&fixture, &error), TALLY_FENCED);
    cr_expect_eq(outcome(&fixture, &error), TALLY_FENCED);
    cr_expect_str_eq(ask(&fixture, "HGET " POSITION " offset"), "25");
    teardown(&fixture);
}

Test(apply, without_its_script_asks_for_another_attempt)
{
    struct fixture fixture = setup();
    struct tally_error error;
    const struct tally_apply apply = step(0, 1);
    (void)ask(&fixture, "SCRIPT FLUSH");
    send(&fixture, &apply);
    cr_expect_eq(outcome(&fixture, &error), TALLY_UNAVAILABLE);
    teardown(&fixture);
}

Test(apply, takes_as_many_users_as_a_call_may_have)
{
    static struct tally_apply_user users[TALLY_APPLY_USERS_MOST];
    struct fixture fixture = setup();
    const struct tally_user_state state = {.version = 2, .posts = 1, .timeline = 1};
    struct tally_profile profile = {(char[]){"Ada"}, (char[]){"a@b.c"}, (char[]){"http://x"}};
    for (int i = 0; i < TALLY_APPLY_USERS_MOST; i++)
        users[i] = (struct tally_apply_user){
            1000 + i, &state, i % 2 ? TALLY_APPLY_COUNTS : TALLY_APPLY_RECORD | TALLY_APPLY_PROFILE,
            i % 2 ? NULL : &profile, 0};
    struct tally_apply apply = step(0, TALLY_APPLY_USERS_MOST);
    apply.users = users;
    apply.user_count = TALLY_APPLY_USERS_MOST;
    apply.day_count = 1;
    strcpy(apply.days[0], "2026-11-22");
    apply_well(&fixture, &apply);
    /* The users, three positions with their totals, the day, the generation. */
    char expected[16];
    (void)snprintf(expected, sizeof expected, "%d", TALLY_APPLY_USERS_MOST + 8);
    cr_expect_str_eq(ask(&fixture, "DBSIZE"), expected);
    teardown(&fixture);
}

Test(position, is_read_back_and_its_absence_is_told)
{
    struct fixture fixture = setup();
    const int32_t partitions[] = {0, 2, 9};
    struct tally_position positions[3];
    struct tally_error error = {0};
    (void)ask(&fixture, "HSET tally:7:{2}:totals users 3 posts 8 comments 10");
    cr_assert_eq(tally_position_read(fixture.redis, GENERATION, partitions, 3, positions, &error),
                 TALLY_OK, "%s", error.text);
    cr_expect(positions[0].present && positions[1].present && !positions[2].present);
    cr_expect_eq(positions[0].until, 50);
    cr_expect_eq(positions[1].epoch, 1);
    cr_expect_eq(positions[1].totals.comments, 10);
    cr_expect_str_eq(positions[1].cluster, "cluster");
    (void)ask(&fixture, "HSET " POSITION " offset soon");
    cr_expect_eq(tally_position_read(fixture.redis, GENERATION, partitions, 3, positions, &error),
                 TALLY_PROTOCOL);
    cr_expect_str_eq(ask(&fixture, "PING"), "", "the connection is in step");
    teardown(&fixture);
}

Test(position, who_claims_it_is_its_only_writer)
{
    struct fixture fixture = setup();
    const int32_t partitions[] = {PARTITION, 9};
    struct tally_position positions[2];
    struct tally_error error = {0};
    struct tally_apply apply = step(0, 5);
    apply.totals_changed = true;
    apply.totals = (struct tally_totals){.users = 2, .posts = 3, .comments = 4};
    apply_well(&fixture, &apply);
    cr_assert_eq(
        tally_position_claim(fixture.redis, GENERATION, partitions, 2, 41, positions, &error),
        TALLY_OK, "%s", error.text);
    cr_expect(positions[0].present && !positions[1].present);
    cr_expect_eq(positions[0].epoch, EPOCH + 41);
    cr_expect_eq(positions[0].offset, 5);
    cr_expect_eq(positions[0].partitions, 3);
    cr_expect_str_eq(positions[0].cluster, "cluster");
    cr_expect_eq(positions[0].totals.users, 2);
    cr_expect_eq(positions[0].totals.posts, 3);
    cr_expect_eq(positions[0].totals.comments, 4);
    apply = step(5, 6);
    send(&fixture, &apply);
    cr_expect_eq(outcome(&fixture, &error), TALLY_FENCED);
    apply.epoch = positions[0].epoch;
    apply_well(&fixture, &apply);
    cr_expect_str_eq(ask(&fixture, "EXISTS tally:7:{9}:position"), "0");
    teardown(&fixture);
}

Test(position, of_two_that_begin_a_generation_one_wins)
{
    struct fixture fixture = setup();
    const int64_t until[3] = {1, 1, 1};
    const struct tally_generation later = {GENERATION + 1, "cluster", 3, until};
    struct tally_error error = {0};
    int64_t live = 0;
    cr_assert_eq(tally_generation_create(fixture.redis, &later, &live, &error), TALLY_OK);
    cr_expect_eq(live, GENERATION);
    cr_expect_str_eq(ask(&fixture, "KEYS tally:8:*"), "", "what was made in vain is gone");
    /* The same number twice changes nothing of what is there. */
    (void)ask(&fixture, "HSET " POSITION " offset 40");
    const struct tally_generation again = {GENERATION, "cluster", 3, until};
    cr_assert_eq(tally_generation_create(fixture.redis, &again, &live, &error), TALLY_OK);
    cr_expect_str_eq(ask(&fixture, "HMGET " POSITION " offset until"), "40 70");
    teardown(&fixture);
}

Test(position, of_an_unknown_user_is_version_0)
{
    struct fixture fixture = setup();
    struct tally_error error = {0};
    struct tally_buffer out;
    struct tally_user_state state;
    redisReply *reply = NULL;
    (void)ask(&fixture, "HSET tally:7:{2}:user:11 v 6 tl 2 deleted 1");
    tally_buffer_init(&out, 4096);
    tally_user_append_read(&out, GENERATION, PARTITION, 11);
    tally_user_append_read(&out, GENERATION, PARTITION, 12);
    cr_assert_eq(tally_redis_append_raw(fixture.redis, out.data, out.length, &error), TALLY_OK);
    cr_assert_eq(tally_redis_receive(fixture.redis, &reply, &error), TALLY_OK);
    cr_assert_eq(tally_user_read_reply(reply, &state, &error), TALLY_OK);
    cr_expect(state.version == 6 && state.timeline == 2 && state.deleted && !state.flagged);
    freeReplyObject(reply);
    cr_assert_eq(tally_redis_receive(fixture.redis, &reply, &error), TALLY_OK);
    cr_assert_eq(tally_user_read_reply(reply, &state, &error), TALLY_OK);
    cr_expect(state.version == 0 && !state.deleted);
    freeReplyObject(reply);
    tally_buffer_release(&out);
    teardown(&fixture);
}

Test(redis, that_evicts_keys_is_refused)
{
    struct fixture fixture = setup();
    struct tally_error error = {0};
    cr_expect_eq(tally_redis_check_server(fixture.redis, &error), TALLY_OK);
    (void)ask(&fixture, "CONFIG SET maxmemory-policy allkeys-lru");
    cr_expect_eq(tally_redis_check_server(fixture.redis, &error), TALLY_CONFIG);
    cr_expect_not_null(strstr(error.text, "noeviction"), "%s", error.text);
    teardown(&fixture);
}

Test(redis, that_is_a_replica_is_no_server_to_write_to)
{
    struct fixture fixture = setup();
    struct tally_error error = {0};
    (void)ask(&fixture, "REPLICAOF 127.0.0.1 1");
    cr_expect_eq(tally_redis_check_server(fixture.redis, &error), TALLY_UNAVAILABLE);
    teardown(&fixture);
}
