/*
 * Restore: writes users into the read model as PostgreSQL has them: many of a generation that is
 * being built (schema/redis/fill.lua), or single ones of the live one (schema/redis/repair.lua).
 * Encoding is pure; the outcomes are read from the replies, in the order of the calls.
 */
#ifndef TALLY_VIEW_RESTORE_H
#define TALLY_VIEW_RESTORE_H

#include "view/apply.h"

/* Reusable memory; one thread. */
struct tally_restore_encoder {
    char fill_sha[TALLY_SCRIPT_SHA_BYTES]; /* of tally_script_fill on this connection */
    struct tally_buffer records;
};

void tally_restore_encoder_init(struct tally_restore_encoder *encoder);
void tally_restore_encoder_release(struct tally_restore_encoder *encoder);

/* Users of one partition, whose ids are above the mark `from` and not above `to`; and every other
 * id up to `to` is no user of the partition, or one whose events are all still to be applied. */
struct tally_fill {
    int64_t generation;
    int32_t partition;
    int64_t epoch;
    int64_t from;
    int64_t to;
    const struct tally_apply_user *users; /* RECORD | PROFILE; `day` is not looked at */
    size_t user_count;                    /* at most TALLY_APPLY_USERS_MOST */
};

/* Appends one call of the script to `out`. NO_MEMORY where a buffer failed. */
enum tally_status tally_fill_encode(struct tally_restore_encoder *encoder,
                                    const struct tally_fill *fill, struct tally_buffer *out,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* FENCED: epoch or mark are not the expected ones; otherwise as tally_apply_outcome(). */
enum tally_status tally_fill_outcome(const redisReply *reply,
                                     struct tally_error *error) TALLY_MUST_CHECK;

/* A user of a repair; version 0: there is no such user, and the key goes. */
struct tally_repair_user {
    struct tally_apply_user user;
    int64_t seen_version; /* in Redis, before the recount */
    bool known;           /* what came since the version that the totals hold: */
    int64_t posts_after;
    int64_t comments_after;
    bool follow_source; /* replace it also where it is newer, unless from a later timeline */
    /* Set by tally_repair_outcome(); where neither is, it was written to meanwhile, or the totals
     * would have become wrong: another attempt may do it. */
    bool replaced;
    bool newer; /* in Redis */
};

#define TALLY_REPAIR_USERS_MOST 100

/* Appends one call of the script for `count` <= TALLY_REPAIR_USERS_MOST users of a partition. */
enum tally_status tally_repair_encode(struct tally_restore_encoder *encoder, int64_t generation,
                                      int32_t partition, const struct tally_repair_user *users,
                                      size_t count, struct tally_buffer *out,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* READ_MODEL_INCOMPLETE: the partition has lost its position; otherwise as tally_apply_outcome().
 */
enum tally_status tally_repair_outcome(const redisReply *reply, struct tally_repair_user *users,
                                       size_t count, struct tally_error *error) TALLY_MUST_CHECK;

#endif
