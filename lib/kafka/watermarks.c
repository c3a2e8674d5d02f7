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

/* rd_kafka_query_watermark_offsets() of librdkafka 2.0.2 asks the same, but waits for a leader that
 * is down however short its timeout is. */
static rd_kafka_resp_err_t ask(rd_kafka_t *client, const char *topic, int32_t partition,
                               int64_t which, int64_t timeout_ms, int64_t *offset)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *asked = rd_kafka_topic_partition_list_add(list, topic, partition);
    asked->offset = which;
    rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(client, list, (int)timeout_ms);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        code = asked->err;
    *offset = asked->offset;
    rd_kafka_topic_partition_list_destroy(list);
    return code;
}

rd_kafka_resp_err_t tally_kafka_watermarks(rd_kafka_t *client, const char *topic, int32_t partition,
                                           int timeout_ms, int64_t *low, int64_t *high)
{
    const int64_t due_us = tally_clock_monotonic_us() + timeout_ms * INT64_C(1000);
    int64_t left_ms = timeout_ms;
    rd_kafka_resp_err_t code;
    do {
        code = ask(client, topic, partition, RD_KAFKA_OFFSET_BEGINNING, left_ms, low);
        left_ms = (due_us - tally_clock_monotonic_us()) / 1000;
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
            code = left_ms > 0 ? ask(client, topic, partition, RD_KAFKA_OFFSET_END, left_ms, high)
                               : RD_KAFKA_RESP_ERR__TIMED_OUT;
        if (leader_is_unsettled(code))
            tally_clock_sleep_ms(PAUSE_MS);
        left_ms = (due_us - tally_clock_monotonic_us()) / 1000;
    } while (leader_is_unsettled(code) && left_ms > 0);
    return code;
}
