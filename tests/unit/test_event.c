#include "domain/event.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char parent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

static struct tally_event sample(enum tally_event_type type)
{
    struct tally_event event = {
        .type = type,
        .user_id = 7340238479237481,
        .version = 17,
        .timeline = 3,
        .at_us = 1795380684123456,
    };
    if (type != TALLY_EVENT_USER_DELETED) {
        event.value = "{\"postId\":\"9\"}";
        event.value_length = strlen(event.value);
    }
    return event;
}

/* A message as the relay sends it, for a test to spoil. */
struct message {
    struct tally_event_headers headers;
    const char *key;
    const char *value;
    size_t value_length;
};

static struct message encoded(enum tally_event_type type)
{
    const struct tally_event event = sample(type);
    struct message message = {.key = "7340238479237481", .value = event.value};
    message.value_length = event.value_length;
    return message;
}

static enum tally_status decode(const struct message *message, struct tally_event *event,
                                struct tally_error *error)
{
    return tally_event_decode(event, message->key, message->key != NULL ? strlen(message->key) : 0,
                              message->value, message->value_length, message->headers.list,
                              message->headers.count, error);
}

static struct tally_header *header(struct message *message, const char *name)
{
    for (size_t i = 0; i < message->headers.count; i++) {
        if (strcmp(message->headers.list[i].name, name) == 0)
            return &message->headers.list[i];
    }
    cr_assert_fail("no header %s", name);
    abort();
}

static void set(struct message *message, const char *name, const char *value)
{
    struct tally_header *found = header(message, name);
    found->value = value;
    found->length = strlen(value);
}

Test(event, reads_back_what_it_writes)
{
    for (int type = 0; type < TALLY_EVENT_TYPE_COUNT; type++) {
        const struct tally_event event = sample((enum tally_event_type)type);
        struct message message = encoded((enum tally_event_type)type);
        struct tally_event back;
        struct tally_error error = {0};
        tally_event_encode_headers(&message.headers, &event, "/tally", parent);
        cr_assert_eq(decode(&message, &back, &error), TALLY_OK, "%s", error.text);
        cr_expect_eq(back.type, event.type);
        cr_expect_eq(back.user_id, event.user_id);
        cr_expect_eq(back.version, event.version);
        cr_expect_eq(back.timeline, event.timeline);
        cr_expect_eq(back.at_us, event.at_us);
        cr_expect_eq(back.value, event.value);
    }
}

Test(event, has_the_type_names_and_changes_of_the_contract)
{
    static const struct {
        const char *text;
        int posts, comments;
    } rows[] = {
        {"user.created", 0, 0},     {"user.updated", 0, 0},  {"user.deleted", 0, 0},
        {"post.created", 1, 0},     {"post.deleted", -1, 0}, {"comment.created", 0, 1},
        {"comment.deleted", 0, -1},
    };
    cr_assert_eq(sizeof rows / sizeof rows[0], TALLY_EVENT_TYPE_COUNT);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum tally_event_type type;
        cr_assert(tally_event_type_parse(rows[i].text, strlen(rows[i].text), &type));
        cr_expect_str_eq(tally_event_type_text(type), rows[i].text);
        cr_expect_eq(tally_event_posts_delta(type), rows[i].posts);
        cr_expect_eq(tally_event_comments_delta(type), rows[i].comments);
        cr_expect_not(tally_event_type_parse(rows[i].text, strlen(rows[i].text) - 1, &type));
    }
}

Test(event, is_poison_where_a_header_is_missing)
{
    static const char *const needed[] = {"ce_specversion", "ce_id",       "ce_type",
                                         "ce_time",        "ce_sequence", "ce_timeline"};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        const struct tally_event event = sample(TALLY_EVENT_POST_CREATED);
        struct message message = encoded(TALLY_EVENT_POST_CREATED);
        struct tally_event back;
        struct tally_error error = {0};
        tally_event_encode_headers(&message.headers, &event, "/tally", parent);
        header(&message, needed[i])->name = "other";
        cr_expect_eq(decode(&message, &back, &error), TALLY_INVALID);
        cr_expect_not_null(strstr(error.text, needed[i]), "%s", error.text);
        cr_expect_eq(back.user_id, event.user_id, "its user is known and can be flagged");
    }
}

Test(event, is_poison_where_a_header_is_wrong)
{
    static const struct {
        const char *name, *value;
    } rows[] = {
        {"ce_specversion", "0.3"},
        {"ce_specversion", ""},
        {"ce_type", "user.renamed"},
        {"ce_type", ""},
        {"ce_sequence", "0"},
        {"ce_sequence", "-1"},
        {"ce_sequence", "017"},
        {"ce_sequence", "18"}, /* contradicts ce_id */
        {"ce_sequence", "99999999999999999999"},
        {"ce_timeline", "0"},
        {"ce_timeline", "x"},
        {"ce_timeline", "2147483648"},
        {"ce_id", "7340238479237481-18"},
        {"ce_id", "1-17"},
        {"ce_id", "7340238479237481-17 "},
        {"ce_time", "yesterday"},
        {"ce_time", "2026-11-22T20:51:24"},
        {"ce_time", "2026-11-22T20:51:24+01:00"},
        {"ce_time", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct tally_event event = sample(TALLY_EVENT_POST_CREATED);
        struct message message = encoded(TALLY_EVENT_POST_CREATED);
        struct tally_event back;
        struct tally_error error = {0};
        tally_event_encode_headers(&message.headers, &event, "/tally", NULL);
        set(&message, rows[i].name, rows[i].value);
        cr_expect_eq(decode(&message, &back, &error), TALLY_INVALID, "%s: %s", rows[i].name,
                     rows[i].value);
        cr_expect_neq(error.text[0], '\0');
    }
}

Test(event, without_a_user_in_its_key_is_poison_of_nobody)
{
    static const char *const keys[] = {NULL, "",    "0",  "abc",
                                       "-7", "007", "7 ", "9223372036854775808"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct tally_event event = sample(TALLY_EVENT_POST_CREATED);
        struct message message = encoded(TALLY_EVENT_POST_CREATED);
        struct tally_event back;
        tally_event_encode_headers(&message.headers, &event, "/tally", NULL);
        message.key = keys[i];
        cr_expect_eq(decode(&message, &back, NULL), TALLY_INVALID);
        cr_expect_eq(back.user_id, 0);
    }
}

Test(event, that_sets_a_profile_needs_a_value)
{
    static const enum tally_event_type types[] = {TALLY_EVENT_USER_CREATED,
                                                  TALLY_EVENT_USER_UPDATED};
    for (size_t i = 0; i < 2; i++) {
        const struct tally_event event = sample(types[i]);
        struct message message = encoded(types[i]);
        struct tally_event back;
        tally_event_encode_headers(&message.headers, &event, "/tally", NULL);
        message.value = NULL;
        message.value_length = 0;
        cr_expect_eq(decode(&message, &back, NULL), TALLY_INVALID);
    }
}

static enum tally_status parse(const char *text, struct tally_profile *profile)
{
    struct tally_error error = {0};
    return tally_profile_parse(profile, text, strlen(text), &error);
}

Test(event, profile_has_name_email_and_perhaps_an_avatar)
{
    struct tally_profile profile;
    cr_assert_eq(
        parse("{\"name\":\"Ada \\u00e9\",\"email\":\"a@b.c\",\"avatar\":null,\"new\":1}", &profile),
        TALLY_OK);
    cr_expect_str_eq(profile.name, "Ada é");
    cr_expect_str_eq(profile.email, "a@b.c");
    cr_expect_null(profile.avatar);
    tally_profile_clear(&profile);
    cr_expect_null(profile.name);
    cr_assert_eq(parse("{\"name\":\"Ada\",\"email\":\"a@b.c\",\"avatar\":\"http://x\"}", &profile),
                 TALLY_OK);
    cr_expect_str_eq(profile.avatar, "http://x");
    tally_profile_clear(&profile);
}

Test(event, profile_that_is_not_whole_is_refused)
{
    static const char *const wrong[] = {
        "",
        "[]",
        "null",
        "{",
        "{\"name\":\"Ada\"}",
        "{\"email\":\"a@b.c\"}",
        "{\"name\":7,\"email\":\"a@b.c\"}",
        "{\"name\":\"Ada\",\"email\":\"a@b.c\",\"avatar\":7}",
        "{\"name\":\"Ada\",\"name\":\"Eve\",\"email\":\"a@b.c\"}",
        "{\"name\":\"Ada\",\"email\":\"a@b.c\"} x",
        "{\"name\":\"\xff\",\"email\":\"a@b.c\"}",
    };
    struct tally_profile profile;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cr_expect_eq(parse(wrong[i], &profile), TALLY_INVALID, "%s", wrong[i]);
        cr_expect(profile.name == NULL && profile.email == NULL && profile.avatar == NULL);
    }
}

Test(event, profile_beyond_its_bounds_is_refused)
{
    static char text[TALLY_AVATAR_BYTES + 128];
    struct tally_profile profile;
    static char name[TALLY_NAME_BYTES + 1];
    memset(name, 'n', TALLY_NAME_BYTES);
    (void)snprintf(text, sizeof text, "{\"name\":\"%s\",\"email\":\"a@b.c\"}", name);
    cr_expect_eq(parse(text, &profile), TALLY_INVALID);
    name[TALLY_NAME_BYTES - 1] = '\0';
    (void)snprintf(text, sizeof text, "{\"name\":\"%s\",\"email\":\"a@b.c\"}", name);
    cr_expect_eq(parse(text, &profile), TALLY_OK);
    tally_profile_clear(&profile);
}
