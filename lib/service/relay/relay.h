/*
 * Relay: publishes what the write model has committed, in a thread of tally-command. One relay is
 * active per database, the others stand by and take over within seconds.
 *
 * A position moves only after Kafka has acknowledged everything before it, so a crash repeats
 * events and never drops one.
 */
#ifndef TALLY_SERVICE_RELAY_H
#define TALLY_SERVICE_RELAY_H

#include "core/metrics.h"
#include "core/settings.h"

struct tally_relay;

/* Starts the thread; it connects, and keeps trying, by itself. Settings and metrics are borrowed
 * until tally_relay_stop(). Call from one thread. */
enum tally_status tally_relay_start(const struct tally_settings *settings,
                                    struct tally_metrics *metrics, struct tally_relay **relay,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* Something was committed: look at once. Any thread, never blocks. */
void tally_relay_wake(struct tally_relay *relay);
/* The service is told to stop: the drain time begins, for all of it together. The relay goes on. */
void tally_relay_drain(struct tally_relay *relay);
/* Publishes what is committed and waits for Kafka, at most until the drain time is over (which
 * begins now, where tally_relay_drain() was not called), and ends the thread within three seconds
 * of that. False where the thread waits for a server that does not answer: then the process must
 * end without freeing anything. NULL inside is fine. */
bool tally_relay_stop(struct tally_relay **relay) TALLY_MUST_CHECK;

/* Whether the thread goes on, whatever PostgreSQL and Kafka do; for the watchdog. Any thread. */
bool tally_relay_alive(struct tally_relay *relay);

/* Fills one word for the state ("starting", "standby", "leading", "paused", "backing-off") and the
 * failure that keeps it from publishing ("" while there is none). Any thread. */
void tally_relay_state(struct tally_relay *relay, const char **state, char *failure,
                       size_t failure_bytes);
/* A check for /readyz (service/admin/admin.h), with the relay as context: holds always, since a
 * pause is no failure, and tells of one. Any thread. */
bool tally_relay_pause_note(void *context, char reason[256]);

#endif
