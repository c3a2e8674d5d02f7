#include "service/ctl/verify_compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static struct tally_verify_difference *add(struct tally_verify_differences *differences,
                                           const struct tally_recount_user *expected,
                                           const struct tally_verify_found *found,
                                           const char *field)
{
    struct tally_verify_difference *difference = &differences->list[differences->count++];
    *difference = (struct tally_verify_difference){
        .user_id = expected->id,
        .field = field,
        .expected_version = expected->version,
        .found_version = found->version,
    };
    return difference;
}

static void compare_number(struct tally_verify_differences *differences,
                           const struct tally_recount_user *expected,
                           const struct tally_verify_found *found, const char *field,
                           int64_t wanted, int64_t actual)
{
    if (wanted == actual)
        return;
    struct tally_verify_difference *difference = add(differences, expected, found, field);
    (void)snprintf(difference->expected, sizeof difference->expected, "%" PRId64, wanted);
    (void)snprintf(difference->found, sizeof difference->found, "%" PRId64, actual);
}

static void compare_text(struct tally_verify_differences *differences,
                         const struct tally_recount_user *expected,
                         const struct tally_verify_found *found, const char *field,
                         const char *wanted, const char *actual)
{
    if (wanted == NULL ? actual == NULL : actual != NULL && strcmp(wanted, actual) == 0)
        return;
    struct tally_verify_difference *difference = add(differences, expected, found, field);
    (void)snprintf(difference->expected, sizeof difference->expected, "%s",
                   wanted != NULL ? wanted : "(none)");
    (void)snprintf(difference->found, sizeof difference->found, "%s",
                   actual != NULL ? actual : "(none)");
}

static void compare_profile(struct tally_verify_differences *differences,
                            const struct tally_recount_user *expected,
                            const struct tally_verify_found *found)
{
    compare_text(differences, expected, found, "name", expected->name, found->name);
    compare_text(differences, expected, found, "email", expected->email, found->email);
    compare_text(differences, expected, found, "avatar", expected->avatar, found->avatar);
}

static enum tally_verify_verdict verdict(const struct tally_verify_differences *differences)
{
    return differences->count == 0 ? TALLY_VERIFY_EQUAL : TALLY_VERIFY_DIFFERENT;
}

/* Of a deleted user only version, mark and the absence of personal data count: rows that are still
 * being swept are nobody's posts any more. */
static enum tally_verify_verdict compare_equal_versions(
    const struct tally_recount_user *expected, const struct tally_verify_found *found,
    struct tally_verify_differences *differences)
{
    compare_number(differences, expected, found, "deleted", expected->deleted, found->deleted);
    compare_profile(differences, expected, found);
    if (!expected->deleted) {
        compare_number(differences, expected, found, "posts", expected->posts, found->posts);
        compare_number(differences, expected, found, "comments", expected->comments,
                       found->comments);
    }
    return verdict(differences);
}

enum tally_verify_verdict tally_verify_first_look(const struct tally_recount_user *expected,
                                                  const struct tally_verify_found *found,
                                                  struct tally_verify_differences *differences)
{
    differences->count = 0;
    /* The mark of a deleted user need not be kept for ever: without it nothing is shown either. */
    if (expected->deleted && found->version == 0)
        return TALLY_VERIFY_EQUAL;
    if (found->version != expected->version)
        return TALLY_VERIFY_IN_FLIGHT;
    return compare_equal_versions(expected, found, differences);
}

enum tally_verify_verdict tally_verify_next_look(const struct tally_recount_user *expected,
                                                 const struct tally_verify_found *found,
                                                 int64_t wanted,
                                                 struct tally_verify_differences *differences)
{
    differences->count = 0;
    if (found->version == expected->version)
        return compare_equal_versions(expected, found, differences);
    if (found->version > expected->version) {
        compare_number(differences, expected, found, "version", expected->version, found->version);
        return TALLY_VERIFY_DIFFERENT;
    }
    bool all_found = expected->events_after == expected->version - found->version;
    if (found->version < wanted || expected->deleted || !all_found)
        return TALLY_VERIFY_IN_FLIGHT;
    compare_number(differences, expected, found, "deleted", false, found->deleted);
    compare_number(differences, expected, found, "posts", expected->posts - expected->posts_after,
                   found->posts);
    compare_number(differences, expected, found, "comments",
                   expected->comments - expected->comments_after, found->comments);
    if (!expected->profile_after)
        compare_profile(differences, expected, found);
    return verdict(differences);
}

bool tally_verify_extend(const struct tally_verify_found *found, int64_t *wanted)
{
    if (found->version < *wanted)
        return false;
    /* Not beyond what there is: at `found` the user was judged and PostgreSQL was ahead. */
    *wanted = found->version + 1;
    return true;
}

void tally_verify_overdue(int64_t user_id, int64_t wanted, const struct tally_verify_found *found,
                          struct tally_verify_differences *differences)
{
    const struct tally_recount_user expected = {.id = user_id, .version = wanted};
    differences->count = 0;
    struct tally_verify_difference *difference =
        add(differences, &expected, found, found->version == 0 ? "missing" : "version");
    (void)snprintf(difference->expected, sizeof difference->expected, "%" PRId64, wanted);
    (void)snprintf(difference->found, sizeof difference->found, "%" PRId64, found->version);
}
