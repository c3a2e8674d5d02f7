#include "core/clock.h"
#include "service/ctl/rebuild_internal.h"

#include <inttypes.h>
#include <stdlib.h>

enum { SEAL_MS = 3000 };

/* The latest generation that was live before. */
static enum tally_status find_kept(struct rebuild *rebuild, int64_t *kept,
                                   struct tally_error *error)
{
    struct tally_generation_entry entries[TALLY_GENERATIONS_MOST];
    size_t count = 0;
    *kept = 0;
    enum tally_status status = tally_generation_list(rebuild->redis, entries, &count, error);
    for (size_t i = 0; i < count; i++) {
        if (entries[i].role == TALLY_GENERATION_KEPT)
            *kept = entries[i].number;
    }
    if (status == TALLY_OK && *kept == 0)
        return tally_fail(error, TALLY_NOT_FOUND, "no previous generation is kept");
    return status;
}

/* Incomplete for readers until it holds everything that the present one, or Kafka, has now: they
 * must not see a count go down. */
static enum tally_status mark_behind(struct rebuild *rebuild, int64_t kept, const int64_t *highs,
                                     struct tally_rollback_result *result,
                                     struct tally_error *error)
{
    const int32_t partitions = rebuild->topology.partitions;
    for (int32_t i = 0; i < partitions; i++) {
        int64_t until = highs[i];
        if (rebuild->live.comparable && rebuild->replaced[i].offset > until)
            until = rebuild->replaced[i].offset;
        rebuild->changes[i] =
            (struct tally_position_change){.epoch = -1, .until = until, .fresh_at_ms = -1};
    }
    enum tally_status status = tally_positions_change(rebuild->redis, kept, partitions,
                                                      rebuild->changes, rebuild->stands, error);
    for (int32_t i = 0; i < partitions && status == TALLY_OK; i++)
        result->behind += rebuild->changes[i].until > rebuild->stands[i].offset
                              ? rebuild->changes[i].until - rebuild->stands[i].offset
                              : 0;
    return status;
}

static enum tally_status roll_back(struct rebuild *rebuild, struct tally_rollback_result *result,
                                   struct tally_error *error)
{
    int64_t kept = 0, low = 0;
    enum tally_status status = rebuild_open(rebuild, error);
    if (status == TALLY_OK)
        status = find_kept(rebuild, &kept, error);
    if (status == TALLY_OK)
        status = rebuild_fits(rebuild, kept, NULL, error);
    for (int32_t i = 0; i < rebuild->topology.partitions && status == TALLY_OK; i++)
        status = rebuild_watermarks(rebuild, i, &low, &rebuild->offsets[i], error);
    if (status != TALLY_OK)
        return status;
    const int64_t sealed_us = tally_clock_monotonic_us();
    status = rebuild_seal(rebuild, SEAL_MS, error);
    if (status == TALLY_OK)
        status = mark_behind(rebuild, kept, rebuild->offsets, result, error);
    /* Without a rest: the one that is left is wrong, or this would not be asked for. */
    if (status == TALLY_OK)
        status = tally_generation_switch(rebuild->redis, tally_ctl_lease_token(rebuild->lease),
                                         rebuild->live.number, kept, 0, error);
    result->generation = kept;
    result->previous = rebuild->live.number;
    result->switch_us = tally_clock_monotonic_us() - sealed_us;
    return status;
}

enum tally_status tally_rebuild_rollback(const struct tally_settings *settings,
                                         struct tally_rollback_result *result,
                                         struct tally_error *error)
{
    *result = (struct tally_rollback_result){0};
    struct rebuild rebuild = {.settings = settings};
    enum tally_status status = roll_back(&rebuild, result, error);
    struct tally_error ignored;
    if (status != TALLY_OK && rebuild.lease != NULL && !tally_redis_broken(rebuild.redis))
        (void)!tally_generation_unseal(rebuild.redis, tally_ctl_lease_token(rebuild.lease),
                                       &ignored);
    rebuild_close(&rebuild);
    return status;
}
