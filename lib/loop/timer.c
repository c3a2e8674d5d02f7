#include "loop/loop.h"

#include <stdlib.h>

struct tally_timer {
    struct event *event;
    tally_wakeup_callback *callback;
    void *context;
};

static void on_expired(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor;
    (void)what;
    struct tally_timer *timer = argument;
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
    struct timeval delay = {.tv_sec = delay_us / 1000000, .tv_usec = delay_us % 1000000};
    event_add(timer->event, &delay);
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
