#include "service/command/precondition.h"

#include "core/id.h"

#include <string.h>

enum tally_status tally_if_match_parse(const char *text, int64_t *version,
                                       struct tally_error *error)
{
    size_t length = strlen(text);
    *version = 0;
    if (strcmp(text, "*") == 0)
        return TALLY_OK;
    if (length > 2 && text[0] == '"' && text[length - 1] == '"' &&
        tally_id_parse(text + 1, length - 2, version))
        return TALLY_OK;
    return tally_fail(
        error, TALLY_INVALID,
        "If-Match: must be one strong entity tag with a version, such as \"17\", or *");
}

static bool printable(char byte)
{
    return byte >= ' ' && byte <= '~';
}

/* The characters between the quotes, with \" and \\ undone; 0 where it is no such string. */
static size_t unquote(const char *text, char key[TALLY_IDEMPOTENCY_KEY_BYTES])
{
    size_t length = 0;
    const char *byte = text + 1;
    for (; *byte != '\0' && *byte != '"'; byte++) {
        if (*byte == '\\' && *++byte != '"' && *byte != '\\')
            return 0;
        if (!printable(*byte) || length == TALLY_IDEMPOTENCY_KEY_BYTES - 1)
            return 0;
        key[length++] = *byte;
    }
    return byte[0] == '"' && byte[1] == '\0' ? length : 0;
}

/* The characters as they are; 0 where it is no key. */
static size_t copy_bare(const char *text, char key[TALLY_IDEMPOTENCY_KEY_BYTES])
{
    size_t length = 0;
    for (; text[length] != '\0'; length++) {
        if (!printable(text[length]) || length == TALLY_IDEMPOTENCY_KEY_BYTES - 1)
            return 0;
        key[length] = text[length];
    }
    return length;
}

enum tally_status tally_idempotency_key_parse(const char *text,
                                              char key[TALLY_IDEMPOTENCY_KEY_BYTES],
                                              struct tally_error *error)
{
    size_t length = text[0] == '"' ? unquote(text, key) : copy_bare(text, key);
    if (length == 0)
        return tally_fail(error, TALLY_INVALID,
                          "Idempotency-Key: must be 1 to %d printable ASCII characters",
                          TALLY_IDEMPOTENCY_KEY_BYTES - 1);
    key[length] = '\0';
    return TALLY_OK;
}
