/*
 * Pause: the key in Redis by which an operator stops the projectors from applying anything. It is
 * lost with the read model, and then projectors go on. Blocking.
 */
#ifndef TALLY_VIEW_PAUSE_H
#define TALLY_VIEW_PAUSE_H

#include "redis/connection.h"

#define TALLY_VIEW_PAUSE_REASON_MOST 200 /* bytes */

struct tally_view_pause {
    bool paused;   /* false: the rest is 0 */
    int64_t at_ms; /* wall clock, since when */
    char reason[TALLY_VIEW_PAUSE_REASON_MOST + 1];
};

enum tally_status tally_view_pause_read(struct tally_redis *redis, struct tally_view_pause *pause,
                                        struct tally_error *error) TALLY_MUST_CHECK;
/* Pausing again changes the reason and keeps the time. */
enum tally_status tally_view_pause_set(struct tally_redis *redis, int64_t at_ms, const char *reason,
                                       struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_view_pause_clear(struct tally_redis *redis,
                                         struct tally_error *error) TALLY_MUST_CHECK;

#endif
