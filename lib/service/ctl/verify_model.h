/*
 * Verify model: the read model as verify reads it: many users in one round trip, and the walk over
 * all keys. Blocking.
 */
#ifndef TALLY_SERVICE_CTL_VERIFY_MODEL_H
#define TALLY_SERVICE_CTL_VERIFY_MODEL_H

#include "core/buffer.h"
#include "redis/connection.h"
#include "service/ctl/verify_compare.h"

struct tally_verify_model {
    struct tally_redis *redis; /* owned */
    int64_t generation;
    bool live; /* it must stay the live one */
    int32_t partitions;
    struct tally_buffer commands;            /* reused */
    redisReply *replies[TALLY_RECOUNT_MOST]; /* of the last read; owned */
    size_t reply_count;
};

/* READ_MODEL_INCOMPLETE where there is no live generation, or the positions of the one to be
 * checked are lost. */
enum tally_status tally_verify_model_open(struct tally_verify_model *model,
                                          const struct tally_verify_options *options,
                                          struct tally_error *error) TALLY_MUST_CHECK;
void tally_verify_model_close(struct tally_verify_model *model);

/* Reads `count` <= TALLY_RECOUNT_MOST users. READ_MODEL_INCOMPLETE where the live generation is
 * another by now, or the one that was asked for is gone. */
enum tally_status tally_verify_model_read(struct tally_verify_model *model, const int64_t *ids,
                                          size_t count, struct tally_error *error) TALLY_MUST_CHECK;
/* User `index` of the last read; its texts live until the next one. */
void tally_verify_model_user(const struct tally_verify_model *model, size_t index,
                             struct tally_verify_found *found);

/* One step over the keys: fills `ids` with up to `most` users, and `misplaced` with how many keys
 * lie in a partition that is not the user's. `*cursor` is "0" at the start and again at the end; it
 * holds 24 bytes. A step may hold more keys than asked for, never more than `most`. */
enum tally_status tally_verify_model_scan(struct tally_verify_model *model,
                                          char cursor[TALLY_VERIFY_CURSOR_BYTES], int64_t *ids,
                                          size_t most, size_t *count, int64_t *misplaced,
                                          size_t *misplaced_count,
                                          struct tally_error *error) TALLY_MUST_CHECK;

/* The sum of the partitions' totals. */
struct tally_verify_totals {
    int64_t users, posts, comments;
};
enum tally_status tally_verify_model_totals(struct tally_verify_model *model,
                                            struct tally_verify_totals *totals,
                                            struct tally_error *error) TALLY_MUST_CHECK;

#endif
