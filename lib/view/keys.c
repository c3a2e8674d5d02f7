#include "view/keys.h"

#include "core/id.h"

#include <string.h>

static const char prefix[] = "tally:";

static char *put(char *at, const char *text, size_t length)
{
    memcpy(at, text, length);
    return at + length;
}

static char *put_number(char *at, int64_t number)
{
    char text[TALLY_ID_TEXT_BYTES];
    return put(at, text, tally_id_format(number, text));
}

/* "tally:<g>:{<p>}" */
static char *put_partition(char *at, int64_t generation, int32_t partition)
{
    at = put(at, prefix, sizeof prefix - 1);
    at = put_number(at, generation);
    at = put(at, ":{", 2);
    at = put_number(at, partition);
    return put(at, "}", 1);
}

static size_t finish(const char *key, char *end)
{
    *end = '\0';
    return (size_t)(end - key);
}

size_t tally_view_user_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation, int32_t partition,
                           int64_t user_id)
{
    char *end = put_partition(key, generation, partition);
    end = put(end, ":user:", 6);
    return finish(key, put_number(end, user_id));
}

size_t tally_view_position_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation,
                               int32_t partition)
{
    return finish(key, put(put_partition(key, generation, partition), ":position", 9));
}

size_t tally_view_totals_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation, int32_t partition)
{
    return finish(key, put(put_partition(key, generation, partition), ":totals", 7));
}

size_t tally_view_active_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation, int32_t partition,
                             const char day[TALLY_DAY_BYTES])
{
    char *end = put(put_partition(key, generation, partition), ":active:", 8);
    return finish(key, put(end, day, TALLY_DAY_BYTES - 1));
}

size_t tally_view_audit_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation)
{
    char *end = put(key, prefix, sizeof prefix - 1);
    return finish(key, put(put_number(end, generation), ":audit", 6));
}

size_t tally_view_rebuild_key(char key[TALLY_VIEW_KEY_BYTES], int64_t generation)
{
    char *end = put(key, prefix, sizeof prefix - 1);
    return finish(key, put(put_number(end, generation), ":rebuild", 8));
}

/* Takes `text` off the front of what is left; false where it does not stand there. */
static bool skip(const char **at, const char *end, const char *text)
{
    size_t length = strlen(text);
    if ((size_t)(end - *at) < length || memcmp(*at, text, length) != 0)
        return false;
    *at += length;
    return true;
}

/* Takes the digits off the front; `zero` says whether 0 is a value. */
static bool take_number(const char **at, const char *end, bool zero, int64_t *number)
{
    const char *start = *at;
    while (*at < end && **at >= '0' && **at <= '9')
        (*at)++;
    size_t length = (size_t)(*at - start);
    if (zero && length == 1 && *start == '0') {
        *number = 0;
        return true;
    }
    return tally_id_parse(start, length, number);
}

bool tally_view_user_key_parse(const char *key, size_t length, struct tally_view_user_name *name)
{
    const char *at = key;
    const char *end = key + length;
    int64_t partition = 0;
    if (!skip(&at, end, prefix) || !take_number(&at, end, false, &name->generation) ||
        !skip(&at, end, ":{") || !take_number(&at, end, true, &partition) ||
        partition > INT32_MAX || !skip(&at, end, "}:user:") ||
        !take_number(&at, end, false, &name->user_id) || at != end)
        return false;
    name->partition = (int32_t)partition;
    return true;
}
