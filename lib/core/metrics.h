/*
 * Metrics: counters, gauges and histograms in the Prometheus text format 0.0.4.
 *
 * Metrics are registered at start, each with its fixed labels, and live as long as the registry;
 * updates are lock-free and may come from any thread. Names carry the prefix `tally_` and base
 * units.
 */
#ifndef TALLY_CORE_METRICS_H
#define TALLY_CORE_METRICS_H

#include "core/buffer.h"

struct tally_metrics;
struct tally_metric;
struct tally_histogram;

/* NULL where there is no memory. */
struct tally_metrics *tally_metrics_new(void);
void tally_metrics_free(struct tally_metrics **metrics);

/* Registration, from one thread, before the first render. `name` and `help` must outlive the
 * registry; `labels` is copied: "" or `kind="post",result="ok"`. Metrics of one name must be
 * registered one after the other, so that they are printed together. Where there is no memory or no
 * room (TALLY_METRICS_MOST) a spare metric that is not printed is returned, never NULL. */
#define TALLY_METRICS_MOST 512
struct tally_metric *tally_metrics_counter(struct tally_metrics *metrics, const char *name,
                                           const char *help, const char *labels);
struct tally_metric *tally_metrics_gauge(struct tally_metrics *metrics, const char *name,
                                         const char *help, const char *labels);
/* `bounds` in seconds, ascending, `count` of them (at most TALLY_HISTOGRAM_BOUNDS); copied. */
#define TALLY_HISTOGRAM_BOUNDS 24
struct tally_histogram *tally_metrics_histogram(struct tally_metrics *metrics, const char *name,
                                                const char *help, const char *labels,
                                                const double *bounds, size_t count);

/* 100 µs to 10 s; for reads and writes. */
extern const double tally_latency_bounds_seconds[];
extern const size_t tally_latency_bounds_count;

void tally_metric_add(struct tally_metric *metric, int64_t amount);
void tally_metric_set(struct tally_metric *metric, double value);
double tally_metric_value(const struct tally_metric *metric);
void tally_histogram_observe(struct tally_histogram *histogram, double seconds);

/* Called at each render, before it, from the rendering thread: for gauges that are looked up rather
 * than kept. At most 8. */
void tally_metrics_on_render(struct tally_metrics *metrics, void (*refresh)(void *context),
                             void *context);
void tally_metrics_render(struct tally_metrics *metrics, struct tally_buffer *out);

#endif
