/* Migrations: what an applied list means for the embedded one. */
#include "store/migrate.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct tally_migration list[] = {{1, "tables", "", "aa"}, {2, "events", "", "bb"}};
static const struct tally_migration_set set = {list, 2};

static enum tally_status compare(const struct tally_migration_applied *applied, size_t count,
                                 size_t *done, const char *says)
{
    struct tally_error error = {0};
    enum tally_status status = tally_migrations_compare(&set, applied, count, done, &error);
    cr_expect_not_null(strstr(error.text, says), "\"%s\" does not say \"%s\"", error.text, says);
    return status;
}

Test(migrate_plan, what_is_applied_is_not_applied_again)
{
    const struct tally_migration_applied applied[] = {{1, "tables", "aa", "", 0},
                                                      {2, "events", "bb", "", 0}};
    size_t done = 9;
    cr_assert_eq(compare(applied, 0, &done, ""), TALLY_OK);
    cr_assert_eq(done, 0);
    cr_assert_eq(compare(applied, 1, &done, ""), TALLY_OK);
    cr_assert_eq(done, 1);
    cr_assert_eq(compare(applied, 2, &done, ""), TALLY_OK);
    cr_assert_eq(done, 2);
}

Test(migrate_plan, a_changed_text_or_name_is_refused)
{
    const struct tally_migration_applied text[] = {{1, "tables", "ab", "", 0}};
    const struct tally_migration_applied name[] = {{1, "chairs", "aa", "", 0}};
    size_t done = 0;
    cr_assert_eq(compare(text, 1, &done, "another text"), TALLY_CONFIG);
    cr_assert_eq(compare(name, 1, &done, "chairs"), TALLY_CONFIG);
}

Test(migrate_plan, a_missing_row_in_the_middle_is_refused)
{
    const struct tally_migration_applied applied[] = {{2, "events", "bb", "", 0}};
    size_t done = 0;
    cr_assert_eq(compare(applied, 1, &done, "no row for version 1"), TALLY_CONFIG);
}

Test(migrate_plan, a_database_newer_than_the_build_is_refused)
{
    const struct tally_migration_applied applied[] = {
        {1, "tables", "aa", "", 0}, {2, "events", "bb", "", 0}, {3, "more", "cc", "", 0}};
    size_t done = 0;
    cr_assert_eq(compare(applied, 3, &done, "newer release"), TALLY_CONFIG);
}

Test(migrate_plan, a_position_in_the_text_becomes_a_line)
{
    const char *sql = "a\nb\xc3\xa9\nc";
    cr_assert_eq(tally_migration_line(sql, 1), 1);
    cr_assert_eq(tally_migration_line(sql, 3), 2);
    cr_assert_eq(tally_migration_line(sql, 4), 2, "two bytes are one character");
    cr_assert_eq(tally_migration_line(sql, 6), 3);
}

Test(migrate_plan, the_embedded_migrations_are_numbered_without_gaps)
{
    const struct tally_migration_set *built = tally_migrations();
    cr_assert_gt(built->count, 0);
    for (size_t i = 0; i < built->count; i++) {
        cr_expect_eq(built->list[i].version, (int)i + 1);
        cr_expect_eq(strlen(built->list[i].checksum), TALLY_MIGRATION_CHECKSUM_BYTES - 1);
        cr_expect_gt(strlen(built->list[i].sql), 0);
    }
    cr_assert_eq(tally_schema_version_needed(), (int)built->count);
}
