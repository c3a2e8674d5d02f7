#include "service/projector/projector.h"

#include "core/clock.h"
#include "service/projector/worker.h"

#include <pthread.h>
#include <stdlib.h>

/* Longer than any single wait of the thread: Redis' timeout, a few questions to Kafka, the dead
 * letters' acknowledgement. */
static const int64_t ALIVE_US = 30LL * 1000 * 1000;

struct tally_projector {
    struct tally_projector_options options;
    struct tally_report *report;
    struct tally_worker worker;
    pthread_t thread;
    atomic_bool stopping;
    atomic_bool verbose;
    struct tally_error failure; /* written before on_failed and on_ended */
};

static void *run(void *argument)
{
    struct tally_projector *projector = argument;
    tally_worker_run(&projector->worker);
    projector->failure = projector->worker.fatal;
    if (projector->failure.status != TALLY_OK && projector->options.on_failed != NULL)
        projector->options.on_failed(projector->options.context);
    tally_worker_close(&projector->worker);
    projector->options.on_ended(projector->options.context);
    return NULL;
}

enum tally_status tally_projector_start(const struct tally_projector_options *options,
                                        struct tally_projector **projector,
                                        struct tally_error *error)
{
    struct tally_projector *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "projector");
    made->options = *options;
    made->report = tally_report_new(options->metrics);
    if (made->report == NULL) {
        free(made);
        return tally_fail(error, TALLY_NO_MEMORY, "projector");
    }
    made->worker.options = &made->options;
    made->worker.report = made->report;
    made->worker.stopping = &made->stopping;
    made->worker.verbose = &made->verbose;
    enum tally_status status = tally_worker_open(&made->worker, error);
    if (status == TALLY_OK && pthread_create(&made->thread, NULL, run, made) != 0) {
        tally_worker_close(&made->worker);
        status = tally_fail(error, TALLY_NO_MEMORY, "thread of the projector");
    }
    if (status != TALLY_OK) {
        /* The report stays: the metrics may still ask it. */
        free(made);
        return status;
    }
    *projector = made;
    return TALLY_OK;
}

void tally_projector_stop(struct tally_projector *projector)
{
    atomic_store_explicit(&projector->stopping, true, memory_order_relaxed);
}

void tally_projector_free(struct tally_projector **projector)
{
    if (*projector == NULL)
        return;
    pthread_join((*projector)->thread, NULL);
    tally_report_free(&(*projector)->report);
    free(*projector);
    *projector = NULL;
}

enum tally_status tally_projector_failure(const struct tally_projector *projector,
                                          struct tally_error *error)
{
    *error = projector->failure;
    return projector->failure.status;
}

bool tally_projector_kafka_ready(void *context, char reason[256])
{
    const struct tally_projector *projector = context;
    return tally_report_ask(projector->report, TALLY_REPORT_KAFKA, reason);
}

bool tally_projector_redis_ready(void *context, char reason[256])
{
    const struct tally_projector *projector = context;
    return tally_report_ask(projector->report, TALLY_REPORT_REDIS, reason);
}

bool tally_projector_progress_ready(void *context, char reason[256])
{
    const struct tally_projector *projector = context;
    return tally_report_ask(projector->report, TALLY_REPORT_PROGRESS, reason);
}

bool tally_projector_alive(void *context)
{
    const struct tally_projector *projector = context;
    return !tally_report_is_stuck(projector->report) &&
           tally_clock_monotonic_us() - tally_report_last_turn_us(projector->report) < ALIVE_US;
}

void tally_projector_set_verbose(struct tally_projector *projector, bool verbose)
{
    atomic_store_explicit(&projector->verbose, verbose, memory_order_relaxed);
}
