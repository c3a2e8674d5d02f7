/*
 * Rebuild, inside: the state that its steps share.
 */
#ifndef TALLY_SERVICE_CTL_REBUILD_INTERNAL_H
#define TALLY_SERVICE_CTL_REBUILD_INTERNAL_H

#include "service/ctl/follow.h"
#include "service/ctl/lease.h"
#include "service/ctl/rebuild.h"
#include "view/generation.h"

/* A generation that is being replaced, and how it compares with the one to come. */
struct rebuild_live {
    int64_t number;     /* 0: there is none */
    int32_t partitions; /* 0: its positions are lost */
    bool comparable;    /* it was built from this log, so its offsets mean the same */
};

struct rebuild {
    const struct tally_rebuild_options *options;
    struct tally_rebuild_result *result;
    const struct tally_settings *settings;
    struct tally_redis *redis;
    struct tally_ctl_lease *lease;
    struct tally_consumer *probe; /* asks for watermarks, fetches nothing */
    struct tally_topology topology;
    struct rebuild_live live;
    int64_t number;                          /* being built */
    struct tally_position_change *changes;   /* one for each partition; scratch */
    struct tally_position_changed *stands;   /* of the one being built: its epochs */
    struct tally_position_changed *replaced; /* of the live one, once it is sealed */
    int64_t *offsets, *marks;
    struct tally_follower *follower;
    bool follower_ended; /* an attempt to switch has stopped it */
};

void rebuild_note(const struct rebuild *rebuild, const char *format, ...) TALLY_PRINTF(2, 3);
void rebuild_show(const struct rebuild *rebuild, const struct tally_rebuild_progress *progress);

/* rebuild_open.c: servers, lease, the live generation. */
enum tally_status rebuild_open(struct rebuild *rebuild, struct tally_error *error) TALLY_MUST_CHECK;
void rebuild_close(struct rebuild *rebuild);
enum tally_status rebuild_watermarks(struct rebuild *rebuild, int32_t partition, int64_t *low,
                                     int64_t *high, struct tally_error *error) TALLY_MUST_CHECK;
/* Whether a generation's positions are all there and fit the log. CONFIG or READ_MODEL_INCOMPLETE
 * says why not. `positions` (may be NULL) receives them. */
enum tally_status rebuild_fits(struct rebuild *rebuild, int64_t number,
                               struct tally_position *positions,
                               struct tally_error *error) TALLY_MUST_CHECK;
/* Removes a generation's keys, with progress. */
enum tally_status rebuild_drop(struct rebuild *rebuild, int64_t number,
                               struct tally_error *error) TALLY_MUST_CHECK;

/* rebuild_relay.c: waits until a relay that leads goes by the topic's partition count. UNAVAILABLE:
 * it does not within half a minute. */
enum tally_status rebuild_await_relay(struct rebuild *rebuild,
                                      struct tally_error *error) TALLY_MUST_CHECK;

/* rebuild_room.c: notes where `users` more users may not fit below Redis's maxmemory. */
enum tally_status rebuild_check_room(struct rebuild *rebuild, int64_t users,
                                     struct tally_error *error) TALLY_MUST_CHECK;

/* rebuild_fill.c: everything that PostgreSQL has, from the marks on. */
enum tally_status rebuild_fill(struct rebuild *rebuild, struct tally_error *error) TALLY_MUST_CHECK;

/* rebuild_switch.c */
/* Seals the live generation and stops its writers; `replaced` tells where it stands. */
enum tally_status rebuild_seal(struct rebuild *rebuild, int64_t for_ms,
                               struct tally_error *error) TALLY_MUST_CHECK;
/* Makes the one being built live. The follower runs, and has come near the end of the log. */
enum tally_status rebuild_switch(struct rebuild *rebuild,
                                 struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status rebuild_follow(struct rebuild *rebuild,
                                 struct tally_error *error) TALLY_MUST_CHECK;

/* rebuild_forget.c: cuts off the log what lies before the positions of the one that was built. */
enum tally_status rebuild_forget(struct rebuild *rebuild,
                                 struct tally_error *error) TALLY_MUST_CHECK;

#endif
