/*
 * Router: from a request target to a row of the route table. Pure apart from its own memory.
 *
 * A target is split at its slashes first and decoded afterwards (RFC 3986 section 2.2), so that an
 * escaped slash stays inside its segment. The first row of the table that fits is taken.
 */
#ifndef TALLY_HTTP_ROUTER_H
#define TALLY_HTTP_ROUTER_H

#include "http/http.h"

enum {
    TALLY_HTTP_MAX_SEGMENTS = 12,
    TALLY_HTTP_MAX_PARAMETERS = 32,
    TALLY_HTTP_ALLOW_BYTES = 64,
};

struct tally_http_method {
    const char *name;
    unsigned bit;
};

/* NULL for a method that no route may have. Names are case-sensitive. */
const struct tally_http_method *tally_http_method_find(const char *name, size_t length);

struct tally_http_piece {
    uint32_t offset; /* from the text that tally_http_target_parse() was given */
    uint32_t length;
};

struct tally_http_target {
    size_t segment_count;
    struct tally_http_piece segments[TALLY_HTTP_MAX_SEGMENTS];
    size_t parameter_count;
    struct {
        struct tally_http_piece name;
        struct tally_http_piece value;
    } parameters[TALLY_HTTP_MAX_PARAMETERS];
};

/* Splits, decodes and terminates "/path?query" in place; `text[length]` is overwritten. INVALID: a
 * broken escape, text that is not UTF-8, more than 32 parameters or one twice. A path of more than
 * 12 segments has none, and so fits no route. */
enum tally_status tally_http_target_parse(char *text, size_t length, struct tally_http_target *out,
                                          const char **why) TALLY_MUST_CHECK;

struct tally_http_compiled_route {
    const struct tally_http_route *route;
    const struct tally_http_method *method;
    const char *media_type;
    size_t segment_count;
    struct {
        const char *text; /* without braces, not terminated */
        size_t length;
        bool parameter;
    } segments[TALLY_HTTP_MAX_SEGMENTS];
};

struct tally_http_router;

enum tally_status tally_http_router_new(const struct tally_http_route *routes, size_t count,
                                        struct tally_http_router **out,
                                        struct tally_error *error) TALLY_MUST_CHECK;
void tally_http_router_free(struct tally_http_router **router);
/* `text` is what the target was parsed from. NULL where no row fits; `*allowed` then holds the bits
 * of the methods that have a row for this path, 0: there is nothing here. HEAD finds GET's row. */
const struct tally_http_compiled_route *tally_http_router_find(
    const struct tally_http_router *router, const struct tally_http_method *method,
    const char *text, const struct tally_http_target *target, unsigned *allowed);
/* The bits of every method in the table. */
unsigned tally_http_router_methods(const struct tally_http_router *router);
/* "GET, HEAD, OPTIONS" for the Allow header; HEAD goes with GET, OPTIONS with any. */
void tally_http_allow(unsigned allowed, char text[TALLY_HTTP_ALLOW_BYTES]);

#endif
