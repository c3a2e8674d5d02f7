#include "http/internal.h"

#include <string.h>
#include <strings.h>

/* Memory a connection keeps between requests; what is larger goes back at the end of a request. */
enum { KEPT_BODY_BYTES = 4096, KEPT_HEADERS_BYTES = 1024 };

void tally_http_exchange_begin(struct tally_http_exchange *exchange, int64_t received_us)
{
    struct tally_http_request *request = &exchange->request;
    request->method = NULL;
    request->minor = 0;
    request->keep_alive = false;
    request->chunked = false;
    request->expects_continue = false;
    request->content_length = 0;
    request->target = (struct tally_http_span){0};
    request->parsed.segment_count = 0;
    request->parsed.parameter_count = 0;
    request->field_count = 0;
    request->fields[0] = (struct tally_http_field){0};
    request->too_many_fields = false;
    request->complete = false;
    exchange->route = NULL;
    exchange->retry_after = false;
    exchange->called = false;
    exchange->answered = false;
    exchange->received_us = received_us;
}

static void empty(struct tally_buffer *buffer, size_t kept_bytes)
{
    if (buffer->capacity > kept_bytes)
        tally_buffer_release(buffer);
    else
        tally_buffer_clear(buffer);
}

void tally_http_exchange_end(struct tally_http_exchange *exchange)
{
    tally_arena_reset(&exchange->arena);
    empty(&exchange->body, KEPT_BODY_BYTES);
    empty(&exchange->headers, KEPT_HEADERS_BYTES);
}

static const char *head_of(const struct tally_http_exchange *exchange)
{
    return exchange->connection->input.data;
}

static const struct tally_http_field *find_field(const struct tally_http_exchange *exchange,
                                                 const char *name)
{
    const struct tally_http_request *request = &exchange->request;
    size_t length = strlen(name);
    for (size_t i = 0; i < request->field_count; i++) {
        const struct tally_http_field *field = &request->fields[i];
        if (field->name.length == length &&
            strncasecmp(head_of(exchange) + field->name.offset, name, length) == 0)
            return field;
    }
    return NULL;
}

const char *tally_http_header(const struct tally_http_exchange *exchange, const char *name)
{
    const struct tally_http_field *field = find_field(exchange, name);
    return field != NULL ? head_of(exchange) + field->value.offset : NULL;
}

size_t tally_http_header_count(const struct tally_http_exchange *exchange, const char *name)
{
    const struct tally_http_request *request = &exchange->request;
    size_t count = 0;
    for (size_t i = 0; i < request->field_count; i++) {
        const struct tally_http_span *span = &request->fields[i].name;
        count += tally_http_equals(head_of(exchange) + span->offset, span->length, name) ? 1 : 0;
    }
    return count;
}

const char *tally_http_method(const struct tally_http_exchange *exchange)
{
    const struct tally_http_method *method = exchange->request.method;
    return method != NULL ? method->name : "-";
}

const char *tally_http_route_pattern(const struct tally_http_exchange *exchange)
{
    return exchange->route != NULL ? exchange->route->route->pattern : NULL;
}

static const char *target_of(const struct tally_http_exchange *exchange)
{
    return head_of(exchange) + exchange->request.target.offset;
}

const char *tally_http_path_parameter(const struct tally_http_exchange *exchange, const char *name)
{
    const struct tally_http_compiled_route *route = exchange->route;
    size_t length = strlen(name);
    for (size_t i = 0; route != NULL && i < route->segment_count; i++) {
        if (route->segments[i].parameter && route->segments[i].length == length &&
            memcmp(route->segments[i].text, name, length) == 0)
            return target_of(exchange) + exchange->request.parsed.segments[i].offset;
    }
    return NULL;
}

const char *tally_http_query_parameter(const struct tally_http_exchange *exchange, const char *name)
{
    const struct tally_http_target *target = &exchange->request.parsed;
    for (size_t i = 0; i < target->parameter_count; i++) {
        if (strcmp(target_of(exchange) + target->parameters[i].name.offset, name) == 0)
            return target_of(exchange) + target->parameters[i].value.offset;
    }
    return NULL;
}

const char *tally_http_body(const struct tally_http_exchange *exchange, size_t *length)
{
    *length = exchange->body.length;
    return exchange->body.length > 0 ? exchange->body.data : "";
}

int64_t tally_http_received_us(const struct tally_http_exchange *exchange)
{
    return exchange->received_us;
}

struct tally_arena *tally_http_arena(struct tally_http_exchange *exchange)
{
    return &exchange->arena;
}
