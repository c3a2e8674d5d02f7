/*
 * Histogram: latencies in fixed memory, with percentiles that are at most 1/64 (1.6 %) too high.
 *
 * Log-linear buckets, the idea of HdrHistogram (https://hdrhistogram.org): values up to 128 have a
 * bucket each, then every power of two is divided into 64. One thread. Not the Prometheus histogram
 * of core/metrics.h, whose few bounds suit dashboards, not percentiles.
 */
#ifndef TALLY_SERVICE_CTL_HISTOGRAM_H
#define TALLY_SERVICE_CTL_HISTOGRAM_H

#include <stdint.h>

/* 128 exact ones and 64 for each power of two from 2^7 up to 2^36 (19 hours in microseconds). */
#define TALLY_LATENCY_BUCKETS (128 + 64 * 30)

struct tally_latency {
    uint64_t buckets[TALLY_LATENCY_BUCKETS];
    int64_t count;
    int64_t sum_us;
    int64_t max_us; /* exact */
};

/* `value_us` below 0 counts as 0; above the last bucket it is counted there. */
void tally_latency_record(struct tally_latency *latency, int64_t value_us);
/* The least bucket bound below or at which `percent` (0 to 100) of the values are, never above the
 * maximum; 0 where there are no values. */
int64_t tally_latency_percentile_us(const struct tally_latency *latency, double percent);

#endif
