/*
 * Lookup: reads the read model for tally-query, through one Redis connection on one event loop.
 *
 * Reads that are asked for in one turn of the loop leave in one write, the same user once. What a
 * read answers is never silently too low:
 * - The live generation and the positions of all its partitions are read every 100 ms. While they
 *   are missing, or a partition has not reached `until`, or its offset is below one seen before in
 *   this generation (a Redis that went back), the answer is READ_MODEL_INCOMPLETE. So it is after
 *   Redis was started or replaced by another, until the projector has caught up since: what it
 *   lacks may be less than the positions seen tell. That compares clocks of different hosts.
 * - An answer that comes longer than TALLY_VIEW_TRUST_MS after its generation was last seen live is
 *   not given, but read anew: another one may have become live, and be further on.
 * - A user that is absent is not taken for unknown before a second read, sent after the first was
 *   answered, has found generation and position still in place. A generation's number is never used
 *   twice, so the keys of a lost generation simply miss, and then this read tells.
 *
 * A lookup belongs to the thread that runs its event base. Once started a callback comes exactly
 * once, never from inside the call that started it; a failed start never calls back.
 */
#ifndef TALLY_VIEW_LOOKUP_H
#define TALLY_VIEW_LOOKUP_H

#include "core/breaker.h"

#include <stdint.h>

struct event_base;
struct tally_lookup;

struct tally_lookup_options {
    const char *redis_url;
    int64_t timeout_ms;    /* longest wait of a read, > 0 */
    int64_t patience_ms;   /* of Redis' silence, after which reads are refused; > 0 */
    size_t in_flight_most; /* reads in flight, waiting ones included; more are OVERLOADED */
    size_t waiters_most;   /* of them waiting for a version */
};

/* Starts connecting to Redis. CONFIG: the URL; NO_MEMORY. */
enum tally_status tally_lookup_new(struct event_base *base,
                                   const struct tally_lookup_options *options,
                                   struct tally_lookup **out,
                                   struct tally_error *error) TALLY_MUST_CHECK;
/* Calls back everything in flight with STOPPING. Not from inside a callback. */
void tally_lookup_free(struct tally_lookup **lookup);

/* A user as the read model has it. Texts are not terminated. */
struct tally_lookup_text {
    const char *bytes; /* NULL: there is none */
    size_t length;
};
struct tally_lookup_user {
    int64_t id;
    int64_t version; /* 0: nothing of this user was ever applied */
    int64_t posts;
    int64_t comments;
    struct tally_lookup_text name;
    struct tally_lookup_text email;
    struct tally_lookup_text avatar;
    bool degraded;       /* flagged: may differ from the source until repaired */
    bool corrected;      /* repaired since it was first shown at this version */
    int64_t fresh_at_ms; /* wall clock when the projector last held all that Kafka had for the
                            user's partition; 0: not known */
};

/* `user` is borrowed for the call, and NULL but for these two:
 *   OK              the user
 *   USER_NOT_FOUND  deleted (user->version says by which version) or never seen (version 0)
 * Else USER_UNREADABLE (known only by an event that could not be read), READ_MODEL_INCOMPLETE,
 * READ_MODEL_BEHIND (tally_lookup_wait() alone), UNAVAILABLE, PROTOCOL, NO_MEMORY or STOPPING. */
typedef void tally_lookup_answered(enum tally_status status, const struct tally_lookup_user *user,
                                   void *context);

/* Reads one user. UNAVAILABLE: Redis is not connected; READ_MODEL_INCOMPLETE; OVERLOADED;
 * NO_MEMORY. `user_id` > 0. */
enum tally_status tally_lookup_read(struct tally_lookup *lookup, int64_t user_id,
                                    tally_lookup_answered *answered, void *context,
                                    struct tally_error *error) TALLY_MUST_CHECK;

/* Reads one user again and again until it is at `version` or later, after 1 ms and then less and
 * less often; all who wait for one user share the reads. READ_MODEL_BEHIND comes at `deadline_us`
 * (monotonic), also for a user that is absent: it may have been made a moment ago. Fails as
 * tally_lookup_read() does; OVERLOADED also beyond `waiters_most`. */
enum tally_status tally_lookup_wait(struct tally_lookup *lookup, int64_t user_id, int64_t version,
                                    int64_t deadline_us, tally_lookup_answered *answered,
                                    void *context, struct tally_error *error) TALLY_MUST_CHECK;
/* Ends every wait with STOPPING, so that a drain does not wait for it. Not from inside a callback.
 */
void tally_lookup_end_waits(struct tally_lookup *lookup);

/* What a partition's position says. */
struct tally_lookup_partition {
    bool complete;
    int64_t offset;      /* next Kafka offset to apply */
    int64_t until;       /* complete from here on */
    int64_t fresh_at_ms; /* as above */
};

struct tally_lookup_stats {
    int64_t generation;
    int64_t users, posts, comments;
    /* Users with events today, and in the last 7 and 30 days, today included (UTC); each within
     * HyperLogLog's error of about 1 %. */
    int64_t active_day, active_week, active_month;
    int32_t partition_count;
    const struct tally_lookup_partition *partitions;
};

/* `stats` is borrowed for the call, and NULL unless `status` is OK. */
typedef void tally_lookup_counted(enum tally_status status, const struct tally_lookup_stats *stats,
                                  void *context);
/* What was computed less than a second ago, valid until the loop goes on; NULL: count anew. */
const struct tally_lookup_stats *tally_lookup_counted_lately(struct tally_lookup *lookup);
/* Computes the numbers; whoever asks while that is under way shares them. Fails as
 * tally_lookup_read() does. */
enum tally_status tally_lookup_count(struct tally_lookup *lookup, tally_lookup_counted *counted,
                                     void *context, struct tally_error *error) TALLY_MUST_CHECK;

/* How it stands. */
struct tally_lookup_health {
    bool connected;
    enum tally_breaker_state breaker; /* round Redis; closed where connected */
    bool complete;                    /* connected, and every partition can be read */
    char reason[256];                 /* why not; "" where complete */
    int64_t generation;               /* 0: not known */
    int32_t partitions;               /* 0: not known */
    size_t in_flight;                 /* reads that were not answered yet */
    size_t waiters;                   /* of them waiting for a version */
    int64_t reads;                    /* users asked for since the start */
    int64_t reads_sent;               /* of them sent to Redis; the rest shared another's */
    int64_t misses;                   /* users that were absent, and confirmed so */
    int64_t flushes;                  /* writes to Redis */
    int64_t losses;                   /* connections lost or given up: times the breaker opened */
    int64_t redis_errors;             /* error replies, lost connections and passed deadlines */
};
void tally_lookup_health(const struct tally_lookup *lookup, struct tally_lookup_health *health);

#endif
