#include "kafka/watermarks.h"

#include "core/clock.h"

#include <stdbool.h>

enum { PAUSE_MS = 100 };

/* As of a partition that has just been made, or whose leader changes. */
static bool leader_is_unsettled(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE ||
           code == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION ||
           code == RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH ||
           code == RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH;
}

rd_kafka_resp_err_t tally_kafka_watermarks(rd_kafka_t *client, const char *topic, int32_t partition,
                                           int timeout_ms, int64_t *low, int64_t *high)
{
    const int64_t due_us = tally_clock_monotonic_us() + timeout_ms * INT64_C(1000);
    int64_t left_ms = timeout_ms;
    rd_kafka_resp_err_t code;
    do {
        code = rd_kafka_query_watermark_offsets(client, topic, partition, low, high, (int)left_ms);
        if (leader_is_unsettled(code))
            tally_clock_sleep_ms(PAUSE_MS);
        left_ms = (due_us - tally_clock_monotonic_us()) / 1000;
    } while (leader_is_unsettled(code) && left_ms > 0);
    return code;
}
