/*
 * Janitor: the background work of the write model, in bounded pieces on a connection of its own:
 * finishes deletions (at once again while there is work), keeps the event partitions, forgets
 * idempotency keys after their day. Any number of processes may run one; the database lets one at a
 * time work. Everything belongs to the loop's thread.
 */
#ifndef TALLY_STORE_JANITOR_H
#define TALLY_STORE_JANITOR_H

#include "core/status.h"

#include <stdint.h>

struct event_base;
struct tally_janitor;

struct tally_janitor_options {
    const char *dsn; /* borrowed for the janitor's life */
    int64_t retention_days;
    int64_t timeout_ms; /* of one piece */
    /* After a piece that did something: rows swept, and idempotency keys expired. May be NULL. */
    void (*on_work)(int64_t swept, int64_t expired, void *context);
    /* Deletions were swept, which wrote events; may be NULL. */
    void (*on_committed)(void *context);
    void (*on_failure)(const struct tally_error *error, void *context); /* may be NULL */
    void *context;
};

/* Connects by itself, in the loop. CONFIG: the DSN cannot be read; NO_MEMORY. */
enum tally_status tally_janitor_new(struct event_base *base,
                                    const struct tally_janitor_options *options,
                                    struct tally_janitor **janitor,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* Closes at once: what is under way is rolled back by the server, or done. Not from inside a
 * callback. */
void tally_janitor_free(struct tally_janitor **janitor);

/* The schema version the database had when the janitor last connected, or 0 before. */
int64_t tally_janitor_schema_version(const struct tally_janitor *janitor);
/* Whether the event partitions have been kept at least once: before that a write may find no
 * partition for its event. */
bool tally_janitor_kept_events(const struct tally_janitor *janitor);

#endif
