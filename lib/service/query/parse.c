#include "service/query/parse.h"

#include "core/id.h"

#include <string.h>
#include <strings.h>

/*
 * Users.
 */

static bool contains(const int64_t *ids, size_t count, int64_t id)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

enum tally_status tally_query_parse_ids(const char *text, int64_t ids[TALLY_QUERY_IDS_MOST],
                                        size_t *count, struct tally_error *error)
{
    *count = 0;
    for (size_t mentioned = 1;; mentioned++) {
        size_t length = strcspn(text, ",");
        int64_t id = 0;
        if (!tally_id_parse(text, length, &id))
            return tally_fail(error, TALLY_INVALID,
                              "ids must be user ids with commas between them; the %zuth is none",
                              mentioned);
        if (mentioned > TALLY_QUERY_IDS_MOST)
            return tally_fail(error, TALLY_INVALID, "ids may name %d users at most",
                              TALLY_QUERY_IDS_MOST);
        if (!contains(ids, *count, id))
            ids[(*count)++] = id;
        if (text[length] == '\0')
            return TALLY_OK;
        text += length + 1;
    }
}

/*
 * Fields that are lists.
 */

static const char *skip_blanks(const char *text)
{
    return text + strspn(text, " \t");
}

/* RFC 9110 section 5.6.2. */
static size_t token_length(const char *text)
{
    return strspn(text, "!#$%&'*+-.^_`|~0123456789"
                        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

/* Behind a quoted-string (RFC 9110 section 5.6.4) that starts at `text`; NULL where it has no end.
 */
static const char *skip_quoted(const char *text)
{
    for (text++; *text != '"'; text++) {
        if (*text == '\\')
            text++;
        if (*text == '\0')
            return NULL;
    }
    return text + 1;
}

/* One `name [= value]` of a preference or its parameters, without its quotes. */
struct pair {
    const char *name;
    size_t name_length;
    const char *value; /* NULL: none */
    size_t value_length;
};

/* Reads a pair and the blanks round it; NULL where the text is no pair. */
static const char *read_pair(const char *text, struct pair *pair)
{
    *pair = (struct pair){.name = text, .name_length = token_length(text)};
    if (pair->name_length == 0)
        return NULL;
    const char *after = skip_blanks(text + pair->name_length);
    if (*after != '=')
        return after;
    after = skip_blanks(after + 1);
    if (*after == '"') {
        const char *end = skip_quoted(after);
        if (end == NULL)
            return NULL;
        pair->value = after + 1;
        pair->value_length = (size_t)(end - after) - 2;
        return skip_blanks(end);
    }
    pair->value = after;
    pair->value_length = token_length(after);
    return pair->value_length > 0 ? skip_blanks(after + pair->value_length) : NULL;
}

static int wait_seconds(const struct pair *pair)
{
    int seconds = 0;
    for (size_t i = 0; i < pair->value_length; i++) {
        if (pair->value[i] < '0' || pair->value[i] > '9')
            return 0;
        seconds = seconds * 10 + (pair->value[i] - '0');
        if (seconds > TALLY_QUERY_WAIT_MOST_SECONDS)
            seconds = TALLY_QUERY_WAIT_MOST_SECONDS;
    }
    return seconds;
}

int tally_query_parse_wait(const char *prefer)
{
    const char *text = prefer != NULL ? skip_blanks(prefer) : "";
    while (*text != '\0') {
        /* Empty elements of a list are allowed (RFC 9110 section 5.6.1.2). */
        if (*text == ',') {
            text = skip_blanks(text + 1);
            continue;
        }
        struct pair preference;
        text = read_pair(text, &preference);
        if (text == NULL)
            return 0;
        if (preference.name_length == 4 && strncasecmp(preference.name, "wait", 4) == 0)
            return wait_seconds(&preference);
        while (*text == ';') {
            struct pair parameter;
            text = skip_blanks(text + 1);
            if (*text != ';' && *text != ',' && *text != '\0' &&
                (text = read_pair(text, &parameter)) == NULL)
                return 0;
        }
        if (*text != ',' && *text != '\0')
            return 0;
    }
    return 0;
}

bool tally_query_none_match(const char *field, int64_t version)
{
    if (field == NULL)
        return false;
    const char *text = skip_blanks(field);
    if (*text == '*')
        return *skip_blanks(text + 1) == '\0';
    char wanted[TALLY_ID_TEXT_BYTES];
    size_t wanted_length = tally_id_format(version, wanted);
    bool matches = false;
    while (*text != '\0') {
        if (*text == ',') {
            text = skip_blanks(text + 1);
            continue;
        }
        /* Weak comparison: whether a tag is weak does not count. */
        if (text[0] == 'W' && text[1] == '/')
            text += 2;
        if (*text != '"')
            return false;
        size_t length = strcspn(text + 1, "\"");
        if (text[length + 1] != '"')
            return false;
        matches = matches || (length == wanted_length && memcmp(text + 1, wanted, length) == 0);
        text = skip_blanks(text + length + 2);
        if (*text != ',' && *text != '\0')
            return false;
    }
    return matches;
}
