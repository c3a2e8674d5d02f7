#include "service/projector/partition.h"

#include <inttypes.h>
#include <string.h>

enum tally_verdict tally_partition_judge(const struct tally_partition *partition, int64_t offset)
{
    if (partition->standing != TALLY_PARTITION_CURRENT)
        return TALLY_VERDICT_FOREIGN;
    /* An offset beyond the next one is no error: compaction and transactions leave holes. Should an
     * event be missing in truth, the user's version tells. */
    return offset < partition->next ? TALLY_VERDICT_STALE : TALLY_VERDICT_TAKE;
}

void tally_partition_resume(struct tally_partition *partition,
                            const struct tally_position *position)
{
    *partition = (struct tally_partition){
        .standing = TALLY_PARTITION_CURRENT,
        .epoch = position->epoch,
        .until = position->until,
        .next = position->offset,
        .folded = position->offset,
        .applied = position->offset,
        .mark_ms = position->mark_ms,
        .event_at_ms = position->event_at_ms,
        .totals = position->totals,
    };
}

enum tally_status tally_position_check(const struct tally_position *position, int32_t partition,
                                       const struct tally_log *log, struct tally_error *error)
{
    if (!position->present)
        return tally_fail(error, TALLY_CONFIG,
                          "the read model has a generation but no position of partition %d; "
                          "`tallyctl rebuild` builds it anew",
                          partition);
    if (strcmp(position->cluster, log->cluster) != 0)
        return tally_fail(error, TALLY_CONFIG,
                          "the read model was built from Kafka cluster %s, and this is %s; correct "
                          "TALLY_KAFKA_BROKERS or run `tallyctl rebuild`",
                          position->cluster, log->cluster);
    if (position->partitions != log->partitions)
        return tally_fail(error, TALLY_CONFIG,
                          "the read model was built from %d partitions, and the topic has %d; "
                          "`tallyctl rebuild` builds it anew",
                          position->partitions, log->partitions);
    if (position->totals_lost && position->offset > 0)
        return tally_fail(error, TALLY_CONFIG,
                          "the totals of partition %d are lost; `tallyctl rebuild` builds the read "
                          "model anew",
                          partition);
    if (position->offset < log->low)
        return tally_fail(error, TALLY_CONFIG,
                          "partition %d: retention has dropped the offsets %" PRId64 " to %" PRId64
                          " before they were applied; `tallyctl rebuild` builds the read model "
                          "from PostgreSQL",
                          partition, position->offset, log->low);
    if (position->offset > log->high)
        return tally_fail(error, TALLY_CONFIG,
                          "partition %d ends at offset %" PRId64 ", before the position %" PRId64
                          ": the topic was recreated or truncated; run `tallyctl rebuild`",
                          partition, log->high, position->offset);
    if (position->mark_ms > 0 && log->mark_ms > 0 && position->mark_ms != log->mark_ms)
        return tally_fail(error, TALLY_CONFIG,
                          "partition %d: the record before offset %" PRId64 " is not the one that "
                          "was applied: the topic was recreated; run `tallyctl refill`, then "
                          "`tallyctl rebuild`",
                          partition, position->offset);
    return TALLY_OK;
}

enum tally_status tally_log_whole(const int64_t *lows, int32_t partitions,
                                  struct tally_error *error)
{
    for (int32_t i = 0; i < partitions; i++) {
        if (lows[i] != 0)
            return tally_fail(error, TALLY_CONFIG,
                              "there is no read model, and the log no longer has its beginning "
                              "(partition %d starts at offset %" PRId64 "); `tallyctl rebuild` "
                              "builds it from PostgreSQL",
                              i, lows[i]);
    }
    return TALLY_OK;
}
