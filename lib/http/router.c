#include "http/router.h"

#include "http/strict.h"

#include <stdlib.h>
#include <string.h>

enum { BIT_GET = 1, BIT_HEAD = 2, BIT_OPTIONS = 4 };

static const struct tally_http_method methods[] = {
    {"GET", BIT_GET}, {"HEAD", BIT_HEAD},       {"POST", 8}, {"PUT", 16}, {"PATCH", 32},
    {"DELETE", 64},   {"OPTIONS", BIT_OPTIONS},
};
enum { METHOD_COUNT = sizeof methods / sizeof methods[0] };

struct tally_http_router {
    size_t count;
    struct tally_http_compiled_route routes[];
};

const struct tally_http_method *tally_http_method_find(const char *name, size_t length)
{
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (strlen(methods[i].name) == length && memcmp(methods[i].name, name, length) == 0)
            return &methods[i];
    }
    return NULL;
}

static enum tally_status refuse(const char **why, const char *text)
{
    *why = text;
    return TALLY_INVALID;
}

/* Decodes text[offset, end) and terminates it, at `end` at the latest. */
static bool decode_piece(char *text, size_t offset, size_t end, bool query,
                         struct tally_http_piece *out)
{
    int64_t length = tally_http_decode(text + offset, end - offset, query);
    if (length < 0)
        return false;
    text[offset + (size_t)length] = '\0';
    *out = (struct tally_http_piece){(uint32_t)offset, (uint32_t)length};
    return true;
}

static enum tally_status parse_path(char *text, size_t length, struct tally_http_target *out,
                                    const char **why)
{
    bool too_deep = false;
    for (size_t at = 1; at <= length;) {
        const char *slash = memchr(text + at, '/', length - at);
        size_t end = slash != NULL ? (size_t)(slash - text) : length;
        struct tally_http_piece piece;
        if (!decode_piece(text, at, end, false, &piece))
            return refuse(why, "the path holds a broken escape or is not UTF-8");
        too_deep = too_deep || out->segment_count == TALLY_HTTP_MAX_SEGMENTS;
        if (!too_deep)
            out->segments[out->segment_count++] = piece;
        at = end + 1;
    }
    if (too_deep)
        out->segment_count = 0;
    return TALLY_OK;
}

static bool has_parameter(const char *text, const struct tally_http_target *target,
                          struct tally_http_piece name)
{
    for (size_t i = 0; i < target->parameter_count; i++) {
        struct tally_http_piece other = target->parameters[i].name;
        if (other.length == name.length &&
            memcmp(text + other.offset, text + name.offset, name.length) == 0)
            return true;
    }
    return false;
}

static enum tally_status parse_query(char *text, size_t start, size_t length,
                                     struct tally_http_target *out, const char **why)
{
    for (size_t at = start; at < length;) {
        const char *ampersand = memchr(text + at, '&', length - at);
        size_t end = ampersand != NULL ? (size_t)(ampersand - text) : length;
        const char *equals = memchr(text + at, '=', end - at);
        size_t name_end = equals != NULL ? (size_t)(equals - text) : end;
        size_t value_start = equals != NULL ? name_end + 1 : end;
        if (end > at) {
            struct tally_http_piece name;
            struct tally_http_piece value;
            if (!decode_piece(text, value_start, end, true, &value) ||
                !decode_piece(text, at, name_end, true, &name))
                return refuse(why, "the query holds a broken escape or is not UTF-8");
            if (out->parameter_count == TALLY_HTTP_MAX_PARAMETERS)
                return refuse(why, "the query has too many parameters");
            if (has_parameter(text, out, name))
                return refuse(why, "the query gives a parameter twice");
            out->parameters[out->parameter_count].name = name;
            out->parameters[out->parameter_count++].value = value;
        }
        at = end + 1;
    }
    return TALLY_OK;
}

enum tally_status tally_http_target_parse(char *text, size_t length, struct tally_http_target *out,
                                          const char **why)
{
    out->segment_count = 0;
    out->parameter_count = 0;
    const char *question = memchr(text, '?', length);
    size_t path_length = question != NULL ? (size_t)(question - text) : length;
    enum tally_status status = parse_path(text, path_length, out, why);
    if (status == TALLY_OK && question != NULL)
        status = parse_query(text, path_length + 1, length, out, why);
    return status;
}

static bool compile_segments(struct tally_http_compiled_route *compiled, const char *pattern)
{
    for (const char *at = pattern; *at == '/';) {
        const char *text = at + 1;
        size_t length = strcspn(text, "/");
        at = text + length;
        if (compiled->segment_count == TALLY_HTTP_MAX_SEGMENTS)
            return false;
        bool parameter = length > 2 && text[0] == '{' && text[length - 1] == '}';
        size_t index = compiled->segment_count++;
        compiled->segments[index].text = parameter ? text + 1 : text;
        compiled->segments[index].length = parameter ? length - 2 : length;
        compiled->segments[index].parameter = parameter;
    }
    return compiled->segment_count > 0;
}

static enum tally_status compile(const struct tally_http_route *route,
                                 struct tally_http_compiled_route *compiled,
                                 struct tally_error *error)
{
    *compiled = (struct tally_http_compiled_route){.route = route};
    if (route->method == NULL || route->pattern == NULL || route->handler == NULL)
        return tally_fail(error, TALLY_INVALID, "a route without method, pattern or handler");
    compiled->method = tally_http_method_find(route->method, strlen(route->method));
    if (compiled->method == NULL || (compiled->method->bit & (BIT_HEAD | BIT_OPTIONS)) != 0)
        return tally_fail(error, TALLY_INVALID, "route %s: method %s", route->pattern,
                          route->method);
    compiled->media_type = route->media_type != NULL ? route->media_type : "application/json";
    if (!compile_segments(compiled, route->pattern))
        return tally_fail(error, TALLY_INVALID, "route pattern \"%s\"", route->pattern);
    return TALLY_OK;
}

enum tally_status tally_http_router_new(const struct tally_http_route *routes, size_t count,
                                        struct tally_http_router **out, struct tally_error *error)
{
    struct tally_http_router *router =
        malloc(sizeof *router + count * sizeof(struct tally_http_compiled_route));
    if (router == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "route table");
    router->count = count;
    for (size_t i = 0; i < count; i++) {
        enum tally_status status = compile(&routes[i], &router->routes[i], error);
        if (status != TALLY_OK) {
            free(router);
            return status;
        }
    }
    *out = router;
    return TALLY_OK;
}

void tally_http_router_free(struct tally_http_router **router)
{
    free(*router);
    *router = NULL;
}

static bool fits(const struct tally_http_compiled_route *route, const char *text,
                 const struct tally_http_target *target)
{
    if (route->segment_count != target->segment_count)
        return false;
    for (size_t i = 0; i < route->segment_count; i++) {
        struct tally_http_piece piece = target->segments[i];
        if (route->segments[i].parameter
                ? piece.length == 0
                : piece.length != route->segments[i].length ||
                      memcmp(text + piece.offset, route->segments[i].text, piece.length) != 0)
            return false;
    }
    return true;
}

const struct tally_http_compiled_route *tally_http_router_find(
    const struct tally_http_router *router, const struct tally_http_method *method,
    const char *text, const struct tally_http_target *target, unsigned *allowed)
{
    unsigned wanted = method->bit == BIT_HEAD ? BIT_GET : method->bit;
    *allowed = 0;
    for (size_t i = 0; i < router->count; i++) {
        if (!fits(&router->routes[i], text, target))
            continue;
        if (router->routes[i].method->bit == wanted)
            return &router->routes[i];
        *allowed |= router->routes[i].method->bit;
    }
    return NULL;
}

unsigned tally_http_router_methods(const struct tally_http_router *router)
{
    unsigned bits = 0;
    for (size_t i = 0; i < router->count; i++)
        bits |= router->routes[i].method->bit;
    return bits;
}

void tally_http_allow(unsigned allowed, char text[TALLY_HTTP_ALLOW_BYTES])
{
    allowed |= BIT_OPTIONS | ((allowed & BIT_GET) != 0 ? BIT_HEAD : 0);
    char *end = text;
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if ((allowed & methods[i].bit) == 0)
            continue;
        if (end != text)
            end = stpcpy(end, ", ");
        end = stpcpy(end, methods[i].name);
    }
}
