/*
 * Fold: state + event -> state, or duplicate, or gap, or divergence. The one rule by which counts
 * change; the projector, the rebuild and the simulation all call it. Pure: no I/O, no clock.
 *
 * A user's version orders the user's events without holes. So an event is
 *   applied      where its version is the stored one plus one;
 *   a duplicate  where its version is not above the stored one: it has been counted already;
 *   a gap        where it is above that: events in between are missing. It is applied, so that the
 *                count is as close as can be, and the user is flagged until repaired;
 *   a divergence where its version is not above the stored one but was written on a newer
 * PostgreSQL timeline: the database went back and gave the version out a second time. What was
 *                counted may not exist any more, so the user is flagged and nothing is applied.
 * Also where its version is above the stored one but of an older timeline: a write of a history
 * that was left behind, or the first one after a move to another cluster, which counts timelines
 * anew. Only the source can say which, so that it is applied as after a gap, and the user flagged.
 *
 * A user of whom nothing is known and whose event is not the first was known before: its state has
 * been lost, and the totals still hold it. The totals then move by what the event changes, though
 * the state begins at zero, and the user is marked as lost, so that a repair does not take what the
 * state shows for what the totals hold.
 */
#ifndef TALLY_DOMAIN_FOLD_H
#define TALLY_DOMAIN_FOLD_H

#include "domain/event.h"

struct tally_user_state {
    int64_t version; /* 0: nothing of this user has been applied */
    int64_t posts;
    int64_t comments;
    int32_t timeline; /* of the event that gave `version` */
    bool deleted;     /* for good: later versions are counted as seen and change nothing else */
    bool flagged;     /* differs or may differ from the source until repaired */
    bool lost;        /* flagged; the totals hold the user's true counts and not these */
};

enum tally_fold_result {
    TALLY_FOLD_APPLIED,
    TALLY_FOLD_DUPLICATE,
    TALLY_FOLD_GAP,
    TALLY_FOLD_DIVERGED,
    TALLY_FOLD_RESULT_COUNT
};

/* What a step changed beside the state itself. */
struct tally_fold_effect {
    bool write;       /* the state must be written */
    bool profile_set; /* the event's value is the profile now */
    int users_delta;  /* change of the partition's totals */
    int64_t posts_delta;
    int64_t comments_delta;
};

/* Short stable name for metrics and logs: "applied", "duplicate", "gap", "diverged". */
const char *tally_fold_result_text(enum tally_fold_result result);

/* Moves `state` by `event` and says in `effect` what follows. Any input is allowed: counts that
 * would fall below zero, which only a gap or a divergence can bring about, stay at zero and flag
 * the user. */
enum tally_fold_result tally_fold(struct tally_user_state *state, const struct tally_event *event,
                                  struct tally_fold_effect *effect);

/* Marks the user of an event that cannot be applied at all (poison). True where that is news. */
bool tally_fold_flag(struct tally_user_state *state);

#endif
