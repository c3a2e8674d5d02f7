/* The server's keys, their loss, and what must be in them. */
#include "simulation_redis.h"

#include "core/id.h"
#include "domain/partitioner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ_US = 1000000 }; /* what a projector read so long ago it may still go by */

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

struct key *simulated_key_find(const char *name, size_t length)
{
    struct store *store = &simulation->redis->store;
    for (size_t i = 0; i < store->count; i++) {
        if (strncmp(store->keys[i].name, name, length) == 0 && store->keys[i].name[length] == '\0')
            return &store->keys[i];
    }
    return NULL;
}

struct key *simulated_key_make(const char *name, size_t length)
{
    struct key *key = simulated_key_find(name, length);
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

const char *simulated_key_value_of(const struct key *key, const char *name, size_t length)
{
    for (size_t i = 0; key != NULL && i < key->count; i++) {
        if (strncmp(key->fields[i].name, name, length) == 0 && key->fields[i].name[length] == '\0')
            return key->fields[i].value;
    }
    return NULL;
}

const char *simulated_key_value(const struct key *key, const char *name)
{
    return simulated_key_value_of(key, name, strlen(name));
}

int64_t simulated_key_number(const struct key *key, const char *name)
{
    const char *text = simulated_key_value(key, name);
    return text != NULL ? strtoll(text, NULL, 10) : 0;
}

void simulated_key_set(struct key *key, const char *name, size_t name_length, const char *text,
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

void simulated_key_set_text(struct key *key, const char *name,
                            const struct simulated_argument *text)
{
    simulated_key_set(key, name, strlen(name), text->text, text->length);
}

void simulated_key_unset(struct key *key, const struct simulated_argument *name)
{
    for (size_t i = 0; i < key->count; i++) {
        if (strncmp(key->fields[i].name, name->text, name->length) == 0 &&
            key->fields[i].name[name->length] == '\0')
            key->fields[i--] = key->fields[--key->count];
    }
}

void simulated_key_remove(const char *name)
{
    struct key *key = simulated_key_find(name, strlen(name));
    if (key != NULL)
        *key = simulation->redis->store.keys[--simulation->redis->store.count];
}

void simulated_redis_drop_others(int64_t kept)
{
    struct store *store = &simulation->redis->store;
    for (size_t i = 0; i < store->count; i++) {
        char *end = NULL;
        const int64_t number = strncmp(store->keys[i].name, "tally:", 6) == 0
                                   ? strtoll(store->keys[i].name + 6, &end, 10)
                                   : 0;
        if (number != 0 && *end == ':' && number != kept && number != simulated_generation())
            store->keys[i--] = store->keys[--store->count];
    }
}

void simulated_redis_save(void)
{
    simulation->redis->saved = simulation->redis->store;
    simulation->redis->flushed = false;
}

static void lose(const char *what)
{
    simulation_note(what, 0, 0, 0);
    simulation->outcome.losses++;
    simulated_operators_break();
    memset(simulation->redis->seen, 0, sizeof simulation->redis->seen);
}

/* Where a generation begins while the keys are flushed, it has no positions until its beginner has
 * made them again, and never where that dies or a snapshot is taken in between. */
static void set_incomplete(bool incomplete)
{
    if (simulation->redis->incomplete && !incomplete)
        simulation->redis->completed_us = simulation->now_us;
    simulation->redis->incomplete = incomplete;
}

void simulated_redis_judge_generation(void)
{
    bool incomplete = false;
    for (int32_t i = 0; i < SIMULATION_PARTITIONS; i++) {
        if (simulated_key_find(TALLY_VIEW_GENERATION_KEY, strlen(TALLY_VIEW_GENERATION_KEY)) !=
                NULL &&
            simulated_key_live("position", i, 0) == NULL)
            incomplete = true;
    }
    set_incomplete(incomplete);
}

static void go_back(bool cut)
{
    lose("redis.back");
    /* Back to before a repair, or to later than a flush, only by a restart, which no connection
     * outlives. What was read in between would else be believed: a user who is not there, at a
     * position that is there again.
     */
    if (simulation->redis->flushed || cut ||
        memcmp(simulation->redis->saved.repaired, simulation->redis->store.repaired,
               sizeof simulation->redis->saved.repaired) != 0)
        simulated_connections_break(NULL);
    simulation->redis->store = simulation->redis->saved;
    simulation->redis->flushed = false;
    simulated_redis_judge_generation();
}

void simulated_redis_restore(void)
{
    go_back(simulation_below(2) == 0);
}

void simulated_redis_rewind(void)
{
    go_back(false);
}

bool simulated_redis_incomplete(void)
{
    return simulation->redis->incomplete;
}

bool simulated_redis_was_incomplete(void)
{
    const struct simulated_redis *redis = simulation->redis;
    return redis->incomplete ||
           (redis->completed_us != 0 && simulation->now_us - redis->completed_us < READ_US);
}

void simulated_redis_flush(void)
{
    lose("redis.flush");
    set_incomplete(false);
    simulation->redis->flushed = true;
    simulation->redis->store.count = 0;
    memset(simulation->redis->store.repaired, 0, sizeof simulation->redis->store.repaired);
    if (simulation_below(2) == 0)
        simulation->redis->saved.count = 0;
}

int64_t simulated_generation(void)
{
    const struct key *generation =
        simulated_key_find(TALLY_VIEW_GENERATION_KEY, strlen(TALLY_VIEW_GENERATION_KEY));
    return generation != NULL ? simulated_key_number(generation, "") : 0;
}

struct key *simulated_key_live(const char *form, int64_t partition, int64_t user)
{
    char name[TALLY_VIEW_KEY_BYTES];
    int length = snprintf(name, sizeof name, "tally:%" PRId64 ":{%" PRId64 "}:%s",
                          simulated_generation(), partition, form);
    if (user > 0)
        length += snprintf(name + length, sizeof name - (size_t)length, "%" PRId64, user);
    return simulated_key_find(name, (size_t)length);
}

void simulated_key_raise_epoch(struct key *position, int64_t raise)
{
    char text[24];
    const int length =
        snprintf(text, sizeof text, "%" PRId64, simulated_key_number(position, "epoch") + raise);
    simulated_key_set(position, "epoch", 5, text, (size_t)length);
    simulation_note("redis.epoch", simulated_key_number(position, "epoch"),
                    simulated_key_number(position, "offset"), 0);
}

void simulated_redis_raise_epoch(void)
{
    struct key *position =
        simulated_key_live("position", (int64_t)simulation_below(SIMULATION_PARTITIONS), 0);
    if (position != NULL)
        simulated_key_raise_epoch(position, 1);
}

/* What must be stored of a user at a version. */
static void check_user(const struct key *key, size_t user, int64_t version)
{
    const int64_t id = simulated_user_id(user);
    const struct simulated_truth *truth = simulated_user_truth(user, version);
    char name[32];
    (void)snprintf(name, sizeof name, "n%" PRId64, truth->profile);
    if (simulated_key_number(key, "v") != version)
        simulation_fail("user %" PRId64 " has version %" PRId64 " where the log up to the position "
                        "says %" PRId64,
                        id, simulated_key_number(key, "v"), version);
    else if (simulated_key_number(key, "posts") != truth->posts ||
             simulated_key_number(key, "comments") != truth->comments)
        simulation_fail("user %" PRId64 " version %" PRId64 " has %" PRId64 " posts and %" PRId64
                        " comments instead of %" PRId64 " and %" PRId64,
                        id, version, simulated_key_number(key, "posts"),
                        simulated_key_number(key, "comments"), truth->posts, truth->comments);
    else if ((simulated_key_value(key, "deleted") != NULL) != truth->deleted)
        simulation_fail("user %" PRId64 " version %" PRId64 ": deleted is wrong", id, version);
    else if (simulated_key_value(key, "flagged") != NULL)
        simulation_fail("user %" PRId64 " is flagged, and nothing was missing", id);
    else if (truth->deleted ? simulated_key_value(key, "name") != NULL ||
                                  simulated_key_value(key, "email") != NULL
                            : simulated_key_value(key, "name") == NULL ||
                                  strcmp(simulated_key_value(key, "name"), name) != 0)
        simulation_fail("user %" PRId64 " version %" PRId64 " has the name %s", id, version,
                        simulated_key_value(key, "name") != NULL ? simulated_key_value(key, "name")
                                                                 : "(none)");
}

void simulated_redis_check(int32_t partition)
{
    const struct key *position = simulated_key_live("position", partition, 0);
    const struct key *totals = simulated_key_live("totals", partition, 0);
    int64_t users = 0;
    int64_t posts = 0;
    int64_t comments = 0;
    if (position == NULL)
        return;
    for (size_t user = 0; user < SIMULATION_USERS; user++) {
        int64_t version =
            simulated_log_version_before(user, partition, simulated_key_number(position, "offset"));
        const struct key *key = simulated_key_live("user:", partition, simulated_user_id(user));
        if (version > 0 && version < simulation->redis->store.repaired[user])
            version = simulation->redis->store.repaired[user];
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
    if (simulated_key_number(totals, "users") != users ||
        simulated_key_number(totals, "posts") != posts ||
        simulated_key_number(totals, "comments") != comments)
        simulation_fail(
            "partition %d: the totals are %" PRId64 " users, %" PRId64 " posts, %" PRId64
            " comments instead of %" PRId64 ", %" PRId64 ", %" PRId64,
            partition, simulated_key_number(totals, "users"), simulated_key_number(totals, "posts"),
            simulated_key_number(totals, "comments"), users, posts, comments);
}

bool simulated_redis_current(void)
{
    for (int32_t i = 0; i < SIMULATION_PARTITIONS; i++) {
        const struct key *position = simulated_key_live("position", i, 0);
        if (position == NULL || simulated_key_number(position, "offset") != simulated_log_end(i))
            return false;
    }
    return true;
}

/* What a reader may see of a user from now on. */
void simulated_redis_check_version(const struct key *key)
{
    struct tally_view_user_name name;
    if (!tally_view_user_key_parse(key->name, strlen(key->name), &name)) {
        simulation_fail("key %s is no user", key->name);
        return;
    }
    const size_t user = simulated_user_of(name.user_id);
    const int64_t version = simulated_key_number(key, "v");
    if (key != simulated_key_live("user:", name.partition, name.user_id))
        return; /* of a generation that nobody reads */
    if (version > simulated_user_version(user))
        simulation_fail("user %" PRId64 " has version %" PRId64 ", which is not committed",
                        name.user_id, version);
    if (version < simulation->redis->seen[user])
        simulation_fail("user %" PRId64 " went back from version %" PRId64 " to %" PRId64,
                        name.user_id, simulation->redis->seen[user], version);
    simulation->redis->seen[user] = version;
}

void simulated_redis_check_seen(void)
{
    for (size_t user = 0; user < SIMULATION_USERS; user++) {
        const int64_t id = simulated_user_id(user);
        const struct key *key =
            simulated_key_live("user:", tally_partition_of(id, SIMULATION_PARTITIONS), id);
        const int64_t version = key != NULL ? simulated_key_number(key, "v") : 0;
        if (version < simulation->redis->seen[user])
            simulation_fail("user %" PRId64 " goes back from version %" PRId64 " to %" PRId64
                            " by a switch",
                            id, simulation->redis->seen[user], version);
    }
}
