/*
 * Loop: what a service does around libevent: its base, waking it from another thread, its signals,
 * and the way from start to stop with systemd told at each step.
 */
#ifndef TALLY_LOOP_LOOP_H
#define TALLY_LOOP_LOOP_H

#include "core/status.h"

#include <event2/event.h>
#include <stdint.h>

/* A base with epoll and precise timers; NULL where there is no memory. Freed by event_base_free().
 */
struct event_base *tally_loop_new(void);

/* Wakes a loop from any thread or signal handler. Signals that come before the callback runs
 * fold into one call. */
struct tally_wakeup;
typedef void tally_wakeup_callback(void *context);
enum tally_status tally_wakeup_new(struct event_base *base, tally_wakeup_callback *callback,
                                   void *context, struct tally_wakeup **wakeup,
                                   struct tally_error *error) TALLY_MUST_CHECK;
void tally_wakeup_signal(struct tally_wakeup *wakeup); /* any thread, never blocks */
void tally_wakeup_free(struct tally_wakeup **wakeup);  /* loop thread, after the last signaller */

/* A timer of one shot. The callback comes in the loop's thread. */
struct tally_timer;
enum tally_status tally_timer_new(struct event_base *base, tally_wakeup_callback *callback,
                                  void *context, struct tally_timer **timer,
                                  struct tally_error *error) TALLY_MUST_CHECK;
/* Sets it anew; a timer that was set is moved. */
void tally_timer_set(struct tally_timer *timer, int64_t delay_us);
void tally_timer_cancel(struct tally_timer *timer);
void tally_timer_free(struct tally_timer **timer);

/* The life of a service: starting, ready, draining, stopped. All from the loop's thread. */
enum tally_phase { TALLY_PHASE_STARTING, TALLY_PHASE_READY, TALLY_PHASE_DRAINING };

struct tally_lifecycle;
struct tally_lifecycle_options {
    /* SIGTERM or SIGINT came: finish what is in flight, then call tally_lifecycle_finish(). */
    void (*on_drain)(void *context);
    /* SIGHUP came. May be NULL. */
    void (*on_reload)(void *context);
    /* Whether work goes on: systemd's watchdog is fed only while this is true. NULL: always. */
    bool (*alive)(void *context);
    void *context;
    /* The service cuts off what is in flight by then; two seconds later the loop is left, whatever
     * is going on. */
    int64_t drain_ms;
};

enum tally_status tally_lifecycle_new(struct event_base *base,
                                      const struct tally_lifecycle_options *options,
                                      struct tally_lifecycle **lifecycle,
                                      struct tally_error *error) TALLY_MUST_CHECK;
enum tally_phase tally_lifecycle_phase(const struct tally_lifecycle *lifecycle);
/* Tells systemd READY=1 (sd_notify protocol, systemd's sd_notify(3)). */
void tally_lifecycle_ready(struct tally_lifecycle *lifecycle);
/* Starts the drain as SIGTERM does. Any number of times. */
void tally_lifecycle_stop(struct tally_lifecycle *lifecycle);
/* The drain is done: leaves the loop. */
void tally_lifecycle_finish(struct tally_lifecycle *lifecycle);
/* Whether the drain ended in time; false where drain_ms cut it off. */
bool tally_lifecycle_clean(const struct tally_lifecycle *lifecycle);
void tally_lifecycle_free(struct tally_lifecycle **lifecycle);

#endif
