#include "core/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 256 };

void tally_buffer_init(struct tally_buffer *buffer, size_t limit)
{
    *buffer = (struct tally_buffer){.limit = limit};
}

void tally_buffer_release(struct tally_buffer *buffer)
{
    free(buffer->data);
    tally_buffer_init(buffer, buffer->limit);
}

void tally_buffer_clear(struct tally_buffer *buffer)
{
    buffer->length = 0;
    buffer->failed = false;
}

char *tally_buffer_reserve(struct tally_buffer *buffer, size_t length)
{
    if (buffer->failed || length > buffer->limit - buffer->length) {
        buffer->failed = true;
        return NULL;
    }
    size_t needed = buffer->length + length;
    if (needed > buffer->capacity || buffer->data == NULL) {
        size_t capacity = buffer->capacity > 0 ? buffer->capacity : FIRST_CAPACITY;
        while (capacity < needed)
            capacity *= 2;
        char *data = realloc(buffer->data, capacity);
        if (data == NULL) {
            buffer->failed = true;
            return NULL;
        }
        buffer->data = data;
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->length;
}

void tally_buffer_append(struct tally_buffer *buffer, const void *bytes, size_t length)
{
    char *target = tally_buffer_reserve(buffer, length);
    if (target == NULL || length == 0)
        return;
    memcpy(target, bytes, length);
    buffer->length += length;
}

void tally_buffer_append_text(struct tally_buffer *buffer, const char *text)
{
    tally_buffer_append(buffer, text, strlen(text));
}

void tally_buffer_append_char(struct tally_buffer *buffer, char byte)
{
    tally_buffer_append(buffer, &byte, 1);
}

void tally_buffer_append_integer(struct tally_buffer *buffer, int64_t value)
{
    char digits[24];
    size_t at = sizeof digits;
    /* Negated as unsigned, since -INT64_MIN does not exist. */
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[--at] = (char)('0' + (int)(rest % 10));
        rest /= 10;
    } while (rest > 0);
    if (value < 0)
        digits[--at] = '-';
    tally_buffer_append(buffer, digits + at, sizeof digits - at);
}

void tally_buffer_format(struct tally_buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *target = length < 0 ? NULL : tally_buffer_reserve(buffer, (size_t)length + 1);
    if (target != NULL) {
        (void)vsnprintf(target, (size_t)length + 1, format, again);
        buffer->length += (size_t)length;
    } else {
        buffer->failed = true;
    }
    va_end(again);
}

/* Bytes of the UTF-8 sequence at `text`, or 0 where it is not well-formed (RFC 3629 section 4). */
static size_t utf8_sequence(const unsigned char *text, size_t length)
{
    static const struct {
        unsigned char first_low, first_high, second_low, second_high;
        unsigned char bytes;
    } forms[] = {
        {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
        {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
        {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (text[0] < forms[i].first_low || text[0] > forms[i].first_high)
            continue;
        if (length < forms[i].bytes || text[1] < forms[i].second_low ||
            text[1] > forms[i].second_high)
            return 0;
        for (size_t k = 2; k < forms[i].bytes; k++) {
            if ((text[k] & 0xC0) != 0x80)
                return 0;
        }
        return forms[i].bytes;
    }
    return 0;
}

static void append_json_escape(struct tally_buffer *buffer, unsigned char byte)
{
    static const char *const named[0x20] = {
        ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r",
    };
    if (byte == '"')
        tally_buffer_append(buffer, "\\\"", 2);
    else if (byte == '\\')
        tally_buffer_append(buffer, "\\\\", 2);
    else if (named[byte] != NULL)
        tally_buffer_append(buffer, named[byte], 2);
    else
        tally_buffer_format(buffer, "\\u%04x", byte);
}

void tally_buffer_append_json(struct tally_buffer *buffer, const char *text, size_t length)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t plain = 0; /* start of the run that needs no change */
    tally_buffer_append_char(buffer, '"');
    for (size_t i = 0; i < length;) {
        unsigned char byte = bytes[i];
        size_t step = 1;
        if (byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\') {
            i++;
            continue;
        }
        if (byte >= 0x80 && (step = utf8_sequence(bytes + i, length - i)) > 0) {
            i += step;
            continue;
        }
        tally_buffer_append(buffer, text + plain, i - plain);
        if (byte >= 0x80)
            tally_buffer_append(buffer, "\xEF\xBF\xBD", 3);
        else
            append_json_escape(buffer, byte);
        i++;
        plain = i;
    }
    tally_buffer_append(buffer, text + plain, length - plain);
    tally_buffer_append_char(buffer, '"');
}

const char *tally_buffer_text(struct tally_buffer *buffer)
{
    char *end = tally_buffer_reserve(buffer, 1);
    if (end == NULL)
        return "";
    *end = '\0';
    return buffer->data;
}
