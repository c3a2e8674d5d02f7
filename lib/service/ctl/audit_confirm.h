/*
 * Audit confirm: the second look at users who are said to differ, before anything is repaired.
 *
 * Read model first, PostgreSQL after it: where both show one version, or the read model a newer
 * one, nothing under way explains a difference. A user who is absent or at an older version is
 * confirmed only where nothing of its events is under way (service/ctl/proof.h), and the user, read
 * after that, still is not there. Blocking; one thread.
 */
#ifndef TALLY_SERVICE_CTL_AUDIT_CONFIRM_H
#define TALLY_SERVICE_CTL_AUDIT_CONFIRM_H

#include "service/ctl/audit_claim.h"
#include "service/ctl/proof.h"

struct tally_audit_judge {
    PGconn *connection;
    struct tally_verify_model model;
    struct tally_prover prover;
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
