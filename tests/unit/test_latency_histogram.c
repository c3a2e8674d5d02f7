/* Latencies: percentiles stay within the promised error. */
#include "core/random.h"
#include "service/ctl/histogram.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct tally_latency latency;

Test(latency_histogram, no_values_have_percentile_0)
{
    cr_assert_eq(tally_latency_percentile_us(&latency, 99), 0);
}

Test(latency_histogram, small_values_are_exact)
{
    for (int64_t value = 1; value <= 100; value++)
        tally_latency_record(&latency, value);
    cr_assert_eq(tally_latency_percentile_us(&latency, 50), 50);
    cr_assert_eq(tally_latency_percentile_us(&latency, 99), 99);
    cr_assert_eq(tally_latency_percentile_us(&latency, 100), 100);
    cr_assert_eq(latency.sum_us, 5050);
}

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

Test(latency_histogram, percentiles_are_at_most_a_64th_too_high)
{
    enum { VALUES = 50000 };
    static int64_t values[VALUES];
    struct tally_random random;
    tally_random_seed(&random, 3);
    for (int i = 0; i < VALUES; i++) {
        values[i] = (int64_t)(tally_random_next(&random) >> (30 + tally_random_below(&random, 30)));
        tally_latency_record(&latency, values[i]);
    }
    qsort(values, VALUES, sizeof values[0], ascending);
    const double percents[] = {1, 10, 50, 90, 95, 99, 99.9};
    for (size_t i = 0; i < sizeof percents / sizeof percents[0]; i++) {
        int64_t exact = values[(size_t)(VALUES * percents[i] / 100) - 1];
        int64_t found = tally_latency_percentile_us(&latency, percents[i]);
        cr_expect(found >= exact && (double)found <= (double)exact * (1 + 1.0 / 64) + 1,
                  "p%g: %lld instead of %lld", percents[i], (long long)found, (long long)exact);
    }
    cr_assert_eq(latency.max_us, values[VALUES - 1]);
}

Test(latency_histogram, values_beyond_the_buckets_count_and_keep_their_maximum)
{
    tally_latency_record(&latency, -5);
    tally_latency_record(&latency, INT64_MAX / 4);
    cr_assert_eq(latency.count, 2);
    cr_assert_eq(latency.max_us, INT64_MAX / 4);
    cr_assert_eq(tally_latency_percentile_us(&latency, 50), 0);
}
