/*
 * Strict checks: pure functions over the bytes of a request, with no connection and no parser.
 *
 * They decide what is clearly one request (RFC 9110, RFC 9112) before llhttp sees a byte, since two
 * readers that disagree about where a request ends is what request smuggling is made of. All take
 * (text, length), never read beyond it, allocate nothing and may be called from any thread.
 */
#ifndef TALLY_HTTP_STRICT_H
#define TALLY_HTTP_STRICT_H

#include "core/status.h"

#include <stdint.h>

/* RFC 9110 section 5.6.2: one or more tchar. */
bool tally_http_is_token(const char *text, size_t length);
/* A field value without CR, LF, NUL and other controls; blanks and bytes above 0x7f may be in it.
 */
bool tally_http_is_field_value(const char *text, size_t length);
/* Well-formed UTF-8 (RFC 3629) without NUL. */
bool tally_http_is_utf8(const char *text, size_t length);
/* Host as this server takes it: a name of letters, digits, "-._~", or an address in brackets, and
 * optionally a port (RFC 9110 section 7.2). */
bool tally_http_is_host(const char *text, size_t length);
/* Only characters that RFC 3986 allows in a path and query; no fragment. */
bool tally_http_is_target(const char *text, size_t length);
/* Case-insensitive equality with a terminated word. */
bool tally_http_equals(const char *text, size_t length, const char *word);
/* Does a comma-separated list (Connection) hold this word, in any case? */
bool tally_http_list_has(const char *list, size_t length, const char *word);
/* Is it this media type, with at most `charset=utf-8` as its parameter? */
bool tally_http_is_media_type(const char *text, size_t length, const char *media_type);
/* Digits only, no sign, no list, at most 2^63 - 1. */
bool tally_http_parse_length(const char *text, size_t length, uint64_t *out);
/* Decodes %XX (and '+' where `plus_is_space`) in place and returns the new length, or -1 where an
 * escape is broken or the result is not UTF-8 without NUL. */
int64_t tally_http_decode(char *text, size_t length, bool plus_is_space);

/* "METHOD SP target SP HTTP/1.x", split. */
struct tally_http_request_line {
    const char *method;
    size_t method_length;
    const char *target;
    size_t target_length;
    int minor; /* 0 or 1 */
};
/* INVALID, or UNKNOWN_VERSION for a well-formed version that is neither 1.0 nor 1.1; `*why` is a
 * constant text then. */
enum tally_status tally_http_parse_request_line(const char *line, size_t length,
                                                struct tally_http_request_line *out,
                                                const char **why) TALLY_MUST_CHECK;

/* Looks for the end of a head in bytes that arrive in any portions; zero it before a request. The
 * verdict depends on the bytes alone, not on how they were cut. */
struct tally_http_head_scan {
    size_t scanned;    /* bytes looked at so far */
    size_t line_start; /* of the line being read */
    size_t start;      /* of the request line: behind the one empty line that may precede it */
    bool has_line;     /* the request line is complete */
    bool skipped;      /* that empty line was there (RFC 9112 section 2.2) */
    int minor;         /* once the request line is complete */
};
/* `bytes` from the start of the request; `limit` bounds the head. OK with `*head_length` 0 where
 * the head is not complete, else its bytes up to and with the empty line. INVALID: a bare CR or LF,
 * NUL or another control, a folded line, whitespace before a colon, a field name that is no token,
 * a bad request line; UNKNOWN_VERSION; HEAD_TOO_LARGE. */
enum tally_status tally_http_head_scan(struct tally_http_head_scan *scan, const char *bytes,
                                       size_t length, size_t limit, size_t *head_length,
                                       const char **why) TALLY_MUST_CHECK;

/* Follows the framing of a chunked body (RFC 9112 section 7.1); zero it before a body. */
struct tally_http_chunk_scan {
    int state;
    int digits;             /* of the size being read */
    uint64_t remaining;     /* bytes of the chunk being read */
    uint64_t total;         /* bytes of all chunks so far, counted from their size lines */
    size_t extension_bytes; /* of all chunks */
    bool done;              /* the last CRLF has been read */
};
/* Checks the next bytes and says in `*used` how many of them belong to the body: all, or up to its
 * end, when `done` is set. INVALID: a bare CR or LF, a size that is not 1–15 hexadecimal digits,
 * more than 1 KiB of extensions, any trailer field. BODY_TOO_LARGE: sizes add up to over `limit`.
 */
enum tally_status tally_http_chunk_scan(struct tally_http_chunk_scan *scan, const char *bytes,
                                        size_t length, uint64_t limit, size_t *used,
                                        const char **why) TALLY_MUST_CHECK;

#endif
