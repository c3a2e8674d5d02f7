/* Erase receipt: it says that something was done only where it was, whatever was asked for. */
#include "service/ctl/erase_receipt.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct tally_settings settings;
static struct tally_erase_options options = {.settings = &settings, .user_id = 77};
static struct tally_erase_result result;

/* All is done, by a plain vacuum; Redis keeps both kinds of files. */
static void complete(void)
{
    result = (struct tally_erase_result){
        .book = {.vacuumed_at_us = 1, .files_written_at_us = 1, .completed_at_us = 1},
        .appends = TALLY_ERASE_FILE_WRITTEN,
        .snapshot = TALLY_ERASE_FILE_WRITTEN,
        .complete = true,
    };
    for (int part = 0; part < TALLY_ERASE_PART_COUNT; part++)
        result.parts[part].done = true;
    options.vacuum = TALLY_ERASE_VACUUM_PLAIN;
}

TestSuite(erase_receipt, .init = complete);

/* Releases `receipt`. */
static bool mentions(json_t *receipt, const char *list, const char *what)
{
    char *text = json_dumps(json_object_get(receipt, list), 0);
    cr_assert_not_null(text);
    const bool found = strstr(text, what) != NULL;
    free(text);
    json_decref(receipt);
    return found;
}

static json_t *receipt_of(void)
{
    json_t *receipt = tally_erase_receipt(&options, &result, "again");
    cr_assert_not_null(receipt);
    return receipt;
}

/* JSON_TRUE, JSON_FALSE or JSON_NULL: what the receipt says below `removed`. */
static json_type removed(const char *where, const char *name)
{
    json_t *receipt = receipt_of();
    const json_t *value =
        json_object_get(json_object_get(json_object_get(receipt, "removed"), where), name);
    cr_assert_not_null(value);
    const json_type type = json_typeof(value);
    json_decref(receipt);
    return type;
}

Test(erase_receipt, a_full_vacuum_that_did_not_come_after_a_plain_one_has_written_nothing_anew)
{
    options.vacuum = TALLY_ERASE_VACUUM_FULL;
    result.parts[TALLY_ERASE_VACUUM].done = false;
    cr_assert_eq(removed("postgresql", "tablesWrittenAnew"), JSON_FALSE);
    cr_assert(mentions(receipt_of(), "notCovered", "free space"));
}

Test(erase_receipt, tables_that_an_earlier_run_has_written_anew_stay_so)
{
    result.book.tables_written_at_us = 1;
    cr_assert_eq(removed("postgresql", "tablesWrittenAnew"), JSON_TRUE);
    cr_assert(!mentions(receipt_of(), "notCovered", "free space"));
}

Test(erase_receipt, files_that_were_written_anew_leave_nothing_in_redis)
{
    cr_assert_eq(removed("readModel", "filesWrittenAnew"), JSON_TRUE);
    cr_assert(!mentions(receipt_of(), "remains", "Redis"));
}

Test(erase_receipt, each_kind_of_file_that_redis_denies_is_named_and_the_other_is_not)
{
    result.book.files_written_at_us = 0;
    result.snapshot = TALLY_ERASE_FILE_DENIED;
    cr_assert_eq(removed("readModel", "filesWrittenAnew"), JSON_FALSE);
    cr_assert(mentions(receipt_of(), "remains", "snapshot"));
    cr_assert(!mentions(receipt_of(), "remains", "append-only"));
    result.snapshot = TALLY_ERASE_FILE_WRITTEN;
    result.appends = TALLY_ERASE_FILE_DENIED;
    cr_assert_eq(removed("readModel", "filesWrittenAnew"), JSON_FALSE);
    cr_assert(mentions(receipt_of(), "remains", "append-only"));
    cr_assert(!mentions(receipt_of(), "remains", "snapshot"));
}

Test(erase_receipt, a_redis_that_keeps_no_files_has_written_none)
{
    result.book.files_written_at_us = 0;
    result.appends = result.snapshot = TALLY_ERASE_FILE_NONE;
    cr_assert_eq(removed("readModel", "filesWrittenAnew"), JSON_NULL);
    cr_assert(!mentions(receipt_of(), "remains", "Redis"));
}

Test(erase_receipt, files_that_are_still_being_written_are_not_written)
{
    result.parts[TALLY_ERASE_FILES].done = false;
    cr_assert_eq(removed("readModel", "filesWrittenAnew"), JSON_FALSE);
}
