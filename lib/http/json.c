#include "http/http.h"

#include <string.h>

enum { MAX_DEPTH = 64 };

/* Nesting of brackets outside strings. Counted before parsing, since jansson recurses to 2048. */
static bool too_deep(const char *text, size_t length)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        char byte = text[i];
        if (in_string) {
            if (byte == '\\')
                i++;
            else if (byte == '"')
                in_string = false;
        } else if (byte == '"') {
            in_string = true;
        } else if (byte == '{' || byte == '[') {
            if (++depth > MAX_DEPTH)
                return true;
        } else if ((byte == '}' || byte == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

enum tally_status tally_http_json(const struct tally_http_exchange *exchange, json_t **out,
                                  struct tally_error *error)
{
    size_t length;
    const char *body = tally_http_body(exchange, &length);
    json_error_t cause;
    if (length == 0)
        return tally_fail(error, TALLY_INVALID, "the body is empty");
    if (memchr(body, '\0', length) != NULL)
        return tally_fail(error, TALLY_INVALID, "the body holds NUL");
    if (too_deep(body, length))
        return tally_fail(error, TALLY_INVALID, "the body is nested deeper than %d", MAX_DEPTH);
    json_t *value = json_loadb(body, length, JSON_REJECT_DUPLICATES, &cause);
    /* jansson gives no reason where there is no memory. */
    if (value == NULL && cause.text[0] == '\0')
        return tally_fail(error, TALLY_NO_MEMORY, "the body");
    if (value == NULL)
        /* Not jansson's text: it quotes the body, which does not belong into logs. */
        return tally_fail(error, TALLY_INVALID, "the body is not valid JSON (line %d, column %d)",
                          cause.line, cause.column);
    if (!json_is_object(value)) {
        json_decref(value);
        return tally_fail(error, TALLY_INVALID, "the body is not a JSON object");
    }
    *out = value;
    return TALLY_OK;
}
