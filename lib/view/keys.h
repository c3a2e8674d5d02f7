/*
 * Keys: how the read model is named in Redis, for everyone who writes or reads it.
 *
 *     tally:generation                          the number of the live generation
 *     tally:<g>:{<p>}:user:<id>       HASH      fields TALLY_VIEW_USER_*
 *     tally:<g>:{<p>}:position        HASH      fields TALLY_VIEW_POSITION_*
 *     tally:<g>:{<p>}:totals          HASH      users, posts, comments of the partition
 *     tally:<g>:{<p>}:active:<day>    HyperLogLog of the users with events on that UTC day
 *     tally:projector:pause           HASH      at_ms, reason; projectors wait while it is there
 *     tally:<g>:audit         HASH    how far the audit has come with this generation
 *     tally:<g>:rebuild       HASH    how a generation that is not live yet is being built
 *     {tally:generation}:lease        who may switch, build or drop generations, for a few seconds
 *     {tally:generation}:seal         generation whose projectors wait: it is about to be replaced
 *     {tally:generation}:others HASH  generations that are there but not live, and why they are
 *
 * `{<p>}` is the hash tag (https://redis.io/docs/reference/cluster-spec/#hash-tags): all keys of a
 * partition share one slot, so that one script can compare the position and write the users.
 */
#ifndef TALLY_VIEW_KEYS_H
#define TALLY_VIEW_KEYS_H

#include "core/clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TALLY_VIEW_GENERATION_KEY "tally:generation"
#define TALLY_VIEW_PAUSE_KEY "tally:projector:pause"
/* Of one slot with the key above, so that one script may look at all of them. */
#define TALLY_VIEW_LEASE_KEY "{tally:generation}:lease"
#define TALLY_VIEW_SEAL_KEY "{tally:generation}:seal"
#define TALLY_VIEW_OTHERS_KEY "{tally:generation}:others"

/* A reader that has last seen a generation live no longer ago than this when an answer of it
 * arrives may give that answer. After a switch the new one is not written for longer than that:
 * whoever has read it then reads the same elsewhere, where the old one is still taken for live. */
#define TALLY_VIEW_TRUST_MS 500
#define TALLY_VIEW_REST_MS 700

/* Holds the longest key of any kind with its terminator. */
#define TALLY_VIEW_KEY_BYTES 80

/* Fields of a user's hash. Numbers are decimal text. */
#define TALLY_VIEW_USER_VERSION "v"
#define TALLY_VIEW_USER_POSTS "posts"
#define TALLY_VIEW_USER_COMMENTS "comments"
#define TALLY_VIEW_USER_NAME "name"
#define TALLY_VIEW_USER_EMAIL "email"
#define TALLY_VIEW_USER_AVATAR "avatar"   /* absent: none */
#define TALLY_VIEW_USER_TIMELINE "tl"     /* PostgreSQL timeline of the event that gave `v` */
#define TALLY_VIEW_USER_DELETED "deleted" /* 1, or absent; only v, tl, deleted, flagged remain */
/* Absent, or the answer says degraded: "1", or TALLY_VIEW_LOST where the totals hold the user's
 * true counts and not the ones beside it. */
#define TALLY_VIEW_USER_FLAGGED "flagged"
#define TALLY_VIEW_LOST "lost"
/* Absent, or the highest version that a repair has replaced: up to that one, equal versions do not
 * mean equal answers. */
#define TALLY_VIEW_USER_CORRECTED "corrected"

/* Fields of a partition's position. Its absence means that the partition is lost, or never was. */
#define TALLY_VIEW_POSITION_EPOCH "epoch"           /* another one for each writer that begins */
#define TALLY_VIEW_POSITION_OFFSET "offset"         /* next Kafka offset to apply */
#define TALLY_VIEW_POSITION_UNTIL "until"           /* complete once offset >= until */
#define TALLY_VIEW_POSITION_FILLED "filled"         /* while being built from PostgreSQL: last id */
#define TALLY_VIEW_POSITION_CLUSTER "cluster"       /* Kafka cluster id */
#define TALLY_VIEW_POSITION_PARTITIONS "partitions" /* of the topic the model was built from */
#define TALLY_VIEW_POSITION_EVENT_AT "event_at_ms"  /* time of the last applied event */
#define TALLY_VIEW_POSITION_FRESH_AT "fresh_at_ms"  /* when nothing of Kafka was missing, last */

/* "<offset>:<ms>": Kafka's time of the record before that offset. It means something only where the
 * offset is the position's. A log that was made anew has another record there. */
#define TALLY_VIEW_POSITION_MARK "mark"

/* Fields of a partition's totals. */
#define TALLY_VIEW_TOTALS_USERS "users"
#define TALLY_VIEW_TOTALS_POSTS "posts"
#define TALLY_VIEW_TOTALS_COMMENTS "comments"

/* Days that a key of active users is kept, counted from its last write. */
#define TALLY_VIEW_ACTIVE_DAYS 40

/* Each writes a terminated key and returns its length. `generation` > 0, `partition` >= 0,
 * `user_id` > 0; `day` is what tally_clock_format_day() writes. Any thread. */
size_t tally_view_user_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation, int32_t partition,
                           int64_t user_id);
size_t tally_view_position_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation,
                               int32_t partition);
size_t tally_view_totals_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation, int32_t partition);
size_t tally_view_active_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation, int32_t partition,
                             const char day[TALLY_DAY_BYTES]);
size_t tally_view_audit_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation);
size_t tally_view_rebuild_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation);

/* What a user's key names. */
struct tally_view_user_name {
    int64_t generation;
    int32_t partition;
    int64_t user_id;
};

/* Reads `length` bytes exactly as tally_view_user_key() writes them; false for anything else. */
bool tally_view_user_key_parse(const char *key, size_t length, struct tally_view_user_name *name);

#endif
