#include "service/query/document.h"
#include "service/query/parse.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/*
 * ids
 */

static enum tally_status parse(const char *text, int64_t ids[TALLY_QUERY_IDS_MOST], size_t *count)
{
    struct tally_error error = {0};
    enum tally_status status = tally_query_parse_ids(text, ids, count, &error);
    cr_assert((status == TALLY_OK) == (error.text[0] == '\0'), "a refusal says why");
    return status;
}

Test(query, ids_keep_their_order_and_come_once)
{
    int64_t ids[TALLY_QUERY_IDS_MOST];
    size_t count = 0;
    cr_assert_eq(parse("7,3,7,9223372036854775807,3", ids, &count), TALLY_OK);
    cr_assert_eq(count, 3);
    cr_assert_eq(ids[0], 7);
    cr_assert_eq(ids[1], 3);
    cr_assert_eq(ids[2], INT64_MAX);
}

Test(query, ids_that_are_malformed_are_refused)
{
    static const char *const wrong[] = {
        "",    ",", "1,", ",1", "1,,2", "a", "1 ,2", "-1", "+1", "0", "01", "9223372036854775808",
        "1;2",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int64_t ids[TALLY_QUERY_IDS_MOST];
        size_t count = 0;
        cr_assert_eq(parse(wrong[i], ids, &count), TALLY_INVALID, "'%s' was taken", wrong[i]);
    }
}

Test(query, a_hundred_ids_are_taken_and_one_more_is_not)
{
    char text[1024] = "";
    int64_t ids[TALLY_QUERY_IDS_MOST];
    size_t count = 0;
    for (int i = 1; i <= TALLY_QUERY_IDS_MOST; i++)
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d", i > 1 ? "," : "",
                       i);
    cr_assert_eq(parse(text, ids, &count), TALLY_OK);
    cr_assert_eq(count, TALLY_QUERY_IDS_MOST);
    strcat(text, ",1");
    cr_assert_eq(parse(text, ids, &count), TALLY_INVALID);
}

/*
 * Prefer
 */

Test(query, the_preference_wait_is_found_wherever_it_stands)
{
    static const struct {
        const char *field;
        int seconds;
    } cases[] = {
        {"wait=2", 2},
        {"WAIT=2", 2},
        {"wait = 2", 2},
        {"wait=\"3\"", 3},
        {"respond-async, wait=4", 4},
        {"respond-async,wait=4;foo=bar", 4},
        {"handling=lenient; a=\"b,wait=9\" , wait=5", 5},
        {"foo; bar ; baz=1,wait=6", 6},
        {" ,, wait=7", 7},
        {"wait=1, wait=8", 1},
        {"wait=10", 10},
        {"wait=11", TALLY_QUERY_WAIT_MOST_SECONDS},
        {"wait=99999999999999999999", TALLY_QUERY_WAIT_MOST_SECONDS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_assert_eq(tally_query_parse_wait(cases[i].field), cases[i].seconds, "'%s'",
                     cases[i].field);
}

Test(query, a_preference_that_cannot_be_honoured_is_ignored)
{
    static const char *const fields[] = {
        "",         "wait",     "wait=",      "wait=-1",         "wait=x",
        "wait=1.5", "waiter=3", "wait=\"3",   "foo bar, wait=3", "=3",
        "wait=0",   "foo=\"\\", "foo=wait=3",
    };
    cr_assert_eq(tally_query_parse_wait(NULL), 0);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        cr_assert_eq(tally_query_parse_wait(fields[i]), 0, "'%s'", fields[i]);
}

/*
 * If-None-Match
 */

Test(query, a_tag_of_the_same_version_matches_weak_or_strong_and_in_a_list)
{
    static const char *const fields[] = {
        "\"17\"", "W/\"17\"", "\"1\", \"17\"", "\"a,b\" ,W/\"17\"", "*", " * ", ",\"17\",",
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        cr_assert(tally_query_none_match(fields[i], 17), "'%s'", fields[i]);
}

Test(query, another_version_or_a_malformed_field_never_matches)
{
    static const char *const fields[] = {
        "\"1\"",         "17",         "\"17",      "\"170\"", "\"017\"", "w/\"17\"",
        "\"17\" \"18\"", "\"17\", 18", "*, \"17\"", "",        "W/",      "\"\"",
    };
    cr_assert_not(tally_query_none_match(NULL, 17));
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        cr_assert_not(tally_query_none_match(fields[i], 17), "'%s'", fields[i]);
}

/*
 * Documents
 */

static struct tally_lookup_text text(const char *bytes)
{
    return (struct tally_lookup_text){bytes, strlen(bytes)};
}

static void expect_user(const struct tally_lookup_user *user, const char *expected)
{
    struct tally_buffer out;
    tally_buffer_init(&out, 4096);
    tally_query_append_user(&out, user);
    cr_assert_str_eq(tally_buffer_text(&out), expected);
    tally_buffer_release(&out);
}

Test(query, a_user_is_written_as_the_api_says)
{
    struct tally_lookup_user user = {.id = INT64_MAX,
                                     .version = 17,
                                     .posts = 2,
                                     .comments = 3,
                                     .name = text("Zo\xc3\xab \"Z\""),
                                     .email = text("zoe@example.org")};
    expect_user(&user,
                "{\"user\":{\"id\":\"9223372036854775807\",\"name\":\"Zo\xc3\xab \\\"Z\\\"\","
                "\"email\":\"zoe@example.org\",\"avatar\":null},"
                "\"postCount\":2,\"commentCount\":3,\"version\":17}");
    user.avatar = text("https://example.org/z.png");
    user.degraded = true;
    expect_user(&user,
                "{\"user\":{\"id\":\"9223372036854775807\",\"name\":\"Zo\xc3\xab \\\"Z\\\"\","
                "\"email\":\"zoe@example.org\",\"avatar\":\"https://example.org/z.png\"},"
                "\"postCount\":2,\"commentCount\":3,\"version\":17,\"degraded\":true}");
}

Test(query, lag_is_never_negative_and_says_when_it_is_unknown)
{
    cr_assert_eq(tally_query_lag_ms(1000, 1250), 250);
    cr_assert_eq(tally_query_lag_ms(1250, 1000), 0);
    cr_assert_eq(tally_query_lag_ms(0, 1000), -1);
}

Test(query, stats_are_as_fresh_as_the_stalest_partition)
{
    const struct tally_lookup_partition partitions[] = {
        {.complete = true, .offset = 5, .fresh_at_ms = 9000},
        {.complete = true, .offset = 7, .fresh_at_ms = 7500},
    };
    const struct tally_lookup_stats stats = {.generation = 3,
                                             .users = 1,
                                             .posts = 2,
                                             .comments = 4,
                                             .active_day = 1,
                                             .active_week = 2,
                                             .active_month = 3,
                                             .partition_count = 2,
                                             .partitions = partitions};
    struct tally_buffer out;
    tally_buffer_init(&out, 4096);
    tally_query_append_stats(&out, &stats, 10000);
    cr_assert_str_eq(tally_buffer_text(&out),
                     "{\"users\":1,\"posts\":2,\"comments\":4,"
                     "\"activeUsers\":{\"day\":1,\"week\":2,\"month\":3},"
                     "\"freshnessSeconds\":2.500,\"generation\":\"3\",\"partitions\":["
                     "{\"partition\":0,\"offset\":\"5\",\"lagSeconds\":1.000},"
                     "{\"partition\":1,\"offset\":\"7\",\"lagSeconds\":2.500}]}");
    tally_buffer_release(&out);
}
