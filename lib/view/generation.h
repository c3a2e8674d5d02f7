/*
 * Generation: which read models lie in Redis beside the live one, and how another one becomes live.
 * Blocking.
 *
 * Whoever builds, switches or drops generations holds the lease. A switch goes in three steps, so
 * that no reader meets an older count in the new generation than in the old one: the live one is
 * sealed, so that its projectors wait; its positions' epochs are bumped, which refuses what they
 * have in flight; and once the new one has come as far, the pointer is moved, if it, the lease and
 * the seal are as expected. A projector that reads a position looks for the seal after it, hence
 * either sees the seal or has an epoch that will be refused. The seal expires by itself. The new
 * one then rests for TALLY_VIEW_REST_MS, sealed in its turn, until every reader has left the old
 * one.
 */
#ifndef TALLY_VIEW_GENERATION_H
#define TALLY_VIEW_GENERATION_H

#include "view/position.h"

#define TALLY_LEASE_MS 6000
#define TALLY_LEASE_TOKEN_BYTES 33

/* `*left_ms`: 0 where the lease is the caller's now, else how long its holder still has it. */
enum tally_status tally_lease_take(struct tally_redis *redis, const char *token, int64_t *left_ms,
                                   struct tally_error *error) TALLY_MUST_CHECK;
/* FENCED: it is not the caller's any more. */
enum tally_status tally_lease_renew(struct tally_redis *redis, const char *token,
                                    struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_lease_release(struct tally_redis *redis, const char *token,
                                      struct tally_error *error) TALLY_MUST_CHECK;

/* The sealed generation, 0: none. */
enum tally_status tally_generation_sealed(struct tally_redis *redis, int64_t *generation,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* Seals for `for_ms` at most. FENCED: the lease was lost. */
enum tally_status tally_generation_seal(struct tally_redis *redis, const char *token,
                                        int64_t generation, int64_t for_ms,
                                        struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_generation_unseal(struct tally_redis *redis, const char *token,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* Moves the pointer from the sealed generation `from` (0: there is none, and no seal) to `to`,
 * which then rests for `rest_ms` >= 0. `from` is kept then. FENCED, with the reason, where anything
 * is not as expected; UNAVAILABLE where the seal has expired, and it may be tried again. */
enum tally_status tally_generation_switch(struct tally_redis *redis, const char *token,
                                          int64_t from, int64_t to, int64_t rest_ms,
                                          struct tally_error *error) TALLY_MUST_CHECK;

/* What generations beside the live one are there for. */
enum tally_generation_role {
    TALLY_GENERATION_LIVE,
    TALLY_GENERATION_BUILDING,
    TALLY_GENERATION_KEPT, /* was live, for rollback */
    TALLY_GENERATION_DROPPING,
};
/* "live", "building", "kept", "dropping". */
const char *tally_generation_role_text(enum tally_generation_role role);

struct tally_generation_entry {
    int64_t number;
    enum tally_generation_role role;
};
#define TALLY_GENERATIONS_MOST 64

/* All of them in ascending order, the live one among them if there is one. */
enum tally_status tally_generation_list(
    struct tally_redis *redis, struct tally_generation_entry entries[TALLY_GENERATIONS_MOST],
    size_t *count, struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_generation_note(struct tally_redis *redis, int64_t number,
                                        enum tally_generation_role role,
                                        struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_generation_forget(struct tally_redis *redis, int64_t number,
                                          struct tally_error *error) TALLY_MUST_CHECK;

/* Never reached: a partition is incomplete for readers whatever its offset. */
#define TALLY_UNTIL_NEVER INT64_MAX

/* Creates the positions of a generation to be filled: at `offsets`, never complete, mark 0.
 * FENCED where one of them is there already. */
enum tally_status tally_generation_prepare(struct tally_redis *redis, int64_t number,
                                           const char *cluster, int32_t partitions,
                                           const int64_t *offsets,
                                           struct tally_error *error) TALLY_MUST_CHECK;
/* The marks of how far a generation has been filled; -1 where it is filled. */
enum tally_status tally_generation_marks(struct tally_redis *redis, int64_t number,
                                         int32_t partitions, int64_t *marks,
                                         struct tally_error *error) TALLY_MUST_CHECK;

/* A change of one partition's position; every change bumps its epoch. */
struct tally_position_change {
    int64_t epoch;       /* expected; -1: any */
    int64_t until;       /* -1: leave */
    int64_t fresh_at_ms; /* -1: leave */
    bool filled;         /* the mark goes */
};
struct tally_position_changed {
    int64_t epoch;
    int64_t offset;
    int64_t fresh_at_ms; /* 0: not known */
};
/* Changes partitions 0 … `partitions` - 1 in one round trip. FENCED where a position is missing or
 * has another epoch; the others are changed all the same. */
enum tally_status tally_positions_change(struct tally_redis *redis, int64_t number,
                                         int32_t partitions,
                                         const struct tally_position_change *changes,
                                         struct tally_position_changed *changed,
                                         struct tally_error *error) TALLY_MUST_CHECK;

/* Adds who was active on the last `days` days (up to today, UTC, at `now_us`) in one generation to
 * another one with as many partitions. */
enum tally_status tally_generation_copy_active(struct tally_redis *redis, int64_t from, int64_t to,
                                               int32_t partitions, int days, int64_t now_us,
                                               struct tally_error *error) TALLY_MUST_CHECK;

/* One step of removing a generation's keys, of at most a few thousand; `cursor` is "0" at the start
 * and again at the end. `*removed` grows. */
#define TALLY_SCAN_CURSOR_BYTES 24
enum tally_status tally_generation_remove(struct tally_redis *redis, int64_t number,
                                          char cursor[TALLY_SCAN_CURSOR_BYTES], int64_t *removed,
                                          struct tally_error *error) TALLY_MUST_CHECK;

#endif
