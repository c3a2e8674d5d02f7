#include "http/client.h"

#include "http/address.h"
#include "http/client_answer.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 16384,
    MAX_REQUEST_BYTES = 16 * 1024 * 1024,
    DEFAULT_BODY_BYTES = 16 * 1024 * 1024,
    DEFAULT_TIMEOUT_MS = 30000,
};

enum client_state {
    CLIENT_CLOSED,
    CLIENT_CONNECTING,
    CLIENT_OPEN, /* idle where `answered` is NULL, else a request is in flight */
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
    tally_http_client_answer_release(&client->answer);
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
    client->answer.status = status;
    if (text != client->answer.error.text)
        (void)tally_fail(&client->answer.error, status, "%s", text);
    client->answer.http_status = 0;
    deliver(client);
}

/*
 * Reading and writing.
 */

static void finish(struct tally_http_client *client, bool bytes_left)
{
    struct tally_http_client_answer *answer = &client->answer;
    if (!answer->keep_alive || bytes_left || client->output_sent < client->output.length)
        disconnect(client);
    answer->status = TALLY_OK;
    deliver(client);
}

static void parse(struct tally_http_client *client, const char *bytes, size_t length)
{
    struct tally_http_client_answer *answer = &client->answer;
    size_t used = 0;
    enum tally_status status = tally_http_client_answer_parse(answer, bytes, length, &used);
    if (status != TALLY_OK)
        fail(client, status, answer->error.text);
    else if (answer->complete)
        finish(client, used < length);
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
        if (tally_http_client_answer_end(&client->answer))
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
    fail(client, client->answer.error.status, client->answer.error.text);
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
                                    .tv_usec = (timeout_ms % 1000) * 1000L};
    if (event_add(&client->timeout, &timeout) != 0)
        return tally_fail(error, TALLY_NO_MEMORY, "HTTP request");
    tally_http_client_answer_begin(&client->answer, strcmp(request->method, "HEAD") == 0);
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
 * Making and freeing.
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
    tally_http_client_answer_init(&client->answer, max_body_bytes);
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
