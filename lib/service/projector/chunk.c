#include "service/projector/chunk.h"

#include <stdlib.h>
#include <string.h>

static const int64_t US_OF_DAY = 86400LL * 1000 * 1000;

bool tally_chunk_init(struct tally_chunk *chunk)
{
    *chunk = (struct tally_chunk){0};
    chunk->users = calloc(TALLY_APPLY_USERS_MOST, sizeof *chunk->users);
    chunk->profiles = calloc(TALLY_APPLY_USERS_MOST, sizeof *chunk->profiles);
    if (chunk->users != NULL && chunk->profiles != NULL)
        return true;
    tally_chunk_release(chunk);
    return false;
}

static void clear_profiles(struct tally_chunk *chunk)
{
    for (size_t i = 0; i < chunk->user_count; i++)
        tally_profile_clear(&chunk->profiles[i]);
}

void tally_chunk_release(struct tally_chunk *chunk)
{
    clear_profiles(chunk);
    free(chunk->users);
    free(chunk->profiles);
    *chunk = (struct tally_chunk){0};
}

void tally_chunk_begin(struct tally_chunk *chunk, uint64_t serial, int64_t offset,
                       const struct tally_totals *totals)
{
    clear_profiles(chunk);
    *chunk = (struct tally_chunk){
        .serial = serial,
        .from_offset = offset,
        .to_offset = offset,
        .event_at_ms = -1,
        .totals = *totals,
        .users = chunk->users,
        .profiles = chunk->profiles,
    };
}

static int32_t day_of(int64_t at_us)
{
    return (int32_t)(at_us / US_OF_DAY);
}

/* Index of the day, or day_count where the chunk does not have it. */
static size_t find_day(const struct tally_chunk *chunk, int32_t day)
{
    size_t index = 0;
    while (index < chunk->day_count && chunk->days[index] != day)
        index++;
    return index;
}

static bool has_user(const struct tally_chunk *chunk, const struct tally_user_slot *slot)
{
    return slot->chunk == chunk->serial;
}

bool tally_chunk_fits(const struct tally_chunk *chunk, const struct tally_user_slot *slot,
                      int64_t at_us)
{
    const int32_t day = day_of(at_us);
    const bool day_fits = slot->active_day == day || chunk->day_count < TALLY_APPLY_DAYS_MOST ||
                          find_day(chunk, day) < chunk->day_count;
    if (!has_user(chunk, slot))
        return chunk->user_count < TALLY_APPLY_USERS_MOST && day_fits;
    /* One day for each user of a chunk: midnight cuts it. */
    const struct tally_apply_user *user = &chunk->users[slot->chunk_index];
    return user->day < 0 ? day_fits : chunk->days[user->day] == day || slot->active_day == day;
}

/* The user's row in the chunk, made where there is none. */
static size_t enter(struct tally_chunk *chunk, struct tally_user_slot *slot)
{
    if (has_user(chunk, slot))
        return slot->chunk_index;
    const size_t index = chunk->user_count++;
    slot->chunk = chunk->serial;
    slot->chunk_index = (uint32_t)index;
    chunk->profiles[index] = (struct tally_profile){0};
    chunk->users[index] = (struct tally_apply_user){
        .user_id = slot->user_id,
        .state = &slot->state,
        .day = -1,
    };
    return index;
}

static void note_active(struct tally_chunk *chunk, struct tally_user_slot *slot, size_t index,
                        int64_t at_us)
{
    const int32_t day = day_of(at_us);
    if (slot->active_day == day || chunk->users[index].day >= 0)
        return;
    const size_t found = find_day(chunk, day);
    if (found == TALLY_APPLY_DAYS_MOST)
        return;
    chunk->days[found] = day;
    if (found == chunk->day_count)
        chunk->day_count++;
    chunk->users[index].day = (int8_t)found;
    slot->active_day = day;
}

static void pass(struct tally_chunk *chunk, int64_t offset)
{
    chunk->to_offset = offset + 1;
    chunk->events++;
}

static void set_profile(struct tally_chunk *chunk, size_t index, struct tally_profile *profile)
{
    tally_profile_clear(&chunk->profiles[index]);
    chunk->profiles[index] = *profile;
    *profile = (struct tally_profile){0};
    chunk->users[index].parts |= TALLY_APPLY_PROFILE;
    chunk->users[index].profile = &chunk->profiles[index];
}

/* Below zero only where the stored totals were lost; no number of the read model is negative. */
static void move_total(int64_t *total, int64_t delta)
{
    *total = *total + delta < 0 ? 0 : *total + delta;
}

static void count_totals(struct tally_chunk *chunk, const struct tally_fold_effect *effect)
{
    move_total(&chunk->totals.users, effect->users_delta);
    move_total(&chunk->totals.posts, effect->posts_delta);
    move_total(&chunk->totals.comments, effect->comments_delta);
    if (effect->users_delta != 0 || effect->posts_delta != 0 || effect->comments_delta != 0)
        chunk->totals_changed = true;
}

enum tally_fold_result tally_chunk_fold(struct tally_chunk *chunk, int64_t offset,
                                        struct tally_user_slot *slot,
                                        const struct tally_event *event,
                                        struct tally_profile *profile)
{
    const struct tally_user_state before = slot->state;
    struct tally_fold_effect effect;
    const enum tally_fold_result result = tally_fold(&slot->state, event, &effect);
    pass(chunk, offset);
    if (event->at_us / 1000 > chunk->event_at_ms)
        chunk->event_at_ms = event->at_us / 1000;
    if (effect.write) {
        const size_t index = enter(chunk, slot);
        const struct tally_user_state *after = &slot->state;
        if (before.version == 0 || before.timeline != after->timeline ||
            before.deleted != after->deleted || before.flagged != after->flagged || after->deleted)
            chunk->users[index].parts |= TALLY_APPLY_RECORD;
        if (effect.profile_set && profile->name != NULL)
            set_profile(chunk, index, profile);
        if (result != TALLY_FOLD_DIVERGED)
            note_active(chunk, slot, index, event->at_us);
        count_totals(chunk, &effect);
    }
    tally_profile_clear(profile);
    return result;
}

void tally_chunk_flag(struct tally_chunk *chunk, int64_t offset, struct tally_user_slot *slot)
{
    pass(chunk, offset);
    if (slot == NULL || !tally_fold_flag(&slot->state))
        return;
    chunk->users[enter(chunk, slot)].parts |= TALLY_APPLY_RECORD;
}

void tally_chunk_describe(const struct tally_chunk *chunk, int64_t generation, int32_t partition,
                          int64_t epoch, struct tally_apply *apply)
{
    *apply = (struct tally_apply){
        .generation = generation,
        .partition = partition,
        .epoch = epoch,
        .from_offset = chunk->from_offset,
        .to_offset = chunk->to_offset,
        .event_at_ms = chunk->event_at_ms,
        .fresh_at_ms = -1,
        .totals = chunk->totals,
        .totals_changed = chunk->totals_changed,
        .users = chunk->users,
        .user_count = chunk->user_count,
        .day_count = chunk->day_count,
    };
    for (size_t i = 0; i < chunk->day_count; i++)
        tally_clock_format_day((int64_t)chunk->days[i] * US_OF_DAY, apply->days[i]);
}
