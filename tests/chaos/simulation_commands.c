/* The few commands that the projector sends, and the scripts of schema/redis/ written out in C. */
#include "simulation_redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is(const struct simulated_argument *argument, const char *text)
{
    return strlen(text) == argument->length && memcmp(argument->text, text, argument->length) == 0;
}

static int64_t to_number(const struct simulated_argument *argument)
{
    return argument->length > 0 ? strtoll(argument->text, NULL, 10) : -1;
}

static redisReply *reply_of(int type)
{
    redisReply *reply = calloc(1, sizeof *reply);
    if (reply == NULL)
        abort();
    reply->type = type;
    return reply;
}

static redisReply *reply_number(int64_t integer)
{
    redisReply *reply = reply_of(REDIS_REPLY_INTEGER);
    reply->integer = integer;
    return reply;
}

/* NULL: nil. */
static redisReply *reply_text(const char *text)
{
    redisReply *reply = reply_of(text != NULL ? REDIS_REPLY_STRING : REDIS_REPLY_NIL);
    if (text != NULL) {
        reply->str = strdup(text);
        reply->len = strlen(text);
    }
    return reply;
}

static redisReply *reply_array(size_t count)
{
    redisReply *reply = reply_of(REDIS_REPLY_ARRAY);
    reply->elements = count;
    reply->element = calloc(count, sizeof(redisReply *));
    if (reply->element == NULL)
        abort();
    return reply;
}

/* Redis' cursor over a script's keys and arguments. */
struct call {
    const struct simulated_argument *keys, *arguments;
    size_t key, argument;
};

static const struct simulated_argument *next_argument(struct call *call)
{
    return &call->arguments[call->argument++];
}

static struct key *next_key(struct call *call)
{
    const struct simulated_argument *name = &call->keys[call->key++];
    return simulated_key_make(name->text, name->length);
}

/* Returns how many users' keys were lost. */
static int64_t apply_users(struct call *call)
{
    int64_t lost = 0;
    call->key = 2;
    call->argument = 9;
    for (int64_t days = to_number(next_argument(call)); days > 0; days--) {
        call->argument += (size_t)to_number(&call->arguments[call->argument]) + 1;
        call->key++;
    }
    for (int64_t users = to_number(next_argument(call)); users > 0; users--) {
        struct key *key = next_key(call);
        if (simulated_key_value(key, "v") == NULL || simulated_key_value(key, "posts") == NULL ||
            simulated_key_value(key, "comments") == NULL) {
            simulated_key_set(key, "flagged", 7, "1", 1);
            lost++;
        }
        simulated_key_set_text(key, "v", next_argument(call));
        simulated_key_set_text(key, "posts", next_argument(call));
        simulated_key_set_text(key, "comments", next_argument(call));
        simulated_redis_check_version(key);
    }
    for (int64_t records = to_number(next_argument(call)); records > 0; records--) {
        struct key *key = next_key(call);
        const struct simulated_argument *name = NULL;
        bool is_new = true;
        for (int64_t left = to_number(next_argument(call)); left > 0; left -= 2) {
            name = next_argument(call);
            const struct simulated_argument *text = next_argument(call);
            is_new = is_new && simulated_key_value_of(key, name->text, name->length) == NULL;
            simulated_key_set(key, name->text, name->length, text->text, text->length);
        }
        if (is_new && name != NULL && is(name, "comments")) {
            simulated_key_set(key, "flagged", 7, "1", 1);
            lost++;
        }
        for (int64_t left = to_number(next_argument(call)); left > 0; left--)
            simulated_key_unset(key, next_argument(call));
        simulated_redis_check_version(key);
    }
    return lost;
}

static void apply_totals(const struct call *call)
{
    const bool moves = to_number(&call->arguments[1]) != to_number(&call->arguments[2]);
    if (call->arguments[5].length == 0 || simulation_planted(PLANT_PARTIAL_APPLY) ||
        (!moves && simulated_key_find(call->keys[1].text, call->keys[1].length) != NULL))
        return;
    struct key *totals = simulated_key_make(call->keys[1].text, call->keys[1].length);
    simulated_key_set_text(totals, "users", &call->arguments[5]);
    simulated_key_set_text(totals, "posts", &call->arguments[6]);
    simulated_key_set_text(totals, "comments", &call->arguments[7]);
}

/* `mark`: Kafka's time of the record before the new offset. */
static void apply_position(const struct call *call, const struct simulated_argument *mark)
{
    char text[VALUE_BYTES];
    struct key *position = simulated_key_make(call->keys[0].text, call->keys[0].length);
    simulated_key_set_text(position, "offset", &call->arguments[2]);
    if (mark->length > 0) {
        const int length = snprintf(text, sizeof text, "%.*s:%.*s", (int)call->arguments[2].length,
                                    call->arguments[2].text, (int)mark->length, mark->text);
        simulated_key_set(position, "mark", 4, text, (size_t)length);
    }
    if (call->arguments[3].length > 0)
        simulated_key_set_text(position, "event_at_ms", &call->arguments[3]);
    if (call->arguments[4].length > 0)
        simulated_key_set_text(position, "fresh_at_ms", &call->arguments[4]);
}

static bool is_expected(const struct key *position, const struct call *call)
{
    const char *epoch = simulated_key_value(position, "epoch");
    const char *offset = simulated_key_value(position, "offset");
    if (simulation_planted(PLANT_ZOMBIE_NOT_FENCED) && position != NULL)
        return true;
    return epoch != NULL && offset != NULL && is(&call->arguments[0], epoch) &&
           is(&call->arguments[1], offset);
}

static redisReply *apply(const struct simulated_argument *arguments, size_t count, bool *half)
{
    const size_t keys = (size_t)to_number(&arguments[2]);
    struct call call = {.keys = &arguments[3], .arguments = &arguments[3 + keys]};
    const struct key *position = simulated_key_find(call.keys[0].text, call.keys[0].length);
    const bool split = simulation_planted(PLANT_POSITION_BEFORE_DATA);
    if (!*half && !is_expected(position, &call)) {
        simulation->outcome.refused++;
        simulation_note("redis.refused", to_number(&call.arguments[1]),
                        simulated_key_number(position, "offset"), 0);
        redisReply *reply = reply_array(3);
        const char *epoch = simulated_key_value(position, "epoch");
        const char *offset = simulated_key_value(position, "offset");
        reply->element[0] = reply_number(0);
        reply->element[1] = reply_text(epoch != NULL ? epoch : "");
        reply->element[2] = reply_text(offset != NULL ? offset : "");
        return reply;
    }
    if (split && !*half) {
        apply_position(&call, &arguments[count - 1]);
        *half = true;
        return NULL;
    }
    *half = false;
    const int64_t lost = apply_users(&call);
    apply_totals(&call);
    apply_position(&call, next_argument(&call));
    if (call.argument + 3 + keys != count || call.key != keys)
        simulation_fail("an apply call of %zu arguments, of which the script reads %zu", count,
                        call.argument + 3 + keys);
    simulation->outcome.applied++;
    simulation_note("redis.applied", to_number(&call.arguments[1]), to_number(&call.arguments[2]),
                    (int64_t)keys);
    for (int32_t i = 0; i < SIMULATION_PARTITIONS; i++) {
        if (simulated_key_live("position", i, 0) ==
            simulated_key_find(call.keys[0].text, call.keys[0].length))
            simulated_redis_check(i);
    }
    redisReply *reply = reply_array(2);
    reply->element[0] = reply_number(1);
    reply->element[1] = reply_number(lost);
    return reply;
}

static redisReply *create_position(const struct simulated_argument *arguments)
{
    const struct simulated_argument *name = &arguments[3];
    if (simulated_key_find(name->text, name->length) != NULL)
        return reply_number(0);
    struct key *position = simulated_key_make(name->text, name->length);
    simulated_key_set(position, "epoch", 5, "1", 1);
    simulated_key_set_text(position, "offset", &arguments[5]);
    simulated_key_set_text(position, "until", &arguments[6]);
    simulated_key_set_text(position, "cluster", &arguments[7]);
    simulated_key_set_text(position, "partitions", &arguments[8]);
    simulated_key_set(position, "event_at_ms", 11, "0", 1);
    simulated_key_set(position, "fresh_at_ms", 11, "0", 1);
    struct key *totals = simulated_key_make(arguments[4].text, arguments[4].length);
    simulated_key_set(totals, "users", 5, "0", 1);
    simulated_key_set(totals, "posts", 5, "0", 1);
    simulated_key_set(totals, "comments", 8, "0", 1);
    simulation_note("redis.position_created", to_number(&arguments[6]), 0, 0);
    simulated_redis_judge_generation();
    return reply_number(1);
}

static bool remove_key(const struct simulated_argument *name)
{
    struct key *key = simulated_key_find(name->text, name->length);
    if (key != NULL)
        *key = simulation->redis->store.keys[--simulation->redis->store.count];
    return key != NULL;
}

static redisReply *remove_position(const struct simulated_argument *arguments)
{
    const struct key *position = simulated_key_find(arguments[3].text, arguments[3].length);
    const char *epoch = simulated_key_value(position, "epoch");
    const char *offset = simulated_key_value(position, "offset");
    if (epoch == NULL || strcmp(epoch, "1") != 0 || offset == NULL || strcmp(offset, "0") != 0)
        return reply_number(0);
    remove_key(&arguments[3]);
    remove_key(&arguments[4]);
    return reply_number(1);
}

static redisReply *claim_position(const struct simulated_argument *arguments)
{
    static const char *const fields[] = {"epoch",       "offset", "until", "cluster", "partitions",
                                         "event_at_ms", "mark",   "users", "posts",   "comments"};
    enum { POSITION = 7, TOTALS = 3 };
    struct key *position = simulated_key_find(arguments[3].text, arguments[3].length);
    const struct key *totals = simulated_key_find(arguments[4].text, arguments[4].length);
    redisReply *reply = reply_array(2);
    if (position != NULL && !simulation_planted(PLANT_EPOCH_IGNORED))
        simulated_key_raise_epoch(position, to_number(&arguments[5]));
    reply->element[0] = reply_array(POSITION);
    reply->element[1] = reply_array(TOTALS);
    for (size_t i = 0; i < POSITION + TOTALS; i++)
        reply->element[i / POSITION]->element[i % POSITION] =
            reply_text(simulated_key_value(i < POSITION ? position : totals, fields[i]));
    return reply;
}

static redisReply *set_if_absent(const struct simulated_argument *arguments)
{
    if (simulated_key_find(arguments[1].text, arguments[1].length) != NULL)
        return reply_text(NULL);
    simulated_key_set(simulated_key_make(arguments[1].text, arguments[1].length), "", 0,
                      arguments[2].text, arguments[2].length);
    memset(simulation->redis->store.repaired, 0, sizeof simulation->redis->store.repaired);
    simulation_note("redis.generation", to_number(&arguments[2]), 0, 0);
    simulated_redis_judge_generation();
    redisReply *reply = reply_text("OK");
    reply->type = REDIS_REPLY_STATUS;
    return reply;
}

static redisReply *read_fields(const struct simulated_argument *arguments, size_t count)
{
    const struct key *key = simulated_key_find(arguments[1].text, arguments[1].length);
    redisReply *reply = reply_array(count - 2);
    for (size_t i = 2; i < count; i++)
        reply->element[i - 2] =
            reply_text(simulated_key_value_of(key, arguments[i].text, arguments[i].length));
    return reply;
}

static redisReply *count_keys(const struct simulated_argument *arguments, size_t count, bool remove)
{
    int64_t found = 0;
    for (size_t i = 1; i < count; i++) {
        found += remove ? remove_key(&arguments[i])
                        : simulated_key_find(arguments[i].text, arguments[i].length) != NULL;
    }
    return reply_number(found);
}

redisReply *simulated_redis_execute(const struct simulated_argument *arguments, size_t count,
                                    bool *half)
{
    if (is(&arguments[0], "EVALSHA"))
        return apply(arguments, count, half);
    if (is(&arguments[0], "EVAL"))
        return count == 5   ? remove_position(arguments)
               : count == 6 ? claim_position(arguments)
                            : create_position(arguments);
    if (is(&arguments[0], "HMGET"))
        return read_fields(arguments, count);
    if (is(&arguments[0], "EXISTS") || is(&arguments[0], "DEL"))
        return count_keys(arguments, count, is(&arguments[0], "DEL"));
    if (is(&arguments[0], "SET") && count == 4)
        return set_if_absent(arguments);
    if (is(&arguments[0], "GET")) {
        const struct key *key = simulated_key_find(arguments[1].text, arguments[1].length);
        if (is(&arguments[1], TALLY_VIEW_SEAL_KEY) && simulation_planted(PLANT_SEAL_IGNORED))
            return reply_text(NULL);
        return reply_text(key != NULL ? simulated_key_value(key, "") : NULL);
    }
    if (is(&arguments[0], "SCRIPT"))
        return reply_text("0123456789012345678901234567890123456789");
    simulation_fail("a command the simulation does not know: %.*s", (int)arguments[0].length,
                    arguments[0].text);
    return reply_of(REDIS_REPLY_NIL);
}
