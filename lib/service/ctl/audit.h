/*
 * Audit: verify as a slow sweep without end that repairs the users it finds differing.
 *
 * A sweep walks all users by id and then all keys, at a set rate. Who differs is looked at again
 * (audit_confirm.h) and, once that is certain, repaired (repair.h); those of one partition
 * together, because each repair makes its projector read the partition's users again. Where the
 * sweep stands is kept in Redis, so that a new process goes on there. A server that is away is
 * tried again, with a pause that grows to half a minute.
 *
 * The work is done by a thread of its own, which blocks.
 */
#ifndef TALLY_SERVICE_CTL_AUDIT_H
#define TALLY_SERVICE_CTL_AUDIT_H

#include "core/metrics.h"
#include "core/settings.h"
#include "core/status.h"

struct tally_audit;

struct tally_audit_options {
    const struct tally_settings *settings; /* borrowed */
    struct tally_metrics *metrics;         /* borrowed */
    double rate;                           /* users and keys a second; > 0 */
    int64_t grace_ms;                      /* longest wait for the events of one user */
    int64_t repairs_most; /* of one sweep: beyond, the whole model is wrong, and `tallyctl rebuild`
                             is the cure */
    bool dry_run;         /* repair nothing, keep no place */
    bool once;            /* one whole sweep from the first user; keeps no place */
    /* From the audit's thread, once, when it has ended. */
    void (*on_ended)(void *context);
    void *context;
};

/* Of the sweep under way, or the last one. */
struct tally_audit_result {
    bool completed;
    int64_t checked;
    int64_t keys;
    int64_t differing;   /* users and keys, confirmed */
    int64_t repaired;    /* of them */
    int64_t unconfirmed; /* perhaps under way when the grace was over */
    double seconds;
};

enum tally_status tally_audit_start(const struct tally_audit_options *options,
                                    struct tally_audit **audit,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* Asks the thread to end; any thread. */
void tally_audit_stop(struct tally_audit *audit);
/* Waits for the thread and frees. */
void tally_audit_free(struct tally_audit **audit);

/* After on_ended: what came of it. A failure ends only an audit of one sweep. */
enum tally_status tally_audit_result(const struct tally_audit *audit,
                                     struct tally_audit_result *result, struct tally_error *error);

/* For /readyz: whether the last attempt to sweep goes well. Any thread. */
bool tally_audit_sweep_ready(void *context, char reason[256]);
/* For the watchdog: whether the thread has moved lately. Any thread. */
bool tally_audit_alive(void *context);

#endif
