#include "http/strict.h"

#include <string.h>

enum { MAX_EXTENSION_BYTES = 1024, MAX_SIZE_DIGITS = 15 };

static enum tally_status refuse(enum tally_status status, const char **why, const char *text)
{
    *why = text;
    return status;
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static enum tally_status parse_version(const char *text, size_t length, int *minor,
                                       const char **why)
{
    if (length != 8 || memcmp(text, "HTTP/", 5) != 0 || !is_digit(text[5]) || text[6] != '.' ||
        !is_digit(text[7]))
        return refuse(TALLY_INVALID, why, "the request line does not end in an HTTP version");
    if (text[5] != '1' || text[7] > '1')
        return refuse(TALLY_UNKNOWN_VERSION, why, "only HTTP/1.0 and HTTP/1.1 are served");
    *minor = text[7] - '0';
    return TALLY_OK;
}

enum tally_status tally_http_parse_request_line(const char *line, size_t length,
                                                struct tally_http_request_line *out,
                                                const char **why)
{
    const char *end = line + length;
    const char *first = memchr(line, ' ', length);
    if (first == NULL || !tally_http_is_token(line, (size_t)(first - line)))
        return refuse(TALLY_INVALID, why, "the request line does not start with a method");
    const char *target = first + 1;
    const char *second = memchr(target, ' ', (size_t)(end - target));
    if (second == NULL)
        return refuse(TALLY_INVALID, why, "the request line does not have three parts");
    enum tally_status status =
        parse_version(second + 1, (size_t)(end - second - 1), &out->minor, why);
    if (status != TALLY_OK)
        return status;
    if (!tally_http_is_target(target, (size_t)(second - target)))
        return refuse(TALLY_INVALID, why, "the request target is not a valid URI");
    out->method = line;
    out->method_length = (size_t)(first - line);
    out->target = target;
    out->target_length = (size_t)(second - target);
    return TALLY_OK;
}

static enum tally_status check_field_line(const char *line, size_t length, const char **why)
{
    if (line[0] == ' ' || line[0] == '\t')
        return refuse(TALLY_INVALID, why, "a header line is folded or starts with a blank");
    const char *colon = memchr(line, ':', length);
    if (colon == NULL)
        return refuse(TALLY_INVALID, why, "a header line has no colon");
    if (!tally_http_is_token(line, (size_t)(colon - line)))
        return refuse(TALLY_INVALID, why, "a header name is not a token");
    return TALLY_OK;
}

/* A line without its CRLF. Sets `*ends` at the empty line that ends the head. */
static enum tally_status check_line(struct tally_http_head_scan *scan, const char *line,
                                    size_t length, bool *ends, const char **why)
{
    if (scan->has_line) {
        *ends = length == 0;
        return *ends ? TALLY_OK : check_field_line(line, length, why);
    }
    if (length == 0) {
        if (scan->skipped)
            return refuse(TALLY_INVALID, why, "empty lines instead of a request");
        scan->skipped = true;
        scan->start = 2;
        return TALLY_OK;
    }
    struct tally_http_request_line parts;
    enum tally_status status = tally_http_parse_request_line(line, length, &parts, why);
    if (status == TALLY_OK) {
        scan->has_line = true;
        scan->minor = parts.minor;
    }
    return status;
}

/* A byte that cannot be where it is: controls, and CR or LF out of their pair. */
static const char *misplaced(char byte, char previous)
{
    if (byte == '\n')
        return previous == '\r' ? NULL : "a line ends in LF without CR";
    if (previous == '\r')
        return "a CR is not followed by LF";
    if (((unsigned char)byte < 0x20 && byte != '\t' && byte != '\r') || byte == 0x7f)
        return "the head holds a control character";
    return NULL;
}

enum tally_status tally_http_head_scan(struct tally_http_head_scan *scan, const char *bytes,
                                       size_t length, size_t limit, size_t *head_length,
                                       const char **why)
{
    size_t i = scan->scanned;
    *head_length = 0;
    for (; i < length && i < limit; i++) {
        char byte = bytes[i];
        char previous = '\0';
        if (i > 0)
            previous = bytes[i - 1];
        if ((unsigned char)byte >= 0x20 && byte != 0x7f && previous != '\r')
            continue;
        const char *text = misplaced(byte, previous);
        if (text != NULL)
            return refuse(TALLY_INVALID, why, text);
        if (byte != '\n')
            continue;
        bool ends = false;
        enum tally_status status =
            check_line(scan, bytes + scan->line_start, i - 1 - scan->line_start, &ends, why);
        if (status != TALLY_OK)
            return status;
        scan->line_start = i + 1;
        if (ends) {
            scan->scanned = *head_length = i + 1;
            return TALLY_OK;
        }
    }
    scan->scanned = i;
    if (i >= limit)
        return refuse(TALLY_HEAD_TOO_LARGE, why, "the request line and headers are too large");
    return TALLY_OK;
}

enum chunk_state {
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_END_CR,
    CHUNK_END_LF,
};

/* What follows the digits: CR, or blanks and a semicolon that open an extension. */
static enum tally_status end_of_size(struct tally_http_chunk_scan *scan, char byte, uint64_t limit,
                                     const char **why)
{
    if (scan->digits == 0 || (byte != '\r' && byte != ';'))
        return refuse(TALLY_INVALID, why, "a chunk size is not hexadecimal");
    scan->total += scan->remaining;
    if (scan->total > limit)
        return refuse(TALLY_BODY_TOO_LARGE, why, "the chunks add up to more than is taken");
    scan->state = byte == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
    return TALLY_OK;
}

static enum tally_status size_byte(struct tally_http_chunk_scan *scan, char byte, uint64_t limit,
                                   const char **why)
{
    char lower = (char)(byte | 0x20);
    if (is_digit(byte) || (lower >= 'a' && lower <= 'f')) {
        if (++scan->digits > MAX_SIZE_DIGITS)
            return refuse(TALLY_INVALID, why, "a chunk size has too many digits");
        unsigned digit = (unsigned)(is_digit(byte) ? byte - '0' : lower - 'a' + 10);
        scan->remaining = scan->remaining * 16 + digit;
        return TALLY_OK;
    }
    return end_of_size(scan, byte, limit, why);
}

static enum tally_status extension_byte(struct tally_http_chunk_scan *scan, char byte,
                                        const char **why)
{
    if (byte == '\r') {
        scan->state = CHUNK_SIZE_LF;
        return TALLY_OK;
    }
    if (!tally_http_is_field_value(&byte, 1))
        return refuse(TALLY_INVALID, why, "a chunk extension holds a control character");
    if (++scan->extension_bytes > MAX_EXTENSION_BYTES)
        return refuse(TALLY_INVALID, why, "the chunk extensions are too long");
    return TALLY_OK;
}

/* The states that wait for one certain byte. */
static enum tally_status fixed_byte(struct tally_http_chunk_scan *scan, char byte, const char **why)
{
    static const struct {
        char byte;
        int next;
        const char *why;
    } table[] = {
        [CHUNK_SIZE_LF] = {'\n', CHUNK_DATA, "a chunk size does not end in CRLF"},
        [CHUNK_DATA_CR] = {'\r', CHUNK_DATA_LF, "a chunk is longer than its size"},
        [CHUNK_DATA_LF] = {'\n', CHUNK_SIZE, "a chunk does not end in CRLF"},
        [CHUNK_END_CR] = {'\r', CHUNK_END_LF, "trailer fields are not taken"},
        [CHUNK_END_LF] = {'\n', CHUNK_SIZE, "the body does not end in CRLF"},
    };
    if (byte != table[scan->state].byte)
        return refuse(TALLY_INVALID, why, table[scan->state].why);
    if (scan->state == CHUNK_SIZE_LF && scan->remaining == 0)
        scan->state = CHUNK_END_CR;
    else if (scan->state == CHUNK_END_LF)
        scan->done = true;
    else
        scan->state = table[scan->state].next;
    scan->digits = 0;
    return TALLY_OK;
}

enum tally_status tally_http_chunk_scan(struct tally_http_chunk_scan *scan, const char *bytes,
                                        size_t length, uint64_t limit, size_t *used,
                                        const char **why)
{
    size_t i = 0;
    enum tally_status status = TALLY_OK;
    while (i < length && !scan->done && status == TALLY_OK) {
        if (scan->state == CHUNK_DATA) {
            size_t here = length - i;
            size_t step = scan->remaining < here ? (size_t)scan->remaining : here;
            scan->remaining -= step;
            i += step;
            if (scan->remaining == 0)
                scan->state = CHUNK_DATA_CR;
            continue;
        }
        char byte = bytes[i++];
        if (scan->state == CHUNK_SIZE)
            status = size_byte(scan, byte, limit, why);
        else if (scan->state == CHUNK_EXTENSION)
            status = extension_byte(scan, byte, why);
        else
            status = fixed_byte(scan, byte, why);
    }
    *used = i;
    return status;
}
