/*
 * Chunk: events of one partition, contiguous in offset, folded into what one apply call writes.
 *
 * A chunk is cut where the next event would bring one user or one day too many, so that the script
 * holds Redis only for a bounded time; the next chunk begins where it ended. Pure; one thread.
 */
#ifndef TALLY_SERVICE_PROJECTOR_CHUNK_H
#define TALLY_SERVICE_PROJECTOR_CHUNK_H

#include "service/projector/users.h"
#include "view/apply.h"

struct tally_chunk {
    uint64_t serial;            /* of this filling, never 0 */
    int64_t from_offset;        /* expected position */
    int64_t to_offset;          /* position after it */
    int64_t event_at_ms;        /* latest event time of it, -1: none */
    size_t events;              /* offsets it covers */
    struct tally_totals totals; /* of the partition, after it */
    bool totals_changed;
    struct tally_apply_user *users; /* owned, TALLY_APPLY_USERS_MOST */
    struct tally_profile *profiles; /* owned, parallel to users */
    size_t user_count;
    int32_t days[TALLY_APPLY_DAYS_MOST];
    size_t day_count;
};

/* False where there is no memory. */
bool tally_chunk_init(struct tally_chunk *chunk);
void tally_chunk_release(struct tally_chunk *chunk);

/* Starts a filling at an offset, with the partition's totals at that offset. `serial` is another
 * one for each filling of any chunk. */
void tally_chunk_begin(struct tally_chunk *chunk, uint64_t serial, int64_t offset,
                       const struct tally_totals *totals);
/* Whether an event of this user and time can be added before the chunk has to be cut. */
bool tally_chunk_fits(const struct tally_chunk *chunk, const struct tally_user_slot *slot,
                      int64_t at_us);

/* Adds an event at `offset`. `profile` is that of a user.created or user.updated, else empty; the
 * chunk takes over what it points to in any case. The slot must be loaded. */
enum tally_fold_result tally_chunk_fold(struct tally_chunk *chunk, int64_t offset,
                                        struct tally_user_slot *slot,
                                        const struct tally_event *event,
                                        struct tally_profile *profile);
/* Adds an offset whose event cannot be applied; its user, if there is one, is flagged. */
void tally_chunk_flag(struct tally_chunk *chunk, int64_t offset, struct tally_user_slot *slot);

/* What the chunk says to the apply script; valid until the next change of chunk or slots. */
void tally_chunk_describe(const struct tally_chunk *chunk, int64_t generation, int32_t partition,
                          int64_t epoch, struct tally_apply *apply);

#endif
