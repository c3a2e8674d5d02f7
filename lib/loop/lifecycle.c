#include "loop/loop.h"
#include "loop/notify.h"

#include <signal.h>
#include <stdlib.h>

struct tally_lifecycle {
    struct event_base *base;
    struct tally_lifecycle_options options;
    enum tally_phase phase;
    bool clean;
    struct event *signals[3];
    struct tally_timer *drain_timer;
    struct tally_timer *watchdog_timer;
    int64_t watchdog_us;
};

/* For what a service does once it has itself cut off, at drain_ms, what was still in flight. */
static const int64_t DRAIN_GRACE_US = 2000000;

static const int caught[] = {SIGTERM, SIGINT, SIGHUP};

static void on_signal(evutil_socket_t number, short what, void *argument)
{
    (void)what;
    struct tally_lifecycle *lifecycle = argument;
    if (number != SIGHUP) {
        tally_lifecycle_stop(lifecycle);
    } else if (lifecycle->options.on_reload != NULL) {
        lifecycle->options.on_reload(lifecycle->options.context);
    }
}

static void on_drain_overdue(void *argument)
{
    struct tally_lifecycle *lifecycle = argument;
    event_base_loopbreak(lifecycle->base);
}

static void on_watchdog(void *argument)
{
    struct tally_lifecycle *lifecycle = argument;
    if (lifecycle->options.alive == NULL || lifecycle->options.alive(lifecycle->options.context))
        tally_notify("WATCHDOG=1");
    tally_timer_set(lifecycle->watchdog_timer, lifecycle->watchdog_us);
}

enum tally_status tally_lifecycle_new(struct event_base *base,
                                      const struct tally_lifecycle_options *options,
                                      struct tally_lifecycle **lifecycle, struct tally_error *error)
{
    struct tally_lifecycle *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "life cycle");
    made->base = base;
    made->options = *options;
    made->watchdog_us = tally_notify_watchdog_us();
    enum tally_status status =
        tally_timer_new(base, on_drain_overdue, made, &made->drain_timer, error);
    if (status == TALLY_OK)
        status = tally_timer_new(base, on_watchdog, made, &made->watchdog_timer, error);
    for (size_t i = 0; i < sizeof caught / sizeof caught[0] && status == TALLY_OK; i++) {
        made->signals[i] = evsignal_new(base, caught[i], on_signal, made);
        if (made->signals[i] == NULL || event_add(made->signals[i], NULL) != 0)
            status = tally_fail(error, TALLY_NO_MEMORY, "signal event");
    }
    if (status != TALLY_OK) {
        tally_lifecycle_free(&made);
        return status;
    }
    if (made->watchdog_us > 0)
        tally_timer_set(made->watchdog_timer, made->watchdog_us);
    *lifecycle = made;
    return TALLY_OK;
}

enum tally_phase tally_lifecycle_phase(const struct tally_lifecycle *lifecycle)
{
    return lifecycle->phase;
}

void tally_lifecycle_ready(struct tally_lifecycle *lifecycle)
{
    if (lifecycle->phase != TALLY_PHASE_STARTING)
        return;
    lifecycle->phase = TALLY_PHASE_READY;
    tally_notify("READY=1");
}

void tally_lifecycle_stop(struct tally_lifecycle *lifecycle)
{
    if (lifecycle->phase == TALLY_PHASE_DRAINING)
        return;
    lifecycle->phase = TALLY_PHASE_DRAINING;
    tally_notify("STOPPING=1");
    tally_timer_set(lifecycle->drain_timer, lifecycle->options.drain_ms * 1000 + DRAIN_GRACE_US);
    lifecycle->options.on_drain(lifecycle->options.context);
}

void tally_lifecycle_finish(struct tally_lifecycle *lifecycle)
{
    lifecycle->clean = true;
    event_base_loopbreak(lifecycle->base);
}

bool tally_lifecycle_clean(const struct tally_lifecycle *lifecycle)
{
    return lifecycle->clean;
}

void tally_lifecycle_free(struct tally_lifecycle **lifecycle)
{
    if (*lifecycle == NULL)
        return;
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++) {
        if ((*lifecycle)->signals[i] != NULL)
            event_free((*lifecycle)->signals[i]);
    }
    tally_timer_free(&(*lifecycle)->drain_timer);
    tally_timer_free(&(*lifecycle)->watchdog_timer);
    free(*lifecycle);
    *lifecycle = NULL;
}
