#include "core/id.h"

#include <string.h>

bool tally_id_parse(const char *text, size_t length, int64_t *id)
{
    if (length == 0 || length >= TALLY_ID_TEXT_BYTES || text[0] == '0')
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    /* 19 digits fit into 64 bits unsigned, but not all of them into 63. */
    if (value > INT64_MAX)
        return false;
    *id = (int64_t)value;
    return true;
}

size_t tally_id_format(int64_t id, char text[TALLY_ID_TEXT_BYTES])
{
    char digits[TALLY_ID_TEXT_BYTES];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + (int)(id % 10));
        id /= 10;
    } while (id > 0);
    size_t length = sizeof digits - at;
    memcpy(text, digits + at, length);
    text[length] = '\0';
    return length;
}
