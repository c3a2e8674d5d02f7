/*
 * Dlq retry: restores the user of a dead letter. A letter's version is past, so applying it again
 * would be a duplicate: the user is restored from PostgreSQL instead. Blocking.
 */
#ifndef TALLY_SERVICE_CTL_DLQ_RETRY_H
#define TALLY_SERVICE_CTL_DLQ_RETRY_H

#include "core/settings.h"
#include "redis/connection.h"
#include "service/ctl/repair.h"

#define TALLY_DLQ_RETRY_WHY_BYTES 200

struct tally_dlq_retry {
    struct tally_redis *redis;
    struct tally_repairer *repairer;
    int64_t generation;
    int32_t partitions;
};

/* READ_MODEL_INCOMPLETE: there is no read model. */
enum tally_status tally_dlq_retry_open(struct tally_dlq_retry *retry,
                                       const struct tally_settings *settings,
                                       struct tally_error *error) TALLY_MUST_CHECK;
void tally_dlq_retry_close(struct tally_dlq_retry *retry);

/* Restores the user unless that has happened already. `*settled`: the read model holds the user
 * unflagged at the letter's `version` or a later one, or nobody knows the user; the letter is done.
 * Otherwise `why` says what is to be done first. */
enum tally_status tally_dlq_retry_user(struct tally_dlq_retry *retry, int64_t user_id,
                                       int64_t version, bool *settled,
                                       char why[TALLY_DLQ_RETRY_WHY_BYTES],
                                       struct tally_error *error) TALLY_MUST_CHECK;

#endif
