#include "service/ctl/proof.h"

#include "core/clock.h"
#include "domain/partitioner.h"
#include "store/recount.h"
#include "view/position.h"

#include <string.h>

enum {
    MOST = TALLY_PROOF_MOST,
    PAUSE_MS = 100,
    KAFKA_MS = 2000,
    APPLIED_MS = 5000, /* longest wait for the projector to come to the ends seen */
};

_Static_assert(MOST <= TALLY_RECOUNT_MOST, "one read for all");

void tally_prover_release(struct tally_prover *prover)
{
    tally_kafka_admin_free(&prover->kafka);
}

/* Where a partition ends, seen after everything in question was published. */
static bool find_end(struct tally_prover *prover, int32_t partition, int64_t *end)
{
    const struct tally_settings *settings = prover->settings;
    int64_t low = 0;
    if (prover->kafka == NULL &&
        tally_kafka_admin_new(settings->kafka_brokers, &prover->kafka, NULL) != TALLY_OK)
        return false;
    return tally_kafka_admin_watermarks(prover->kafka, settings->topic, partition, KAFKA_MS, &low,
                                        end, NULL) == TALLY_OK;
}

static bool stopping(const struct tally_prover *prover)
{
    return prover->stopping != NULL && atomic_load(prover->stopping);
}

/* Waits until the partition's position is at `end`, or until `due_us` (monotonic); `*applied` says
 * whether it came. A position beyond the log's end is of another log, and says nothing. */
static enum tally_status await_applied(struct tally_prover *prover, int32_t partition, int64_t end,
                                       int64_t due_us, bool *applied, struct tally_error *error)
{
    for (;;) {
        struct tally_position position;
        int64_t later_end = 0;
        enum tally_status status = tally_position_read(
            prover->model->redis, prover->model->generation, &partition, 1, &position, error);
        *applied = status == TALLY_OK && position.present && position.offset >= end;
        if (*applied)
            *applied = find_end(prover, partition, &later_end) && position.offset <= later_end;
        if (status != TALLY_OK || *applied || tally_clock_monotonic_us() >= due_us ||
            stopping(prover))
            return status;
        tally_clock_sleep_ms(PAUSE_MS);
    }
}

enum tally_status tally_prove_applied(struct tally_prover *prover, const int64_t *ids,
                                      const int64_t *versions, size_t count, bool *proven,
                                      struct tally_error *error)
{
    const int64_t due_us = tally_clock_monotonic_us() + (int64_t)APPLIED_MS * 1000;
    int32_t partitions[MOST];
    bool published[MOST] = {false}, done[MOST] = {false};
    memset(proven, 0, count * sizeof *proven);
    if (count == 0)
        return TALLY_OK;
    enum tally_status status =
        tally_recount_published(prover->connection, ids, versions, count, published, error);
    for (size_t i = 0; i < count; i++)
        partitions[i] = tally_partition_of(ids[i], prover->model->partitions);
    bool answers = true;
    for (size_t i = 0; i < count && status == TALLY_OK && answers; i++) {
        int64_t end = 0;
        bool applied = false;
        if (!published[i] || done[i])
            continue;
        answers = find_end(prover, partitions[i], &end);
        if (answers)
            status = await_applied(prover, partitions[i], end, due_us, &applied, error);
        for (size_t k = i; k < count; k++) {
            if (partitions[k] != partitions[i])
                continue;
            done[k] = true;
            proven[k] = published[k] && applied;
        }
    }
    return status;
}
