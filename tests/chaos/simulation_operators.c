/* What people do meanwhile: pauses, a refill, the repair of a user, the switch to another
 * generation. Each in the steps in which tallyctl does it, so that the services run in between. */
#include "simulation_redis.h"

#include "domain/partitioner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEAL_US = 3000000, PAUSE_US_MOST = 400000, REWIND_US = 200000 };

struct simulated_operators {
    int64_t relay_resumes_us, projectors_resume_us; /* 0: not paused */
    struct {
        int64_t until_us;                        /* 0: Redis is not about to go back */
        const struct simulation_process *writer; /* of what will be lost */
        bool due;
    } rewind;
    struct {
        bool pending;
        size_t user;
        int64_t generation, seen, version;
    } repair;
    struct {
        int64_t from, to; /* generations; 0: none */
        int32_t raised;   /* partitions whose epoch is */
        bool copied;
    } change;
    int64_t seal_until_us;
};

void simulated_operators_open(void)
{
    simulation->operators = calloc(1, sizeof *simulation->operators);
    if (simulation->operators == NULL)
        abort();
}

void simulated_operators_close(void)
{
    free(simulation->operators);
    simulation->operators = NULL;
}

void simulated_operators_rewind(void)
{
    struct simulated_operators *operators = simulation->operators;
    simulated_redis_save();
    simulated_group_rebalance();
    operators->rewind.until_us = simulation->now_us + REWIND_US;
    operators->rewind.writer = NULL;
    operators->rewind.due = false;
}

void simulated_operators_watch(const struct simulation_process *process, bool writes)
{
    struct simulated_operators *operators = simulation->operators;
    if (operators->rewind.until_us == 0 || process == NULL)
        return;
    if (writes)
        operators->rewind.writer = process;
    else if (operators->rewind.writer != NULL && operators->rewind.writer != process)
        operators->rewind.due = true;
}

static void rewind_when_due(void)
{
    struct simulated_operators *operators = simulation->operators;
    if (operators->rewind.due)
        simulated_redis_rewind();
    if (operators->rewind.due || simulation->now_us >= operators->rewind.until_us)
        operators->rewind.until_us = 0;
    operators->rewind.due = false;
}

static void set_plain(const char *name, int64_t number)
{
    char text[24];
    const int length = snprintf(text, sizeof text, "%lld", (long long)number);
    simulated_key_set(simulated_key_make(name, strlen(name)), "", 0, text, (size_t)length);
}

static int64_t plain(const char *name)
{
    const struct key *key = simulated_key_find(name, strlen(name));
    return key != NULL ? simulated_key_number(key, "") : 0;
}

void simulated_operators_pause(void)
{
    struct simulated_operators *operators = simulation->operators;
    const int64_t until_us = simulation->now_us + 1 + (int64_t)simulation_below(PAUSE_US_MOST);
    simulation_note("pause", until_us, 0, 0);
    if (simulation_below(2) == 0) {
        operators->relay_resumes_us = until_us;
        simulated_postgres_pause(true);
        return;
    }
    operators->projectors_resume_us = until_us;
    struct key *pause = simulated_key_make(TALLY_VIEW_PAUSE_KEY, strlen(TALLY_VIEW_PAUSE_KEY));
    simulated_key_set(pause, "at_ms", 5, "1", 1);
    simulated_key_set(pause, "reason", 6, "why", 3);
}

/* The projectors' pause may have been lost, or be back with what Redis had saved. */
static void resume(void)
{
    struct simulated_operators *operators = simulation->operators;
    if (operators->relay_resumes_us != 0 && simulation->now_us >= operators->relay_resumes_us) {
        operators->relay_resumes_us = 0;
        simulated_postgres_pause(false);
    }
    if (simulation->now_us >= operators->projectors_resume_us)
        simulated_key_remove(TALLY_VIEW_PAUSE_KEY);
}

/* First step of schema/redis/repair.lua's user: what Redis has, then what PostgreSQL counts. */
void simulated_operators_repair(void)
{
    struct simulated_operators *operators = simulation->operators;
    const size_t user = simulation_below(SIMULATION_USERS);
    const int64_t id = simulated_user_id(user);
    const struct key *key =
        simulated_key_live("user:", tally_partition_of(id, SIMULATION_PARTITIONS), id);
    if (key == NULL || operators->change.from != 0 || operators->repair.pending)
        return;
    operators->repair.pending = true;
    operators->repair.user = user;
    operators->repair.generation = simulated_generation();
    operators->repair.seen = simulated_key_number(key, "v");
    operators->repair.version = simulated_user_version(user);
}

static void write_number(struct key *key, const char *name, int64_t number)
{
    char text[24];
    const int length = snprintf(text, sizeof text, "%lld", (long long)number);
    simulated_key_set(key, name, strlen(name), text, (size_t)length);
}

static void write_user(struct key *key, int64_t version, const struct simulated_truth *truth)
{
    char name[32];
    key->count = 0;
    write_number(key, "v", version);
    write_number(key, "tl", 1);
    if (truth->deleted) {
        write_number(key, "deleted", 1);
        return;
    }
    const int length = snprintf(name, sizeof name, "n%lld", (long long)truth->profile);
    write_number(key, "posts", truth->posts);
    write_number(key, "comments", truth->comments);
    simulated_key_set(key, "name", 4, name, (size_t)length);
    simulated_key_set(key, "email", 5, "e", 1);
}

static void repair(void)
{
    struct simulated_operators *operators = simulation->operators;
    const size_t user = operators->repair.user;
    const int64_t id = simulated_user_id(user);
    const int64_t seen = operators->repair.seen;
    const int64_t version = operators->repair.version;
    const int32_t partition = tally_partition_of(id, SIMULATION_PARTITIONS);
    operators->repair.pending = false;
    struct key *position = simulated_key_live("position", partition, 0);
    struct key *totals = simulated_key_live("totals", partition, 0);
    struct key *key = simulated_key_live("user:", partition, id);
    if (simulated_generation() != operators->repair.generation || position == NULL ||
        totals == NULL || key == NULL || simulated_key_number(key, "v") != seen)
        return;
    const struct simulated_truth *before = simulated_user_truth(user, seen);
    const struct simulated_truth *after = simulated_user_truth(user, version);
    simulation_note("repair", id, seen, version);
    write_user(key, version, after);
    write_number(totals, "users",
                 simulated_key_number(totals, "users") + before->deleted - after->deleted);
    write_number(totals, "posts",
                 simulated_key_number(totals, "posts") + after->posts - before->posts);
    write_number(totals, "comments",
                 simulated_key_number(totals, "comments") + after->comments - before->comments);
    simulation->redis->store.repaired[user] = version;
    if (!simulation_planted(PLANT_REPAIR_NOT_FENCED))
        simulated_key_raise_epoch(position, 1);
    simulation->outcome.repairs++;
    simulated_redis_check_version(key);
}

static void end_change(void)
{
    struct simulated_operators *operators = simulation->operators;
    operators->change.from = 0;
    simulated_key_remove(TALLY_VIEW_SEAL_KEY);
}

/* A new generation replaces the live one, as view/generation.h says. */
void simulated_operators_change(void)
{
    struct simulated_operators *operators = simulation->operators;
    const int64_t live = simulated_generation();
    const int64_t now = (INT64_C(1795348800000000) + simulation->now_us) / 1000000;
    if (live == 0 || operators->change.from != 0)
        return;
    operators->repair.pending = false;
    operators->change.from = live;
    operators->change.to = now > live ? now : live + 1;
    operators->change.raised = 0;
    operators->change.copied = false;
    operators->seal_until_us = simulation->now_us + SEAL_US;
    set_plain(TALLY_VIEW_SEAL_KEY, live);
    simulation_note("seal", live, operators->change.to, 0);
}

/* The new one is as far as the old one at the moment at which it ceased to be written. */
static void copy_generation(int64_t from, int64_t to)
{
    struct store *store = &simulation->redis->store;
    char prefix[TALLY_VIEW_KEY_BYTES];
    char name[2 * TALLY_VIEW_KEY_BYTES];
    const size_t length = (size_t)snprintf(prefix, sizeof prefix, "tally:%lld:", (long long)from);
    simulated_redis_drop_others(from);
    const size_t count = store->count;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(store->keys[i].name, prefix, length) != 0)
            continue;
        const int made = snprintf(name, sizeof name, "tally:%lld:%s", (long long)to,
                                  store->keys[i].name + length);
        struct key *key = simulated_key_make(name, (size_t)made);
        memcpy(key->fields, store->keys[i].fields, sizeof key->fields);
        key->count = store->keys[i].count;
    }
}

static void change(void)
{
    struct simulated_operators *operators = simulation->operators;
    struct key *position = NULL;
    if (plain(TALLY_VIEW_SEAL_KEY) != operators->change.from ||
        simulated_generation() != operators->change.from) {
        end_change(); /* what Redis has lost, or the seal has expired */
        return;
    }
    if (operators->change.raised < SIMULATION_PARTITIONS) {
        position = simulated_key_live("position", operators->change.raised++, 0);
        if (position == NULL)
            end_change();
        else
            simulated_key_raise_epoch(position, 1);
    } else if (!operators->change.copied) {
        copy_generation(operators->change.from, operators->change.to);
        operators->change.copied = true;
    } else {
        set_plain(TALLY_VIEW_GENERATION_KEY, operators->change.to);
        simulation_note("switch", operators->change.from, operators->change.to, 0);
        simulation->outcome.switches++;
        end_change();
        simulated_redis_check_seen();
    }
}

void simulated_operators_step(void)
{
    struct simulated_operators *operators = simulation->operators;
    resume();
    if (plain(TALLY_VIEW_SEAL_KEY) != 0 && simulation->now_us >= operators->seal_until_us)
        simulated_key_remove(TALLY_VIEW_SEAL_KEY);
    rewind_when_due();
    if (operators->repair.pending && simulation_below(16) == 0)
        repair();
    if (operators->change.from != 0 && simulation_below(16) == 0)
        change();
}

void simulated_operators_break(void)
{
    simulation->operators->change.from = 0;
    simulation->operators->repair.pending = false;
}

void simulated_operators_settle(void)
{
    struct simulated_operators *operators = simulation->operators;
    operators->relay_resumes_us = operators->relay_resumes_us != 0 ? simulation->now_us : 0;
    operators->projectors_resume_us = 0;
    operators->rewind.until_us = 0;
}
