#include "domain/fold.h"

static const char *const result_texts[TALLY_FOLD_RESULT_COUNT] = {
    [TALLY_FOLD_APPLIED] = "applied",
    [TALLY_FOLD_DUPLICATE] = "duplicate",
    [TALLY_FOLD_GAP] = "gap",
    [TALLY_FOLD_DIVERGED] = "diverged",
};

const char *tally_fold_result_text(enum tally_fold_result result)
{
    return result_texts[result];
}

bool tally_fold_flag(struct tally_user_state *state)
{
    bool news = !state->flagged;
    state->flagged = true;
    return news;
}

/* Adds to a count that can not be negative in truth. */
static void move_count(struct tally_user_state *state, int64_t *count, int delta)
{
    if (*count + delta < 0)
        state->flagged = true;
    else
        *count += delta;
}

/* What of a change the totals see: of a lost user the event's own, for its state began at zero. */
static int64_t seen_by_totals(const struct tally_user_state *state, int64_t change, int delta)
{
    return state->lost && !state->deleted ? delta : change;
}

static void apply(struct tally_user_state *state, const struct tally_event *event,
                  struct tally_fold_effect *effect)
{
    if (event->type == TALLY_EVENT_USER_DELETED) {
        state->deleted = true;
        state->posts = 0;
        state->comments = 0;
        return;
    }
    effect->profile_set =
        event->type == TALLY_EVENT_USER_CREATED || event->type == TALLY_EVENT_USER_UPDATED;
    move_count(state, &state->posts, tally_event_posts_delta(event->type));
    move_count(state, &state->comments, tally_event_comments_delta(event->type));
}

enum tally_fold_result tally_fold(struct tally_user_state *state, const struct tally_event *event,
                                  struct tally_fold_effect *effect)
{
    *effect = (struct tally_fold_effect){0};
    if (event->version <= state->version) {
        if (event->timeline <= state->timeline)
            return TALLY_FOLD_DUPLICATE;
        effect->write = tally_fold_flag(state);
        return TALLY_FOLD_DIVERGED;
    }
    const struct tally_user_state before = *state;
    const bool gap = event->version != state->version + 1;
    const bool left_behind = event->timeline < state->timeline;
    state->version = event->version;
    if (event->timeline > state->timeline)
        state->timeline = event->timeline;
    if (before.version == 0 && !before.flagged && gap)
        state->lost = true;
    if (gap || left_behind)
        state->flagged = true;
    if (!state->deleted)
        apply(state, event, effect);
    effect->write = true;
    effect->posts_delta =
        seen_by_totals(state, state->posts - before.posts, tally_event_posts_delta(event->type));
    effect->comments_delta = seen_by_totals(state, state->comments - before.comments,
                                            tally_event_comments_delta(event->type));
    /* A user counts from the first event seen, whatever its type, to the deletion. */
    const bool counted_before = (before.version > 0 || state->lost) && !before.deleted;
    const bool counted_now = !state->deleted;
    effect->users_delta = (int)counted_now - (int)counted_before;
    if (left_behind)
        return TALLY_FOLD_DIVERGED;
    return gap ? TALLY_FOLD_GAP : TALLY_FOLD_APPLIED;
}
