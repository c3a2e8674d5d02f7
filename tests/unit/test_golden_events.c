/* Every event in schema/events/golden must stay readable, and be what is written today. */
#include "domain/event.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { HEADERS_MOST = 16 };

struct golden {
    json_t *document;
    char *value; /* owned, or NULL */
    struct tally_header headers[HEADERS_MOST];
    size_t header_count;
};

static struct golden load(const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", TALLY_GOLDEN_EVENTS, name);
    json_error_t cause;
    struct golden golden = {.document = json_load_file(path, 0, &cause)};
    cr_assert_not_null(golden.document, "%s: %s", path, cause.text);
    json_t *value = json_object_get(golden.document, "value");
    golden.value = json_is_null(value) ? NULL : json_dumps(value, JSON_COMPACT);
    const char *header;
    json_t *text;
    json_object_foreach(json_object_get(golden.document, "headers"), header, text)
    {
        golden.headers[golden.header_count++] =
            (struct tally_header){header, json_string_value(text), json_string_length(text)};
    }
    return golden;
}

static void release(struct golden *golden)
{
    free(golden->value);
    json_decref(golden->document);
}

static enum tally_status decode(const struct golden *golden, struct tally_event *event,
                                struct tally_error *error)
{
    const char *key = json_string_value(json_object_get(golden->document, "key"));
    return tally_event_decode(event, key, strlen(key), golden->value,
                              golden->value != NULL ? strlen(golden->value) : 0, golden->headers,
                              golden->header_count, error);
}

static int for_each_golden(void (*check)(const char *name))
{
    DIR *directory = opendir(TALLY_GOLDEN_EVENTS);
    cr_assert_not_null(directory);
    int count = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (strstr(entry->d_name, ".json") == NULL)
            continue;
        check(entry->d_name);
        count++;
    }
    closedir(directory);
    return count;
}

static void is_readable(const char *name)
{
    struct golden golden = load(name);
    struct tally_event event;
    struct tally_error error = {0};
    cr_assert_eq(decode(&golden, &event, &error), TALLY_OK, "%s: %s", name, error.text);
    cr_assert_eq(event.user_id, 251234567890123400);
    cr_assert_eq(
        strncmp(name, tally_event_type_text(event.type), strlen(tally_event_type_text(event.type))),
        0);
    if (event.type == TALLY_EVENT_USER_CREATED || event.type == TALLY_EVENT_USER_UPDATED) {
        struct tally_profile profile;
        cr_assert_eq(tally_profile_parse(&profile, event.value, event.value_length, &error),
                     TALLY_OK, "%s: %s", name, error.text);
        tally_profile_clear(&profile);
    }
    release(&golden);
}

static void is_written_the_same_today(const char *name)
{
    struct golden golden = load(name);
    struct tally_event event;
    struct tally_error error = {0};
    cr_assert_eq(decode(&golden, &event, &error), TALLY_OK, "%s: %s", name, error.text);
    json_t *expected = json_object_get(golden.document, "headers");
    struct tally_event_headers headers;
    tally_event_encode_headers(&headers, &event,
                               json_string_value(json_object_get(expected, "ce_source")),
                               json_string_value(json_object_get(expected, "traceparent")));
    cr_assert_eq(headers.count, json_object_size(expected), "%s", name);
    for (size_t i = 0; i < headers.count; i++) {
        const struct tally_header *header = &headers.list[i];
        const char *text = json_string_value(json_object_get(expected, header->name));
        cr_assert_not_null(text, "%s: %s", name, header->name);
        cr_assert_eq(strlen(text), header->length);
        cr_assert_eq(memcmp(text, header->value, header->length), 0, "%s: %s", name, header->name);
    }
    release(&golden);
}

Test(golden_events, stay_readable)
{
    cr_assert_eq(for_each_golden(is_readable), TALLY_EVENT_TYPE_COUNT);
}

Test(golden_events, are_what_is_written_today)
{
    cr_assert_eq(for_each_golden(is_written_the_same_today), TALLY_EVENT_TYPE_COUNT);
}

Test(golden_events, with_a_part_missing_or_contradicting_are_poison_that_still_tells_the_user)
{
    static const char *const needed[] = {"ce_specversion", "ce_type",     "ce_id",
                                         "ce_sequence",    "ce_timeline", "ce_time"};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        struct golden golden = load("post.created.v1.json");
        struct tally_event event;
        struct tally_error error = {0};
        for (size_t k = 0; k < golden.header_count; k++) {
            if (strcmp(golden.headers[k].name, needed[i]) == 0)
                golden.headers[k] = (struct tally_header){needed[i], "wrong", 5};
        }
        cr_assert_eq(decode(&golden, &event, &error), TALLY_INVALID, "%s", needed[i]);
        cr_assert_not_null(strstr(error.text, needed[i]), "%s: %s", needed[i], error.text);
        cr_assert_eq(event.user_id, 251234567890123400, "%s", needed[i]);
        release(&golden);
    }
}
