/*
 * What the parts of a lookup share: lookup.c (its life), lookup_server.c (which Redis it is),
 * lookup_read.c (one user), lookup_positions.c (generation and positions), lookup_wait.c (waiting
 * for a version), lookup_stats.c (totals).
 */
#ifndef TALLY_VIEW_LOOKUP_INTERNAL_H
#define TALLY_VIEW_LOOKUP_INTERNAL_H

#include "core/buffer.h"
#include "loop/loop.h"
#include "redis/async.h"
#include "view/lookup.h"

struct redisReply;
struct read;
struct wait_group;
struct count_job;

enum {
    POSITIONS_EVERY_MS = 100,
    PROMOTION_BYTES = 72,
    PARTITIONS_MOST = 65536, /* more than any topic has: a larger number is not believed */
    COMMAND_LIMIT_BYTES = 16 << 10,
};

/* One partition's position as it was read. */
struct position {
    bool present;
    int64_t epoch;
    int64_t offset;
    int64_t until;
    int64_t fresh_at_ms;
    int32_t partitions;
};

/* The live generation and its partitions; replaced as a whole by a round of reads. */
struct generation {
    int64_t number;     /* 0: none is known */
    int32_t partitions; /* 0: not known */
    struct tally_lookup_partition *list;
    int64_t *highest; /* highest offset seen in this generation, over reconnects too */
};

/* The Redis that is being read. One that was started, or that took another one's place, or was a
 * replica for some time, may lack what had been written last; no partition is read before the
 * projector has since held all of it that Kafka has. */
struct server {
    bool known;                      /* asked over the connection that is open now */
    char run_id[41];                 /* of the last one; "": never known */
    char promotion[PROMOTION_BYTES]; /* the last one to primary that was seen; "": none */
    int64_t fresh_from_ms; /* wall clock: a position must have been fresh at this time or later */
};

struct tally_lookup {
    struct event_base *base;
    struct tally_lookup_options options;
    struct tally_redis_async *redis;
    struct tally_buffer command; /* the command being written */
    struct tally_buffer fields;  /* the part of a user's read that is always the same */

    struct server server;
    struct generation live;
    bool loaded;     /* `live` was read over the connection that is open now */
    int64_t seen_us; /* monotonic, before `live` was last seen to be live */
    struct tally_timer *refresh;
    size_t rounds; /* in flight */

    struct read *unsent;   /* uthash by user: queued in this turn, may be shared */
    struct read *deferred; /* wait for a round to learn the new generation */
    size_t in_flight;

    struct wait_group *groups; /* uthash by user */
    size_t group_count;
    size_t waiters;

    struct count_job *counting; /* NULL: none in flight */
    struct tally_lookup_stats counted;
    int64_t counted_us; /* monotonic; 0: never */

    struct tally_lookup_health tallies; /* the counters of it alone */
};

/* lookup_server.c */

/* Asks the Redis that is connected to; a replica is disconnected from. */
void tally_lookup_server_ask(struct tally_lookup *lookup);
/* What its INFO says; `now_ms`: wall clock. What is no whole INFO is one that is not known, or no
 * news over the same connection. False, and nothing is taken, where it is a replica: not to be
 * read, since its data is replaced as a whole once it reaches its primary. */
bool tally_lookup_server_take(struct server *server, const char *info, int64_t now_ms);

/* lookup_positions.c */

/* Told when a round ends: `same` where it found the generation it was started for, all positions
 * read and the result taken over. */
typedef void tally_lookup_positions_done(struct tally_lookup *lookup, bool same, void *context);
/* Reads generation and positions, after everything that is queued already. `done` may be NULL. */
enum tally_status tally_lookup_positions_read(struct tally_lookup *lookup,
                                              tally_lookup_positions_done *done, void *context,
                                              struct tally_error *error) TALLY_MUST_CHECK;
/* The timer's callback; `argument` is the lookup. */
void tally_lookup_positions_tick(void *argument);
void tally_lookup_positions_release(struct tally_lookup *lookup);
/* OK where the positions are known; a partition may still be incomplete. */
enum tally_status tally_lookup_positions_check(const struct tally_lookup *lookup,
                                               struct tally_error *error);
/* Queues the read of one position, and reads its reply; PROTOCOL where it is none. */
enum tally_status tally_lookup_position_send(struct tally_lookup *lookup, int64_t generation,
                                             int32_t partition, int64_t deadline_us,
                                             tally_redis_answered *answered, void *context,
                                             struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_lookup_position_parse(const struct redisReply *reply,
                                              struct position *position) TALLY_MUST_CHECK;
/* The same for tally:generation; 0 where there is none. */
enum tally_status tally_lookup_generation_send(struct tally_lookup *lookup, int64_t deadline_us,
                                               tally_redis_answered *answered, void *context,
                                               struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_lookup_generation_parse(const struct redisReply *reply,
                                                int64_t *number) TALLY_MUST_CHECK;
/* Whether a position that was just read lets its users be read. */
bool tally_lookup_position_complete(const struct tally_lookup *lookup, int32_t partition,
                                    const struct position *position);

/* lookup.c */

/* Sends what `lookup->command` holds. */
enum tally_status tally_lookup_send(struct tally_lookup *lookup, int64_t deadline_us,
                                    tally_redis_answered *answered, void *context,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* Decimal text of a reply's string; false where it is none. */
bool tally_lookup_reply_integer(const struct redisReply *reply, int64_t *value);

/* lookup_read.c */

/* The fields of a user as they end the command that reads it. */
void tally_lookup_write_fields(struct tally_buffer *out);
/* Reads again, or gives up, whoever waits for the new generation. */
void tally_lookup_deferred_resume(struct tally_lookup *lookup);

/* lookup_wait.c: ends every wait with this status. */
void tally_lookup_waits_release(struct tally_lookup *lookup, enum tally_status status);

#endif
