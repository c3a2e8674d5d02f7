/*
 * Round: one batch of records on its way from Kafka into apply calls.
 *
 * take() records, learn the states of the users that missing() lists, fold(); the bytes of `out`
 * then go to Redis in one write, and `calls` says what they are. Pure: reads no clock, does no I/O.
 */
#ifndef TALLY_SERVICE_PROJECTOR_ROUND_H
#define TALLY_SERVICE_PROJECTOR_ROUND_H

#include "kafka/consumer.h"
#include "service/projector/model.h"

/* What became of a record. */
enum tally_outcome {
    TALLY_OUTCOME_APPLIED = TALLY_FOLD_APPLIED,
    TALLY_OUTCOME_DUPLICATE = TALLY_FOLD_DUPLICATE,
    TALLY_OUTCOME_GAP = TALLY_FOLD_GAP,
    TALLY_OUTCOME_DIVERGED = TALLY_FOLD_DIVERGED,
    TALLY_OUTCOME_POISON = TALLY_FOLD_RESULT_COUNT, /* must reach the dead letters first */
    TALLY_OUTCOME_DROPPED,                          /* of a partition that was lost meanwhile */
    TALLY_OUTCOME_COUNT
};
/* "applied", "duplicate", "gap", "diverged", "poison", "dropped". */
const char *tally_outcome_text(enum tally_outcome outcome);

struct tally_round_item {
    struct tally_record record;           /* owned */
    struct tally_event event;             /* valid unless poison */
    struct tally_profile profile;         /* owned: of user.created and user.updated */
    struct tally_user_slot *slot;         /* NULL: the key tells no user */
    char parent[TALLY_TRACEPARENT_BYTES]; /* traceparent; "": none */
    enum tally_outcome outcome;
    bool flagged;   /* its user was, before it */
    bool lost;      /* it shows that its user's state is gone from Redis */
    bool misplaced; /* poison for no other reason than that its key belongs to another partition */
    char *poison;   /* owned: why it cannot be applied; NULL: it can */
};

/* One apply call that `out` holds. */
struct tally_round_call {
    int32_t partition;
    int64_t to_offset;
    size_t events;
};

struct tally_round {
    struct tally_round_item *items; /* owned, `most` of them */
    size_t count;
    size_t most;
    struct tally_user_slot **missing; /* owned: users to be read from Redis, each once */
    int32_t *missing_partitions;      /* owned, parallel */
    size_t missing_count;
    struct tally_round_call *calls; /* owned, grows */
    size_t call_count;
    size_t call_capacity;
    struct tally_buffer out;
    const struct tally_round_item *misplaced; /* the first that is */
    const struct tally_round_item *headless;  /* folding ended there: see tally_round_fold() */
    bool failed;                              /* memory ran out: nothing of it may be sent */
};

/* `most` records a round. False where there is no memory. */
bool tally_round_init(struct tally_round *round, size_t most);
void tally_round_release(struct tally_round *round);
/* Releases the records and keeps the calls: for a round that has been sent. */
void tally_round_drop_items(struct tally_round *round);
/* Empties it, releasing the records. */
void tally_round_clear(struct tally_round *round);

/* Takes over a record, and lists its user under `missing`, or its partition's new_users, where the
 * state is not known. Decodes it, and drops it where the partition does not expect it (then the
 * answer is false). The round must not be full. */
bool tally_round_take(struct tally_round *round, struct tally_model *model,
                      struct tally_record *record);
/* Folds all items in their order into apply calls. Every slot of a current partition must be
 * loaded. Otherwise nothing may be sent, and all partitions of the round are to be lost:
 * TALLY_NO_MEMORY; CONFIG: the read model is being built from a log that lacks its beginning, or
 * whose events went by another partition count. */
enum tally_status tally_round_fold(struct tally_round *round, struct tally_model *model,
                                   struct tally_apply_encoder *encoder,
                                   struct tally_error *error) TALLY_MUST_CHECK;

/* Appends a call without users, which only refreshes fresh_at_ms. */
enum tally_status tally_round_heartbeat(struct tally_round *round, struct tally_model *model,
                                        struct tally_apply_encoder *encoder, int32_t partition,
                                        int64_t fresh_at_ms,
                                        struct tally_error *error) TALLY_MUST_CHECK;

#endif
