#include "core/metrics.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REFRESH_MOST = 8, LABELS_BYTES = 160 };

enum metric_kind { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM };

static const char *const kind_texts[] = {"counter", "gauge", "histogram"};

struct tally_metric {
    _Atomic double value;
};

struct tally_histogram {
    double bounds[TALLY_HISTOGRAM_BOUNDS];
    size_t bound_count;
    /* One bucket more than bounds: what is above them all. Not cumulative, unlike what is printed.
     */
    atomic_llong buckets[TALLY_HISTOGRAM_BOUNDS + 1];
    _Atomic double sum_seconds;
};

struct entry {
    enum metric_kind kind;
    const char *name;
    const char *help;
    char labels[LABELS_BYTES];
    struct tally_metric metric;
    struct tally_histogram *histogram; /* owned; for KIND_HISTOGRAM only */
};

struct tally_metrics {
    struct entry *entries[TALLY_METRICS_MOST];
    size_t count;
    struct tally_metric spare_metric;
    struct tally_histogram spare_histogram;
    struct {
        void (*refresh)(void *context);
        void *context;
    } refreshers[REFRESH_MOST];
    size_t refresher_count;
};

const double tally_latency_bounds_seconds[] = {
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01,
    0.025,  0.05,    0.1,    0.25,  0.5,   1,     2.5,   5,      10,
};
const size_t tally_latency_bounds_count =
    sizeof tally_latency_bounds_seconds / sizeof tally_latency_bounds_seconds[0];

struct tally_metrics *tally_metrics_new(void)
{
    return calloc(1, sizeof(struct tally_metrics));
}

void tally_metrics_free(struct tally_metrics **metrics)
{
    if (*metrics == NULL)
        return;
    for (size_t i = 0; i < (*metrics)->count; i++) {
        free((*metrics)->entries[i]->histogram);
        free((*metrics)->entries[i]);
    }
    free(*metrics);
    *metrics = NULL;
}

static struct entry *add_entry(struct tally_metrics *metrics, enum metric_kind kind,
                               const char *name, const char *help, const char *labels)
{
    if (metrics->count == TALLY_METRICS_MOST || strlen(labels) >= LABELS_BYTES)
        return NULL;
    struct entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return NULL;
    entry->kind = kind;
    entry->name = name;
    entry->help = help;
    (void)snprintf(entry->labels, sizeof entry->labels, "%s", labels);
    metrics->entries[metrics->count++] = entry;
    return entry;
}

struct tally_metric *tally_metrics_counter(struct tally_metrics *metrics, const char *name,
                                           const char *help, const char *labels)
{
    struct entry *entry = add_entry(metrics, KIND_COUNTER, name, help, labels);
    return entry != NULL ? &entry->metric : &metrics->spare_metric;
}

struct tally_metric *tally_metrics_gauge(struct tally_metrics *metrics, const char *name,
                                         const char *help, const char *labels)
{
    struct entry *entry = add_entry(metrics, KIND_GAUGE, name, help, labels);
    return entry != NULL ? &entry->metric : &metrics->spare_metric;
}

struct tally_histogram *tally_metrics_histogram(struct tally_metrics *metrics, const char *name,
                                                const char *help, const char *labels,
                                                const double *bounds, size_t count)
{
    struct tally_histogram *histogram = calloc(1, sizeof *histogram);
    if (histogram == NULL || count > TALLY_HISTOGRAM_BOUNDS)
        goto spare;
    memcpy(histogram->bounds, bounds, count * sizeof *bounds);
    histogram->bound_count = count;
    struct entry *entry = add_entry(metrics, KIND_HISTOGRAM, name, help, labels);
    if (entry == NULL)
        goto spare;
    entry->histogram = histogram;
    return histogram;
spare:
    free(histogram);
    return &metrics->spare_histogram;
}

static void atomic_add(_Atomic double *target, double amount)
{
    double seen = atomic_load_explicit(target, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(target, &seen, seen + amount,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

void tally_metric_add(struct tally_metric *metric, int64_t amount)
{
    atomic_add(&metric->value, (double)amount);
}

void tally_metric_set(struct tally_metric *metric, double value)
{
    atomic_store_explicit(&metric->value, value, memory_order_relaxed);
}

double tally_metric_value(const struct tally_metric *metric)
{
    return atomic_load_explicit(&metric->value, memory_order_relaxed);
}

void tally_histogram_observe(struct tally_histogram *histogram, double seconds)
{
    size_t bucket = 0;
    while (bucket < histogram->bound_count && seconds > histogram->bounds[bucket])
        bucket++;
    atomic_fetch_add_explicit(&histogram->buckets[bucket], 1, memory_order_relaxed);
    atomic_add(&histogram->sum_seconds, seconds);
}

void tally_metrics_on_render(struct tally_metrics *metrics, void (*refresh)(void *context),
                             void *context)
{
    if (metrics->refresher_count == REFRESH_MOST)
        return;
    metrics->refreshers[metrics->refresher_count].refresh = refresh;
    metrics->refreshers[metrics->refresher_count].context = context;
    metrics->refresher_count++;
}

static void render_sample(struct tally_buffer *out, const char *name, const char *suffix,
                          const char *labels, double value)
{
    tally_buffer_append_text(out, name);
    tally_buffer_append_text(out, suffix);
    if (labels[0] != '\0')
        tally_buffer_format(out, "{%s}", labels);
    tally_buffer_format(out, " %.15g\n", value);
}

static void render_histogram(struct tally_buffer *out, const struct entry *entry)
{
    const struct tally_histogram *histogram = entry->histogram;
    const char *comma = entry->labels[0] != '\0' ? "," : "";
    long long total = 0;
    for (size_t i = 0; i <= histogram->bound_count; i++) {
        total += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
        if (i < histogram->bound_count)
            tally_buffer_format(out, "%s_bucket{%s%sle=\"%g\"} %lld\n", entry->name, entry->labels,
                                comma, histogram->bounds[i], total);
        else
            tally_buffer_format(out, "%s_bucket{%s%sle=\"+Inf\"} %lld\n", entry->name,
                                entry->labels, comma, total);
    }
    double sum = atomic_load_explicit(&histogram->sum_seconds, memory_order_relaxed);
    render_sample(out, entry->name, "_sum", entry->labels, sum);
    render_sample(out, entry->name, "_count", entry->labels, (double)total);
}

void tally_metrics_render(struct tally_metrics *metrics, struct tally_buffer *out)
{
    for (size_t i = 0; i < metrics->refresher_count; i++)
        metrics->refreshers[i].refresh(metrics->refreshers[i].context);
    const char *family = "";
    for (size_t i = 0; i < metrics->count; i++) {
        const struct entry *entry = metrics->entries[i];
        if (strcmp(family, entry->name) != 0) {
            family = entry->name;
            tally_buffer_format(out, "# HELP %s %s\n# TYPE %s %s\n", entry->name, entry->help,
                                entry->name, kind_texts[entry->kind]);
        }
        if (entry->kind == KIND_HISTOGRAM)
            render_histogram(out, entry);
        else
            render_sample(out, entry->name, "", entry->labels, tally_metric_value(&entry->metric));
    }
}
