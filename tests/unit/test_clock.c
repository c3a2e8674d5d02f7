#include "core/clock.h"
#include "core/id.h"
#include "core/random.h"
#include "core/trace.h"

#include <criterion/criterion.h>
#include <string.h>

Test(clock, a_timestamp_reads_back_as_the_time_it_was_made_of)
{
    const int64_t times_us[] = {0, 1, 999999, 1763841211123456, 253402300799999999};
    for (size_t i = 0; i < sizeof times_us / sizeof times_us[0]; i++) {
        char text[TALLY_TIMESTAMP_BYTES];
        tally_clock_format(times_us[i], text);
        cr_assert_eq(tally_clock_parse(text), times_us[i], "%s", text);
    }
}

Test(clock, timestamps_are_rfc3339_in_utc)
{
    char text[TALLY_TIMESTAMP_BYTES];
    char day[TALLY_DAY_BYTES];
    tally_clock_format(1709210096000007, text);
    cr_assert_str_eq(text, "2024-02-29T12:34:56.000007Z");
    tally_clock_format_day(1709210096000007, day);
    cr_assert_str_eq(day, "2024-02-29");
}

Test(clock, anything_but_a_utc_timestamp_is_refused)
{
    const char *const wrong[] = {"",
                                 "2024-02-29",
                                 "2024-02-29T12:34:56",
                                 "2024-02-29T12:34:56+01:00",
                                 "2024-02-29T12:34:56.Z",
                                 "2024-02-29T12:34:56.1234567Z",
                                 "1969-12-31T23:59:59Z",
                                 "2024-02-29T12:34:56Zx"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_assert_eq(tally_clock_parse(wrong[i]), -1, "%s", wrong[i]);
}

Test(id, reads_only_canonical_positive_63_bit_numbers)
{
    int64_t id = 0;
    cr_assert(tally_id_parse("9223372036854775807", 19, &id));
    cr_assert_eq(id, INT64_MAX);
    cr_assert(tally_id_parse("1x", 1, &id));
    cr_assert_eq(id, 1);
    const char *const wrong[] = {
        "", "0", "01", "-1", "+1", " 1", "1 ", "1a", "9223372036854775808", "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_assert_not(tally_id_parse(wrong[i], strlen(wrong[i]), &id), "\"%s\"", wrong[i]);
    char text[TALLY_ID_TEXT_BYTES];
    cr_assert_eq(tally_id_format(INT64_MAX, text), 19);
    cr_assert_str_eq(text, "9223372036854775807");
    cr_assert_eq(tally_id_format(0, text), 1);
    cr_assert_str_eq(text, "0");
}

Test(trace, a_request_keeps_its_trace_id_and_gets_a_span_of_its_own)
{
    struct tally_random random;
    tally_random_seed(&random, 1);
    const char *incoming = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    struct tally_trace trace;
    tally_trace_start(&trace, incoming, &random);
    cr_assert(tally_trace_valid(trace.parent));
    cr_assert_eq(memcmp(trace.parent, incoming, 36), 0);
    cr_assert_neq(memcmp(trace.parent + 36, incoming + 36, 16), 0);
    char id[TALLY_TRACE_ID_BYTES];
    tally_trace_id(trace.parent, id);
    cr_assert_str_eq(id, "4bf92f3577b34da6a3ce929d0e0e4736");
}

Test(trace, an_invalid_traceparent_starts_a_new_trace)
{
    struct tally_random random;
    tally_random_seed(&random, 1);
    const char *const wrong[] = {NULL,
                                 "",
                                 "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                                 "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                                 "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                                 "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                                 "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
                                 "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct tally_trace trace;
        tally_trace_start(&trace, wrong[i], &random);
        cr_assert(tally_trace_valid(trace.parent));
        if (wrong[i] != NULL)
            cr_assert_not(tally_trace_valid(wrong[i]), "%s", wrong[i]);
    }
    char id[TALLY_TRACE_ID_BYTES];
    tally_trace_id(NULL, id);
    cr_assert_str_eq(id, "");
}

Test(random, a_seed_gives_the_same_sequence_again)
{
    struct tally_random first;
    struct tally_random second;
    tally_random_seed(&first, 42);
    tally_random_seed(&second, 42);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(tally_random_next(&first), tally_random_next(&second));
    for (int i = 0; i < 1000; i++) {
        cr_assert_lt(tally_random_below(&first, 7), 7);
        double unit = tally_random_unit(&first);
        cr_assert(unit >= 0 && unit < 1);
    }
}

Test(random, back_off_grows_to_its_bound_and_never_past_it)
{
    struct tally_random random;
    tally_random_seed(&random, 7);
    struct tally_backoff backoff = {.first_ms = 10, .most_ms = 1000};
    int64_t longest_ms = 0;
    for (int i = 0; i < 1000; i++) {
        int64_t wait_ms = tally_backoff_next_ms(&backoff, &random);
        int64_t bound_ms = i < 7 ? (int64_t)10 << i : 1000;
        cr_assert(wait_ms >= 1 && wait_ms <= bound_ms, "attempt %d waits %ld", i, (long)wait_ms);
        longest_ms = wait_ms > longest_ms ? wait_ms : longest_ms;
    }
    cr_assert_gt(longest_ms, 500);
}
