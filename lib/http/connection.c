#include "core/clock.h"
#include "http/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    KEPT_INPUT_BYTES = 8192, /* a larger buffer goes back when a connection is idle */
    MAX_LINGER_BYTES = 262144,
    DRAIN_GRACE_US = 1000000,
};

/* How long a connection may stay in a state, in milliseconds; 0: as long as it likes. WRITING has
 * `write_due_us`, which also runs while later requests are read. */
static int state_timeout_ms(const struct tally_http_connection *connection)
{
    const struct tally_http_server_options *options = &connection->server->options;
    switch (connection->state) {
    case TALLY_HTTP_READING_HEAD:
        return connection->input.length > 0 ? options->head_timeout_ms : options->idle_timeout_ms;
    case TALLY_HTTP_READING_BODY:
        return options->body_timeout_ms;
    case TALLY_HTTP_LINGERING:
        return options->linger_timeout_ms;
    case TALLY_HTTP_HANDLING:
    case TALLY_HTTP_WRITING:
    case TALLY_HTTP_CLOSED:
        break;
    }
    return 0;
}

/* The one place where a connection changes its state. */
static void move_to(struct tally_http_connection *connection, enum tally_http_state state,
                    int64_t now_us)
{
    connection->state = state;
    int timeout_ms = state_timeout_ms(connection);
    connection->deadline_us = timeout_ms > 0 ? now_us + (int64_t)timeout_ms * 1000 : 0;
}

void tally_http_connection_close(struct tally_http_connection *connection)
{
    if (connection->state == TALLY_HTTP_CLOSED)
        return;
    bool due = connection->state == TALLY_HTTP_HANDLING && connection->exchange.called &&
               !connection->exchange.answered;
    (void)event_del(&connection->read_event);
    (void)event_del(&connection->write_event);
    (void)close(connection->fd);
    connection->fd = -1;
    move_to(connection, TALLY_HTTP_CLOSED, 0);
    /* What is not due is ended here, so that the reaper can tell the two apart. */
    if (!due)
        connection->exchange.answered = true;
    tally_http_server_closed(connection->server, connection);
}

/* Answers for the layer, whatever the state, and ends the connection where the request's own
 * keep-alive does not allow more. */
static void answer_status(struct tally_http_connection *connection, enum tally_status status,
                          const char *why)
{
    move_to(connection, TALLY_HTTP_HANDLING, 0);
    connection->exchange.called = true;
    if (why != NULL)
        tally_http_answer_problem(&connection->exchange, status, "%s", why);
    else
        tally_http_answer_problem(&connection->exchange, status, NULL);
}

static void reject(struct tally_http_connection *connection, enum tally_status status,
                   const char *why)
{
    connection->exchange.request.keep_alive = false;
    answer_status(connection, status, why);
}

/*
 * Steps: each does what its state can do now. True: go on with the (perhaps new) state; false:
 * wait.
 */

/* True where all output is gone; else no request is begun until it is. */
static bool flush_or_wait(struct tally_http_connection *connection)
{
    if (!tally_http_output_waits(connection) || tally_http_flush(connection))
        return true;
    if (connection->state != TALLY_HTTP_CLOSED)
        move_to(connection, TALLY_HTTP_WRITING, 0);
    return false;
}

/* No more of a request can be read now. */
static bool wait_for_head(struct tally_http_connection *connection)
{
    if (!flush_or_wait(connection))
        return false;
    struct tally_http_input *input = &connection->input;
    bool drained = connection->server->draining && connection->requests > 0 && input->length == 0;
    if (connection->peer_finished || drained) {
        tally_http_connection_close(connection);
        return false;
    }
    if (input->length == 0 && input->capacity > KEPT_INPUT_BYTES) {
        free(input->data);
        *input = (struct tally_http_input){0};
    }
    return false;
}

/* From a complete head to its body, its handler or its answer. */
static void begin_request(struct tally_http_connection *connection)
{
    struct tally_http_exchange *exchange = &connection->exchange;
    struct tally_http_request *request = &exchange->request;
    const char *why = NULL;
    bool options = false;
    connection->requests++;
    enum tally_status status = tally_http_request_accept(connection, &options, &why);
    if (connection->refused) {
        reject(connection, TALLY_OVERLOADED, "too many connections");
        return;
    }
    if (status != TALLY_OK) {
        answer_status(connection, status, why);
        return;
    }
    if (options) {
        move_to(connection, TALLY_HTTP_HANDLING, 0);
        exchange->called = true;
        tally_http_answer(exchange, 204, NULL, NULL, 0);
        return;
    }
    if (request->complete) {
        move_to(connection, TALLY_HTTP_HANDLING, 0);
        return;
    }
    connection->chunk_scan = (struct tally_http_chunk_scan){0};
    if (!tally_http_grow_input(&connection->input,
                               connection->input.head_length + TALLY_HTTP_BODY_READ_BYTES)) {
        reject(connection, TALLY_NO_MEMORY, NULL);
        return;
    }
    move_to(connection, TALLY_HTTP_READING_BODY, tally_clock_monotonic_us());
    if (request->expects_continue && connection->input.length == connection->input.head_length)
        tally_buffer_append_text(&connection->output, "HTTP/1.1 100 Continue\r\n\r\n");
}

static bool step_reading_head(struct tally_http_connection *connection)
{
    struct tally_http_input *input = &connection->input;
    const char *why = NULL;
    size_t head_length = 0;
    if (connection->output.length > TALLY_HTTP_GATHER_BYTES && !flush_or_wait(connection))
        return false;
    if (input->length == 0)
        return wait_for_head(connection);
    enum tally_status status =
        tally_http_head_scan(&connection->head_scan, input->data, input->length,
                             connection->server->options.head_bytes, &head_length, &why);
    if (status != TALLY_OK) {
        connection->requests++;
        reject(connection, status, why);
        return true;
    }
    if (head_length == 0)
        return wait_for_head(connection);
    input->head_length = head_length;
    begin_request(connection);
    return true;
}

static bool step_reading_body(struct tally_http_connection *connection)
{
    const char *why = NULL;
    enum tally_status status = tally_http_parse_body(connection, &why);
    if (status != TALLY_OK) {
        reject(connection, status, why);
        return true;
    }
    if (connection->exchange.request.complete) {
        move_to(connection, TALLY_HTTP_HANDLING, 0);
        return true;
    }
    if (tally_http_output_waits(connection) && !tally_http_flush(connection) &&
        connection->state == TALLY_HTTP_CLOSED)
        return false;
    if (connection->peer_finished)
        tally_http_connection_close(connection);
    return false;
}

/* The bytes behind the answered request become the start of the next one. */
static void end_request(struct tally_http_connection *connection)
{
    struct tally_http_input *input = &connection->input;
    tally_http_exchange_end(&connection->exchange);
    if (input->head_length > 0) {
        memmove(input->data, input->data + input->head_length, input->length - input->head_length);
        input->length -= input->head_length;
        input->head_length = 0;
    }
    connection->head_scan = (struct tally_http_head_scan){0};
    int64_t now_us = tally_clock_monotonic_us();
    tally_http_exchange_begin(&connection->exchange, now_us);
    move_to(connection, connection->close_after ? TALLY_HTTP_WRITING : TALLY_HTTP_READING_HEAD,
            now_us);
}

static bool step_handling(struct tally_http_connection *connection)
{
    struct tally_http_exchange *exchange = &connection->exchange;
    if (!exchange->called) {
        exchange->called = true;
        exchange->route->route->handler(exchange, connection->server->context);
    }
    if (connection->state == TALLY_HTTP_CLOSED)
        return false;
    if (exchange->answered) {
        end_request(connection);
        return true;
    }
    /* Earlier answers must not wait for this one. */
    if (tally_http_output_waits(connection))
        (void)tally_http_flush(connection);
    return false;
}

static bool step_writing(struct tally_http_connection *connection)
{
    if (tally_http_output_waits(connection) && !tally_http_flush(connection))
        return false;
    int64_t now_us = tally_clock_monotonic_us();
    if (!connection->close_after) {
        connection->exchange.received_us = now_us;
        move_to(connection, TALLY_HTTP_READING_HEAD, now_us);
        return true;
    }
    if (connection->peer_finished || shutdown(connection->fd, SHUT_WR) != 0) {
        tally_http_connection_close(connection);
        return false;
    }
    connection->input.length = 0;
    move_to(connection, TALLY_HTTP_LINGERING, now_us);
    return false;
}

/* Closing with unread bytes would reset the connection and could take the answer away from the
 * client (RFC 9112 section 9.6). */
static bool step_lingering(struct tally_http_connection *connection)
{
    connection->lingered += connection->input.length;
    connection->input.length = 0;
    if (connection->peer_finished || connection->lingered > MAX_LINGER_BYTES)
        tally_http_connection_close(connection);
    return false;
}

static bool step_closed(struct tally_http_connection *connection)
{
    (void)connection;
    return false;
}

void tally_http_connection_advance(struct tally_http_connection *connection)
{
    static bool (*const steps[])(struct tally_http_connection *) = {
        [TALLY_HTTP_READING_HEAD] = step_reading_head,
        [TALLY_HTTP_READING_BODY] = step_reading_body,
        [TALLY_HTTP_HANDLING] = step_handling,
        [TALLY_HTTP_WRITING] = step_writing,
        [TALLY_HTTP_LINGERING] = step_lingering,
        [TALLY_HTTP_CLOSED] = step_closed,
    };
    if (connection->advancing)
        return;
    connection->advancing = true;
    while (steps[connection->state](connection))
        ;
    connection->advancing = false;
    if (tally_http_wants_bytes(connection->state) && !connection->peer_finished)
        tally_http_set_reading(connection, true);
}

/*
 * Events.
 */

/* Reads once; the first byte of a request starts its clock. False where nothing came. */
static bool take_bytes(struct tally_http_connection *connection)
{
    bool idle = connection->state == TALLY_HTTP_READING_HEAD && connection->input.length == 0;
    if (!tally_http_receive(connection))
        return false;
    if (idle && connection->input.length > 0) {
        connection->exchange.received_us = tally_clock_monotonic_us();
        move_to(connection, TALLY_HTTP_READING_HEAD, connection->exchange.received_us);
    }
    return true;
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct tally_http_connection *connection = context;
    if (take_bytes(connection))
        tally_http_connection_advance(connection);
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct tally_http_connection *connection = context;
    if (connection->state == TALLY_HTTP_WRITING)
        tally_http_connection_advance(connection);
    else
        (void)tally_http_flush(connection);
}

/* A client that does not read is cut with a reset, so that the kernel drops its data at once. */
static void reset(struct tally_http_connection *connection)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    tally_http_connection_close(connection);
}

void tally_http_connection_expire(struct tally_http_connection *connection, int64_t now_us)
{
    if (connection->write_due_us != 0 && now_us >= connection->write_due_us) {
        reset(connection);
        return;
    }
    if (connection->deadline_us == 0 || now_us < connection->deadline_us)
        return;
    bool begun = connection->state == TALLY_HTTP_READING_BODY ||
                 (connection->state == TALLY_HTTP_READING_HEAD && connection->input.length > 0);
    if (!begun) {
        tally_http_connection_close(connection);
        return;
    }
    reject(connection, TALLY_REQUEST_TIMEOUT, NULL);
}

void tally_http_connection_drain(struct tally_http_connection *connection, int64_t now_us)
{
    if (connection->state != TALLY_HTTP_READING_HEAD)
        return;
    /* A request may have arrived since the last look; it is answered, not lost. */
    if (take_bytes(connection))
        tally_http_connection_advance(connection);
    if (connection->state != TALLY_HTTP_READING_HEAD || connection->input.length > 0)
        return;
    if (connection->peer_finished) {
        tally_http_connection_close(connection);
        return;
    }
    /* A request may be on its way: it would be lost if the connection were closed now, and its
     * answer tells the client to send no more. */
    int64_t grace_us = (connection->server->drain_deadline_us - now_us) / 2;
    if (grace_us > DRAIN_GRACE_US)
        grace_us = DRAIN_GRACE_US;
    if (connection->deadline_us == 0 || connection->deadline_us > now_us + grace_us)
        connection->deadline_us = now_us + grace_us;
}

struct tally_http_connection *tally_http_connection_new(struct tally_http_server *server, int fd,
                                                        bool refused)
{
    struct tally_http_connection *connection = malloc(sizeof *connection);
    if (connection == NULL) {
        (void)close(fd);
        return NULL;
    }
    const struct tally_http_server_options *options = &server->options;
    memset(connection, 0, offsetof(struct tally_http_connection, exchange));
    connection->server = server;
    connection->fd = fd;
    connection->refused = refused;
    struct tally_http_exchange *exchange = &connection->exchange;
    exchange->connection = connection;
    tally_arena_init(&exchange->arena, options->arena_bytes);
    tally_buffer_init(&exchange->body, options->body_bytes + 1);
    tally_buffer_init(&exchange->headers, 8192);
    tally_buffer_init(&connection->output, options->answer_bytes + options->head_bytes +
                                               (size_t)4 * TALLY_HTTP_GATHER_BYTES);
    int64_t now_us = tally_clock_monotonic_us();
    tally_http_exchange_begin(exchange, now_us);
    move_to(connection, TALLY_HTTP_READING_HEAD, now_us);
    if (event_assign(&connection->read_event, server->base, fd, EV_READ | EV_PERSIST, on_readable,
                     connection) != 0 ||
        event_assign(&connection->write_event, server->base, fd, EV_WRITE | EV_PERSIST, on_writable,
                     connection) != 0 ||
        event_add(&connection->read_event, NULL) != 0) {
        (void)close(fd);
        free(connection);
        return NULL;
    }
    connection->reading = true;
    return connection;
}

void tally_http_connection_free(struct tally_http_connection *connection)
{
    struct tally_http_exchange *exchange = &connection->exchange;
    tally_arena_release(&exchange->arena);
    tally_buffer_release(&exchange->body);
    tally_buffer_release(&exchange->headers);
    tally_buffer_release(&connection->output);
    free(connection->input.data);
    free(connection);
}
