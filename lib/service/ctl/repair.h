/*
 * Repair: replaces single users of the live read model by what PostgreSQL says about them, with
 * their part of the totals, while writes go on. A user who is not in Redis is written only once it
 * is proven that its events were applied before (service/ctl/proof.h): the totals hold them then.
 * Blocking; one thread.
 */
#ifndef TALLY_SERVICE_CTL_REPAIR_H
#define TALLY_SERVICE_CTL_REPAIR_H

#include "core/settings.h"
#include "core/status.h"

#include <stdint.h>

struct tally_repairer;

struct tally_repair_result {
    int64_t repaired;  /* replaced; their mark of degradation is gone */
    int64_t removed;   /* keys of users that PostgreSQL does not have */
    int64_t refused;   /* newer in Redis than in PostgreSQL */
    int64_t postponed; /* written to at every attempt, or not in Redis and their events may be on
                          their way: a later repair may do them */
    int64_t unknown;   /* neither in PostgreSQL nor in Redis */
};

/* `settings` is borrowed. READ_MODEL_INCOMPLETE: there is no live read model. */
enum tally_status tally_repairer_new(const struct tally_settings *settings,
                                     struct tally_repairer **repairer,
                                     struct tally_error *error) TALLY_MUST_CHECK;
/* From now on a user who is newer in Redis than in PostgreSQL follows PostgreSQL too, unless Redis
 * has the user from a later timeline: then this PostgreSQL has been replaced by another one. For
 * whoever has made sure that this PostgreSQL is the one that is written to. */
void tally_repairer_follow_source(struct tally_repairer *repairer);
void tally_repairer_free(struct tally_repairer **repairer);

/* Repairs these users, each named once. `result` grows; `each` (may be NULL) hears of every user
 * what became of it. READ_MODEL_INCOMPLETE: the live generation changed or was lost. */
enum tally_repair_outcome {
    TALLY_REPAIR_REPAIRED,
    TALLY_REPAIR_REMOVED,
    TALLY_REPAIR_REFUSED,
    TALLY_REPAIR_POSTPONED,
    TALLY_REPAIR_UNKNOWN,
};
typedef void tally_repair_each(void *context, int64_t user_id, enum tally_repair_outcome outcome);
enum tally_status tally_repair_users(struct tally_repairer *repairer, const int64_t *ids,
                                     size_t count, tally_repair_each *each, void *context,
                                     struct tally_repair_result *result,
                                     struct tally_error *error) TALLY_MUST_CHECK;

/* Finds flagged users by a walk over the live generation's keys: one step, which fills `ids` with
 * up to `most` of them. `*cursor` (24 bytes) is "0" at the start and again at the end; `*looked`
 * grows by the keys seen. */
enum tally_status tally_repair_find_flagged(struct tally_repairer *repairer, char *cursor,
                                            int64_t *ids, size_t most, size_t *count,
                                            int64_t *looked,
                                            struct tally_error *error) TALLY_MUST_CHECK;

#define TALLY_REPAIR_SCAN_MOST 65536

#endif
