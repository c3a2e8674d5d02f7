#include "domain/fold.h"

#include <criterion/criterion.h>

/* Every kind of stored state. */
static const struct {
    const char *name;
    struct tally_user_state state;
} states[] = {
    {"fresh", {0}},
    {"fresh and flagged", {.flagged = true}},
    {"live", {.version = 5, .posts = 2, .comments = 3, .timeline = 2}},
    {"live without posts and comments", {.version = 5, .timeline = 2}},
    {"flagged", {.version = 5, .posts = 2, .comments = 3, .timeline = 2, .flagged = true}},
    {"lost",
     {.version = 5, .posts = 2, .comments = 3, .timeline = 2, .flagged = true, .lost = true}},
    {"lost, at zero", {.version = 5, .timeline = 2, .flagged = true, .lost = true}},
    {"deleted", {.version = 5, .timeline = 2, .deleted = true}},
    {"deleted and flagged", {.version = 5, .timeline = 2, .deleted = true, .flagged = true}},
};
enum { STATES = sizeof states / sizeof states[0] };

/* Where an event's version stands to the stored one, and its timeline. */
static const int64_t version_steps[] = {-4, -1, 0, 1, 2, 7};
static const int32_t timelines[] = {1, 2, 3};

struct step {
    const char *name;
    struct tally_user_state before, after;
    struct tally_event event;
    struct tally_fold_effect effect;
    enum tally_fold_result result;
};

/* Runs `check` over every state, event type, version and timeline. */
static void every_step(void (*check)(const struct step *step))
{
    size_t steps = 0;
    for (size_t s = 0; s < STATES; s++) {
        for (int type = 0; type < TALLY_EVENT_TYPE_COUNT; type++) {
            for (size_t v = 0; v < sizeof version_steps / sizeof version_steps[0]; v++) {
                for (size_t t = 0; t < sizeof timelines / sizeof timelines[0]; t++) {
                    struct step step = {.name = states[s].name, .before = states[s].state};
                    step.event = (struct tally_event){
                        .type = (enum tally_event_type)type,
                        .user_id = 7,
                        .version = step.before.version + version_steps[v],
                        .timeline = timelines[t],
                    };
                    if (step.event.version <= 0)
                        continue;
                    step.after = step.before;
                    step.result = tally_fold(&step.after, &step.event, &step.effect);
                    check(&step);
                    steps++;
                }
            }
        }
    }
    cr_assert_gt(steps, 500);
}

#define EXPECT(step, condition)                                                        \
    cr_expect((condition), "%s, %s version %lld after %lld, timeline %d: " #condition, \
              (step)->name, tally_event_type_text((step)->event.type),                 \
              (long long)(step)->event.version, (long long)(step)->before.version,     \
              (step)->event.timeline)

static bool is_new(const struct step *step)
{
    return step->event.version > step->before.version;
}

static void check_result(const struct step *step)
{
    enum tally_fold_result expected = TALLY_FOLD_APPLIED;
    if (!is_new(step))
        expected = step->event.timeline > step->before.timeline ? TALLY_FOLD_DIVERGED
                                                                : TALLY_FOLD_DUPLICATE;
    else if (step->event.timeline < step->before.timeline)
        expected = TALLY_FOLD_DIVERGED;
    else if (step->event.version > step->before.version + 1)
        expected = TALLY_FOLD_GAP;
    EXPECT(step, step->result == expected);
}

Test(fold, names_each_step_by_version_and_timeline)
{
    every_step(check_result);
}

static void check_not_new(const struct step *step)
{
    if (is_new(step))
        return;
    EXPECT(step, step->after.version == step->before.version);
    EXPECT(step, step->after.posts == step->before.posts);
    EXPECT(step, step->after.comments == step->before.comments);
    EXPECT(step, step->after.timeline == step->before.timeline);
    EXPECT(step, step->after.deleted == step->before.deleted);
    EXPECT(step, step->effect.users_delta == 0 && step->effect.posts_delta == 0 &&
                     step->effect.comments_delta == 0);
    EXPECT(step, !step->effect.profile_set);
    const bool diverged = step->result == TALLY_FOLD_DIVERGED;
    EXPECT(step, step->after.flagged == (step->before.flagged || diverged));
    EXPECT(step, step->effect.write == (diverged && !step->before.flagged));
}

Test(fold, counts_nothing_twice_whatever_comes_late)
{
    every_step(check_not_new);
}

static void check_new(const struct step *step)
{
    if (!is_new(step))
        return;
    EXPECT(step, step->after.version == step->event.version);
    EXPECT(step, step->effect.write);
    const int32_t timeline =
        step->event.timeline > step->before.timeline ? step->event.timeline : step->before.timeline;
    EXPECT(step, step->after.timeline == timeline);
    if (step->result != TALLY_FOLD_APPLIED || step->before.flagged)
        EXPECT(step, step->after.flagged);
}

Test(fold, moves_to_the_version_of_whatever_is_new_and_flags_gaps_and_divergences)
{
    every_step(check_new);
}

/* The change that an event of this type asks for. */
static int posts_of(enum tally_event_type type)
{
    return type == TALLY_EVENT_POST_CREATED ? 1 : type == TALLY_EVENT_POST_DELETED ? -1 : 0;
}

static int comments_of(enum tally_event_type type)
{
    return type == TALLY_EVENT_COMMENT_CREATED ? 1 : type == TALLY_EVENT_COMMENT_DELETED ? -1 : 0;
}

static void check_counts(const struct step *step)
{
    if (!is_new(step) || step->before.deleted || step->event.type == TALLY_EVENT_USER_DELETED)
        return;
    int64_t posts = step->before.posts + posts_of(step->event.type);
    int64_t comments = step->before.comments + comments_of(step->event.type);
    const bool below = posts < 0 || comments < 0;
    EXPECT(step, step->after.posts == (posts < 0 ? 0 : posts));
    EXPECT(step, step->after.comments == (comments < 0 ? 0 : comments));
    EXPECT(step, step->after.flagged ==
                     (step->before.flagged || below || step->result != TALLY_FOLD_APPLIED));
    EXPECT(step, step->effect.profile_set == (step->event.type == TALLY_EVENT_USER_CREATED ||
                                              step->event.type == TALLY_EVENT_USER_UPDATED));
    EXPECT(step, !step->after.deleted);
}

Test(fold, adds_what_the_type_says_and_never_falls_below_zero)
{
    every_step(check_counts);
}

static void check_deletion(const struct step *step)
{
    if (!is_new(step) || step->before.deleted || step->event.type != TALLY_EVENT_USER_DELETED)
        return;
    EXPECT(step, step->after.deleted);
    EXPECT(step, step->after.posts == 0 && step->after.comments == 0);
    EXPECT(step, !step->effect.profile_set);
}

Test(fold, removes_counts_and_profile_with_the_user)
{
    every_step(check_deletion);
}

static void check_deleted_stays(const struct step *step)
{
    if (!step->before.deleted)
        return;
    EXPECT(step, step->after.deleted);
    EXPECT(step, step->after.posts == 0 && step->after.comments == 0);
    EXPECT(step, !step->effect.profile_set);
    EXPECT(step, step->effect.users_delta == 0);
}

Test(fold, never_brings_a_deleted_user_back)
{
    every_step(check_deleted_stays);
}

static int counted(const struct tally_user_state *state)
{
    return state->version > 0 && !state->deleted;
}

static bool is_lost(const struct step *step)
{
    const bool met_late = step->before.version == 0 && !step->before.flagged;
    return step->before.lost || (met_late && step->event.version > 1);
}

static void check_totals(const struct step *step)
{
    if (is_lost(step))
        return;
    EXPECT(step, !step->after.lost);
    EXPECT(step, step->effect.posts_delta == step->after.posts - step->before.posts);
    EXPECT(step, step->effect.comments_delta == step->after.comments - step->before.comments);
    EXPECT(step, step->effect.users_delta == counted(&step->after) - counted(&step->before));
}

Test(fold, totals_move_by_exactly_what_the_user_moved)
{
    every_step(check_totals);
}

static void check_lost(const struct step *step)
{
    if (!is_lost(step))
        return;
    const bool ends = step->event.type == TALLY_EVENT_USER_DELETED;
    EXPECT(step, step->after.lost && step->after.flagged);
    EXPECT(step, step->effect.users_delta == (is_new(step) && ends ? -1 : 0));
    EXPECT(step, step->effect.posts_delta == (is_new(step) ? posts_of(step->event.type) : 0) ||
                     (ends && step->effect.posts_delta == -step->before.posts));
    EXPECT(step,
           step->effect.comments_delta == (is_new(step) ? comments_of(step->event.type) : 0) ||
               (ends && step->effect.comments_delta == -step->before.comments));
}

Test(fold, totals_that_hold_a_lost_user_move_by_the_events_alone)
{
    every_step(check_lost);
}

Test(fold, deleting_an_unknown_user_leaves_the_deletion_as_all_that_is_known)
{
    struct tally_user_state state = {0};
    struct tally_fold_effect effect;
    const struct tally_event event = {
        .type = TALLY_EVENT_USER_DELETED, .user_id = 7, .version = 9, .timeline = 1};
    cr_expect_eq(tally_fold(&state, &event, &effect), TALLY_FOLD_GAP);
    cr_expect(state.deleted && state.flagged && state.version == 9);
    cr_expect_eq(effect.users_delta, -1, "it was counted when its other events came");
}

Test(fold, a_history_counts_the_same_however_often_its_events_are_repeated)
{
    static const enum tally_event_type history[] = {
        TALLY_EVENT_USER_CREATED,    TALLY_EVENT_POST_CREATED,    TALLY_EVENT_COMMENT_CREATED,
        TALLY_EVENT_COMMENT_CREATED, TALLY_EVENT_POST_DELETED,    TALLY_EVENT_USER_UPDATED,
        TALLY_EVENT_POST_CREATED,    TALLY_EVENT_COMMENT_DELETED, TALLY_EVENT_POST_CREATED,
    };
    enum { EVENTS = sizeof history / sizeof history[0] };
    struct tally_user_state state = {0};
    struct tally_fold_effect effect;
    int64_t posts = 0;
    int users = 0;
    /* After each event the whole history so far comes again. */
    for (int last = 0; last < EVENTS; last++) {
        for (int repeat = 0; repeat < 2; repeat++) {
            for (int i = 0; i <= last; i++) {
                const struct tally_event event = {
                    .type = history[i], .user_id = 7, .version = i + 1, .timeline = 1};
                (void)tally_fold(&state, &event, &effect);
                posts += effect.posts_delta;
                users += effect.users_delta;
            }
        }
    }
    cr_expect_eq(state.posts, 2);
    cr_expect_eq(state.comments, 1);
    cr_expect_eq(state.version, EVENTS);
    cr_expect(!state.flagged && !state.deleted);
    cr_expect_eq(posts, 2);
    cr_expect_eq(users, 1);
}

Test(fold, flagging_is_news_once)
{
    struct tally_user_state state = {0};
    cr_expect(tally_fold_flag(&state));
    cr_expect(!tally_fold_flag(&state));
    cr_expect(state.flagged);
    cr_expect_eq(state.version, 0);
}
