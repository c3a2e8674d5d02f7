/*
 * Users: the projector's memory of user states, bounded over all partitions, least recently used
 * out first. What is forgotten is read again from Redis.
 *
 * An entry stands for what Redis will hold once every call sent so far is applied; where one of
 * them is refused, the whole partition is dropped. Pure; one thread.
 */
#ifndef TALLY_SERVICE_PROJECTOR_USERS_H
#define TALLY_SERVICE_PROJECTOR_USERS_H

#include "domain/fold.h"

struct tally_users;

/* The part of an entry that its users work with. */
struct tally_user_slot {
    int64_t user_id;
    struct tally_user_state state;
    bool loaded;                      /* state is known; false after the entry was made */
    bool awaited;                     /* its state is being read */
    struct tally_user_slot *next_new; /* while awaited: the next of its partition's new users */
    int32_t active_day;               /* last UTC day (days since 1970) sent as active; -1: none */
    uint64_t chunk;                   /* serial number of the chunk it is in; 0: none */
    uint32_t chunk_index;             /* where in that chunk */
};

/* `partitions` > 0, `most` > 0 entries. NULL where there is no memory. */
struct tally_users *tally_users_new(int32_t partitions, size_t most);
void tally_users_free(struct tally_users **users);

/* Finds the entry of a user, or makes one that is not loaded; NULL where there is no memory. It
 * stays until the next trim or drop, even beyond the bound. */
struct tally_user_slot *tally_users_get(struct tally_users *users, int32_t partition,
                                        int64_t user_id);
/* Forgets all users of a partition. */
void tally_users_drop(struct tally_users *users, int32_t partition);
/* Forgets the least recently used until the bound holds. */
void tally_users_trim(struct tally_users *users);
size_t tally_users_count(const struct tally_users *users);

#endif
