#include "redis/url.h"

#include <criterion/criterion.h>
#include <string.h>

Test(redis_url, names_host_port_and_database)
{
    struct tally_redis_url url;
    cr_assert_eq(tally_redis_url_parse("redis://127.0.0.1:6380/3", &url, NULL), TALLY_OK);
    cr_expect_str_eq(url.host, "127.0.0.1");
    cr_expect_eq(url.port, 6380);
    cr_expect_eq(url.database, 3);
    cr_expect_str_eq(url.password, "");
}

Test(redis_url, has_defaults_for_what_is_left_out)
{
    static const char *const texts[] = {"redis://redis.example", "redis://redis.example/",
                                        "redis://redis.example:6379", "redis://redis.example/0"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct tally_redis_url url;
        cr_assert_eq(tally_redis_url_parse(texts[i], &url, NULL), TALLY_OK, "%s", texts[i]);
        cr_expect_str_eq(url.host, "redis.example");
        cr_expect_eq(url.port, 6379);
        cr_expect_eq(url.database, 0);
    }
}

Test(redis_url, carries_credentials)
{
    static const struct {
        const char *text, *user, *password;
    } rows[] = {
        {"redis://:secret@h", "", "secret"},
        {"redis://tally:secret@h", "tally", "secret"},
        {"redis://:p%40ss%2Fw%25@h", "", "p@ss/w%"},
        {"redis://:a:b@h", "", "a:b"},
        {"redis://:a@b@h", "", "a@b"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tally_redis_url url;
        cr_assert_eq(tally_redis_url_parse(rows[i].text, &url, NULL), TALLY_OK, "%s", rows[i].text);
        cr_expect_str_eq(url.host, "h");
        cr_expect_str_eq(url.user, rows[i].user);
        cr_expect_str_eq(url.password, rows[i].password);
    }
}

Test(redis_url, reads_ipv6_in_brackets)
{
    struct tally_redis_url url;
    cr_assert_eq(tally_redis_url_parse("redis://[::1]:7000/2", &url, NULL), TALLY_OK);
    cr_expect_str_eq(url.host, "::1");
    cr_expect_eq(url.port, 7000);
    cr_assert_eq(tally_redis_url_parse("redis://[::1]", &url, NULL), TALLY_OK);
    cr_expect_str_eq(url.host, "::1");
}

Test(redis_url, refuses_what_it_does_not_understand_without_repeating_it)
{
    static const char *const texts[] = {
        "",
        "127.0.0.1:6379",
        "rediss://h",
        "redis://",
        "redis://:6379",
        "redis://h:",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:6379x",
        "redis://h/x",
        "redis://h/1/2",
        "redis://h/-1",
        "redis://secret@h",
        "redis://:secret%4@h",
        "redis://:secret%00@h",
        "redis://[::1",
        "redis://[::1]7000",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct tally_redis_url url;
        struct tally_error error = {0};
        cr_expect_eq(tally_redis_url_parse(texts[i], &url, &error), TALLY_CONFIG, "%s", texts[i]);
        cr_expect_null(strstr(error.text, "secret"), "%s", error.text);
    }
}
