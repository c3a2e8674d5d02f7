#include "service/ctl/histogram.h"

#include <math.h>
#include <stddef.h>

enum { EXACT_BITS = 7, STEP_BITS = 6, STEPS = 1 << STEP_BITS };

static size_t bucket_of(uint64_t value)
{
    if (value < (1U << EXACT_BITS))
        return (size_t)value;
    unsigned power = 63U - (unsigned)__builtin_clzll(value);
    size_t step = (size_t)(value >> (power - STEP_BITS)) - STEPS;
    size_t bucket = (1U << EXACT_BITS) + (size_t)(power - EXACT_BITS) * STEPS + step;
    return bucket < TALLY_LATENCY_BUCKETS ? bucket : TALLY_LATENCY_BUCKETS - 1;
}

/* The greatest value that falls into the bucket. */
static int64_t bucket_bound(size_t bucket)
{
    if (bucket < (1U << EXACT_BITS))
        return (int64_t)bucket;
    size_t above = bucket - (1U << EXACT_BITS);
    unsigned power = (unsigned)(above / STEPS) + EXACT_BITS;
    uint64_t step = above % STEPS + STEPS;
    return (int64_t)(((step + 1) << (power - STEP_BITS)) - 1);
}

void tally_latency_record(struct tally_latency *latency, int64_t value_us)
{
    if (value_us < 0)
        value_us = 0;
    latency->buckets[bucket_of((uint64_t)value_us)]++;
    latency->count++;
    latency->sum_us += value_us;
    if (value_us > latency->max_us)
        latency->max_us = value_us;
}

int64_t tally_latency_percentile_us(const struct tally_latency *latency, double percent)
{
    int64_t wanted = (int64_t)ceil((double)latency->count * percent / 100.0);
    int64_t seen = 0;
    for (size_t i = 0; i < TALLY_LATENCY_BUCKETS; i++) {
        seen += (int64_t)latency->buckets[i];
        if (seen >= wanted && seen > 0) {
            int64_t bound = bucket_bound(i);
            return bound < latency->max_us ? bound : latency->max_us;
        }
    }
    return latency->max_us;
}
