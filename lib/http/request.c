#include "http/internal.h"

#include <string.h>

static enum tally_status refuse(enum tally_status status, const char **why, const char *text)
{
    *why = text;
    return status;
}

/* Ends every name and value with NUL, over the colon or blank or CR behind it. */
static void terminate_fields(struct tally_http_connection *connection)
{
    char *head = connection->input.data;
    struct tally_http_request *request = &connection->exchange.request;
    for (size_t i = 0; i < request->field_count; i++) {
        struct tally_http_field *field = &request->fields[i];
        head[field->name.offset + field->name.length] = '\0';
        /* An empty value has no place of its own: it borrows the name's end. */
        if (field->value.length == 0)
            field->value.offset = field->name.offset + field->name.length;
        head[field->value.offset + field->value.length] = '\0';
    }
}

struct known_field {
    const char *name;
    const char *twice; /* why it must not be repeated */
};

enum known { HOST, CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT, KNOWN_COUNT };

static const struct known_field known_fields[KNOWN_COUNT] = {
    [HOST] = {"Host", "there is more than one Host"},
    [CONTENT_LENGTH] = {"Content-Length", "there is more than one Content-Length"},
    [TRANSFER_ENCODING] = {"Transfer-Encoding", "there is more than one Transfer-Encoding"},
    [EXPECT] = {"Expect", "there is more than one Expect"},
};

struct found_field {
    const char *value; /* NULL where absent */
    size_t length;
};

/* One pass over the headers: those that decide the framing, and what Connection says. */
static enum tally_status find_known(struct tally_http_connection *connection,
                                    struct found_field found[KNOWN_COUNT], const char **why)
{
    const char *head = connection->input.data;
    struct tally_http_request *request = &connection->exchange.request;
    bool close = false;
    bool keep = false;
    for (size_t i = 0; i < request->field_count; i++) {
        struct tally_http_span name = request->fields[i].name;
        struct tally_http_span value = request->fields[i].value;
        for (size_t k = 0; k < KNOWN_COUNT; k++) {
            if (!tally_http_equals(head + name.offset, name.length, known_fields[k].name))
                continue;
            if (found[k].value != NULL)
                return refuse(TALLY_INVALID, why, known_fields[k].twice);
            found[k] = (struct found_field){head + value.offset, value.length};
        }
        if (tally_http_equals(head + name.offset, name.length, "Connection")) {
            close = close || tally_http_list_has(head + value.offset, value.length, "close");
            keep = keep || tally_http_list_has(head + value.offset, value.length, "keep-alive");
        }
    }
    request->keep_alive = !close && (request->minor > 0 || keep);
    return TALLY_OK;
}

static enum tally_status check_framing(struct tally_http_request *request,
                                       const struct found_field found[KNOWN_COUNT],
                                       const char **why)
{
    const struct found_field *coding = &found[TRANSFER_ENCODING];
    const struct found_field *length = &found[CONTENT_LENGTH];
    if (coding->value != NULL) {
        if (request->minor == 0)
            return refuse(TALLY_INVALID, why, "Transfer-Encoding in an HTTP/1.0 request");
        if (length->value != NULL)
            return refuse(TALLY_INVALID, why, "both Transfer-Encoding and Content-Length");
        if (!tally_http_equals(coding->value, coding->length, "chunked"))
            return refuse(TALLY_INVALID, why, "a Transfer-Encoding other than chunked");
        request->chunked = true;
    }
    if (length->value != NULL) {
        if (!tally_http_parse_length(length->value, length->length, &request->content_length))
            return refuse(TALLY_INVALID, why, "Content-Length is not a number");
    }
    const struct found_field *host = &found[HOST];
    if (host->value == NULL)
        return refuse(TALLY_INVALID, why, "there is no Host");
    if (!tally_http_is_host(host->value, host->length))
        return refuse(TALLY_INVALID, why, "Host is not a valid host");
    return TALLY_OK;
}

/* Cuts "http://authority" from an absolute-form target (RFC 9112 section 3.2.2), whose authority
 * must be the Host, since whoever stands in front may have looked at either. */
static enum tally_status reduce_target(struct tally_http_connection *connection,
                                       const struct found_field *host, const char **why)
{
    struct tally_http_span *target = &connection->exchange.request.target;
    char *text = connection->input.data + target->offset;
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < 2; i++) {
        size_t scheme = strlen(schemes[i]);
        if (target->length <= scheme || !tally_http_equals(text, scheme, schemes[i]))
            continue;
        size_t authority = 0;
        while (scheme + authority < target->length && text[scheme + authority] != '/' &&
               text[scheme + authority] != '?')
            authority++;
        if (host->value == NULL || host->length != authority ||
            !tally_http_is_host(text + scheme, authority))
            return refuse(TALLY_INVALID, why, "the target's authority is not the Host");
        for (size_t k = 0; k < authority; k++) {
            if ((host->value[k] | 0x20) != (text[scheme + k] | 0x20))
                return refuse(TALLY_INVALID, why, "the target's authority is not the Host");
        }
        target->offset += (uint32_t)(scheme + authority);
        target->length -= (uint32_t)(scheme + authority);
        text += scheme + authority;
        break;
    }
    if (target->length == 0 || text[0] != '/')
        return refuse(TALLY_INVALID, why, "the request target is not a path");
    return TALLY_OK;
}

static void answer_allow(struct tally_http_exchange *exchange, unsigned allowed)
{
    char allow[TALLY_HTTP_ALLOW_BYTES];
    tally_http_allow(allowed, allow);
    tally_http_answer_header(exchange, "Allow", allow);
}

/* Sets the method; OPTIONS * is done here. */
static enum tally_status check_line(struct tally_http_connection *connection,
                                    const struct found_field *host, const char **why)
{
    struct tally_http_exchange *exchange = &connection->exchange;
    struct tally_http_request *request = &exchange->request;
    const char *line = connection->input.data + connection->head_scan.start;
    const char *space = memchr(line, ' ', connection->input.head_length);
    request->method = space == NULL ? NULL : tally_http_method_find(line, (size_t)(space - line));
    if (request->method == NULL) {
        answer_allow(exchange, tally_http_router_methods(connection->server->router));
        return refuse(TALLY_METHOD_NOT_ALLOWED, why, "no resource here knows this method");
    }
    char *text = connection->input.data + request->target.offset;
    if (request->target.length == 1 && text[0] == '*' &&
        strcmp(request->method->name, "OPTIONS") == 0)
        return TALLY_OK;
    enum tally_status status = reduce_target(connection, host, why);
    if (status != TALLY_OK)
        return status;
    return tally_http_target_parse(connection->input.data + request->target.offset,
                                   request->target.length, &request->parsed, why);
}

static enum tally_status route(struct tally_http_connection *connection, bool *options,
                               const char **why)
{
    struct tally_http_exchange *exchange = &connection->exchange;
    struct tally_http_request *request = &exchange->request;
    const struct tally_http_router *router = connection->server->router;
    const char *text = connection->input.data + request->target.offset;
    unsigned allowed = 0;
    if (text[0] == '*')
        allowed = tally_http_router_methods(router);
    else
        exchange->route =
            tally_http_router_find(router, request->method, text, &request->parsed, &allowed);
    if (exchange->route != NULL)
        return TALLY_OK;
    if (allowed == 0)
        return refuse(TALLY_NOT_FOUND, why, NULL);
    answer_allow(exchange, allowed);
    *options = strcmp(request->method->name, "OPTIONS") == 0;
    return *options ? TALLY_OK : refuse(TALLY_METHOD_NOT_ALLOWED, why, NULL);
}

static enum tally_status check_body(struct tally_http_connection *connection,
                                    const struct found_field *expect, const char **why)
{
    struct tally_http_exchange *exchange = &connection->exchange;
    struct tally_http_request *request = &exchange->request;
    const struct tally_http_compiled_route *found = exchange->route;
    if (expect->value != NULL && request->minor > 0) {
        if (!tally_http_equals(expect->value, expect->length, "100-continue"))
            return refuse(TALLY_EXPECTATION_FAILED, why, "only 100-continue can be expected");
        request->expects_continue = true;
    }
    if (!request->chunked && request->content_length == 0)
        return TALLY_OK;
    if (found == NULL || !found->route->takes_body)
        return refuse(TALLY_INVALID, why, "a body was sent where none is taken");
    size_t limit = found->route->body_bytes;
    if (limit == 0)
        limit = connection->server->options.body_bytes;
    if (request->content_length > limit)
        return refuse(TALLY_BODY_TOO_LARGE, why, NULL);
    const char *type = tally_http_header(exchange, "Content-Type");
    if (type == NULL || tally_http_header_count(exchange, "Content-Type") > 1 ||
        !tally_http_is_media_type(type, strlen(type), found->media_type))
        return refuse(TALLY_UNSUPPORTED_MEDIA, why, NULL);
    const char *coding = tally_http_header(exchange, "Content-Encoding");
    if (coding != NULL && !tally_http_equals(coding, strlen(coding), "identity"))
        return refuse(TALLY_UNSUPPORTED_MEDIA, why, "the body must not be encoded");
    exchange->body.limit = limit + 1;
    return TALLY_OK;
}

enum tally_status tally_http_request_accept(struct tally_http_connection *connection, bool *options,
                                            const char **why)
{
    struct tally_http_request *request = &connection->exchange.request;
    struct found_field found[KNOWN_COUNT] = {0};
    enum tally_status status = tally_http_parse_head(connection, why);
    if (status == TALLY_OK)
        status = find_known(connection, found, why);
    if (status == TALLY_OK)
        status = check_framing(request, found, why);
    if (status == TALLY_OK)
        status = check_line(connection, &found[HOST], why);
    if (status != TALLY_OK) {
        request->keep_alive = false;
        request->field_count = 0;
        return status;
    }
    terminate_fields(connection);
    status = route(connection, options, why);
    if (status == TALLY_OK)
        status = check_body(connection, &found[EXPECT], why);
    /* A body that is not going to be read would be taken for the next request. */
    if ((request->chunked || request->content_length > 0) && (status != TALLY_OK || *options))
        request->keep_alive = false;
    return status;
}
