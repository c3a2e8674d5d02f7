/*
 * Apply: one call of schema/redis/apply.lua as bytes, and what it answers.
 *
 * A call covers a contiguous range of one partition's offsets. It is encoded without a connection,
 * so that several can be sent in one write.
 */
#ifndef TALLY_VIEW_APPLY_H
#define TALLY_VIEW_APPLY_H

#include "core/buffer.h"
#include "domain/fold.h"
#include "view/keys.h"
#include "view/script.h"

/* Users of one call. It bounds the time for which the script holds Redis (about 2 µs a user), and
 * stays below what Lua can unpack (8,000). */
#define TALLY_APPLY_USERS_MOST 1000
/* Distinct days of one call. */
#define TALLY_APPLY_DAYS_MOST 8

/* What of a user's hash a call writes. */
enum tally_apply_user_part {
    TALLY_APPLY_COUNTS = 0,  /* v, posts, comments */
    TALLY_APPLY_RECORD = 1,  /* tl, deleted and flagged too; of a deleted user all else goes */
    TALLY_APPLY_PROFILE = 2, /* name, email, avatar; an absent avatar is removed */
};

struct tally_apply_user {
    int64_t user_id;
    const struct tally_user_state *state;
    unsigned parts;                      /* mask of enum tally_apply_user_part */
    const struct tally_profile *profile; /* with TALLY_APPLY_PROFILE */
    int8_t day;                          /* index into days, or -1: already counted as active */
};

struct tally_totals {
    int64_t users;
    int64_t posts;
    int64_t comments;
};

struct tally_apply {
    int64_t generation;
    int32_t partition;
    int64_t epoch;
    int64_t from_offset;
    int64_t to_offset;
    int64_t event_at_ms; /* -1: leave */
    int64_t fresh_at_ms; /* -1: leave */
    int64_t mark_ms;     /* Kafka's time of the record before to_offset; 0: not known */
    struct tally_totals totals;
    bool totals_changed;
    const struct tally_apply_user *users; /* distinct */
    size_t user_count;                    /* at most TALLY_APPLY_USERS_MOST */
    char days[TALLY_APPLY_DAYS_MOST][TALLY_DAY_BYTES];
    size_t day_count;
};

/* Reusable memory of the encoder; one thread. */
struct tally_apply_encoder {
    char sha[TALLY_SCRIPT_SHA_BYTES]; /* of tally_script_apply on this connection */
    struct tally_buffer count_keys, count_values, record_keys, record_values;
};

void tally_apply_encoder_init(struct tally_apply_encoder *encoder);
void tally_apply_encoder_release(struct tally_apply_encoder *encoder);

/* Appends the EVALSHA command of `apply` to `out`. TALLY_NO_MEMORY where a buffer failed; `out` is
 * then useless. */
enum tally_status tally_apply_encode(struct tally_apply_encoder *encoder,
                                     const struct tally_apply *apply, struct tally_buffer *out,
                                     struct tally_error *error) TALLY_MUST_CHECK;

/* What a call's reply says: TALLY_OK; TALLY_FENCED with the stored position in the text;
 * TALLY_UNAVAILABLE where the script has to be loaded anew (NOSCRIPT) or Redis is out of memory;
 * TALLY_PROTOCOL for anything else. */
enum tally_status tally_apply_outcome(const redisReply *reply,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* Of a call that was OK: users with counts alone whose keys were gone. They are flagged. */
int64_t tally_apply_lost_users(const redisReply *reply);

#endif
