/*
 * Scan: reads a stretch of one partition once, outside of any consumer group; for tools.
 *
 * Every call blocks, at most as long as its timeout, and has a client of its own.
 */
#ifndef TALLY_KAFKA_SCAN_H
#define TALLY_KAFKA_SCAN_H

#include "kafka/consumer.h"

struct tally_scan {
    const char *brokers;
    const char *topic;
    int32_t partition;
    int64_t from; /* first offset; must not lie before the log's beginning */
    int64_t to;   /* first offset that is not read */
    int64_t timeout_ms;
    /* Each record in order; `timestamp_ms` is Kafka's own, -1 where it has none. The record is
     * released after the call. False ends the scan. */
    bool (*on_record)(void *context, const struct tally_record *record, int64_t timestamp_ms);
    void *context;
};

/* `*reached` receives the first offset that was not read: less than `to` where the time is over or
 * on_record ended it. That is no failure. UNAVAILABLE: no broker answered at all; CONFIG: the log
 * does not hold `from`, or librdkafka refuses an option. */
enum tally_status tally_scan_run(const struct tally_scan *scan, int64_t *reached,
                                 struct tally_error *error) TALLY_MUST_CHECK;

/* The value of header `name` as text in `text` (cut where longer); "" where there is none. */
void tally_record_header_text(const struct tally_record *record, const char *name, char *text,
                              size_t bytes);

#endif
