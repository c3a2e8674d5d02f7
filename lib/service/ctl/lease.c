#include "service/ctl/lease.h"

#include "core/clock.h"
#include "core/random.h"
#include "view/generation.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { STEP_US = 100000, RENEW_US = 1500000, LOOK_US = 300000 };

struct tally_ctl_lease {
    const struct tally_settings *settings;
    struct tally_redis_url url;
    char token[TALLY_LEASE_TOKEN_BYTES];
    struct tally_redis *redis; /* the thread's, once it runs */
    pthread_t thread;
    atomic_bool stopping;
    atomic_bool lost;
    _Atomic int64_t held_until_us; /* monotonic; what the last renewal ensures */
};

static const int64_t LEASE_US = (int64_t)TALLY_LEASE_MS * 1000;

static enum tally_status open_redis(struct tally_ctl_lease *lease, struct tally_error *error)
{
    if (lease->redis != NULL && !tally_redis_broken(lease->redis))
        return TALLY_OK;
    tally_redis_close(&lease->redis);
    return tally_redis_open(&lease->url, lease->settings->redis_timeout_ms, &lease->redis, error);
}

/* Tries until the lease is the caller's, or is seen to be renewed. */
static enum tally_status take(struct tally_ctl_lease *lease, struct tally_error *error)
{
    int64_t before_ms = INT64_MAX;
    for (;;) {
        int64_t left_ms = 0;
        const int64_t asked_us = tally_clock_monotonic_us();
        enum tally_status status = tally_lease_take(lease->redis, lease->token, &left_ms, error);
        if (status != TALLY_OK)
            return status;
        if (left_ms == 0) {
            atomic_store(&lease->held_until_us, asked_us + LEASE_US);
            return TALLY_OK;
        }
        if (left_ms > before_ms)
            return tally_fail(error, TALLY_KEY_IN_USE,
                              "another tallyctl builds, switches or drops a generation; wait until "
                              "it has ended");
        before_ms = left_ms;
        usleep(LOOK_US);
    }
}

static void renew(struct tally_ctl_lease *lease)
{
    struct tally_error error;
    const int64_t asked_us = tally_clock_monotonic_us();
    enum tally_status status = open_redis(lease, &error);
    if (status == TALLY_OK)
        status = tally_lease_renew(lease->redis, lease->token, &error);
    if (status == TALLY_OK)
        atomic_store(&lease->held_until_us, asked_us + LEASE_US);
    else if (status == TALLY_FENCED)
        atomic_store(&lease->lost, true);
}

static void *run(void *argument)
{
    struct tally_ctl_lease *lease = argument;
    int64_t next_us = tally_clock_monotonic_us() + RENEW_US;
    while (!atomic_load(&lease->stopping) && !atomic_load(&lease->lost)) {
        usleep(STEP_US);
        if (tally_clock_monotonic_us() < next_us)
            continue;
        renew(lease);
        next_us = tally_clock_monotonic_us() + RENEW_US;
    }
    return NULL;
}

enum tally_status tally_ctl_lease_take(const struct tally_settings *settings,
                                       struct tally_ctl_lease **lease, struct tally_error *error)
{
    struct tally_ctl_lease *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "lease");
    made->settings = settings;
    struct tally_random random;
    tally_random_seed_from_system(&random);
    (void)snprintf(made->token, sizeof made->token, "%016" PRIx64 "%016" PRIx64,
                   tally_random_next(&random), tally_random_next(&random));
    enum tally_status status = tally_redis_url_parse(settings->redis_url, &made->url, error);
    if (status == TALLY_OK)
        status = open_redis(made, error);
    if (status == TALLY_OK)
        status = take(made, error);
    if (status == TALLY_OK && pthread_create(&made->thread, NULL, run, made) != 0)
        status = tally_fail(error, TALLY_NO_MEMORY, "the thread that renews the lease");
    if (status != TALLY_OK) {
        tally_redis_close(&made->redis);
        free(made);
        return status;
    }
    *lease = made;
    return TALLY_OK;
}

void tally_ctl_lease_release(struct tally_ctl_lease **lease)
{
    if (*lease == NULL)
        return;
    struct tally_error ignored;
    atomic_store(&(*lease)->stopping, true);
    (void)pthread_join((*lease)->thread, NULL);
    if ((*lease)->redis != NULL && !tally_redis_broken((*lease)->redis))
        (void)!tally_lease_release((*lease)->redis, (*lease)->token, &ignored);
    tally_redis_close(&(*lease)->redis);
    free(*lease);
    *lease = NULL;
}

const char *tally_ctl_lease_token(const struct tally_ctl_lease *lease)
{
    return lease->token;
}

enum tally_status tally_ctl_lease_check(const struct tally_ctl_lease *lease,
                                        struct tally_error *error)
{
    if (atomic_load(&lease->lost) ||
        tally_clock_monotonic_us() > atomic_load(&lease->held_until_us))
        return tally_fail(error, TALLY_FENCED,
                          "the lease could not be renewed: another tallyctl may have taken over");
    return TALLY_OK;
}
