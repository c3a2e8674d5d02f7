#include "http/router.h"
#include "http/strict.h"

#include <criterion/criterion.h>
#include <string.h>

struct text_row {
    const char *text;
    size_t length;
    bool accepted;
};

#define YES(text)                   \
    {                               \
        text, sizeof text - 1, true \
    }
#define NO(text)                     \
    {                                \
        text, sizeof text - 1, false \
    }

static void expect_rows(const struct text_row *rows, size_t count,
                        bool check(const char *text, size_t length))
{
    for (size_t i = 0; i < count; i++)
        cr_expect_eq(check(rows[i].text, rows[i].length), rows[i].accepted, "row %zu: \"%s\"", i,
                     rows[i].text);
}

#define EXPECT_ROWS(rows, check) expect_rows(rows, sizeof rows / sizeof rows[0], check)

Test(http_strict, a_token_is_one_or_more_tchar_and_every_other_byte_ends_it)
{
    const char allowed[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                           "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (int byte = 0; byte < 256; byte++) {
        char text[3] = {'a', (char)byte, 'b'};
        bool wanted = byte != 0 && strchr(allowed, byte) != NULL;
        cr_expect_eq(tally_http_is_token(text, 3), wanted, "byte %d", byte);
    }
    cr_expect_not(tally_http_is_token("", 0));
}

Test(http_strict, a_field_value_holds_no_control_but_tab)
{
    for (int byte = 0; byte < 256; byte++) {
        char text[1] = {(char)byte};
        bool wanted = byte == '\t' || (byte >= 0x20 && byte != 0x7f);
        cr_expect_eq(tally_http_is_field_value(text, 1), wanted, "byte %d", byte);
    }
    cr_expect(tally_http_is_field_value("", 0));
}

Test(http_strict, a_target_holds_what_rfc_3986_allows_and_no_fragment)
{
    const char allowed[] = "-._~:/?[]@!$&'()*+,;=%0123456789abcdefghijklmnopqrstuvwxyz"
                           "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (int byte = 0; byte < 256; byte++) {
        char text[2] = {'/', (char)byte};
        bool wanted = byte != 0 && strchr(allowed, byte) != NULL;
        cr_expect_eq(tally_http_is_target(text, 2), wanted, "byte %d", byte);
    }
}

Test(http_strict, utf8_is_taken_exactly_as_rfc_3629_says)
{
    static const struct text_row rows[] = {
        YES(""),
        YES("a"),
        YES("\x7f"),
        YES("\xc2\x80"),
        YES("\xdf\xbf"),
        YES("\xe0\xa0\x80"),
        YES("\xed\x9f\xbf"),
        YES("\xee\x80\x80"),
        YES("\xef\xbf\xbf"),
        YES("\xf0\x90\x80\x80"),
        YES("\xf4\x8f\xbf\xbf"),
        NO("\0"),
        NO("\x80"),
        NO("\xc0\x80"),
        NO("\xc1\xbf"),
        NO("\xc2"),
        NO("\xc2 "),
        NO("\xe0\x9f\xbf"),
        NO("\xe1\x80"),
        NO("\xed\xa0\x80"),
        NO("\xed\xbf\xbf"),
        NO("\xf0\x8f\xbf\xbf"),
        NO("\xf0\x90\x80"),
        NO("\xf4\x90\x80\x80"),
        NO("\xf5\x80\x80\x80"),
        NO("\xff"),
        NO("a\xe2\x82"),
    };
    EXPECT_ROWS(rows, tally_http_is_utf8);
}

Test(http_strict, a_host_is_one_name_or_address_with_at_most_a_port)
{
    static const struct text_row rows[] = {
        YES("a"),
        YES("a.example"),
        YES("A-1.b_c~d"),
        YES("127.0.0.1:8080"),
        YES("a:"),
        YES("a:65535"),
        YES("[::1]"),
        YES("[::1]:80"),
        YES("[::ffff:1.2.3.4]:1"),
        NO(""),
        NO(":80"),
        NO("a:b"),
        NO("a:65536"),
        NO("a:000080"),
        NO("a:80:80"),
        NO("a b"),
        NO("a,b"),
        NO("a/b"),
        NO("a?b"),
        NO("u@a"),
        NO("a\\b"),
        NO("[::1"),
        NO("[]"),
        NO("[:]x"),
        NO("::1"),
        NO("[::g]"),
        NO("a%41"),
        NO("\xc3\xa9"),
        NO("a\0"),
    };
    EXPECT_ROWS(rows, tally_http_is_host);
    char text[256];
    memset(text, 'a', sizeof text);
    cr_expect(tally_http_is_host(text, 255));
    cr_expect_not(tally_http_is_host(text, 256));
}

static bool is_length(const char *text, size_t length)
{
    uint64_t value;
    return tally_http_parse_length(text, length, &value);
}

Test(http_strict, a_length_is_digits_up_to_63_bits)
{
    static const struct text_row rows[] = {
        YES("0"),
        YES("5"),
        YES("0005"),
        YES("9223372036854775807"),
        NO(""),
        NO(" 5"),
        NO("5 "),
        NO("+5"),
        NO("-5"),
        NO("5,5"),
        NO("5 5"),
        NO("0x5"),
        NO("5\0"),
        NO("9223372036854775808"),
        NO("18446744073709551616"),
        NO("99999999999999999999999999999999"),
    };
    EXPECT_ROWS(rows, is_length);
    uint64_t value = 0;
    cr_expect(tally_http_parse_length("65536", 5, &value));
    cr_expect_eq(value, 65536);
}

static bool has_close(const char *text, size_t length)
{
    return tally_http_list_has(text, length, "close");
}

Test(http_strict, a_word_is_found_in_a_list_only_whole_and_in_any_case)
{
    static const struct text_row rows[] = {
        YES("close"),        YES("CLOSE"),   YES("a, close"), YES("close,a"),
        YES("a,\tclose ,b"), YES(",,close"), NO(""),          NO(","),
        NO("closed"),        NO("a close"),  NO("clos"),      NO("x-close"),
    };
    EXPECT_ROWS(rows, has_close);
}

static bool is_json(const char *text, size_t length)
{
    return tally_http_is_media_type(text, length, "application/json");
}

Test(http_strict, a_media_type_may_have_utf8_as_its_only_parameter)
{
    static const struct text_row rows[] = {
        YES("application/json"),
        YES("Application/JSON"),
        YES("application/json; charset=utf-8"),
        YES("application/json;charset=UTF-8"),
        YES("application/json ; charset=\"utf-8\""),
        NO(""),
        NO("application/jsonx"),
        NO("application/problem+json"),
        NO("text/json"),
        NO("application/json;"),
        NO("application/json; charset=latin1"),
        NO("application/json; charset=utf-8; charset=utf-16"),
        NO("application/json, text/plain"),
    };
    EXPECT_ROWS(rows, is_json);
}

Test(http_strict, escapes_are_decoded_in_place_or_refused)
{
    static const struct {
        const char *text;
        const char *plain; /* NULL: refused */
        bool query;
    } rows[] = {
        {"", "", false},        {"a", "a", false},          {"%41%62", "Ab", false},
        {"a+b", "a+b", false},  {"a+b", "a b", true},       {"%2B", "+", true},
        {"%C3%a9", "é", false}, {"%", NULL, false},         {"%4", NULL, false},
        {"%4g", NULL, false},   {"%-1", NULL, false},       {"%00", NULL, false},
        {"%ff", NULL, false},   {"%ed%a0%80", NULL, false}, {"%2541", "%41", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[32];
        strcpy(text, rows[i].text);
        int64_t length = tally_http_decode(text, strlen(text), rows[i].query);
        if (rows[i].plain == NULL) {
            cr_expect_eq(length, -1, "%s", rows[i].text);
        } else {
            cr_expect_eq(length, (int64_t)strlen(rows[i].plain), "%s", rows[i].text);
            cr_expect_eq(memcmp(text, rows[i].plain, strlen(rows[i].plain)), 0, "%s", rows[i].text);
        }
    }
}

Test(http_strict, the_end_of_a_head_is_found_at_the_same_byte_in_any_portions)
{
    const char head[] = "\r\nGET /a HTTP/1.1\r\nHost: a\r\nX:\r\n\r\nGET /";
    const char *why = NULL;
    for (size_t step = 1; step <= sizeof head - 1; step++) {
        struct tally_http_head_scan scan = {0};
        size_t end = 0;
        for (size_t length = step; end == 0 && length < sizeof head - 1 + step; length += step) {
            size_t here = length < sizeof head - 1 ? length : sizeof head - 1;
            cr_assert_eq(tally_http_head_scan(&scan, head, here, 100, &end, &why), TALLY_OK);
        }
        cr_expect_eq(end, sizeof head - 1 - 5, "portions of %zu", step);
        cr_expect_eq(scan.start, 2);
        cr_expect_eq(scan.minor, 1);
    }
}

Test(http_strict, chunks_end_at_the_same_byte_in_any_portions)
{
    const char body[] = "5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0;x\r\n\r\nGET /";
    const char *why = NULL;
    for (size_t step = 1; step <= sizeof body - 1; step++) {
        struct tally_http_chunk_scan scan = {0};
        size_t at = 0;
        while (!scan.done) {
            size_t here = sizeof body - 1 - at < step ? sizeof body - 1 - at : step;
            size_t used = 0;
            cr_assert_eq(tally_http_chunk_scan(&scan, body + at, here, 15, &used, &why), TALLY_OK,
                         "%s", why);
            at += used;
        }
        cr_expect_eq(at, sizeof body - 1 - 5, "portions of %zu", step);
        cr_expect_eq(scan.total, 15);
    }
}

static void handle(struct tally_http_exchange *exchange, void *context)
{
    (void)exchange;
    (void)context;
}

struct routed {
    const char *method;
    const char *target;
    int row; /* -1: none */
    const char *allow;
};

Test(http_router, targets_find_the_first_row_that_fits_or_what_is_allowed)
{
    static const struct tally_http_route routes[] = {
        {.method = "GET", .pattern = "/", .handler = handle},
        {.method = "GET", .pattern = "/v1/users", .handler = handle},
        {.method = "POST", .pattern = "/v1/users", .handler = handle},
        {.method = "GET", .pattern = "/v1/users/self", .handler = handle},
        {.method = "GET", .pattern = "/v1/users/{id}", .handler = handle},
        {.method = "PATCH", .pattern = "/v1/users/{id}", .handler = handle},
        {.method = "GET", .pattern = "/v1/users/{id}/live", .handler = handle},
    };
    static const struct routed rows[] = {
        {"GET", "/", 0, NULL},
        {"HEAD", "/?a=b", 0, NULL},
        {"GET", "/v1/users", 1, NULL},
        {"GET", "/v1/users?ids=1,2", 1, NULL},
        {"GET", "/v1/%75sers", 1, NULL},
        {"POST", "/v1/users", 2, NULL},
        {"GET", "/v1/users/self", 3, NULL},
        {"GET", "/v1/users/1", 4, NULL},
        {"GET", "/v1/users/a%2fb", 4, NULL},
        {"PATCH", "/v1/users/self", 5, NULL},
        {"GET", "/v1/users/1/live", 6, NULL},
        {"DELETE", "/v1/users/1", -1, "GET, HEAD, PATCH, OPTIONS"},
        {"GET", "/v1/users/", -1, NULL},
        {"GET", "//v1/users", -1, NULL},
        {"GET", "/v1/users//live", -1, NULL},
        {"GET", "/v1/Users", -1, NULL},
        {"GET", "/v1", -1, NULL},
        {"GET", "/v1/../v1/users", -1, NULL},
        {"GET", "/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a", -1, NULL},
    };
    struct tally_http_router *router = NULL;
    struct tally_error error = {0};
    cr_assert_eq(tally_http_router_new(routes, 7, &router, &error), TALLY_OK, "%s", error.text);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[64];
        strcpy(text, rows[i].target);
        struct tally_http_target target;
        const char *why = NULL;
        unsigned allowed = 0;
        cr_assert_eq(tally_http_target_parse(text, strlen(text), &target, &why), TALLY_OK);
        const struct tally_http_compiled_route *found = tally_http_router_find(
            router, tally_http_method_find(rows[i].method, strlen(rows[i].method)), text, &target,
            &allowed);
        cr_expect_eq(found != NULL ? (int)(found->route - routes) : -1, rows[i].row, "%s",
                     rows[i].target);
        if (found != NULL)
            continue;
        char allow[TALLY_HTTP_ALLOW_BYTES] = "";
        if (allowed != 0)
            tally_http_allow(allowed, allow);
        cr_expect_str_eq(allow, rows[i].allow != NULL ? rows[i].allow : "", "%s", rows[i].target);
    }
    tally_http_router_free(&router);
}

Test(http_router, a_table_that_cannot_be_served_is_refused)
{
    static const struct tally_http_route routes[] = {
        {.method = "GET", .pattern = "v1", .handler = handle},
        {.method = "GET", .pattern = "", .handler = handle},
        {.method = "HEAD", .pattern = "/v1", .handler = handle},
        {.method = "FETCH", .pattern = "/v1", .handler = handle},
        {.method = "GET", .pattern = "/v1"},
        {.method = "GET", .pattern = "/a/a/a/a/a/a/a/a/a/a/a/a/a", .handler = handle},
    };
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        struct tally_http_router *router = NULL;
        struct tally_error error = {0};
        cr_expect_eq(tally_http_router_new(&routes[i], 1, &router, &error), TALLY_INVALID,
                     "row %zu", i);
        cr_expect_null(router);
    }
}

Test(http_router, more_parameters_than_the_bound_are_refused)
{
    for (int count = 32; count <= 33; count++) {
        char text[256] = "/?";
        size_t length = 2;
        for (int i = 0; i < count; i++)
            length += (size_t)sprintf(text + length, "p%d&", i);
        struct tally_http_target target;
        const char *why = NULL;
        cr_expect_eq(tally_http_target_parse(text, length, &target, &why),
                     count == 32 ? TALLY_OK : TALLY_INVALID);
    }
}
