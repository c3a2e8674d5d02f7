#include "http/client.h"

#include "core/buffer.h"
#include "http/address.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <llhttp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 16384,
    MAX_HEAD_BYTES = 65536,
    MAX_REQUEST_BYTES = 16 * 1024 * 1024,
    DEFAULT_BODY_BYTES = 16 * 1024 * 1024,
    DEFAULT_TIMEOUT_MS = 30000,
    KEPT_BODY_BYTES = 65536,
};

enum client_state {
    CLIENT_CLOSED,
    CLIENT_CONNECTING,
    CLIENT_OPEN, /* idle where `answered` is NULL, else a request is in flight */
};

struct tally_http_client_answer {
    enum tally_status status;
    int http_status;
    bool keep_alive;
    bool complete;
    bool head_request;          /* its answer has no body, whatever its headers say */
    struct tally_buffer fields; /* "name\0value\0" for each */
    struct tally_buffer body;
    struct tally_error error;
};

struct tally_http_client {
    struct event_base *base;
    char *authority; /* for Host */
    struct sockaddr_storage address;
    socklen_t address_length;
    enum client_state state;
    int fd;
    struct event read_event;
    struct event write_event;
    struct event timeout;
    struct event deferred; /* brings a failure of the start to the loop */
    llhttp_t parser;
    struct tally_buffer output;
    size_t output_sent;
    struct tally_http_client_answer answer;
    tally_http_client_answered *answered; /* NULL: nothing in flight */
    void *context;
    /* Set while the callback runs: a client that is freed there goes when it returns. */
    bool calling;
    bool freed;
};

/*
 * Ending.
 */

static void disconnect(struct tally_http_client *client)
{
    if (client->state == CLIENT_CLOSED)
        return;
    (void)event_del(&client->read_event);
    (void)event_del(&client->write_event);
    (void)close(client->fd);
    client->fd = -1;
    client->state = CLIENT_CLOSED;
}

static void destroy(struct tally_http_client *client)
{
    tally_buffer_release(&client->output);
    tally_buffer_release(&client->answer.fields);
    tally_buffer_release(&client->answer.body);
    free(client->authority);
    free(client);
}

/* Calls back. The client may be gone afterwards. */
static void deliver(struct tally_http_client *client)
{
    tally_http_client_answered *answered = client->answered;
    client->answered = NULL;
    (void)event_del(&client->timeout);
    (void)event_del(&client->deferred);
    client->calling = true;
    answered(&client->answer, client->context);
    client->calling = false;
    if (client->freed)
        destroy(client);
}

static void fail(struct tally_http_client *client, enum tally_status status, const char *text)
{
    disconnect(client);
    if (client->answered == NULL)
        return;
    client->answer.status = tally_fail(&client->answer.error, status, "%s", text);
    client->answer.http_status = 0;
    deliver(client);
}

/*
 * llhttp's callbacks.
 */

static struct tally_http_client_answer *answer_of(llhttp_t *parser)
{
    return parser->data;
}

static int on_text(llhttp_t *parser, const char *at, size_t length)
{
    tally_buffer_append(&answer_of(parser)->fields, at, length);
    return 0;
}

static int on_text_complete(llhttp_t *parser)
{
    tally_buffer_append_char(&answer_of(parser)->fields, '\0');
    return answer_of(parser)->fields.failed ? -1 : 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct tally_http_client_answer *answer = answer_of(parser);
    answer->http_status = parser->status_code;
    if (parser->status_code == 101)
        return -1;
    return answer->head_request ? 1 : 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t length)
{
    struct tally_buffer *body = &answer_of(parser)->body;
    if (length >= body->limit - body->length) /* one byte is the terminator's */
        body->failed = true;
    tally_buffer_append(body, at, length);
    return body->failed ? -1 : 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct tally_http_client_answer *answer = answer_of(parser);
    if (parser->status_code < 200) { /* interim (RFC 9110 section 15.2): the answer follows */
        tally_buffer_clear(&answer->fields);
        return 0;
    }
    answer->keep_alive = llhttp_should_keep_alive(parser) != 0;
    answer->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_text,
    .on_header_field_complete = on_text_complete,
    .on_header_value = on_text,
    .on_header_value_complete = on_text_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/*
 * Reading and writing.
 */

static void finish(struct tally_http_client *client, bool bytes_left)
{
    struct tally_http_client_answer *answer = &client->answer;
    char *end = tally_buffer_reserve(&answer->body, 1);
    if (end == NULL) {
        fail(client, TALLY_NO_MEMORY, "the answer's body");
        return;
    }
    *end = '\0';
    if (!answer->keep_alive || bytes_left || client->output_sent < client->output.length)
        disconnect(client);
    answer->status = TALLY_OK;
    deliver(client);
}

static void parse(struct tally_http_client *client, const char *bytes, size_t length)
{
    struct tally_http_client_answer *answer = &client->answer;
    enum llhttp_errno code = llhttp_execute(&client->parser, bytes, length);
    if (answer->complete) {
        const char *position = llhttp_get_error_pos(&client->parser);
        finish(client, code == HPE_PAUSED && position != NULL && position < bytes + length);
        return;
    }
    if (code == HPE_OK)
        return;
    if (answer->body.failed)
        fail(client, TALLY_BODY_TOO_LARGE, "the answer's body is too large");
    else
        fail(client, TALLY_PROTOCOL, "the server sent no valid HTTP answer");
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    struct tally_http_client *client = context;
    char bytes[READ_BYTES];
    ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < 0) {
        fail(client, TALLY_IO, strerror(errno));
    } else if (client->answered == NULL) {
        disconnect(client); /* an idle connection has nothing to say but its end */
    } else if (got > 0) {
        parse(client, bytes, (size_t)got);
    } else {
        /* An answer without a length ends with the connection. */
        (void)llhttp_finish(&client->parser);
        if (client->answer.complete)
            finish(client, true);
        else
            fail(client, TALLY_IO, "the server closed the connection");
    }
}

static void defer_failure(struct tally_http_client *client, enum tally_status status,
                          const char *text)
{
    (void)tally_fail(&client->answer.error, status, "%s", text);
    disconnect(client);
    event_active(&client->deferred, EV_TIMEOUT, 1);
}

/* A connection that breaks here is left to on_readable(): the server may have answered before it
 * closed. False where no event could be had. */
static bool flush(struct tally_http_client *client)
{
    struct tally_buffer *output = &client->output;
    while (client->output_sent < output->length) {
        ssize_t sent = send(client->fd, output->data + client->output_sent,
                            output->length - client->output_sent, MSG_NOSIGNAL);
        if (sent >= 0)
            client->output_sent += (size_t)sent;
        else if (errno == EAGAIN)
            return event_add(&client->write_event, NULL) == 0;
        else if (errno != EINTR)
            client->output_sent = output->length;
    }
    return true;
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    struct tally_http_client *client = context;
    if (client->state == CLIENT_CONNECTING) {
        int code = 0;
        socklen_t length = sizeof code;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) != 0)
            code = errno;
        if (code != 0) {
            fail(client, TALLY_UNAVAILABLE, strerror(code));
            return;
        }
        client->state = CLIENT_OPEN;
    }
    if (!flush(client))
        fail(client, TALLY_NO_MEMORY, "events of the HTTP client");
}

static void on_timeout(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    fail(context, TALLY_REQUEST_TIMEOUT, "the answer did not come in time");
}

static void on_deferred(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct tally_http_client *client = context;
    char text[TALLY_ERROR_TEXT_BYTES];
    memcpy(text, client->answer.error.text, sizeof text);
    fail(client, client->answer.error.status, text);
}

/*
 * Starting.
 */

static enum tally_status start_connecting(struct tally_http_client *client)
{
    client->fd = socket(client->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        return TALLY_UNAVAILABLE;
    const int on = 1;
    (void)setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    client->state = CLIENT_CONNECTING;
    /* Assigned before anything can fail, since disconnect() deletes both. */
    (void)event_assign(&client->read_event, client->base, client->fd, EV_READ | EV_PERSIST,
                       on_readable, client);
    (void)event_assign(&client->write_event, client->base, client->fd, EV_WRITE, on_writable,
                       client);
    if (event_add(&client->read_event, NULL) != 0 || event_add(&client->write_event, NULL) != 0)
        return TALLY_NO_MEMORY;
    const struct sockaddr *address = (const struct sockaddr *)&client->address;
    if (connect(client->fd, address, client->address_length) != 0 && errno != EINPROGRESS)
        return TALLY_UNAVAILABLE;
    return TALLY_OK;
}

static void compose(struct tally_http_client *client,
                    const struct tally_http_client_request *request)
{
    struct tally_buffer *output = &client->output;
    tally_buffer_clear(output);
    client->output_sent = 0;
    tally_buffer_append_text(output, request->method);
    tally_buffer_append_char(output, ' ');
    tally_buffer_append_text(output, request->target);
    tally_buffer_append_text(output, " HTTP/1.1\r\nHost: ");
    tally_buffer_append_text(output, client->authority);
    tally_buffer_append_text(output, "\r\n");
    if (request->headers != NULL)
        tally_buffer_append_text(output, request->headers);
    if (request->body != NULL) {
        tally_buffer_append_text(output, "Content-Length: ");
        tally_buffer_append_integer(output, (int64_t)request->body_length);
        tally_buffer_append_text(output, "\r\n");
    }
    tally_buffer_append_text(output, "\r\n");
    if (request->body != NULL)
        tally_buffer_append(output, request->body, request->body_length);
}

static void reset_answer(struct tally_http_client *client, bool head_request)
{
    struct tally_http_client_answer *answer = &client->answer;
    tally_buffer_clear(&answer->fields);
    if (answer->body.capacity > KEPT_BODY_BYTES)
        tally_buffer_release(&answer->body);
    else
        tally_buffer_clear(&answer->body);
    answer->error.text[0] = '\0';
    answer->http_status = 0;
    answer->complete = false;
    answer->keep_alive = false;
    answer->head_request = head_request;
    llhttp_init(&client->parser, HTTP_RESPONSE, &settings);
    client->parser.data = answer;
}

enum tally_status tally_http_client_send(struct tally_http_client *client,
                                         const struct tally_http_client_request *request,
                                         tally_http_client_answered *answered, void *context,
                                         struct tally_error *error)
{
    if (client->answered != NULL || client->freed)
        return tally_fail(error, TALLY_INVALID, "a request is in flight");
    compose(client, request);
    if (client->output.failed)
        return tally_fail(error, TALLY_NO_MEMORY, "HTTP request");
    int timeout_ms = request->timeout_ms > 0 ? request->timeout_ms : DEFAULT_TIMEOUT_MS;
    const struct timeval timeout = {.tv_sec = timeout_ms / 1000,
                                    .tv_usec = (timeout_ms % 1000) * 1000};
    if (event_add(&client->timeout, &timeout) != 0)
        return tally_fail(error, TALLY_NO_MEMORY, "HTTP request");
    reset_answer(client, strcmp(request->method, "HEAD") == 0);
    client->answered = answered;
    client->context = context;
    if (client->state == CLIENT_OPEN) {
        if (!flush(client))
            defer_failure(client, TALLY_NO_MEMORY, "events of the HTTP client");
    } else {
        enum tally_status status = start_connecting(client);
        if (status != TALLY_OK)
            defer_failure(client, status, strerror(errno));
    }
    return TALLY_OK;
}

/*
 * Making, freeing, and the answer's accessors.
 */

enum tally_status tally_http_client_new(struct event_base *base, const char *address,
                                        size_t max_body_bytes, struct tally_http_client **out,
                                        struct tally_error *error)
{
    struct tally_http_client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "HTTP client");
    client->base = base;
    client->fd = -1;
    if (max_body_bytes == 0)
        max_body_bytes = DEFAULT_BODY_BYTES;
    tally_buffer_init(&client->output, MAX_REQUEST_BYTES);
    tally_buffer_init(&client->answer.fields, MAX_HEAD_BYTES);
    tally_buffer_init(&client->answer.body, max_body_bytes + 1);
    client->authority = strdup(address);
    enum tally_status status = TALLY_OK;
    if (client->authority == NULL ||
        event_assign(&client->timeout, base, -1, 0, on_timeout, client) != 0 ||
        event_assign(&client->deferred, base, -1, 0, on_deferred, client) != 0)
        status = tally_fail(error, TALLY_NO_MEMORY, "HTTP client");
    if (status == TALLY_OK)
        status =
            tally_http_resolve(address, false, &client->address, &client->address_length, error);
    if (status != TALLY_OK) {
        destroy(client);
        return status;
    }
    *out = client;
    return TALLY_OK;
}

void tally_http_client_free(struct tally_http_client **client_pointer)
{
    struct tally_http_client *client = *client_pointer;
    if (client == NULL)
        return;
    *client_pointer = NULL;
    disconnect(client);
    (void)event_del(&client->timeout);
    (void)event_del(&client->deferred);
    client->answered = NULL;
    client->freed = true;
    if (!client->calling)
        destroy(client);
}

enum tally_status tally_http_client_status(const struct tally_http_client_answer *answer)
{
    return answer->status;
}

const char *tally_http_client_error(const struct tally_http_client_answer *answer)
{
    return answer->error.text;
}

int tally_http_client_http_status(const struct tally_http_client_answer *answer)
{
    return answer->http_status;
}

const char *tally_http_client_header(const struct tally_http_client_answer *answer,
                                     const char *name)
{
    const char *at = answer->fields.data;
    const char *end = at != NULL ? at + answer->fields.length : NULL;
    /* A broken answer may end within a field. */
    while (answer->status == TALLY_OK && at != NULL && at < end) {
        const char *value = at + strlen(at) + 1;
        if (strcasecmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

const char *tally_http_client_body(const struct tally_http_client_answer *answer, size_t *length)
{
    *length = answer->body.length;
    return answer->status == TALLY_OK && answer->body.data != NULL ? answer->body.data : "";
}
