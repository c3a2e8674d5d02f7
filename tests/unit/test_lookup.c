#include "redis/command.h"
#include "view/lookup_internal.h"

#include <criterion/criterion.h>
#include <hiredis/hiredis.h>
#include <string.h>

static redisReply string(const char *text)
{
    return (redisReply){.type = REDIS_REPLY_STRING, .str = (char *)text, .len = strlen(text)};
}

Test(lookup, a_command_is_an_array_of_bulk_strings)
{
    struct tally_buffer out;
    tally_buffer_init(&out, 256);
    tally_redis_command(&out, 3);
    tally_redis_part_text(&out, "HMGET");
    tally_redis_part(&out, "a\r\nb", 4);
    tally_redis_part_text(&out, "");
    cr_assert_str_eq(tally_buffer_text(&out), "*3\r\n$5\r\nHMGET\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
    tally_buffer_release(&out);
}

Test(lookup, only_a_whole_decimal_number_is_a_number)
{
    static const struct {
        const char *text;
        bool number;
        int64_t value;
    } cases[] = {
        {"0", true, 0},   {"17", true, 17}, {"9223372036854775807", true, INT64_MAX},
        {"-5", true, -5}, {"", false, 0},   {"9223372036854775808", false, 0},
        {"-", false, 0},  {"1 ", false, 0}, {"0x1", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        redisReply reply = string(cases[i].text);
        int64_t value = 0;
        cr_assert_eq(tally_lookup_reply_integer(&reply, &value), cases[i].number, "'%s'",
                     cases[i].text);
        if (cases[i].number)
            cr_assert_eq(value, cases[i].value, "'%s'", cases[i].text);
    }
    redisReply nil = {.type = REDIS_REPLY_NIL};
    int64_t value = 0;
    cr_assert_not(tally_lookup_reply_integer(&nil, &value));
}

/* epoch, offset, until, partitions, fresh_at_ms; NULL: absent. */
static enum tally_status parse(const char *const texts[5], struct position *position)
{
    redisReply fields[5];
    redisReply *elements[5];
    for (size_t i = 0; i < 5; i++) {
        fields[i] = texts[i] != NULL ? string(texts[i]) : (redisReply){.type = REDIS_REPLY_NIL};
        elements[i] = &fields[i];
    }
    const redisReply reply = {.type = REDIS_REPLY_ARRAY, .elements = 5, .element = elements};
    return tally_lookup_position_parse(&reply, position);
}

Test(lookup, a_partition_is_complete_at_until_and_never_below_what_was_seen)
{
    struct tally_lookup_partition list[2] = {0};
    int64_t highest[2] = {0, 90};
    struct tally_lookup lookup = {
        .live = {.number = 1, .partitions = 2, .list = list, .highest = highest}};
    static const struct {
        const char *fields[5];
        int32_t partition;
        bool complete;
    } cases[] = {
        {{"1", "100", "100", "2", "5"}, 0, true},
        {{"1", "99", "100", "2", "5"}, 0, false},
        {{"1", "90", "0", "2", NULL}, 1, true},
        {{"1", "89", "0", "2", "5"}, 1, false},    /* the partition went back */
        {{"1", "100", "100", "3", "5"}, 0, false}, /* built for another count */
        {{"1", "100", "100", NULL, "5"}, 0, false},
        {{"1", "100", NULL, "2", "5"}, 0, false},
        {{"1", NULL, "0", "2", "5"}, 0, false},
        {{NULL, NULL, NULL, NULL, NULL}, 0, false},
        {{"1", "100", "100", "2", "5"}, 2, false}, /* there is no such partition */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct position position;
        cr_assert_eq(parse(cases[i].fields, &position), TALLY_OK, "case %zu", i);
        cr_assert_eq(tally_lookup_position_complete(&lookup, cases[i].partition, &position),
                     cases[i].complete, "case %zu", i);
    }
}

Test(lookup, a_reply_that_is_no_position_is_no_absent_one)
{
    struct position position;
    const redisReply error = {.type = REDIS_REPLY_ERROR, .str = (char *)"LOADING", .len = 7};
    cr_assert_eq(tally_lookup_position_parse(&error, &position), TALLY_UNAVAILABLE);
    static const char *const garbage[5] = {"1", "x", "0", "2", "5"};
    cr_assert_eq(parse(garbage, &position), TALLY_PROTOCOL);
    int64_t number = 0;
    cr_assert_eq(tally_lookup_generation_parse(&error, &number), TALLY_UNAVAILABLE);
    redisReply zero = string("0");
    cr_assert_eq(tally_lookup_generation_parse(&zero, &number), TALLY_PROTOCOL);
}

#define INFO(run_id, time_s, uptime_s)                                                           \
    "# Server\r\nredis_version:7.0.15\r\nrun_id:" run_id "\r\nserver_time_usec:" time_s "000000" \
    "\r\nuptime_in_seconds:" uptime_s "\r\n"
#define ONE "1111111111111111111111111111111111111111"
#define OTHER "2222222222222222222222222222222222222222"

Test(lookup, a_redis_that_was_started_or_replaced_is_read_once_it_has_been_caught_up)
{
    struct server server = {0};
    tally_lookup_server_take(&server, INFO(ONE, "5000", "1000"), 5000000);
    cr_assert_eq(server.fresh_from_ms, 4000000,
                 "at first what was written before its start counts");
    tally_lookup_server_take(&server, INFO(ONE, "6000", "2000"), 6000000);
    cr_assert_eq(server.fresh_from_ms, 4000000, "the same one has lost nothing");
    tally_lookup_server_take(&server, INFO(OTHER, "7000", "6000"), 7000000);
    cr_assert_eq(server.fresh_from_ms, 7000000, "a replica that has been there for long");
    tally_lookup_server_take(&server, INFO(ONE, "8000", "0"), 7999000);
    cr_assert_eq(server.fresh_from_ms, 8000000, "by its own clock");
    server.known = false; /* another connection */
    tally_lookup_server_take(&server, "", 9000000);
    cr_assert_eq(server.fresh_from_ms, 9000000, "one that does not tell");
    cr_assert(server.known);
    tally_lookup_server_take(&server, "", 9500000);
    cr_assert_eq(server.fresh_from_ms, 9000000, "nor over the same connection, which is no news");
}

#define REPLICATION(role, id, offset) \
    "# Replication\r\nrole:" role "\r\nmaster_replid2:" id "\r\nsecond_repl_offset:" offset "\r\n"
#define NONE "0000000000000000000000000000000000000000"

Test(lookup, a_redis_that_is_a_replica_is_not_read_and_once_promoted_when_it_has_been_caught_up)
{
    static const struct {
        const char *info, *why;
        bool replica;
        int64_t now_ms, fresh_from_ms;
    } told[] = {
        {INFO(ONE, "5000", "1000") REPLICATION("master", NONE, "-1"), "the first", false, 5000000,
         4000000},
        {INFO(ONE, "6000", "2000") REPLICATION("slave", NONE, "-1"), "nothing is taken", true,
         6000000, 4000000},
        {INFO(ONE, "7000", "3000") REPLICATION("master", OTHER, "70"), "it had another one's data",
         false, 7000000, 7000000},
        {INFO(ONE, "8000", "4000") REPLICATION("master", OTHER, "70"), "the same promotion", false,
         8000000, 7000000},
        {INFO(ONE, "9000", "5000") REPLICATION("master", NONE, "-1"), "its first replica has come",
         false, 9000000, 7000000},
        {INFO(ONE, "9500", "5500") REPLICATION("master", OTHER, "90"), "promoted again", false,
         9500000, 9500000},
    };
    struct server server = {0};
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        cr_assert_eq(tally_lookup_server_take(&server, told[i].info, told[i].now_ms),
                     !told[i].replica, "%s", told[i].why);
        cr_assert_eq(server.fresh_from_ms, told[i].fresh_from_ms, "%s", told[i].why);
    }
}

Test(lookup, a_partition_that_was_not_fresh_since_redis_was_started_is_incomplete)
{
    struct tally_lookup_partition list[1] = {0};
    int64_t highest[1] = {0};
    struct tally_lookup lookup = {
        .server = {.known = true, .fresh_from_ms = 5000},
        .live = {.number = 1, .partitions = 1, .list = list, .highest = highest}};
    struct position position;
    static const char *const stale[5] = {"1", "100", "100", "1", "4999"};
    static const char *const fresh[5] = {"1", "100", "100", "1", "5000"};
    cr_assert_eq(parse(stale, &position), TALLY_OK);
    cr_assert_not(tally_lookup_position_complete(&lookup, 0, &position));
    cr_assert_eq(parse(fresh, &position), TALLY_OK);
    cr_assert(tally_lookup_position_complete(&lookup, 0, &position));
}
