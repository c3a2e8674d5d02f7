/*
 * Position: how far each partition of the read model has come, the generation they belong to, and
 * the states that a projector starts from. For the writers of the read model; blocking.
 */
#ifndef TALLY_VIEW_POSITION_H
#define TALLY_VIEW_POSITION_H

#include "redis/connection.h"
#include "view/apply.h"

#define TALLY_POSITION_CLUSTER_BYTES 64

struct tally_position {
    bool present; /* false: the rest is zero */
    int64_t epoch;
    int64_t offset;
    int64_t until;
    int64_t event_at_ms;
    int64_t mark_ms; /* Kafka's time of the record before `offset`; 0: not known */
    char cluster[TALLY_POSITION_CLUSTER_BYTES];
    int32_t partitions;
    struct tally_totals totals;
    bool totals_lost; /* they are written with the position, and are not there */
};

/* The live generation; 0 where there is none. */
enum tally_status tally_generation_read(struct tally_redis *redis, int64_t *generation,
                                        struct tally_error *error) TALLY_MUST_CHECK;

/* Reads the positions and totals of `count` partitions in one round trip. PROTOCOL: what is stored
 * is no position. */
enum tally_status tally_position_read(struct tally_redis *redis, int64_t generation,
                                      const int32_t *partitions, size_t count,
                                      struct tally_position *positions,
                                      struct tally_error *error) TALLY_MUST_CHECK;

/* Reads them likewise, each at the moment at which the caller becomes its only writer: the
 * epochs are raised, so that calls of any other are refused, those on their way among them. `raise`
 * > 0 is added to the epochs: random below 2^32, so that no two writers meet with the same even
 * where Redis went back in time. */
enum tally_status tally_position_claim(struct tally_redis *redis, int64_t generation,
                                       const int32_t *partitions, size_t count, int64_t raise,
                                       struct tally_position *positions,
                                       struct tally_error *error) TALLY_MUST_CHECK;

/* A generation to be built from the beginning of a log that is whole. */
struct tally_generation {
    int64_t number; /* > 0, never used before */
    const char *cluster;
    int32_t partitions;
    const int64_t *until; /* high watermark of each partition */
};

/* Creates the positions at offset 0 and then, if there is no live generation, makes this one live.
 * `*live` receives the number of the live one: that of another writer who came first, perhaps; the
 * positions made in vain are then removed again. The positions come first, so that a live
 * generation without them always means loss. */
enum tally_status tally_generation_create(struct tally_redis *redis,
                                          const struct tally_generation *generation, int64_t *live,
                                          struct tally_error *error) TALLY_MUST_CHECK;

/* Appends the command that reads a user's state, and reads its reply: an absent user is a state of
 * version 0. */
void tally_user_append_read(struct tally_buffer *out, int64_t generation, int32_t partition,
                            int64_t user_id);
enum tally_status tally_user_read_reply(const redisReply *reply, struct tally_user_state *state,
                                        struct tally_error *error) TALLY_MUST_CHECK;

#endif
