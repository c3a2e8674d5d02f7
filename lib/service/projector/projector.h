/*
 * Projector: keeps the read model current: Kafka in, one atomic script call a partition and batch
 * out. It runs in a thread of its own beside the caller's loop.
 */
#ifndef TALLY_SERVICE_PROJECTOR_H
#define TALLY_SERVICE_PROJECTOR_H

#include "core/metrics.h"
#include "core/settings.h"
#include "core/status.h"

struct tally_projector;

struct tally_projector_options {
    const struct tally_settings *settings; /* borrowed */
    struct tally_metrics *metrics;         /* borrowed */
    /* The thread cannot go on, for the reason that tally_projector_failure() gives. It ends next,
     * unless librdkafka 2.0.2 hangs, as it may while it frees a consumer whose topic was deleted.
     * At most once, before on_ended, from that thread; must not block. May be NULL. */
    void (*on_failed)(void *context);
    /* The thread has ended. Once, from that thread; must not block. */
    void (*on_ended)(void *context);
    void *context;
};

/* Starts the thread. CONFIG: the Redis URL or a Kafka option is wrong. */
enum tally_status tally_projector_start(const struct tally_projector_options *options,
                                        struct tally_projector **projector,
                                        struct tally_error *error) TALLY_MUST_CHECK;
/* Asks the thread to finish what is in flight, commit and leave the group. Any thread, any number
 * of times. */
void tally_projector_stop(struct tally_projector *projector);
/* Waits for the thread's end (stop it first) and frees. */
void tally_projector_free(struct tally_projector **projector);

/* From on_failed or on_ended on: why the thread ends; TALLY_OK where it was told to. */
enum tally_status tally_projector_failure(const struct tally_projector *projector,
                                          struct tally_error *error);

/* Checks for /readyz (lib/service/admin/admin.h); `context` is the projector. Any thread. */
bool tally_projector_kafka_ready(void *context, char reason[256]);
bool tally_projector_redis_ready(void *context, char reason[256]);
bool tally_projector_progress_ready(void *context, char reason[256]);
/* For the watchdog: whether the thread's loop turns, and another consumer still may help where
 * Kafka and Redis answer and nothing is applied. Servers that are away are no reason to end. */
bool tally_projector_alive(void *context);
/* Whether every event is logged; from any thread. */
void tally_projector_set_verbose(struct tally_projector *projector, bool verbose);

#endif
