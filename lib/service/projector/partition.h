/*
 * Partition: where the projector stands in each partition, and the decisions that follow from it.
 * Pure.
 *
 * A partition is foreign (another member's), lost (owned, but what Redis holds is not known: after
 * a rebalance, a refusal, a reconnect) or current. A lost one takes no records; it becomes current
 * when its position has been read and reading starts from there.
 */
#ifndef TALLY_SERVICE_PROJECTOR_PARTITION_H
#define TALLY_SERVICE_PROJECTOR_PARTITION_H

#include "view/position.h"

struct tally_user_slot;

enum tally_partition_standing {
    TALLY_PARTITION_FOREIGN,
    TALLY_PARTITION_LOST,
    TALLY_PARTITION_CURRENT,
};

struct tally_partition {
    enum tally_partition_standing standing;
    bool refused;               /* a call since it became current was, and the log says so */
    int64_t epoch;              /* stored with the position */
    int64_t until;              /* reads are refused before it: the model is being built */
    int64_t next;               /* offset after all that was taken from Kafka */
    int64_t folded;             /* offset after all that was sent to Redis */
    int64_t applied;            /* offset after all that Redis has confirmed */
    int64_t mark_ms;            /* Kafka's time of the record before `folded`, 0: not known */
    int64_t event_at_ms;        /* time of the latest event of what is folded, 0: none */
    struct tally_totals totals; /* after `folded` */
    /* Users of the round being filled whose first event is a user's first: Redis should not have
     * them, which is cheaper to ask than their state. A list through next_new. */
    struct tally_user_slot *new_users;
};

/* What to do with a record. */
enum tally_verdict {
    TALLY_VERDICT_TAKE,
    TALLY_VERDICT_STALE,   /* before the next offset: fetched before the last assignment */
    TALLY_VERDICT_FOREIGN, /* of a partition that is not current */
};
enum tally_verdict tally_partition_judge(const struct tally_partition *partition, int64_t offset);

/* Makes it current from a stored position. */
void tally_partition_resume(struct tally_partition *partition,
                            const struct tally_position *position);

/* Whether a stored position fits the log that Kafka has. OK, or CONFIG with what is wrong and what
 * to do, after which the projector must stop: it never starts from the end or the beginning by
 * itself. `low` and `high` are the log's watermarks. */
struct tally_log {
    const char *cluster;
    int32_t partitions;
    int64_t low;
    int64_t high;
    int64_t mark_ms; /* Kafka's time of the record before the position; 0: not known */
};
enum tally_status tally_position_check(const struct tally_position *position, int32_t partition,
                                       const struct tally_log *log,
                                       struct tally_error *error) TALLY_MUST_CHECK;

/* Whether a read model may be begun from the log alone: all of the history must be there. `lows`
 * are the low watermarks of all partitions. */
enum tally_status tally_log_whole(const int64_t *lows, int32_t partitions,
                                  struct tally_error *error) TALLY_MUST_CHECK;

#endif
