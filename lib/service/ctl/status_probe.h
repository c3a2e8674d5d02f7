/*
 * Status probe: looks at one server or service and says how it is, as a JSON object.
 *
 * A probe runs in a thread of its own and blocks for no longer than about TALLY_PROBE_MS. It
 * returns objects with at least "component", "state" ("up", "paused", "unhealthy" or "down") and
 * "summary", a line for people; what else they hold is documented at the probe and stays stable.
 */
#ifndef TALLY_SERVICE_CTL_STATUS_PROBE_H
#define TALLY_SERVICE_CTL_STATUS_PROBE_H

#include "core/settings.h"
#include "core/status.h"

#include <jansson.h>

#define TALLY_PROBE_MS 3000
#define TALLY_PROBE_SUMMARY_BYTES 320

/* Appends one object for each component it looked at to `components`, also where a server is down.
 */
typedef void tally_probe(const struct tally_settings *settings, json_t *components);

/* "postgresql": schemaVersion, schemaNeeded, longestTransaction {pid, application, database,
 *   prepared, seconds} or
 * null, eventsKept (counted to a million). "relay": epoch, savedSecondsAgo or null, backlogEvents
 * (counted to 100,000), backlogSeconds, leader {pid, application} or null, paused {since, reason}
 * or null. */
tally_probe tally_probe_postgres;
/* "kafka": brokers, topic, partitions. "projector": generation, group, groupState, members,
 * lagEvents, lagSeconds (null: not known), paused {since, reason} or null, partitions [{partition,
 * low, high, epoch, offset, lagEvents, freshSecondsAgo (null: not known)}]. */
tally_probe tally_probe_kafka;
/* "dead-letters": open, kept (records), repeats (of them, see letter_book.h), unread (of them, for
 * want of time). */
tally_probe tally_probe_letters;
/* "redis": role, maxmemoryPolicy, usedMemoryBytes, generation. */
tally_probe tally_probe_redis;
/* "tally-command", "tally-projector", "tally-query": address, readiness (the document of /readyz).
 */
tally_probe tally_probe_services;

/* What all probes find, as an array; what does not answer within 5 s is shown as down. Owned by the
 * caller. */
json_t *tally_status_collect(const struct tally_settings *settings);
/* The first of that name, borrowed; NULL: there is none. */
const json_t *tally_status_component(const json_t *components, const char *name);
/* Whether every component is there and up, or paused as somebody asked for. */
bool tally_status_all_up(const json_t *components);

/* A component of this state and summary; `details` is merged and released. Without memory, also
 * where `details` is NULL, the component is not added, which tally_status_all_up() sees. */
void tally_probe_add(json_t *components, const char *component, const char *state, json_t *details,
                     const char *format, ...) TALLY_PRINTF(5, 6);

#endif
