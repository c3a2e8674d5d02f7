/* Dead letters: what an operator is told of a record, however broken it is. */
#include "service/ctl/letter.h"

#include <criterion/criterion.h>
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
