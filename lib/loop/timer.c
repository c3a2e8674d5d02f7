#include "core/clock.h"
#include "loop/loop.h"

#include <stdlib.h>

struct tally_timer {
    struct event *event;
    tally_wakeup_callback *callback;
    void *context;
    int64_t unheard_until_us; /* monotonic; 0: libevent knows when it is due */
};

/* Where libevent finds no memory, a timer that never comes would leave its owner stuck: then it is
 * asked at every turn of the loop whether it is due, which needs none. */
static void wait_for(struct tally_timer *timer, int64_t delay_us)
{
    const struct timeval delay = {.tv_sec = delay_us / 1000000, .tv_usec = delay_us % 1000000};
    timer->unheard_until_us = 0;
    if (event_add(timer->event, &delay) == 0)
        return;
    timer->unheard_until_us = tally_clock_monotonic_us() + delay_us;
    event_active(timer->event, EV_TIMEOUT, 0);
}

static void on_expired(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor;
    (void)what;
    struct tally_timer *timer = argument;
    const int64_t left_us =
        timer->unheard_until_us != 0 ? timer->unheard_until_us - tally_clock_monotonic_us() : 0;
    if (left_us > 0) {
        wait_for(timer, left_us);
        return;
    }
    timer->unheard_until_us = 0;
    timer->callback(timer->context);
}

enum tally_status tally_timer_new(struct event_base *base, tally_wakeup_callback *callback,
                                  void *context, struct tally_timer **timer,
                                  struct tally_error *error)
{
    struct tally_timer *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "timer");
    made->callback = callback;
    made->context = context;
    made->event = event_new(base, -1, 0, on_expired, made);
    if (made->event == NULL) {
        free(made);
        return tally_fail(error, TALLY_NO_MEMORY, "timer event");
    }
    *timer = made;
    return TALLY_OK;
}

void tally_timer_set(struct tally_timer *timer, int64_t delay_us)
{
    wait_for(timer, delay_us);
}

void tally_timer_cancel(struct tally_timer *timer)
{
    event_del(timer->event);
}

void tally_timer_free(struct tally_timer **timer)
{
    if (*timer == NULL)
        return;
    event_free((*timer)->event);
    free(*timer);
    *timer = NULL;
}
