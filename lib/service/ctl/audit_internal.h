/*
 * Audit, inside: the state that its files share: the sweep (audit_run.c), and what it finds
 * (audit_work.c).
 */
#ifndef TALLY_SERVICE_CTL_AUDIT_INTERNAL_H
#define TALLY_SERVICE_CTL_AUDIT_INTERNAL_H

#include "core/random.h"
#include "service/ctl/audit.h"
#include "service/ctl/audit_confirm.h"
#include "service/ctl/audit_report.h"
#include "service/ctl/repair.h"

struct tally_audit {
    struct tally_audit_options options;
    struct tally_audit_report report;
    pthread_t thread;
    atomic_bool stopping;
    struct tally_random random;
    struct tally_backoff backoff;
    struct tally_audit_judge judge;
    struct tally_repairer *repairer; /* NULL until there is something to repair */
    struct tally_audit_claims claims;
    int64_t claims_since_us;    /* monotonic; when the first of them came */
    struct tally_error refused; /* why claims could not be worked off amid a look */
    int64_t generation;         /* that `place` belongs to */
    struct tally_audit_place place;
    int64_t saved_us;
    int64_t next_step_us; /* the rate */
    bool completed;
    struct tally_error failure; /* of an audit of one sweep */
};

/* Takes in who is said to differ. What fails while room is made stands in `refused`, and nothing
 * more is taken in until the next attempt. The hooks of verify.h; `context` is the audit. */
void audit_take_difference(void *context, const struct tally_verify_difference *difference);
void audit_take_flagged(void *context, int64_t user_id, int64_t version);
/* Looks again at all who are said to differ, and repairs who does. Where it fails they are
 * forgotten, and found again: the place has not moved past them. */
enum tally_status audit_work_off(struct tally_audit *audit,
                                 struct tally_error *error) TALLY_MUST_CHECK;

#endif
