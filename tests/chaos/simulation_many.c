#include "simulation.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* The clock of the machine: the program's own is simulated. */
static double seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* On a terminal one line that changes, else a line now and then. */
static void show(const struct simulation_range *range, uint64_t done, uint64_t failures,
                 double began, double *shown)
{
    const double now = seconds();
    const bool terminal = isatty(STDERR_FILENO) == 1;
    if (now - *shown < (terminal ? 0.2 : 10))
        return;
    *shown = now;
    const uint64_t all = range->last - range->first + 1;
    const double rate = (double)done / (now - began);
    (void)fprintf(stderr,
                  "%s%" PRIu64 " of %" PRIu64 " seeds, %.0f/s, %.0f s left, %" PRIu64 " failed%s",
                  terminal ? "\r\033[K" : "", done, all, rate, (double)(all - done) / rate,
                  failures, terminal ? "" : "\n");
}

uint64_t simulation_many(const struct simulation_range *range, bool quiet, uint64_t *failed,
                         struct simulation_outcome *outcome)
{
    uint64_t failures = 0;
    const double began = seconds();
    double shown = began;
    for (uint64_t seed = range->first; seed <= range->last; seed++) {
        const struct simulation_settings settings = {
            .seed = seed, .steps = range->steps, .plant = range->plant};
        struct simulation_outcome one;
        simulation_run(&settings, &one);
        if (one.failed && !quiet)
            (void)fprintf(stderr, "\nseed %" PRIu64 " failed: %s\n", seed, one.reason);
        if (one.failed && failures++ == 0) {
            *failed = seed;
            *outcome = one;
        }
        if (one.failed && range->stop_at_failure)
            break;
        if (!quiet)
            show(range, seed - range->first + 1, failures, began, &shown);
    }
    if (!quiet && isatty(STDERR_FILENO) == 1)
        (void)fprintf(stderr, "\r\033[K");
    return failures;
}
