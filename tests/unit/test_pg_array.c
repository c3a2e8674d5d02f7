#include "pg/array.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <string.h>

static void expect_bytes(struct tally_pg_array *array, const void *expected, size_t expected_length)
{
    int length = 0;
    const char *value = tally_pg_array_value(array, &length);
    cr_assert_not_null(value);
    cr_assert_eq((size_t)length, expected_length, "%d bytes", length);
    cr_assert_arr_eq(value, expected, expected_length);
}

Test(pg_array, numbers_are_in_network_order_behind_the_header_of_array_recv)
{
    static const unsigned char expected[] = {
        0, 0, 0, 1, 0,   0,   0,   0,   0,   0,   0,   20,  0, 0, 0, 2, 0, 0, 0, 1, /* header */
        0, 0, 0, 8, 0,   0,   0,   0,   0,   0,   1,   2,                           /* 258 */
        0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255,                         /* -1 */
    };
    struct tally_pg_array array;
    tally_pg_array_init(&array, TALLY_PG_ARRAY_INT8, 1000);
    tally_pg_array_append_integer(&array, 258);
    tally_pg_array_append_integer(&array, -1);
    expect_bytes(&array, expected, sizeof expected);
    tally_pg_array_release(&array);
}

Test(pg_array, null_has_no_bytes_and_is_announced)
{
    static const unsigned char expected[] = {
        0,   0,   0,   1,   0,   0,   0, 1, 0, 0, 0, 25, 0, 0, 0, 3, 0, 0, 0, 1, /* header */
        255, 255, 255, 255,                                                      /* NULL */
        0,   0,   0,   2,   'h', 'i',                                            /* hi */
        0,   0,   0,   0, /* empty is not NULL */
    };
    struct tally_pg_array array;
    tally_pg_array_init(&array, TALLY_PG_ARRAY_TEXT, 1000);
    tally_pg_array_append_text(&array, NULL);
    tally_pg_array_append_text(&array, "hi");
    tally_pg_array_append_text(&array, "");
    expect_bytes(&array, expected, sizeof expected);
    tally_pg_array_release(&array);
}

Test(pg_array, an_empty_array_has_no_dimension)
{
    static const unsigned char expected[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 21};
    struct tally_pg_array array;
    tally_pg_array_init(&array, TALLY_PG_ARRAY_INT2, 1000);
    expect_bytes(&array, expected, sizeof expected);
    tally_pg_array_release(&array);
}

Test(pg_array, clearing_leaves_nothing_of_the_last_batch)
{
    struct tally_pg_array first;
    struct tally_pg_array again;
    int length = 0;
    tally_pg_array_init(&first, TALLY_PG_ARRAY_BYTEA, 1000);
    tally_pg_array_init(&again, TALLY_PG_ARRAY_BYTEA, 1000);
    tally_pg_array_append_bytes(&first, "\0\1", 2);
    tally_pg_array_append_null(&again);
    tally_pg_array_append_bytes(&again, "other", 5);
    tally_pg_array_clear(&again);
    tally_pg_array_append_bytes(&again, "\0\1", 2);
    const char *expected = tally_pg_array_value(&first, &length);
    expect_bytes(&again, expected, (size_t)length);
    tally_pg_array_release(&first);
    tally_pg_array_release(&again);
}

Test(pg_array, what_does_not_fit_fails_the_whole_array)
{
    struct tally_pg_array array;
    int length = 0;
    tally_pg_array_init(&array, TALLY_PG_ARRAY_INT2, 1000);
    tally_pg_array_append_integer(&array, INT16_MAX + 1);
    tally_pg_array_append_integer(&array, 1);
    cr_assert_null(tally_pg_array_value(&array, &length));
    tally_pg_array_release(&array);

    tally_pg_array_init(&array, TALLY_PG_ARRAY_TEXT, 30);
    tally_pg_array_append_text(&array, "longer than the limit");
    cr_assert_null(tally_pg_array_value(&array, &length));
    tally_pg_array_release(&array);
}
