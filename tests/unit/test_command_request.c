#include "service/command/precondition.h"
#include "service/command/request.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct tally_arena arena;

static void start(void)
{
    tally_arena_init(&arena, 1 << 20);
}

static void stop(void)
{
    tally_arena_release(&arena);
}

static enum tally_status read_body(enum tally_command_kind kind, const char *json,
                                   struct tally_command *command, struct tally_error *error)
{
    json_t *object = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(object, "%s", json);
    *command = (struct tally_command){.kind = kind};
    *error = (struct tally_error){0};
    enum tally_status status = tally_request_read(object, &arena, command, error);
    json_decref(object);
    return status;
}

static void expect_refused(enum tally_command_kind kind, const char *json, const char *field)
{
    struct tally_command command;
    struct tally_error error;
    cr_expect_eq(read_body(kind, json, &command, &error), TALLY_INVALID, "%s", json);
    cr_expect_eq(strncmp(error.text, field, strlen(field)), 0, "%s: %s", json, error.text);
}

static void expect_accepted(enum tally_command_kind kind, const char *json)
{
    struct tally_command command;
    struct tally_error error;
    cr_expect_eq(read_body(kind, json, &command, &error), TALLY_OK, "%s: %s", json, error.text);
}

TestSuite(command_request, .init = start, .fini = stop);

Test(command_request, a_refusal_names_the_field)
{
    static const struct {
        enum tally_command_kind kind;
        const char *json;
        const char *field;
    } cases[] = {
        {TALLY_COMMAND_CREATE_USER, "{}", "name:"},
        {TALLY_COMMAND_CREATE_USER, "{\"name\":\"a\"}", "email:"},
        {TALLY_COMMAND_CREATE_USER, "{\"name\":\"\",\"email\":\"a@b\"}", "name:"},
        {TALLY_COMMAND_CREATE_USER, "{\"name\":null,\"email\":\"a@b\"}", "name:"},
        {TALLY_COMMAND_CREATE_USER, "{\"name\":1,\"email\":\"a@b\"}", "name:"},
        {TALLY_COMMAND_CREATE_USER, "{\"name\":\"a\\nb\",\"email\":\"a@b\"}", "name:"},
        {TALLY_COMMAND_CREATE_USER, "{\"name\":\"a\",\"email\":\"a@b\",\"avatar\":\"\"}",
         "avatar:"},
        {TALLY_COMMAND_CREATE_USER, "{\"name\":\"a\",\"email\":\"a@b\",\"admin\":true}", "admin:"},
        {TALLY_COMMAND_UPDATE_USER, "{}", "the body"},
        {TALLY_COMMAND_UPDATE_USER, "{\"name\":null}", "name:"},
        {TALLY_COMMAND_UPDATE_USER, "{\"avatar\":\"\"}", "avatar:"},
        {TALLY_COMMAND_CREATE_POST, "{\"body\":\"b\"}", "authorId:"},
        {TALLY_COMMAND_CREATE_POST, "{\"authorId\":12,\"body\":\"b\"}", "authorId:"},
        {TALLY_COMMAND_CREATE_POST, "{\"authorId\":\"012\",\"body\":\"b\"}", "authorId:"},
        {TALLY_COMMAND_CREATE_POST, "{\"authorId\":\"-1\",\"body\":\"b\"}", "authorId:"},
        {TALLY_COMMAND_CREATE_POST, "{\"authorId\":\"9223372036854775808\",\"body\":\"b\"}",
         "authorId:"},
        {TALLY_COMMAND_CREATE_POST, "{\"authorId\":\"1\",\"body\":\"\"}", "body:"},
        {TALLY_COMMAND_CREATE_POST, "{\"authorId\":\"1\",\"body\":\"a\\u0001\"}", "body:"},
        {TALLY_COMMAND_CREATE_COMMENT, "{\"authorId\":\"1\",\"body\":\"b\",\"title\":\"t\"}",
         "title:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refused(cases[i].kind, cases[i].json, cases[i].field);
}

Test(command_request, an_email_has_one_local_part_and_one_domain)
{
    static const char *const wrong[] = {"abc", "@bc", "ab@", "a@b@c", "a b@c", "a@b,c@d", "<a@b>"};
    static const char *const right[] = {"a@b", "ada+x@example.org", "Ünder@bücher.example"};
    char json[128];
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)snprintf(json, sizeof json, "{\"name\":\"a\",\"email\":\"%s\"}", wrong[i]);
        expect_refused(TALLY_COMMAND_CREATE_USER, json, "email:");
    }
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        (void)snprintf(json, sizeof json, "{\"name\":\"a\",\"email\":\"%s\"}", right[i]);
        expect_accepted(TALLY_COMMAND_CREATE_USER, json);
    }
}

Test(command_request, lengths_count_characters_and_not_bytes)
{
    char name[200 * 2 + 3] = "";
    char json[600];
    for (int i = 0; i < 200; i++)
        memcpy(name + 2 * i, "ü", 2);
    (void)snprintf(json, sizeof json, "{\"name\":\"%s\"}", name);
    expect_accepted(TALLY_COMMAND_UPDATE_USER, json);
    (void)snprintf(json, sizeof json, "{\"name\":\"%sx\"}", name);
    expect_refused(TALLY_COMMAND_UPDATE_USER, json, "name:");
}

Test(command_request, fields_arrive_in_the_command)
{
    struct tally_command command;
    struct tally_error error;
    cr_assert_eq(read_body(TALLY_COMMAND_CREATE_POST,
                           "{\"authorId\":\"42\",\"title\":\"t\",\"body\":\"line\\n\\ttwo\"}",
                           &command, &error),
                 TALLY_OK, "%s", error.text);
    cr_assert_eq(command.user_id, 42);
    cr_assert_str_eq(command.title, "t");
    cr_assert_str_eq(command.body, "line\n\ttwo");
    cr_assert_eq(read_body(TALLY_COMMAND_CREATE_POST,
                           "{\"authorId\":\"42\",\"title\":null,\"body\":\"b\"}", &command, &error),
                 TALLY_OK);
    cr_assert_null(command.title);
}

Test(command_request, a_null_avatar_is_none_at_creation_and_removal_at_a_change)
{
    struct tally_command command;
    struct tally_error error;
    cr_assert_eq(read_body(TALLY_COMMAND_CREATE_USER,
                           "{\"name\":\"a\",\"email\":\"a@b\",\"avatar\":null}", &command, &error),
                 TALLY_OK);
    cr_assert_null(command.avatar);
    cr_assert_eq(read_body(TALLY_COMMAND_UPDATE_USER, "{\"avatar\":null}", &command, &error),
                 TALLY_OK);
    cr_assert_str_eq(command.avatar, "");
    cr_assert_null(command.name, "what is not named is kept");
}

Test(command_precondition, if_match_is_one_strong_version_or_any)
{
    static const char *const wrong[] = {"17",     "W/\"17\"", "\"17\", \"18\"", "\"\"", "\"0\"",
                                        "\"-1\"", "\"17",     "\"x\"",          "",     "\"017\""};
    struct tally_error error;
    int64_t version = -1;
    cr_assert_eq(tally_if_match_parse("\"17\"", &version, &error), TALLY_OK);
    cr_assert_eq(version, 17);
    cr_assert_eq(tally_if_match_parse("*", &version, &error), TALLY_OK);
    cr_assert_eq(version, 0);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_expect_eq(tally_if_match_parse(wrong[i], &version, &error), TALLY_INVALID, "%s",
                     wrong[i]);
}

Test(command_precondition, a_key_is_the_same_with_and_without_quotes)
{
    char key[TALLY_IDEMPOTENCY_KEY_BYTES];
    struct tally_error error;
    cr_assert_eq(tally_idempotency_key_parse("8e03978e-40d5", key, &error), TALLY_OK);
    cr_assert_str_eq(key, "8e03978e-40d5");
    cr_assert_eq(tally_idempotency_key_parse("\"8e03978e-40d5\"", key, &error), TALLY_OK);
    cr_assert_str_eq(key, "8e03978e-40d5");
    cr_assert_eq(tally_idempotency_key_parse("\"a\\\"b\\\\c\"", key, &error), TALLY_OK);
    cr_assert_str_eq(key, "a\"b\\c");
}

Test(command_precondition, a_key_has_1_to_255_printable_characters)
{
    static const char *const wrong[] = {"", "\"\"", "\"a", "\"a\"b", "\"a\\x\"", "a\tb", "ä"};
    char key[TALLY_IDEMPOTENCY_KEY_BYTES];
    char text[260];
    struct tally_error error;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_expect_eq(tally_idempotency_key_parse(wrong[i], key, &error), TALLY_INVALID, "%s",
                     wrong[i]);
    memset(text, 'k', sizeof text);
    text[255] = '\0';
    cr_assert_eq(tally_idempotency_key_parse(text, key, &error), TALLY_OK);
    cr_assert_eq(strlen(key), 255);
    text[255] = 'k';
    text[256] = '\0';
    cr_assert_eq(tally_idempotency_key_parse(text, key, &error), TALLY_INVALID);
}
