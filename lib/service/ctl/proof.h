/*
 * Proof: that nothing of a user's events is under way any more.
 *
 * The relay has published every event up to a version that PostgreSQL showed; after that Kafka is
 * asked where the user's partition ends; the projector's position is seen to have reached that end.
 * A user that is read after that and is not at the version will not come to it by itself. No clocks
 * are compared. Blocking; one thread.
 */
#ifndef TALLY_SERVICE_CTL_PROOF_H
#define TALLY_SERVICE_CTL_PROOF_H

#include "core/settings.h"
#include "kafka/admin.h"
#include "service/ctl/verify_model.h"

#include <libpq-fe.h>
#include <stdatomic.h>

/* Users of one call. */
#define TALLY_PROOF_MOST 100

struct tally_prover {
    const struct tally_settings *settings;  /* borrowed */
    const atomic_bool *stopping;            /* borrowed, may be NULL; ends waiting early */
    PGconn *connection;                     /* borrowed */
    const struct tally_verify_model *model; /* borrowed */
    struct tally_kafka_admin *kafka;        /* owned; made when first needed */
};

/* Any number of times. */
void tally_prover_release(struct tally_prover *prover);

/* Sets proven[i] for each of `count` <= TALLY_PROOF_MOST users and versions. A partition is asked
 * for once, and all that lag are waited for together, some seconds. Kafka that does not answer
 * leaves users unproven and is no failure. */
enum tally_status tally_prove_applied(struct tally_prover *prover, const int64_t *ids,
                                      const int64_t *versions, size_t count, bool *proven,
                                      struct tally_error *error) TALLY_MUST_CHECK;

#endif
