/*
 * Audit confirm: the second look at users who are said to differ, before anything is repaired.
 *
 * Read model first, PostgreSQL after it: where both show one version, or the read model a newer
 * one, nothing under way explains a difference. A user who is absent or at an older version is
 * confirmed only by this chain: the relay has published every event up to the version that
 * PostgreSQL showed; after that Kafka is asked where the user's partition ends; the projector's
 * position is seen to have reached that end; and the user, read after that, still is not there. No
 * clocks are compared. Blocking; one thread.
 */
#ifndef TALLY_SERVICE_CTL_AUDIT_CONFIRM_H
#define TALLY_SERVICE_CTL_AUDIT_CONFIRM_H

#include "core/settings.h"
#include "kafka/admin.h"
#include "service/ctl/audit_claim.h"
#include "service/ctl/verify_model.h"

#include <libpq-fe.h>
#include <stdatomic.h>

struct tally_audit_judge {
    const struct tally_settings *settings; /* borrowed */
    const atomic_bool *stopping;           /* borrowed; ends waiting early */
    PGconn *connection;
    struct tally_verify_model model;
    struct tally_kafka_admin *kafka;
};

/* Everything to be closed by tally_audit_judge_close(), also after a failure. */
enum tally_status tally_audit_judge_open(struct tally_audit_judge *judge,
                                         const struct tally_settings *settings,
                                         const atomic_bool *stopping,
                                         struct tally_error *error) TALLY_MUST_CHECK;
/* Any number of times, also of one that is all zero. */
void tally_audit_judge_close(struct tally_audit_judge *judge);

/* Sets each claim's verdict, after a pause. Kafka that does not answer leaves claims unconfirmed
 * and is no failure. */
enum tally_status tally_audit_confirm(struct tally_audit_judge *judge,
                                      struct tally_audit_claims *claims,
                                      struct tally_error *error) TALLY_MUST_CHECK;

#endif
