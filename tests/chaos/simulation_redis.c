/* The server: hashes, the few commands that the projector sends, and the two scripts of
 * schema/redis/ written out in C. */
#include "simulation.h"

#include "core/id.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS_MOST = 12, NAME_BYTES = 16, VALUE_BYTES = 48, KEYS_MOST = 512 };

struct field {
    char name[NAME_BYTES];
    char value[VALUE_BYTES];
};

struct key {
    char name[TALLY_VIEW_KEY_BYTES];
    struct field fields[FIELDS_MOST]; /* a plain value is a field without a name */
    size_t count;
};

struct store {
    struct key keys[KEYS_MOST];
    size_t count;
};

struct simulated_redis {
    struct store store, saved;
    int64_t seen[SIMULATION_USERS]; /* versions that readers may have seen since the last loss */
    bool incomplete;                /* what it went back to has a generation without a position */
};

void simulated_redis_open(void)
{
    simulation->redis = calloc(1, sizeof *simulation->redis);
    if (simulation->redis == NULL)
        abort();
    simulated_connections_open();
}

void simulated_redis_close(void)
{
    simulated_connections_close();
    free(simulation->redis);
    simulation->redis = NULL;
}

static struct key *find(const char *name, size_t length)
{
    struct store *store = &simulation->redis->store;
    for (size_t i = 0; i < store->count; i++) {
        if (strncmp(store->keys[i].name, name, length) == 0 && store->keys[i].name[length] == '\0')
            return &store->keys[i];
    }
    return NULL;
}

static struct key *make(const char *name, size_t length)
{
    struct key *key = find(name, length);
    struct store *store = &simulation->redis->store;
    if (key != NULL)
        return key;
    if (store->count == KEYS_MOST || length >= sizeof key->name) {
        simulation_fail("no room for key %.*s", (int)length, name);
        return &store->keys[0];
    }
    key = &store->keys[store->count++];
    *key = (struct key){0};
    memcpy(key->name, name, length);
    return key;
}

static const char *value_of(const struct key *key, const char *name, size_t length)
{
    for (size_t i = 0; key != NULL && i < key->count; i++) {
        if (strncmp(key->fields[i].name, name, length) == 0 && key->fields[i].name[length] == '\0')
            return key->fields[i].value;
    }
    return NULL;
}

static const char *value(const struct key *key, const char *name)
{
    return value_of(key, name, strlen(name));
}

static int64_t number(const struct key *key, const char *name)
{
    const char *text = value(key, name);
    return text != NULL ? strtoll(text, NULL, 10) : 0;
}

static void set(struct key *key, const char *name, size_t name_length, const char *text,
                size_t length)
{
    struct field *field = NULL;
    for (size_t i = 0; i < key->count && field == NULL; i++) {
        if (strncmp(key->fields[i].name, name, name_length) == 0 &&
            key->fields[i].name[name_length] == '\0')
            field = &key->fields[i];
    }
    if (field == NULL && key->count < FIELDS_MOST)
        field = &key->fields[key->count++];
    if (field == NULL || name_length >= NAME_BYTES || length >= VALUE_BYTES) {
        simulation_fail("no room for field %.*s of %s", (int)name_length, name, key->name);
        return;
    }
    *field = (struct field){0};
    memcpy(field->name, name, name_length);
    memcpy(field->value, text, length);
}

static void set_text(struct key *key, const char *name, const struct simulated_argument *text)
{
    set(key, name, strlen(name), text->text, text->length);
}

static void unset(struct key *key, const struct simulated_argument *name)
{
    for (size_t i = 0; i < key->count; i++) {
        if (strncmp(key->fields[i].name, name->text, name->length) == 0 &&
            key->fields[i].name[name->length] == '\0')
            key->fields[i--] = key->fields[--key->count];
    }
}

static bool is(const struct simulated_argument *argument, const char *text)
{
    return strlen(text) == argument->length && memcmp(argument->text, text, argument->length) == 0;
}

static int64_t to_number(const struct simulated_argument *argument)
{
    return argument->length > 0 ? strtoll(argument->text, NULL, 10) : -1;
}

void simulated_redis_save(void)
{
    simulation->redis->saved = simulation->redis->store;
}

static void lose(const char *what)
{
    simulation_note(what, 0, 0, 0);
    simulation->outcome.losses++;
    memset(simulation->redis->seen, 0, sizeof simulation->redis->seen);
}

static struct key *live_key(const char *form, int64_t partition, int64_t user);

void simulated_redis_restore(void)
{
    lose("redis.back");
    simulation->redis->store = simulation->redis->saved;
    simulation->redis->incomplete = false;
    for (int32_t i = 0; i < SIMULATION_PARTITIONS; i++) {
        if (find(TALLY_VIEW_GENERATION_KEY, strlen(TALLY_VIEW_GENERATION_KEY)) != NULL &&
            live_key("position", i, 0) == NULL)
            simulation->redis->incomplete = true;
    }
}

bool simulated_redis_incomplete(void)
{
    return simulation->redis->incomplete;
}

void simulated_redis_flush(void)
{
    lose("redis.flush");
    simulation->redis->incomplete = false;
    simulation->redis->store.count = 0;
    if (simulation_below(2) == 0)
        simulation->redis->saved.count = 0;
}

static struct key *live_key(const char *form, int64_t partition, int64_t user)
{
    char name[TALLY_VIEW_KEY_BYTES];
    const struct key *generation =
        find(TALLY_VIEW_GENERATION_KEY, strlen(TALLY_VIEW_GENERATION_KEY));
    const int64_t live = generation != NULL ? number(generation, "") : 0;
    int length =
        snprintf(name, sizeof name, "tally:%" PRId64 ":{%" PRId64 "}:%s", live, partition, form);
    if (user > 0)
        length += snprintf(name + length, sizeof name - (size_t)length, "%" PRId64, user);
    return find(name, (size_t)length);
}

static void raise_epoch(struct key *position, int64_t raise)
{
    char text[24];
    const int length = snprintf(text, sizeof text, "%" PRId64, number(position, "epoch") + raise);
    set(position, "epoch", 5, text, (size_t)length);
    simulation_note("redis.epoch", number(position, "epoch"), number(position, "offset"), 0);
}

void simulated_redis_raise_epoch(void)
{
    struct key *position =
        live_key("position", (int64_t)simulation_below(SIMULATION_PARTITIONS), 0);
    if (position != NULL)
        raise_epoch(position, 1);
}

/* What must be stored of a user at a version. */
static void check_user(const struct key *key, size_t user, int64_t version)
{
    const int64_t id = simulated_user_id(user);
    const struct simulated_truth *truth = simulated_user_truth(user, version);
    char name[32];
    (void)snprintf(name, sizeof name, "n%" PRId64, truth->profile);
    if (number(key, "v") != version)
        simulation_fail("user %" PRId64 " has version %" PRId64 " where the log up to the position "
                        "says %" PRId64,
                        id, number(key, "v"), version);
    else if (number(key, "posts") != truth->posts || number(key, "comments") != truth->comments)
        simulation_fail("user %" PRId64 " version %" PRId64 " has %" PRId64 " posts and %" PRId64
                        " comments instead of %" PRId64 " and %" PRId64,
                        id, version, number(key, "posts"), number(key, "comments"), truth->posts,
                        truth->comments);
    else if ((value(key, "deleted") != NULL) != truth->deleted)
        simulation_fail("user %" PRId64 " version %" PRId64 ": deleted is wrong", id, version);
    else if (value(key, "flagged") != NULL)
        simulation_fail("user %" PRId64 " is flagged, and nothing was missing", id);
    else if (truth->deleted ? value(key, "name") != NULL || value(key, "email") != NULL
                            : value(key, "name") == NULL || strcmp(value(key, "name"), name) != 0)
        simulation_fail("user %" PRId64 " version %" PRId64 " has the name %s", id, version,
                        value(key, "name") != NULL ? value(key, "name") : "(none)");
}

void simulated_redis_check(int32_t partition)
{
    const struct key *position = live_key("position", partition, 0);
    const struct key *totals = live_key("totals", partition, 0);
    int64_t users = 0;
    int64_t posts = 0;
    int64_t comments = 0;
    if (position == NULL)
        return;
    for (size_t user = 0; user < SIMULATION_USERS; user++) {
        const int64_t version =
            simulated_log_version_before(user, partition, number(position, "offset"));
        const struct key *key = live_key("user:", partition, simulated_user_id(user));
        if (version == 0) {
            if (key != NULL)
                simulation_fail("user %" PRId64 " is there before the first event",
                                simulated_user_id(user));
            continue;
        }
        check_user(key, user, version);
        users += !simulated_user_truth(user, version)->deleted;
        posts += simulated_user_truth(user, version)->posts;
        comments += simulated_user_truth(user, version)->comments;
    }
    if (number(totals, "users") != users || number(totals, "posts") != posts ||
        number(totals, "comments") != comments)
        simulation_fail("partition %d: the totals are %" PRId64 " users, %" PRId64
                        " posts, %" PRId64 " comments instead of %" PRId64 ", %" PRId64
                        ", %" PRId64,
                        partition, number(totals, "users"), number(totals, "posts"),
                        number(totals, "comments"), users, posts, comments);
}

bool simulated_redis_current(void)
{
    for (int32_t i = 0; i < SIMULATION_PARTITIONS; i++) {
        const struct key *position = live_key("position", i, 0);
        if (position == NULL || number(position, "offset") != simulated_log_end(i))
            return false;
    }
    return true;
}

/* What a reader may see of a user from now on. */
static void check_version(const struct key *key)
{
    struct tally_view_user_name name;
    if (!tally_view_user_key_parse(key->name, strlen(key->name), &name)) {
        simulation_fail("key %s is no user", key->name);
        return;
    }
    const size_t user = simulated_user_of(name.user_id);
    const int64_t version = number(key, "v");
    if (key != live_key("user:", name.partition, name.user_id))
        return; /* of a generation that nobody reads */
    if (version > simulated_user_version(user))
        simulation_fail("user %" PRId64 " has version %" PRId64 ", which is not committed",
                        name.user_id, version);
    if (version < simulation->redis->seen[user])
        simulation_fail("user %" PRId64 " went back from version %" PRId64 " to %" PRId64,
                        name.user_id, simulation->redis->seen[user], version);
    simulation->redis->seen[user] = version;
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
    return make(name->text, name->length);
}

static void apply_users(struct call *call)
{
    call->key = 2;
    call->argument = 9;
    for (int64_t days = to_number(next_argument(call)); days > 0; days--) {
        call->argument += (size_t)to_number(&call->arguments[call->argument]) + 1;
        call->key++;
    }
    for (int64_t users = to_number(next_argument(call)); users > 0; users--) {
        struct key *key = next_key(call);
        set_text(key, "v", next_argument(call));
        set_text(key, "posts", next_argument(call));
        set_text(key, "comments", next_argument(call));
        check_version(key);
    }
    for (int64_t records = to_number(next_argument(call)); records > 0; records--) {
        struct key *key = next_key(call);
        for (int64_t left = to_number(next_argument(call)); left > 0; left -= 2) {
            const struct simulated_argument *name = next_argument(call);
            const struct simulated_argument *text = next_argument(call);
            set(key, name->text, name->length, text->text, text->length);
        }
        for (int64_t left = to_number(next_argument(call)); left > 0; left--)
            unset(key, next_argument(call));
        check_version(key);
    }
}

static void apply_totals(const struct call *call)
{
    if (call->arguments[5].length == 0 || simulation_planted(PLANT_PARTIAL_APPLY))
        return;
    struct key *totals = make(call->keys[1].text, call->keys[1].length);
    set_text(totals, "users", &call->arguments[5]);
    set_text(totals, "posts", &call->arguments[6]);
    set_text(totals, "comments", &call->arguments[7]);
}

static void apply_position(const struct call *call)
{
    struct key *position = make(call->keys[0].text, call->keys[0].length);
    set_text(position, "offset", &call->arguments[2]);
    if (call->arguments[3].length > 0)
        set_text(position, "event_at_ms", &call->arguments[3]);
    if (call->arguments[4].length > 0)
        set_text(position, "fresh_at_ms", &call->arguments[4]);
}

static bool is_expected(const struct key *position, const struct call *call)
{
    const char *epoch = value(position, "epoch");
    const char *offset = value(position, "offset");
    if (simulation_planted(PLANT_ZOMBIE_NOT_FENCED) && position != NULL)
        return true;
    return epoch != NULL && offset != NULL && is(&call->arguments[0], epoch) &&
           is(&call->arguments[1], offset);
}

static redisReply *apply(const struct simulated_argument *arguments, size_t count, bool *half)
{
    const size_t keys = (size_t)to_number(&arguments[2]);
    struct call call = {.keys = &arguments[3], .arguments = &arguments[3 + keys]};
    const struct key *position = find(call.keys[0].text, call.keys[0].length);
    const bool split = simulation_planted(PLANT_POSITION_BEFORE_DATA);
    if (!*half && !is_expected(position, &call)) {
        simulation->outcome.refused++;
        simulation_note("redis.refused", to_number(&call.arguments[1]), number(position, "offset"),
                        0);
        redisReply *reply = reply_array(3);
        const char *epoch = value(position, "epoch");
        const char *offset = value(position, "offset");
        reply->element[0] = reply_number(0);
        reply->element[1] = reply_text(epoch != NULL ? epoch : "");
        reply->element[2] = reply_text(offset != NULL ? offset : "");
        return reply;
    }
    if (split && !*half) {
        apply_position(&call);
        *half = true;
        return NULL;
    }
    *half = false;
    apply_users(&call);
    apply_totals(&call);
    apply_position(&call);
    if (call.argument + 3 + keys != count || call.key != keys)
        simulation_fail("an apply call of %zu arguments, of which the script reads %zu", count,
                        call.argument + 3 + keys);
    simulation->outcome.applied++;
    simulation_note("redis.applied", to_number(&call.arguments[1]), to_number(&call.arguments[2]),
                    (int64_t)keys);
    for (int32_t i = 0; i < SIMULATION_PARTITIONS; i++) {
        if (live_key("position", i, 0) == find(call.keys[0].text, call.keys[0].length))
            simulated_redis_check(i);
    }
    redisReply *reply = reply_array(1);
    reply->element[0] = reply_number(1);
    return reply;
}

static redisReply *create_position(const struct simulated_argument *arguments)
{
    const struct simulated_argument *name = &arguments[3];
    if (find(name->text, name->length) != NULL)
        return reply_number(0);
    struct key *position = make(name->text, name->length);
    set(position, "epoch", 5, "1", 1);
    set_text(position, "offset", &arguments[4]);
    set_text(position, "until", &arguments[5]);
    set_text(position, "cluster", &arguments[6]);
    set_text(position, "partitions", &arguments[7]);
    set(position, "event_at_ms", 11, "0", 1);
    set(position, "fresh_at_ms", 11, "0", 1);
    simulation_note("redis.position_created", to_number(&arguments[5]), 0, 0);
    return reply_number(1);
}

static redisReply *claim_position(const struct simulated_argument *arguments)
{
    static const char *const fields[] = {"epoch",       "offset", "until", "cluster", "partitions",
                                         "event_at_ms", "users",  "posts", "comments"};
    struct key *position = find(arguments[3].text, arguments[3].length);
    const struct key *totals = find(arguments[4].text, arguments[4].length);
    redisReply *reply = reply_array(2);
    if (position != NULL && !simulation_planted(PLANT_EPOCH_IGNORED))
        raise_epoch(position, to_number(&arguments[5]));
    reply->element[0] = reply_array(6);
    reply->element[1] = reply_array(3);
    for (size_t i = 0; i < 9; i++)
        reply->element[i / 6]->element[i % 6] =
            reply_text(value(i < 6 ? position : totals, fields[i]));
    return reply;
}

static redisReply *set_if_absent(const struct simulated_argument *arguments)
{
    if (find(arguments[1].text, arguments[1].length) != NULL)
        return reply_text(NULL);
    set(make(arguments[1].text, arguments[1].length), "", 0, arguments[2].text,
        arguments[2].length);
    simulation_note("redis.generation", to_number(&arguments[2]), 0, 0);
    redisReply *reply = reply_text("OK");
    reply->type = REDIS_REPLY_STATUS;
    return reply;
}

static redisReply *read_fields(const struct simulated_argument *arguments, size_t count)
{
    const struct key *key = find(arguments[1].text, arguments[1].length);
    redisReply *reply = reply_array(count - 2);
    for (size_t i = 2; i < count; i++)
        reply->element[i - 2] = reply_text(value_of(key, arguments[i].text, arguments[i].length));
    return reply;
}

static redisReply *count_keys(const struct simulated_argument *arguments, size_t count, bool remove)
{
    int64_t found = 0;
    for (size_t i = 1; i < count; i++) {
        struct key *key = find(arguments[i].text, arguments[i].length);
        found += key != NULL;
        if (key != NULL && remove)
            *key = simulation->redis->store.keys[--simulation->redis->store.count];
    }
    return reply_number(found);
}

redisReply *simulated_redis_execute(const struct simulated_argument *arguments, size_t count,
                                    bool *half)
{
    if (is(&arguments[0], "EVALSHA"))
        return apply(arguments, count, half);
    if (is(&arguments[0], "EVAL"))
        return count == 6 ? claim_position(arguments) : create_position(arguments);
    if (is(&arguments[0], "HMGET"))
        return read_fields(arguments, count);
    if (is(&arguments[0], "EXISTS") || is(&arguments[0], "DEL"))
        return count_keys(arguments, count, is(&arguments[0], "DEL"));
    if (is(&arguments[0], "SET") && count == 4)
        return set_if_absent(arguments);
    if (is(&arguments[0], "GET")) {
        const struct key *key = find(arguments[1].text, arguments[1].length);
        return reply_text(key != NULL ? value(key, "") : NULL);
    }
    if (is(&arguments[0], "SCRIPT"))
        return reply_text("0123456789012345678901234567890123456789");
    simulation_fail("a command the simulation does not know: %.*s", (int)arguments[0].length,
                    arguments[0].text);
    return reply_of(REDIS_REPLY_NIL);
}
