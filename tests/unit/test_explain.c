/* Explain: what is shown is called right where it is the sum of the events, and wrong elsewhere. */
#include "service/ctl/explain_judge.h"

#include <criterion/criterion.h>
#include <string.h>

enum { USER = 42 };

/* A user of five events, all published: created, two posts, two comments. */
static struct tally_history whole(void)
{
    return (struct tally_history){
        .found = true,
        .version = 5,
        .posts = 2,
        .comments = 2,
        .kept = 5,
        .first_version = 1,
        .last_version = 5,
        .distinct = 5,
        .posts_kept = 2,
        .comments_kept = 2,
        .posts_through = 2,
        .comments_through = 2,
    };
}

static struct tally_explain_verdict judge(const struct tally_history *history,
                                          const struct tally_user_state *shown)
{
    struct tally_explain_verdict verdict;
    tally_explain_judge(USER, history, shown, &verdict);
    return verdict;
}

static void expect(const struct tally_explain_verdict *verdict, bool explained, const char *part)
{
    cr_assert_eq(verdict->explained, explained, "%s", verdict->text);
    cr_assert_not_null(strstr(verdict->text, part), "\"%s\" is not in \"%s\"", part, verdict->text);
}

Test(explain, a_current_user_shows_the_sum_of_all_events)
{
    const struct tally_history history = whole();
    const struct tally_user_state shown = {.version = 5, .posts = 2, .comments = 2};
    const struct tally_explain_verdict verdict = judge(&history, &shown);
    expect(&verdict, true, "version 5 of 5");
    cr_assert_eq(verdict.posts, 2);
    cr_assert_eq(verdict.base_posts, 0);
}

Test(explain, another_count_at_the_same_version_is_not_explained)
{
    const struct tally_history history = whole();
    const struct tally_user_state shown = {.version = 5, .posts = 3, .comments = 2};
    const struct tally_explain_verdict verdict = judge(&history, &shown);
    expect(&verdict, false, "shows 3 posts");
}

Test(explain, a_late_read_model_is_compared_with_the_events_up_to_its_version)
{
    struct tally_history history = whole();
    history.comments_through = 0;
    history.first_waiting = 5;
    struct tally_user_state shown = {.version = 3, .posts = 2, .comments = 0};
    struct tally_explain_verdict verdict = judge(&history, &shown);
    expect(&verdict, true, "version 3 of 5");
    expect(&verdict, true,
           "version 4 is published and not applied yet, version 5 waits in the relay");
    history.first_waiting = 4;
    verdict = judge(&history, &shown);
    expect(&verdict, true, "versions 4-5 wait in the relay");
    history.first_waiting = 0;
    verdict = judge(&history, &shown);
    expect(&verdict, true, "versions 4-5 are published and not applied yet");
    shown.comments = 1;
    verdict = judge(&history, &shown);
    expect(&verdict, false, "add up to 2 and 0");
}

Test(explain, a_sum_over_a_history_whose_beginning_is_gone_starts_from_what_the_recount_implies)
{
    struct tally_history history = whole();
    history.posts = 12;
    history.comments = 7;
    history.version = history.last_version = 15;
    history.first_version = 11;
    struct tally_user_state shown = {.version = 15, .posts = 12, .comments = 7};
    struct tally_explain_verdict verdict = judge(&history, &shown);
    expect(&verdict, true, "version 15 of 15");
    cr_assert_eq(verdict.base_posts, 10);
    cr_assert_eq(verdict.base_comments, 5);
    /* Right before the first kept event is still known, earlier is not. */
    history.posts_through = history.comments_through = 0;
    shown = (struct tally_user_state){.version = 10, .posts = 10, .comments = 5};
    verdict = judge(&history, &shown);
    expect(&verdict, true, "version 10 of 15");
    shown.version = 9;
    verdict = judge(&history, &shown);
    expect(&verdict, false, "before version 11 are no longer kept");
}

Test(explain, a_history_without_kept_events_is_the_recount)
{
    const struct tally_history history = {.found = true, .version = 9, .posts = 4, .comments = 1};
    struct tally_user_state shown = {.version = 9, .posts = 4, .comments = 1};
    struct tally_explain_verdict verdict = judge(&history, &shown);
    expect(&verdict, true, "version 9 of 9");
    shown.posts = 5;
    verdict = judge(&history, &shown);
    expect(&verdict, false, "shows 5 posts");
}

Test(explain, a_history_with_a_hole_or_a_repeat_is_not_explained)
{
    const struct tally_user_state shown = {.version = 5, .posts = 2, .comments = 2};
    struct tally_history history = whole();
    history.kept = history.distinct = 4;
    struct tally_explain_verdict verdict = judge(&history, &shown);
    expect(&verdict, false, "hole or a repeat");
    history = whole();
    history.kept = 6;
    verdict = judge(&history, &shown);
    expect(&verdict, false, "hole or a repeat");
}

Test(explain, events_that_contradict_the_recount_are_not_explained)
{
    const struct tally_user_state shown = {.version = 5, .posts = 2, .comments = 2};
    struct tally_history history = whole();
    history.posts = 1;
    const struct tally_explain_verdict verdict = judge(&history, &shown);
    expect(&verdict, false, "its recount is 1 and 2");
}

Test(explain, a_read_model_ahead_of_postgresql_is_not_explained)
{
    const struct tally_history history = whole();
    const struct tally_user_state shown = {.version = 6, .posts = 2, .comments = 2};
    const struct tally_explain_verdict verdict = judge(&history, &shown);
    expect(&verdict, false, "ahead of PostgreSQL");
}

Test(explain, a_deleted_user_must_carry_the_mark)
{
    struct tally_history history = whole();
    history.deleted = true;
    struct tally_user_state shown = {.version = 5, .deleted = true};
    struct tally_explain_verdict verdict = judge(&history, &shown);
    expect(&verdict, true, "reads as unknown");
    shown.deleted = false;
    verdict = judge(&history, &shown);
    expect(&verdict, false, "without the mark");
}

Test(explain, unknown_users_ghosts_and_flags_are_told)
{
    const struct tally_history nobody = {.found = false};
    struct tally_user_state shown = {.version = 0};
    struct tally_explain_verdict verdict = judge(&nobody, &shown);
    expect(&verdict, false, "there is no user 42");
    shown.version = 3;
    verdict = judge(&nobody, &shown);
    expect(&verdict, false, "PostgreSQL does not know");
    const struct tally_history history = whole();
    shown = (struct tally_user_state){.version = 5, .posts = 2, .comments = 2, .flagged = true};
    verdict = judge(&history, &shown);
    expect(&verdict, true, "`tallyctl repair 42`");
}
