/*
 * Query: the read API of tally-query: event loops in threads of their own, each with its HTTP
 * server on the shared address (SO_REUSEPORT) and its Redis connection, and nothing shared between
 * them but counters.
 *
 *     GET /v1/users/{id}       one user; ?minVersion=n with Prefer: wait=s reads one's own write
 *     GET /v1/users?ids=a,b,…  up to 100 users
 *     GET /v1/stats            totals, active users, freshness
 *
 * Tally-Lag-Ms in an answer is the time since the projector last held all that Kafka had for the
 * user's partition (the stalest one, where there are several): nothing older than that is missing
 * from the answer. It is told by a position that is up to 100 ms old, and is too high by that much
 * at most, never too low.
 *
 * All functions are for the main thread.
 */
#ifndef TALLY_SERVICE_QUERY_QUERY_H
#define TALLY_SERVICE_QUERY_QUERY_H

#include "core/metrics.h"
#include "core/settings.h"
#include "core/status.h"

#include <stdint.h>

struct event_base;
struct tally_query;

struct tally_query_options {
    const struct tally_settings *settings; /* read by tally_query_new() alone */
    struct event_base *base;               /* the main thread's */
    struct tally_metrics *metrics;         /* outlives the query */
    void (*on_drained)(void *context);     /* all threads are done; in the main thread's loop */
    void *context;
};

/* Checks the settings, listens in every thread's name and starts the threads. CONFIG: an address
 * that cannot be used, or authentication off on one that is not loopback; IO: the port is taken;
 * NO_MEMORY. */
enum tally_status tally_query_new(const struct tally_query_options *options,
                                  struct tally_query **out,
                                  struct tally_error *error) TALLY_MUST_CHECK;
/* Stops listening and answers what is in flight; `on_drained` comes once. */
void tally_query_drain(struct tally_query *query);
/* Stops the threads at once, and waits for them. */
void tally_query_free(struct tally_query **query);

/* Whether every thread's loop has turned lately; for the watchdog. */
bool tally_query_alive(void *query);
/* Checks for the admin port; `reason` has TALLY_HEALTH_REASON_BYTES. */
bool tally_query_check_redis(void *query, char reason[256]);
bool tally_query_check_read_model(void *query, char reason[256]);

/* Requests are logged, with their trace, while this is on. */
void tally_query_log_requests(struct tally_query *query, bool on);

#endif
