#include "core/clock.h"
#include "service/ctl/rebuild_internal.h"

#include <inttypes.h>
#include <unistd.h>

enum {
    SEAL_MS = 3000,     /* longest time for which the live generation stands still */
    CATCH_UP_MS = 1500, /* of it, for the new one to come as far */
    ATTEMPTS = 5,
    DAYS_LATE = 2, /* that may have gained active users since the copy before */
    LOOK_US = 2000,
};

enum tally_status rebuild_seal(struct rebuild *rebuild, int64_t for_ms, struct tally_error *error)
{
    const struct rebuild_live *live = &rebuild->live;
    if (live->number == 0)
        return TALLY_OK;
    enum tally_status status = tally_generation_seal(
        rebuild->redis, tally_ctl_lease_token(rebuild->lease), live->number, for_ms, error);
    if (status != TALLY_OK || !live->comparable)
        return status;
    for (int32_t i = 0; i < live->partitions; i++)
        rebuild->changes[i] =
            (struct tally_position_change){.epoch = -1, .until = -1, .fresh_at_ms = -1};
    return tally_positions_change(rebuild->redis, live->number, live->partitions, rebuild->changes,
                                  rebuild->replaced, error);
}

enum tally_status rebuild_follow(struct rebuild *rebuild, struct tally_error *error)
{
    for (int32_t i = 0; i < rebuild->topology.partitions; i++) {
        rebuild->offsets[i] = rebuild->stands[i].epoch;
        rebuild->marks[i] = 0;
    }
    /* What the live projector has applied is in the dead letters; the rest may be there twice. */
    for (int32_t i = 0; rebuild->live.comparable && i < rebuild->live.partitions; i++) {
        struct tally_position position;
        enum tally_status status =
            tally_position_read(rebuild->redis, rebuild->live.number, &i, 1, &position, error);
        if (status != TALLY_OK)
            return status;
        rebuild->marks[i] = position.offset;
    }
    const struct tally_follow_options options = {
        .settings = rebuild->settings,
        .generation = rebuild->number,
        .topology = &rebuild->topology,
        .epochs = rebuild->offsets,
        .letters_from = rebuild->marks,
        .from_beginning = rebuild->options->source == TALLY_REBUILD_LOG,
    };
    return tally_follower_start(&options, &rebuild->follower, error);
}

/* Where the new generation must be, so that no reader sees a count go down. */
static bool come_as_far(const struct rebuild *rebuild)
{
    for (int32_t i = 0; rebuild->live.comparable && i < rebuild->live.partitions; i++) {
        if (tally_follower_applied(rebuild->follower, i) < rebuild->replaced[i].offset)
            return false;
    }
    return true;
}

/* Ends the catching up, at a point not before that of the sealed generation. */
static enum tally_status end_following(struct rebuild *rebuild, struct tally_error *error)
{
    const int64_t due_us = tally_clock_monotonic_us() + (int64_t)CATCH_UP_MS * 1000;
    while (!come_as_far(rebuild)) {
        enum tally_status status = tally_follower_check(rebuild->follower, error);
        if (status != TALLY_OK)
            return status;
        if (tally_clock_monotonic_us() > due_us)
            return tally_fail(error, TALLY_UNAVAILABLE,
                              "the new generation does not keep up with the live one");
        usleep(LOOK_US);
    }
    enum tally_status status = tally_follower_stop(rebuild->follower, error);
    rebuild->follower_ended = true;
    rebuild->result->events += tally_follower_events(rebuild->follower);
    return status;
}

/* Complete as it stands, and fenced against this tool itself: its next writer is a projector. */
static enum tally_status complete(struct rebuild *rebuild, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (int32_t i = 0; i < rebuild->topology.partitions && status == TALLY_OK; i++) {
        struct tally_position position;
        status = tally_position_read(rebuild->redis, rebuild->number, &i, 1, &position, error);
        rebuild->changes[i] = (struct tally_position_change){
            .epoch = rebuild->stands[i].epoch,
            .until = position.offset,
            .fresh_at_ms = rebuild->live.comparable ? rebuild->replaced[i].fresh_at_ms : -1,
        };
    }
    if (status == TALLY_OK)
        status =
            tally_positions_change(rebuild->redis, rebuild->number, rebuild->topology.partitions,
                                   rebuild->changes, rebuild->stands, error);
    return status;
}

static enum tally_status copy_active(struct rebuild *rebuild, int days, struct tally_error *error)
{
    if (rebuild->live.number == 0 || rebuild->live.partitions != rebuild->topology.partitions)
        return TALLY_OK;
    return tally_generation_copy_active(rebuild->redis, rebuild->live.number, rebuild->number,
                                        rebuild->topology.partitions, days, tally_clock_wall_us(),
                                        error);
}

static enum tally_status try_switch(struct rebuild *rebuild, struct tally_error *error)
{
    const int64_t sealed_us = tally_clock_monotonic_us();
    enum tally_status status = rebuild_seal(rebuild, SEAL_MS, error);
    if (status == TALLY_OK)
        status = end_following(rebuild, error);
    if (status == TALLY_OK)
        status = complete(rebuild, error);
    if (status == TALLY_OK)
        status = copy_active(rebuild, DAYS_LATE, error);
    if (status == TALLY_OK)
        status = tally_generation_switch(rebuild->redis, tally_ctl_lease_token(rebuild->lease),
                                         rebuild->live.number, rebuild->number, TALLY_VIEW_REST_MS,
                                         error);
    rebuild->result->switch_us = tally_clock_monotonic_us() - sealed_us;
    struct tally_error ignored;
    if (status != TALLY_OK && rebuild->live.number != 0 && !tally_redis_broken(rebuild->redis))
        (void)!tally_generation_unseal(rebuild->redis, tally_ctl_lease_token(rebuild->lease),
                                       &ignored);
    return status;
}

/* After an attempt that failed: the follower works, if need be a new one. */
static enum tally_status keep_following(struct rebuild *rebuild, struct tally_error *error)
{
    if (!rebuild->follower_ended)
        return tally_follower_check(rebuild->follower, error);
    tally_follower_free(&rebuild->follower);
    rebuild->follower_ended = false;
    return rebuild_follow(rebuild, error);
}

enum tally_status rebuild_switch(struct rebuild *rebuild, struct tally_error *error)
{
    enum tally_status status = copy_active(rebuild, TALLY_VIEW_ACTIVE_DAYS + 1, error);
    if (status == TALLY_OK)
        status = try_switch(rebuild, error);
    /* A new generation that could not keep up, or a seal that expired, in a moment of load. */
    for (int attempt = 1;
         status == TALLY_UNAVAILABLE && attempt < ATTEMPTS && !tally_redis_broken(rebuild->redis);
         attempt++) {
        rebuild_note(rebuild, "not switched yet: %s; trying again", error->text);
        status = keep_following(rebuild, error);
        usleep(SEAL_MS * 1000 / 3);
        if (status == TALLY_OK)
            status = tally_follower_check(rebuild->follower, error);
        if (status == TALLY_OK)
            status = try_switch(rebuild, error);
    }
    return status;
}
