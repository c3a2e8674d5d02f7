/*
 * The simulated Redis' inside, which its keys (simulation_redis.c) and its commands
 * (simulation_commands.c) share.
 */
#ifndef TALLY_CHAOS_SIMULATION_REDIS_H
#define TALLY_CHAOS_SIMULATION_REDIS_H

#include "simulation.h"

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
    int64_t repaired[SIMULATION_USERS]; /* version that a repair wrote; 0: none */
};

struct simulated_redis {
    struct store store, saved;
    int64_t seen[SIMULATION_USERS]; /* versions that readers may have seen since the last loss */
    bool flushed;                   /* since it was saved */
    int64_t completed_us;           /* when the next one ceased to be true; 0: never */
    bool incomplete;                /* the live generation was begun without all positions */
};

/* Keys and fields by name; those that are not there are NULL, and as a number 0. */
struct key *simulated_key_find(const char *name, size_t length);
struct key *simulated_key_make(const char *name, size_t length);
const char *simulated_key_value_of(const struct key *key, const char *name, size_t length);
const char *simulated_key_value(const struct key *key, const char *name);
int64_t simulated_key_number(const struct key *key, const char *name);
void simulated_key_set(struct key *key, const char *name, size_t name_length, const char *text,
                       size_t length);
void simulated_key_set_text(struct key *key, const char *name,
                            const struct simulated_argument *text);
void simulated_key_unset(struct key *key, const struct simulated_argument *name);
void simulated_key_raise_epoch(struct key *position, int64_t raise);
void simulated_redis_judge_generation(void);
void simulated_redis_check_version(const struct key *key);
void simulated_key_remove(const char *name);
/* The number of the live generation, 0: none. */
int64_t simulated_generation(void);
/* Removes all generations but this and the live one. */
void simulated_redis_drop_others(int64_t kept);
/* No reader may meet an older version after a switch. */
void simulated_redis_check_seen(void);
struct key *simulated_key_live(const char *form, int64_t partition, int64_t user);

#endif
