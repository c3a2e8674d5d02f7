/*
 * Audit place: where a sweep stands and how it began, kept in Redis beside the generation that it
 * sweeps: lost with it, and removed with it. Blocking.
 */
#ifndef TALLY_SERVICE_CTL_AUDIT_PLACE_H
#define TALLY_SERVICE_CTL_AUDIT_PLACE_H

#include "redis/connection.h"
#include "service/ctl/verify.h"

struct tally_audit_place {
    struct tally_verify_place walk;
    int64_t started_at_ms;   /* wall clock; 0: no sweep is under way */
    int64_t completed_at_ms; /* of the last sweep that ended; 0: none did */
    int64_t last_sweep_ms;   /* how long that one took */
    int64_t checked;         /* by the sweep under way: users, */
    int64_t keys;            /* keys, */
    int64_t differing;       /* users and keys found to differ, */
    int64_t repaired;        /* those that are right again, */
    int64_t unconfirmed;     /* and those that may have had events under way */
};

/* All zero where there is none. PROTOCOL: what is there cannot be read. */
enum tally_status tally_audit_place_load(struct tally_redis *redis, int64_t generation,
                                         struct tally_audit_place *place,
                                         struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_audit_place_save(struct tally_redis *redis, int64_t generation,
                                         const struct tally_audit_place *place,
                                         struct tally_error *error) TALLY_MUST_CHECK;

#endif
