#include "view/keys.h"
#include "view/record.h"

#include <criterion/criterion.h>
#include <string.h>

Test(view_keys, are_those_that_the_documents_name)
{
    char key[TALLY_VIEW_KEY_BYTES];
    cr_expect_eq(tally_view_user_key(key, 3, 7, 42), strlen("tally:3:{7}:user:42"));
    cr_expect_str_eq(key, "tally:3:{7}:user:42");
    cr_expect_eq(tally_view_position_key(key, 3, 0), strlen("tally:3:{0}:position"));
    cr_expect_str_eq(key, "tally:3:{0}:position");
    cr_expect_eq(tally_view_totals_key(key, 1795380684, 12), strlen(key));
    cr_expect_str_eq(key, "tally:1795380684:{12}:totals");
    cr_expect_eq(tally_view_active_key(key, 3, 7, "2026-11-22"), strlen(key));
    cr_expect_str_eq(key, "tally:3:{7}:active:2026-11-22");
}

Test(view_keys, fit_at_their_longest)
{
    char key[TALLY_VIEW_KEY_BYTES];
    struct tally_view_user_name name;
    const size_t length = tally_view_user_key(key, INT64_MAX, INT32_MAX, INT64_MAX);
    cr_expect_lt(length, TALLY_VIEW_KEY_BYTES);
    cr_expect(tally_view_user_key_parse(key, length, &name));
    cr_expect_eq(name.generation, INT64_MAX);
    cr_expect_eq(name.partition, INT32_MAX);
    cr_expect_eq(name.user_id, INT64_MAX);
}

Test(view_keys, of_users_are_read_back)
{
    static const int64_t ids[] = {1, 9, 10, 99, 1000000007, INT64_MAX};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        for (int32_t partition = 0; partition < 1024; partition += 31) {
            char key[TALLY_VIEW_KEY_BYTES];
            struct tally_view_user_name name;
            const size_t length = tally_view_user_key(key, 17, partition, ids[i]);
            cr_assert(tally_view_user_key_parse(key, length, &name), "%s", key);
            cr_expect_eq(name.generation, 17);
            cr_expect_eq(name.partition, partition);
            cr_expect_eq(name.user_id, ids[i]);
        }
    }
}

Test(view_keys, of_anything_else_are_not_taken_for_users)
{
    static const char *const wrong[] = {
        "",
        "tally:",
        "tally:generation",
        "tally:3:{7}:position",
        "tally:3:{7}:totals",
        "tally:3:{7}:user:",
        "tally:3:{7}:user:0",
        "tally:3:{7}:user:042",
        "tally:3:{7}:user:42x",
        "tally:3:{7}:user:-42",
        "tally:3:{7}:user:9223372036854775808",
        "tally:3:{07}:user:42",
        "tally:3:{}:user:42",
        "tally:3:{2147483648}:user:42",
        "tally:0:{7}:user:42",
        "tally::{7}:user:42",
        "tally:3:7:user:42",
        "tallyx3:{7}:user:42",
    };
    struct tally_view_user_name name;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_expect(!tally_view_user_key_parse(wrong[i], strlen(wrong[i]), &name), "%s", wrong[i]);
    /* Cut off anywhere. */
    const char *whole = "tally:3:{7}:user:4";
    for (size_t length = 0; length < strlen(whole); length++)
        cr_expect(!tally_view_user_key_parse(whole, length, &name), "%zu bytes", length);
}

Test(record, numbers_below_zero_keep_their_sign)
{
    struct tally_buffer out;
    tally_buffer_init(&out, 1024);
    tally_record_put_number(&out, -31);
    tally_record_put_number(&out, 0);
    tally_record_put_number(&out, INT64_MAX);
    tally_record_put_number(&out, -INT64_MAX);
    static const char expected[] = "$3\r\n-31\r\n$1\r\n0\r\n$19\r\n9223372036854775807\r\n"
                                   "$20\r\n-9223372036854775807\r\n";
    cr_assert_eq(out.length, sizeof expected - 1);
    cr_expect_arr_eq(out.data, expected, sizeof expected - 1);
    tally_buffer_release(&out);
}
