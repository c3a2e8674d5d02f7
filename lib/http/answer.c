#include "core/clock.h"
#include "http/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reason {
    int status;
    const char *line;
};

static const struct reason reasons[] = {
    {200, "HTTP/1.1 200 OK\r\n"},
    {201, "HTTP/1.1 201 Created\r\n"},
    {202, "HTTP/1.1 202 Accepted\r\n"},
    {204, "HTTP/1.1 204 No Content\r\n"},
    {304, "HTTP/1.1 304 Not Modified\r\n"},
    {400, "HTTP/1.1 400 Bad Request\r\n"},
    {401, "HTTP/1.1 401 Unauthorized\r\n"},
    {403, "HTTP/1.1 403 Forbidden\r\n"},
    {404, "HTTP/1.1 404 Not Found\r\n"},
    {405, "HTTP/1.1 405 Method Not Allowed\r\n"},
    {408, "HTTP/1.1 408 Request Timeout\r\n"},
    {409, "HTTP/1.1 409 Conflict\r\n"},
    {412, "HTTP/1.1 412 Precondition Failed\r\n"},
    {413, "HTTP/1.1 413 Content Too Large\r\n"},
    {415, "HTTP/1.1 415 Unsupported Media Type\r\n"},
    {417, "HTTP/1.1 417 Expectation Failed\r\n"},
    {422, "HTTP/1.1 422 Unprocessable Content\r\n"},
    {429, "HTTP/1.1 429 Too Many Requests\r\n"},
    {431, "HTTP/1.1 431 Request Header Fields Too Large\r\n"},
    {500, "HTTP/1.1 500 Internal Server Error\r\n"},
    {503, "HTTP/1.1 503 Service Unavailable\r\n"},
    {505, "HTTP/1.1 505 HTTP Version Not Supported\r\n"},
};

static void append_status_line(struct tally_buffer *output, int http_status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == http_status) {
            tally_buffer_append_text(output, reasons[i].line);
            return;
        }
    }
    tally_buffer_format(output, "HTTP/1.1 %d \r\n", http_status);
}

void tally_http_answer_header(struct tally_http_exchange *exchange, const char *name,
                              const char *value)
{
    struct tally_buffer *headers = &exchange->headers;
    size_t name_length = strlen(name);
    size_t value_length = strlen(value);
    if (!tally_http_is_token(name, name_length) ||
        !tally_http_is_field_value(value, value_length)) {
        headers->failed = true;
        return;
    }
    if (tally_http_equals(name, name_length, "Retry-After"))
        exchange->retry_after = true;
    tally_buffer_append(headers, name, name_length);
    tally_buffer_append(headers, ": ", 2);
    tally_buffer_append(headers, value, value_length);
    tally_buffer_append(headers, "\r\n", 2);
}

static bool has_body(int http_status)
{
    return http_status != 204 && http_status != 304;
}

struct content {
    const char *type;
    const void *body;
    size_t length;
};

static void append_head(struct tally_http_exchange *exchange, int http_status,
                        const struct content *content)
{
    struct tally_http_connection *connection = exchange->connection;
    struct tally_buffer *output = &connection->output;
    append_status_line(output, http_status);
    tally_buffer_append(output, "Date: ", 6);
    tally_buffer_append(output, tally_http_date(connection->server), TALLY_HTTP_DATE_BYTES - 1);
    tally_buffer_append(output, "\r\n", 2);
    if (has_body(http_status)) {
        if (content->type != NULL) {
            tally_buffer_append_text(output, "Content-Type: ");
            tally_buffer_append_text(output, content->type);
            tally_buffer_append(output, "\r\n", 2);
        }
        tally_buffer_append_text(output, "Content-Length: ");
        tally_buffer_append_integer(output, (int64_t)content->length);
        tally_buffer_append(output, "\r\n", 2);
    }
    tally_buffer_append(output, exchange->headers.data, exchange->headers.length);
    if (connection->close_after)
        tally_buffer_append_text(output, "Connection: close\r\n");
    else if (exchange->request.minor == 0)
        tally_buffer_append_text(output, "Connection: keep-alive\r\n");
    tally_buffer_append(output, "\r\n", 2);
}

/* Writes the whole answer behind what already waits, or nothing. */
static bool append_answer(struct tally_http_exchange *exchange, int http_status,
                          const struct content *content)
{
    struct tally_buffer *output = &exchange->connection->output;
    size_t before = output->length;
    bool head_only =
        exchange->request.method != NULL && strcmp(exchange->request.method->name, "HEAD") == 0;
    append_head(exchange, http_status, content);
    if (has_body(http_status) && !head_only && content->length > 0)
        tally_buffer_append(output, content->body, content->length);
    if (!output->failed)
        return true;
    output->failed = false;
    output->length = before;
    return false;
}

static const char unfit_answer[] = "{\"type\":\"urn:tally:problem:internal-error\","
                                   "\"title\":\"Something went wrong inside the service\","
                                   "\"status\":500}";

static void finish(struct tally_http_exchange *exchange, int http_status)
{
    const struct tally_http_server_options *options = &exchange->connection->server->options;
    exchange->answered = true;
    if (options->on_done != NULL)
        options->on_done(exchange, http_status, tally_clock_monotonic_us() - exchange->received_us,
                         options->observer_context);
}

void tally_http_answer(struct tally_http_exchange *exchange, int http_status,
                       const char *content_type, const void *body, size_t length)
{
    struct tally_http_connection *connection = exchange->connection;
    struct tally_http_server *server = connection->server;
    struct content content = {content_type, body, length};
    if (exchange->answered || http_status < 200 || http_status > 599)
        abort();
    if (connection->state == TALLY_HTTP_CLOSED) {
        finish(exchange, http_status);
        tally_http_server_settled(server);
        return;
    }
    if (connection->state != TALLY_HTTP_HANDLING)
        abort();
    if (server->draining || !exchange->request.keep_alive)
        connection->close_after = true;
    if (exchange->headers.failed || length > server->options.answer_bytes ||
        (content_type != NULL && !tally_http_is_field_value(content_type, strlen(content_type)))) {
        tally_buffer_clear(&exchange->headers);
        content =
            (struct content){"application/problem+json", unfit_answer, sizeof unfit_answer - 1};
        http_status = 500;
    }
    bool appended = append_answer(exchange, http_status, &content);
    finish(exchange, http_status);
    if (!appended) {
        tally_http_connection_close(connection);
        return;
    }
    tally_http_connection_advance(connection);
}

/* The document of RFC 9457; `detail` NULL leaves that member out. */
static void append_problem(struct tally_buffer *buffer, enum tally_status status,
                           const char *detail)
{
    const char *title = tally_status_title(status);
    tally_buffer_append_text(buffer, "{\"type\":\"urn:tally:problem:");
    tally_buffer_append_text(buffer, tally_status_slug(status));
    tally_buffer_append_text(buffer, "\",\"title\":");
    tally_buffer_append_json(buffer, title, strlen(title));
    tally_buffer_append_text(buffer, ",\"status\":");
    tally_buffer_append_integer(buffer, tally_status_http(status));
    if (detail != NULL) {
        tally_buffer_append_text(buffer, ",\"detail\":");
        tally_buffer_append_json(buffer, detail, strlen(detail));
    }
    tally_buffer_append_char(buffer, '}');
}

void tally_http_answer_problem(struct tally_http_exchange *exchange, enum tally_status status,
                               const char *detail, ...)
{
    char text[512];
    if (detail != NULL) {
        va_list arguments;
        va_start(arguments, detail);
        (void)vsnprintf(text, sizeof text, detail, arguments);
        va_end(arguments);
    }
    struct tally_buffer document;
    tally_buffer_init(&document, 8192);
    append_problem(&document, status, detail != NULL ? text : NULL);
    if (document.failed)
        tally_buffer_clear(&document);
    int http_status = tally_status_http(status);
    if (http_status == 503 && tally_status_retryable(status) && !exchange->retry_after)
        tally_http_answer_header(exchange, "Retry-After", "1");
    tally_http_answer(exchange, http_status, "application/problem+json", document.data,
                      document.length);
    tally_buffer_release(&document);
}
