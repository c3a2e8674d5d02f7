#include "service/projector/users.h"

#include <stdlib.h>

/* Without memory an insertion leaves the element out, which is then noticed. */
#define HASH_NONFATAL_OOM 1
/* Ids are spread well by their sequence bits once multiplied (Fibonacci hashing). */
#define HASH_FUNCTION(key, length, value)                                             \
    do {                                                                              \
        (value) = (unsigned)((*(const uint64_t *)(key)*0x9e3779b97f4a7c15ULL) >> 32); \
    } while (0)
#include <uthash.h>
#include <utlist.h>

struct entry {
    struct tally_user_slot slot; /* first, so that one can be turned into the other */
    int32_t partition;
    struct entry *prev, *next; /* by use, the latest first */
    UT_hash_handle hh;
};

struct tally_users {
    struct entry **tables; /* a hash table for each partition */
    int32_t partitions;
    struct entry *by_use;
    size_t count;
    size_t most;
};

struct tally_users *tally_users_new(int32_t partitions, size_t most)
{
    struct tally_users *users = calloc(1, sizeof *users);
    if (users == NULL)
        return NULL;
    users->tables = calloc((size_t)partitions, sizeof(struct entry *));
    if (users->tables == NULL) {
        free(users);
        return NULL;
    }
    users->partitions = partitions;
    users->most = most;
    return users;
}

void tally_users_free(struct tally_users **users)
{
    if (*users == NULL)
        return;
    for (int32_t i = 0; i < (*users)->partitions; i++)
        tally_users_drop(*users, i);
    free((*users)->tables);
    free(*users);
    *users = NULL;
}

static void forget(struct tally_users *users, struct entry *entry)
{
    HASH_DEL(users->tables[entry->partition], entry);
    DL_DELETE(users->by_use, entry);
    users->count--;
    free(entry);
}

struct tally_user_slot *tally_users_get(struct tally_users *users, int32_t partition,
                                        int64_t user_id)
{
    struct entry *entry = NULL;
    HASH_FIND(hh, users->tables[partition], &user_id, sizeof user_id, entry);
    if (entry != NULL) {
        if (entry != users->by_use) {
            DL_DELETE(users->by_use, entry);
            DL_PREPEND(users->by_use, entry);
        }
        return &entry->slot;
    }
    entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return NULL;
    entry->slot.user_id = user_id;
    entry->slot.active_day = -1;
    entry->partition = partition;
    HASH_ADD(hh, users->tables[partition], slot.user_id, sizeof user_id, entry);
    if (entry->hh.tbl == NULL) {
        free(entry);
        return NULL;
    }
    DL_PREPEND(users->by_use, entry);
    users->count++;
    return &entry->slot;
}

void tally_users_drop(struct tally_users *users, int32_t partition)
{
    struct entry *entry = NULL;
    struct entry *following = NULL;
    HASH_ITER (hh, users->tables[partition], entry, following) {
        forget(users, entry);
    }
}

void tally_users_trim(struct tally_users *users)
{
    /* DL lists keep the last element in the head's `prev`. */
    while (users->by_use != NULL && users->count > users->most) {
        struct entry *oldest = users->by_use->prev;
        forget(users, oldest); /* NOLINT(clang-analyzer-unix.Malloc): utlist's DL_DELETE */
    }
}

size_t tally_users_count(const struct tally_users *users)
{
    return users->count;
}
