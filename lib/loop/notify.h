/*
 * Notify: systemd's notification protocol (sd_notify(3)), without libsystemd.
 */
#ifndef TALLY_LOOP_NOTIFY_H
#define TALLY_LOOP_NOTIFY_H

#include <stdint.h>

/* Sends one state such as "READY=1" to $NOTIFY_SOCKET; does nothing where there is none. What
 * cannot be sent is dropped, as systemd's own function does. */
void tally_notify(const char *state);
/* Microseconds between two "WATCHDOG=1" that $WATCHDOG_USEC asks for (half of it), or 0. */
int64_t tally_notify_watchdog_us(void);

#endif
