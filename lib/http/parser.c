#include "http/internal.h"

#include <string.h>

/*
 * llhttp's callbacks: a whole head is parsed from one buffer, so a span that comes in several
 * pieces comes in adjacent ones.
 */

static struct tally_http_connection *connection_of(llhttp_t *parser)
{
    return parser->data;
}

static void extend(const struct tally_http_connection *connection, struct tally_http_span *span,
                   const char *at, size_t length)
{
    if (span->length == 0)
        span->offset = (uint32_t)(at - connection->input.data);
    span->length += (uint32_t)length;
}

static int on_url(llhttp_t *parser, const char *at, size_t length)
{
    struct tally_http_connection *connection = connection_of(parser);
    extend(connection, &connection->exchange.request.target, at, length);
    return 0;
}

static int on_field(llhttp_t *parser, const char *at, size_t length)
{
    struct tally_http_connection *connection = connection_of(parser);
    struct tally_http_request *request = &connection->exchange.request;
    if (request->field_count == TALLY_HTTP_MAX_FIELDS) {
        request->too_many_fields = true;
        return -1;
    }
    extend(connection, &request->fields[request->field_count].name, at, length);
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t length)
{
    struct tally_http_connection *connection = connection_of(parser);
    struct tally_http_request *request = &connection->exchange.request;
    extend(connection, &request->fields[request->field_count].value, at, length);
    return 0;
}

static int on_value_complete(llhttp_t *parser)
{
    struct tally_http_request *request = &connection_of(parser)->exchange.request;
    if (++request->field_count < TALLY_HTTP_MAX_FIELDS)
        request->fields[request->field_count] = (struct tally_http_field){0};
    return 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    /* Otherwise llhttp stops behind a request that has Upgrade, which this server ignores. */
    parser->upgrade = 0;
    return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t length)
{
    tally_buffer_append(&connection_of(parser)->exchange.body, at, length);
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    connection_of(parser)->exchange.request.complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static enum tally_status refuse(enum tally_status status, const char **why, const char *text)
{
    *why = text;
    return status;
}

enum tally_status tally_http_parse_head(struct tally_http_connection *connection, const char **why)
{
    const struct tally_http_input *input = &connection->input;
    size_t start = connection->head_scan.start;
    llhttp_init(&connection->parser, HTTP_REQUEST, &settings);
    connection->parser.data = connection;
    enum llhttp_errno code =
        llhttp_execute(&connection->parser, input->data + start, input->head_length - start);
    struct tally_http_request *request = &connection->exchange.request;
    request->minor = connection->head_scan.minor;
    if (request->too_many_fields)
        return refuse(TALLY_HEAD_TOO_LARGE, why, "there are too many headers");
    if (code != HPE_OK && !(code == HPE_PAUSED && request->complete)) {
        const char *reason = llhttp_get_error_reason(&connection->parser);
        return refuse(TALLY_INVALID, why, reason != NULL ? reason : "the head is malformed");
    }
    /* llhttp leaves the blanks behind a value to its caller. */
    for (size_t i = 0; i < request->field_count; i++) {
        struct tally_http_span *value = &request->fields[i].value;
        const char *text = input->data + value->offset;
        while (value->length > 0 &&
               (text[value->length - 1] == ' ' || text[value->length - 1] == '\t'))
            value->length--;
    }
    return TALLY_OK;
}

static enum tally_status feed(struct tally_http_connection *connection, size_t length,
                              const char **why)
{
    struct tally_http_exchange *exchange = &connection->exchange;
    struct tally_http_input *input = &connection->input;
    const char *bytes = input->data + input->head_length;
    enum llhttp_errno code = llhttp_execute(&connection->parser, bytes, length);
    size_t used = length;
    if (code == HPE_PAUSED && exchange->request.complete)
        used = (size_t)(llhttp_get_error_pos(&connection->parser) - bytes);
    else if (code != HPE_OK)
        return refuse(TALLY_INVALID, why, "the body's framing is malformed");
    /* llhttp and the scan must agree about where a chunked body ends. */
    if (exchange->request.chunked &&
        (used != length || exchange->request.complete != connection->chunk_scan.done))
        return refuse(TALLY_INVALID, why, "the body's framing is malformed");
    if (exchange->body.failed)
        return refuse(TALLY_NO_MEMORY, why, NULL);
    memmove(input->data + input->head_length, bytes + used,
            input->length - input->head_length - used);
    input->length -= used;
    return TALLY_OK;
}

enum tally_status tally_http_parse_body(struct tally_http_connection *connection, const char **why)
{
    struct tally_http_exchange *exchange = &connection->exchange;
    const struct tally_http_input *input = &connection->input;
    size_t length = input->length - input->head_length;
    if (exchange->request.chunked) {
        size_t used = 0;
        enum tally_status status =
            tally_http_chunk_scan(&connection->chunk_scan, input->data + input->head_length, length,
                                  exchange->body.limit - 1, &used, why);
        if (status != TALLY_OK)
            return status;
        length = used;
    }
    enum tally_status status = length == 0 ? TALLY_OK : feed(connection, length, why);
    if (status != TALLY_OK || !exchange->request.complete)
        return status;
    char *end = tally_buffer_reserve(&exchange->body, 1);
    if (end == NULL)
        return refuse(TALLY_NO_MEMORY, why, NULL);
    *end = '\0';
    return TALLY_OK;
}
