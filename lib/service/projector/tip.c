#include "service/projector/tip.h"

#include "core/clock.h"

#include <pthread.h>
#include <stdlib.h>

enum { INTERVAL_MS = 500, QUESTION_MS = 1000 };

struct watched {
    bool watched;
    struct tally_tip_end end;
};

struct tally_tip {
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    bool stopping;
    struct watched *partitions; /* owned */
    int32_t partition_count;
    struct tally_consumer *consumer; /* never joins; the thread's alone */
};

/* The next partition to ask for, from `from` on; -1: none is left, or the thread is to stop. */
static int32_t next_watched(struct tally_tip *tip, int32_t from)
{
    int32_t found = -1;
    pthread_mutex_lock(&tip->mutex);
    for (int32_t i = from; i < tip->partition_count && found < 0 && !tip->stopping; i++) {
        if (tip->partitions[i].watched)
            found = i;
    }
    pthread_mutex_unlock(&tip->mutex);
    return found;
}

static void ask(struct tally_tip *tip, int32_t partition)
{
    struct tally_tip_end end = {.asked_at_ms = tally_clock_wall_us() / 1000};
    int64_t low = 0;
    if (tally_consumer_watermarks(tip->consumer, partition, QUESTION_MS, &low, &end.high, NULL) !=
        TALLY_OK)
        return;
    pthread_mutex_lock(&tip->mutex);
    if (tip->partitions[partition].watched)
        tip->partitions[partition].end = end;
    pthread_mutex_unlock(&tip->mutex);
}

/* Waits out the interval; false where the thread is to stop. */
static bool pause_between(struct tally_tip *tip)
{
    const int64_t until_us = tally_clock_wall_us() + (int64_t)INTERVAL_MS * 1000;
    const struct timespec until = {.tv_sec = until_us / 1000000,
                                   .tv_nsec = until_us % 1000000 * 1000};
    pthread_mutex_lock(&tip->mutex);
    int waited = 0;
    while (!tip->stopping && waited == 0)
        waited = pthread_cond_timedwait(&tip->changed, &tip->mutex, &until);
    const bool go_on = !tip->stopping;
    pthread_mutex_unlock(&tip->mutex);
    return go_on;
}

static void *run(void *argument)
{
    struct tally_tip *tip = argument;
    do {
        for (int32_t i = next_watched(tip, 0); i >= 0; i = next_watched(tip, i + 1))
            ask(tip, i);
    } while (pause_between(tip));
    return NULL;
}

enum tally_status tally_tip_start(const struct tally_consumer_options *options, int32_t partitions,
                                  struct tally_tip **tip, struct tally_error *error)
{
    enum tally_status status = TALLY_NO_MEMORY;
    struct tally_tip *made = calloc(1, sizeof *made);
    if (made != NULL)
        made->partitions = calloc((size_t)partitions, sizeof *made->partitions);
    if (made == NULL || made->partitions == NULL) {
        (void)tally_fail(error, TALLY_NO_MEMORY, "watermarks");
        goto memory;
    }
    made->partition_count = partitions;
    for (int32_t i = 0; i < partitions; i++)
        made->partitions[i].end.high = -1;
    status = tally_consumer_new(options, &made->consumer, error);
    if (status != TALLY_OK)
        goto memory;
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->changed, NULL);
    if (pthread_create(&made->thread, NULL, run, made) == 0) {
        *tip = made;
        return TALLY_OK;
    }
    status = tally_fail(error, TALLY_NO_MEMORY, "thread of the watermarks");
    tally_consumer_abandon(&made->consumer);
memory:
    if (made != NULL)
        free(made->partitions);
    free(made);
    return status;
}

void tally_tip_stop(struct tally_tip **tip)
{
    struct tally_tip *gone = *tip;
    if (gone == NULL)
        return;
    pthread_mutex_lock(&gone->mutex);
    gone->stopping = true;
    pthread_cond_signal(&gone->changed);
    pthread_mutex_unlock(&gone->mutex);
    pthread_join(gone->thread, NULL);
    tally_consumer_abandon(&gone->consumer);
    pthread_cond_destroy(&gone->changed);
    pthread_mutex_destroy(&gone->mutex);
    free(gone->partitions);
    free(gone);
    *tip = NULL;
}

enum tally_status tally_tip_ask(struct tally_tip *tip, int32_t partition, int timeout_ms,
                                int64_t *low, int64_t *high, struct tally_error *error)
{
    return tally_consumer_watermarks(tip->consumer, partition, timeout_ms, low, high, error);
}

enum tally_status tally_tip_peek(struct tally_tip *tip, const struct tally_consumer_start *starts,
                                 size_t count, int timeout_ms, int64_t *timestamps_ms,
                                 struct tally_error *error)
{
    return tally_consumer_peek(tip->consumer, starts, count, timeout_ms, timestamps_ms, error);
}

void tally_tip_watch(struct tally_tip *tip, int32_t partition, bool watched)
{
    pthread_mutex_lock(&tip->mutex);
    if (tip->partitions[partition].watched != watched)
        tip->partitions[partition] = (struct watched){watched, {.high = -1}};
    pthread_mutex_unlock(&tip->mutex);
}

struct tally_tip_end tally_tip_read(struct tally_tip *tip, int32_t partition)
{
    pthread_mutex_lock(&tip->mutex);
    const struct tally_tip_end end = tip->partitions[partition].end;
    pthread_mutex_unlock(&tip->mutex);
    return end;
}
