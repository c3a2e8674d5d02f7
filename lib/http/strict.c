#include "http/strict.h"

#include <string.h>
#include <strings.h>

/* What a byte may be part of; one row for each class of RFC 9110 and RFC 3986. */
enum {
    TOKEN = 1,
    TARGET = 2,
    HOST = 4,
};

#define ALNUM (TOKEN | TARGET | HOST)
static const unsigned char classes[256] = {
    ['0' ... '9'] = ALNUM,  ['A' ... 'Z'] = ALNUM,  ['a' ... 'z'] = ALNUM,   ['-'] = ALNUM,
    ['.'] = ALNUM,          ['_'] = ALNUM,          ['~'] = ALNUM,           ['!'] = TOKEN | TARGET,
    ['$'] = TOKEN | TARGET, ['&'] = TOKEN | TARGET, ['\''] = TOKEN | TARGET, ['*'] = TOKEN | TARGET,
    ['+'] = TOKEN | TARGET, ['%'] = TOKEN | TARGET, ['#'] = TOKEN,           ['^'] = TOKEN,
    ['`'] = TOKEN,          ['|'] = TOKEN,          ['('] = TARGET,          [')'] = TARGET,
    [','] = TARGET,         [';'] = TARGET,         ['='] = TARGET,          [':'] = TARGET,
    ['@'] = TARGET,         ['/'] = TARGET,         ['?'] = TARGET,          ['['] = TARGET,
    [']'] = TARGET,
};
#undef ALNUM

static bool all_of(const char *text, size_t length, unsigned char class)
{
    if (length == 0)
        return false;
    for (size_t i = 0; i < length; i++) {
        if ((classes[(unsigned char)text[i]] & class) == 0)
            return false;
    }
    return true;
}

static bool is_control(unsigned char byte)
{
    return byte < 0x20 || byte == 0x7f;
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

static int hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte = (char)(byte | 0x20);
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static void trim(const char **text, size_t *length)
{
    while (*length > 0 && is_blank(**text)) {
        (*text)++;
        (*length)--;
    }
    while (*length > 0 && is_blank((*text)[*length - 1]))
        (*length)--;
}

bool tally_http_is_token(const char *text, size_t length)
{
    return all_of(text, length, TOKEN);
}

bool tally_http_is_target(const char *text, size_t length)
{
    return all_of(text, length, TARGET);
}

bool tally_http_is_field_value(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] != '\t' && is_control((unsigned char)text[i]))
            return false;
    }
    return true;
}

bool tally_http_is_utf8(const char *text, size_t length)
{
    const unsigned char *bytes = (const unsigned char *)text;
    for (size_t i = 0; i < length;) {
        unsigned char first = bytes[i++];
        if (first == 0)
            return false;
        if (first < 0x80)
            continue;
        if (first < 0xC2 || first > 0xF4)
            return false;
        size_t more = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
        if (length - i < more)
            return false;
        /* The second byte is what rules out overlong forms, surrogates and > U+10FFFF. */
        unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        if (bytes[i] < low || bytes[i] > high)
            return false;
        for (size_t k = 1; k < more; k++) {
            if ((bytes[i + k] & 0xC0) != 0x80)
                return false;
        }
        i += more;
    }
    return true;
}

static bool is_port(const char *text, size_t length)
{
    unsigned port = 0;
    if (length > 5)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    return port <= 65535;
}

bool tally_http_is_host(const char *text, size_t length)
{
    if (length == 0 || length > 255)
        return false;
    size_t end = 0;
    if (text[0] == '[') {
        for (end = 1; end < length && text[end] != ']'; end++) {
            if (hex_digit(text[end]) < 0 && text[end] != ':' && text[end] != '.')
                return false;
        }
        if (end < 3 || end == length)
            return false;
        end++;
    } else {
        while (end < length && (classes[(unsigned char)text[end]] & HOST) != 0)
            end++;
        if (end == 0)
            return false;
    }
    return end == length || (text[end] == ':' && is_port(text + end + 1, length - end - 1));
}

bool tally_http_equals(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && strncasecmp(text, word, length) == 0;
}

bool tally_http_list_has(const char *list, size_t length, const char *word)
{
    const char *end = list + length;
    while (list < end) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        const char *item_end = comma != NULL ? comma : end;
        const char *item = list;
        size_t item_length = (size_t)(item_end - item);
        trim(&item, &item_length);
        if (tally_http_equals(item, item_length, word))
            return true;
        list = comma != NULL ? comma + 1 : end;
    }
    return false;
}

bool tally_http_is_media_type(const char *text, size_t length, const char *media_type)
{
    const char *semicolon = memchr(text, ';', length);
    size_t type_length = semicolon != NULL ? (size_t)(semicolon - text) : length;
    const char *type = text;
    size_t trimmed = type_length;
    trim(&type, &trimmed);
    if (!tally_http_equals(type, trimmed, media_type))
        return false;
    if (semicolon == NULL)
        return true;
    const char *parameter = semicolon + 1;
    size_t parameter_length = length - type_length - 1;
    trim(&parameter, &parameter_length);
    return tally_http_equals(parameter, parameter_length, "charset=utf-8") ||
           tally_http_equals(parameter, parameter_length, "charset=\"utf-8\"");
}

bool tally_http_parse_length(const char *text, size_t length, uint64_t *out)
{
    uint64_t value = 0;
    if (length == 0)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        unsigned digit = (unsigned)(text[i] - '0');
        if (value > ((uint64_t)INT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

int64_t tally_http_decode(char *text, size_t length, bool plus_is_space)
{
    size_t written = 0;
    bool plain = true; /* no escape seen: the target's own check has ruled out all but ASCII */
    for (size_t i = 0; i < length; i++) {
        char byte = text[i];
        if (byte == '%') {
            if (length - i < 3)
                return -1;
            int high = hex_digit(text[i + 1]);
            int low = hex_digit(text[i + 2]);
            if (high < 0 || low < 0)
                return -1;
            byte = (char)(high * 16 + low);
            plain = false;
            i += 2;
        } else if (byte == '+' && plus_is_space) {
            byte = ' ';
        }
        text[written++] = byte;
    }
    if (!plain && !tally_http_is_utf8(text, written))
        return -1;
    return (int64_t)written;
}
