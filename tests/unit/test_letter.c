/* Dead letters: what an operator is told of a record, however broken it is. */
#include "service/ctl/letter_book.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct tally_record_header header(const char *name, const char *value)
{
    return (struct tally_record_header){name, value, strlen(value)};
}

Test(letter, tells_user_type_reason_and_source)
{
    const struct tally_record_header headers[] = {
        header("ce_type", "planet.created"),    header("ce_sequence", "7"),
        header("tally_reason", "unknown type"), header("tally_source_topic", "events"),
        header("tally_source_partition", "3"),  header("tally_source_offset", "0"),
    };
    const struct tally_record record = {.partition = 1,
                                        .offset = 5,
                                        .key = "42",
                                        .key_length = 2,
                                        .headers = headers,
                                        .header_count = sizeof headers / sizeof headers[0]};
    struct tally_letter letter;
    tally_letter_read(&record, 1234, &letter);
    cr_assert_eq(letter.place.partition, 1);
    cr_assert_eq(letter.place.offset, 5);
    cr_assert_eq(letter.place.written_at_ms, 1234);
    cr_assert_eq(letter.user_id, 42);
    cr_assert_eq(letter.version, 7);
    cr_assert_str_eq(letter.type, "planet.created");
    cr_assert_str_eq(letter.reason, "unknown type");
    cr_assert_str_eq(letter.source_topic, "events");
    cr_assert_eq(letter.source_partition, 3);
    cr_assert_eq(letter.source_offset, 0);
}

Test(letter, of_a_record_without_key_and_headers_is_still_a_letter)
{
    const struct tally_record record = {.partition = 0, .offset = 0};
    struct tally_letter letter;
    tally_letter_read(&record, -1, &letter);
    cr_assert_eq(letter.user_id, 0);
    cr_assert_eq(letter.version, 0);
    cr_assert_str_eq(letter.type, "");
    cr_assert_eq(letter.source_partition, -1);
    cr_assert_eq(letter.source_offset, -1);
}

Test(letter, is_named_by_its_offset_or_by_partition_and_offset)
{
    int32_t partition = -1;
    int64_t offset = -1;
    cr_assert(tally_letter_place_parse("17", &partition, &offset));
    cr_assert(partition == 0 && offset == 17);
    cr_assert(tally_letter_place_parse("3:0", &partition, &offset));
    cr_assert(partition == 3 && offset == 0);
    static const char *const wrong[] = {"",   ":",    "1:",     ":1",
                                        "-1", "1:-1", "a",      "1:2:3",
                                        "1 ", "01",   "9999:1", "99999999999999999999:1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_assert_not(tally_letter_place_parse(wrong[i], &partition, &offset), "%s", wrong[i]);
}

/* A letter of `source` offset 4 at `offset`, of an event with this id. */
static void take(struct tally_letter_book *book, int64_t offset, const char *source, const char *id,
                 const char *reason, struct tally_letter_entry *entry)
{
    const struct tally_record_header headers[] = {
        header("ce_id", id),
        header("tally_reason", reason),
        header("tally_source_topic", "events"),
        header("tally_source_partition", "3"),
        header("tally_source_offset", source),
    };
    const struct tally_record record = {.offset = offset,
                                        .key = "42",
                                        .key_length = 2,
                                        .headers = headers,
                                        .header_count = sizeof headers / sizeof headers[0]};
    struct tally_letter letter;
    tally_letter_read(&record, 1234, &letter);
    tally_letter_book_take(book, &letter, entry);
}

Test(letter, of_the_same_record_once_more_is_a_repeat_of_the_first_and_not_open_by_itself)
{
    struct tally_letter_book book = {0};
    struct tally_letter_entry entry;
    take(&book, 7, "4", "42-2", "unknown type", &entry);
    cr_assert_not(entry.repeat);
    cr_assert_eq(entry.first.offset, 7);
    take(&book, 9, "4", "42-2", "unknown type, said otherwise", &entry);
    cr_assert(entry.repeat);
    cr_assert_eq(entry.first.offset, 7);
    cr_assert(book.open == 1 && book.done == 0 && book.repeats == 1);
    tally_letter_book_close(&book);
}

Test(letter, of_another_record_at_the_same_or_another_offset_is_no_repeat)
{
    struct tally_letter_book book = {0};
    struct tally_letter_entry entry;
    take(&book, 1, "4", "42-2", "unknown type", &entry);
    take(&book, 2, "4", "42-3", "unknown type", &entry);
    cr_assert_not(entry.repeat, "the topic was made anew, and holds something else there");
    take(&book, 3, "5", "42-2", "unknown type", &entry);
    cr_assert_not(entry.repeat, "published twice: each is looked at by itself");
    take(&book, 4, "", "42-2", "by hand", &entry);
    take(&book, 5, "", "42-2", "by hand", &entry);
    cr_assert_not(entry.repeat, "without a source there is no telling");
    cr_assert(book.open == 5 && book.repeats == 0);
    tally_letter_book_close(&book);
}

Test(letter, repeats_are_found_among_many)
{
    struct tally_letter_book book = {0};
    struct tally_letter_entry entry;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 5000; i++) {
            char source[12];
            (void)snprintf(source, sizeof source, "%d", i);
            take(&book, (int64_t)round * 5000 + i, source, "42-2", "unknown type", &entry);
            cr_assert(entry.repeat == (round == 1) && entry.first.offset == i);
        }
    }
    cr_assert(book.open == 5000 && book.repeats == 5000);
    tally_letter_book_close(&book);
}
