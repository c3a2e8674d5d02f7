#include "redis/url.h"

#include <stdlib.h>
#include <string.h>

static const char scheme[] = "redis://";

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

/* Copies text[0..length) with %XX resolved; false where it does not fit or is not valid. */
static bool copy_decoded(char *target, size_t bytes, const char *text, size_t length)
{
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        char byte = text[i];
        if (byte == '%') {
            int high = i + 2 < length ? hex_digit(text[i + 1]) : -1;
            int low = i + 2 < length ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return false;
            byte = (char)(high * 16 + low);
            i += 2;
        }
        if (used + 1 >= bytes)
            return false;
        target[used++] = byte;
    }
    target[used] = '\0';
    return true;
}

static bool copy_exact(char *target, size_t bytes, const char *text, size_t length)
{
    if (length >= bytes)
        return false;
    memcpy(target, text, length);
    target[length] = '\0';
    return true;
}

/* A number of digits alone in text[0..length), `least` to 65535. */
static bool read_number(const char *text, size_t length, int least, int *number)
{
    int value = 0;
    if (length == 0 || length > 5)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (text[i] - '0');
    }
    *number = value;
    return value >= least && value <= 65535;
}

/* "[user]:password" or "password"-less "user" is not accepted: Redis knows no user without one. */
static bool read_credentials(struct tally_redis_url *url, const char *text, size_t length)
{
    const char *colon = memchr(text, ':', length);
    if (colon == NULL)
        return false;
    size_t user_length = (size_t)(colon - text);
    return copy_decoded(url->user, sizeof url->user, text, user_length) &&
           copy_decoded(url->password, sizeof url->password, colon + 1, length - user_length - 1);
}

/* "host[:port]" or "[v6][:port]". */
static bool read_address(struct tally_redis_url *url, const char *text, size_t length)
{
    const char *end = text + length;
    const char *host = text;
    const char *host_end = memchr(text, ':', length);
    if (length > 0 && text[0] == '[') {
        host = text + 1;
        host_end = memchr(host, ']', length - 1);
        if (host_end == NULL)
            return false;
    }
    if (host_end == NULL)
        host_end = end;
    if (host_end == host ||
        !copy_exact(url->host, sizeof url->host, host, (size_t)(host_end - host)))
        return false;
    const char *rest = host == text ? host_end : host_end + 1;
    if (rest == end)
        return true;
    return *rest == ':' && read_number(rest + 1, (size_t)(end - rest) - 1, 1, &url->port);
}

enum tally_status tally_redis_url_parse(const char *text, struct tally_redis_url *url,
                                        struct tally_error *error)
{
    *url = (struct tally_redis_url){.port = 6379};
    if (strncmp(text, scheme, sizeof scheme - 1) != 0)
        return tally_fail(error, TALLY_CONFIG, "the Redis URL does not begin with redis://");
    const char *at = text + sizeof scheme - 1;
    const char *slash = strchr(at, '/');
    const char *end = slash != NULL ? slash : at + strlen(at);
    /* The last @, so that a password may hold one that was not encoded. */
    const char *mark = memrchr(at, '@', (size_t)(end - at));
    if (mark != NULL) {
        if (!read_credentials(url, at, (size_t)(mark - at)))
            return tally_fail(error, TALLY_CONFIG,
                              "the Redis URL's part before @ is not [user]:password");
        at = mark + 1;
    }
    if (!read_address(url, at, (size_t)(end - at)))
        return tally_fail(error, TALLY_CONFIG, "the Redis URL's host or port is not valid");
    if (slash != NULL && slash[1] != '\0' &&
        !read_number(slash + 1, strlen(slash + 1), 0, &url->database))
        return tally_fail(error, TALLY_CONFIG, "the Redis URL's database is not a number");
    return TALLY_OK;
}
