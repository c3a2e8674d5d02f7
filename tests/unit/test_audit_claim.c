/* Audit claims: the differences of one user become one claim, which tells no personal data. */
#include "service/ctl/audit_claim.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct tally_audit_claims claims;

static void add(int64_t user_id, const char *field, const char *expected, const char *found,
                int64_t found_version)
{
    struct tally_verify_difference difference = {
        .user_id = user_id, .field = field, .expected_version = 5, .found_version = found_version};
    (void)snprintf(difference.expected, sizeof difference.expected, "%s", expected);
    (void)snprintf(difference.found, sizeof difference.found, "%s", found);
    tally_audit_claims_add(&claims, &difference);
}

static void expect(size_t index, int64_t user_id, const char *kind)
{
    cr_assert_gt(claims.count, index);
    cr_expect_eq(claims.list[index].user_id, user_id);
    cr_expect_str_eq(tally_audit_kind_text(claims.list[index].kind), kind);
}

Test(audit_claim, the_fields_of_one_user_are_one_claim)
{
    add(7, "email", "a@x.test", "b@x.test", 5);
    add(7, "posts", "3", "4", 5);
    add(7, "comments", "1", "2", 5);
    add(8, "posts", "3", "4", 5);
    cr_assert_eq(claims.count, 2);
    expect(0, 7, "counts");
    expect(1, 8, "counts");
    cr_expect_str_eq(claims.list[0].expected, "email (not logged), posts 3, comments 1");
    cr_expect_str_eq(claims.list[0].found, "email (another), posts 4, comments 2");
}

Test(audit_claim, an_older_version_is_behind_and_a_newer_one_ahead)
{
    add(7, "version", "5", "4", 4);
    add(8, "version", "5", "6", 6);
    expect(0, 7, "behind");
    expect(1, 8, "ahead");
}

Test(audit_claim, a_profile_alone_and_a_deletion_have_kinds_of_their_own)
{
    add(7, "name", "Ann", "Eve", 5);
    add(8, "deleted", "1", "0", 5);
    add(8, "name", "(none)", "Eve", 5);
    expect(0, 7, "profile");
    expect(1, 8, "deleted");
}

Test(audit_claim, a_key_in_the_wrong_place_is_no_part_of_its_users_claim)
{
    add(7, "posts", "3", "4", 5);
    add(7, "misplaced", "(none)", "key in a partition that is not the user's", 0);
    add(8, "ghost", "(none)", "key of a user that does not exist", 0);
    cr_assert_eq(claims.count, 3);
    expect(1, 7, "misplaced");
    expect(2, 8, "ghost");
}

Test(audit_claim, texts_of_all_fields_at_once_end_where_the_room_ends)
{
    char longest[TALLY_VERIFY_VALUE_BYTES];
    memset(longest, '9', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    add(7, "deleted", longest, longest, 5);
    add(7, "posts", longest, longest, 5);
    add(7, "comments", longest, longest, 5);
    cr_assert_eq(claims.count, 1);
    cr_expect_lt(strlen(claims.list[0].expected), TALLY_AUDIT_TEXT_BYTES);
}
