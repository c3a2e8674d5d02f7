/*
 * Audit report: what the audit's thread says of itself: metrics, health, log lines.
 */
#ifndef TALLY_SERVICE_CTL_AUDIT_REPORT_H
#define TALLY_SERVICE_CTL_AUDIT_REPORT_H

#include "core/log.h"
#include "core/metrics.h"
#include "service/ctl/audit_claim.h"
#include "service/ctl/audit_place.h"

#include <pthread.h>

#define TALLY_AUDIT_REASON_BYTES 256

struct tally_audit_report {
    struct tally_metric *differences[TALLY_AUDIT_KIND_COUNT];
    struct tally_metric *users_checked, *keys_checked;
    struct tally_metric *repaired, *repair_failures, *unconfirmed, *held_back;
    struct tally_metric *sweeps, *failures;
    struct tally_metric *sweep_seconds, *sweep_started, *sweep_completed;
    struct tally_metric *position_users, *position_keys, *users;
    pthread_mutex_t mutex;                 /* guards what follows */
    char reason[TALLY_AUDIT_REASON_BYTES]; /* "": the sweep goes on */
    int64_t turned_us;                     /* monotonic */
    struct tally_log_limit failing;        /* the audit's thread alone */
};

/* Registers the metrics, from the thread that renders them; before the audit's thread starts. */
void tally_audit_report_init(struct tally_audit_report *report, struct tally_metrics *metrics);
void tally_audit_report_release(struct tally_audit_report *report);

/* The thread is at work; any number of times. */
void tally_audit_report_turn(struct tally_audit_report *report);
/* NULL: the sweep goes on; else why it does not, which is also logged. */
void tally_audit_report_failure(struct tally_audit_report *report, const struct tally_error *error);
/* Any thread. */
bool tally_audit_report_ready(struct tally_audit_report *report,
                              char reason[TALLY_AUDIT_REASON_BYTES]);
int64_t tally_audit_report_turned_us(struct tally_audit_report *report);

/* What the gauges show of the sweep under way; `users` is how many there are, 0 where not known. */
void tally_audit_report_place(struct tally_audit_report *report,
                              const struct tally_audit_place *place, int64_t users);
void tally_audit_report_completed(struct tally_audit_report *report,
                                  const struct tally_audit_place *place);

/* What became of a confirmed claim. */
enum tally_audit_end {
    TALLY_AUDIT_REPAIRED,
    TALLY_AUDIT_FAILED,    /* the user went on changing, or is of a later timeline */
    TALLY_AUDIT_HELD_BACK, /* dry run, too many, or a key that no repair mends */
};
void tally_audit_report_claim(struct tally_audit_report *report,
                              const struct tally_audit_claim *claim, enum tally_audit_end end);

#endif
