/*
 * Watermarks: the first kept offset of a partition, and the next one to be written; asked for
 * again, within the time given, where the partition's leader is unsettled. Blocking; inside
 * lib/kafka.
 */
#ifndef TALLY_KAFKA_WATERMARKS_H
#define TALLY_KAFKA_WATERMARKS_H

#include <librdkafka/rdkafka.h>
#include <stdint.h>

rd_kafka_resp_err_t tally_kafka_watermarks(rd_kafka_t *client, const char *topic, int32_t partition,
                                           int timeout_ms, int64_t *low, int64_t *high);

#endif
