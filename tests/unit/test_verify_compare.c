/* Verify: when a user's document is equal, in flight or different. */
#include "service/ctl/verify_compare.h"

#include <criterion/criterion.h>

static const struct tally_recount_user user = {
    .id = 7, .version = 5, .posts = 3, .comments = 1, .name = "A", .email = "a@b"};
static const struct tally_verify_found same = {
    .version = 5, .posts = 3, .comments = 1, .name = "A", .email = "a@b"};
static struct tally_verify_differences differences;

Test(verify_compare, equal_versions_with_equal_values_are_equal)
{
    cr_assert_eq(tally_verify_first_look(&user, &same, &differences), TALLY_VERIFY_EQUAL);
    cr_assert_eq(tally_verify_next_look(&user, &same, 5, &differences), TALLY_VERIFY_EQUAL);
}

Test(verify_compare, equal_versions_with_another_value_differ_in_that_field)
{
    struct tally_verify_found found = same;
    found.posts = 4;
    found.avatar = "x";
    cr_assert_eq(tally_verify_first_look(&user, &found, &differences), TALLY_VERIFY_DIFFERENT);
    cr_assert_eq(differences.count, 2);
    cr_assert_str_eq(differences.list[0].field, "avatar");
    cr_assert_str_eq(differences.list[1].field, "posts");
    cr_assert_str_eq(differences.list[1].expected, "3");
    cr_assert_str_eq(differences.list[1].found, "4");
}

Test(verify_compare, another_version_is_in_flight_at_the_first_look)
{
    struct tally_verify_found found = same;
    found.version = 4;
    found.posts = 99;
    cr_assert_eq(tally_verify_first_look(&user, &found, &differences), TALLY_VERIFY_IN_FLIGHT);
    found.version = 6;
    cr_assert_eq(tally_verify_first_look(&user, &found, &differences), TALLY_VERIFY_IN_FLIGHT);
}

Test(verify_compare, a_user_written_to_all_the_time_is_compared_at_the_version_found)
{
    struct tally_recount_user later = user;
    later.version = 8;
    later.posts = 5;
    later.comments = 0;
    later.events_after = 3;
    later.posts_after = 2;
    later.comments_after = -1;
    cr_assert_eq(tally_verify_next_look(&later, &same, 5, &differences), TALLY_VERIFY_EQUAL);
    struct tally_verify_found wrong = same;
    wrong.comments = 2;
    cr_assert_eq(tally_verify_next_look(&later, &wrong, 5, &differences), TALLY_VERIFY_DIFFERENT);
    later.events_after = 2;
    cr_assert_eq(tally_verify_next_look(&later, &wrong, 5, &differences), TALLY_VERIFY_IN_FLIGHT,
                 "not all events in between are known");
}

Test(verify_compare, a_user_below_the_wanted_version_stays_in_flight)
{
    struct tally_recount_user later = user;
    later.version = 8;
    later.events_after = 3;
    cr_assert_eq(tally_verify_next_look(&later, &same, 6, &differences), TALLY_VERIFY_IN_FLIGHT);
}

Test(verify_compare, a_read_model_ahead_of_the_source_differs)
{
    struct tally_verify_found found = same;
    found.version = 6;
    cr_assert_eq(tally_verify_next_look(&user, &found, 5, &differences), TALLY_VERIFY_DIFFERENT);
    cr_assert_str_eq(differences.list[0].field, "version");
}

Test(verify_compare, a_deleted_user_must_be_marked_and_hold_no_personal_data)
{
    const struct tally_recount_user deleted = {.id = 7, .version = 6, .deleted = true, .posts = 9};
    struct tally_verify_found found = {.version = 6, .posts = -1, .comments = -1, .deleted = true};
    const struct tally_verify_found none = {.version = 0};
    cr_assert_eq(tally_verify_first_look(&deleted, &found, &differences), TALLY_VERIFY_EQUAL);
    cr_assert_eq(tally_verify_first_look(&deleted, &none, &differences), TALLY_VERIFY_EQUAL);
    found.email = "a@b";
    cr_assert_eq(tally_verify_first_look(&deleted, &found, &differences), TALLY_VERIFY_DIFFERENT);
    found.email = NULL;
    found.deleted = false;
    cr_assert_eq(tally_verify_first_look(&deleted, &found, &differences), TALLY_VERIFY_DIFFERENT);
}

Test(verify_compare, each_further_grace_demands_progress)
{
    struct tally_verify_found found = same;
    int64_t wanted = 5;
    cr_assert(tally_verify_extend(&found, &wanted), "what was waited for has come");
    cr_assert_not(tally_verify_extend(&found, &wanted), "standing still is no progress");
    found.version = 9;
    cr_assert(tally_verify_extend(&found, &wanted));
    cr_assert_eq(wanted, 10);
    found.version = 0;
    cr_assert_not(tally_verify_extend(&found, &wanted));
}
