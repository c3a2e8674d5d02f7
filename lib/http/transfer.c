#include "core/clock.h"
#include "http/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { FIRST_INPUT_BYTES = 4096 };

void tally_http_set_reading(struct tally_http_connection *connection, bool on)
{
    if (connection->reading == on)
        return;
    connection->reading = on;
    if ((on ? event_add(&connection->read_event, NULL) : event_del(&connection->read_event)) != 0)
        tally_http_connection_close(connection);
}

static void set_writing(struct tally_http_connection *connection, bool on)
{
    if (connection->writing == on)
        return;
    connection->writing = on;
    if ((on ? event_add(&connection->write_event, NULL) : event_del(&connection->write_event)) != 0)
        tally_http_connection_close(connection);
}

bool tally_http_flush(struct tally_http_connection *connection)
{
    struct tally_buffer *output = &connection->output;
    while (connection->output_sent < output->length) {
        ssize_t sent = send(connection->fd, output->data + connection->output_sent,
                            output->length - connection->output_sent, MSG_NOSIGNAL);
        if (sent >= 0) {
            connection->output_sent += (size_t)sent;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN) {
            tally_http_connection_close(connection);
            return false;
        }
        if (connection->write_due_us == 0)
            connection->write_due_us = tally_clock_monotonic_us() +
                                       (int64_t)connection->server->options.write_timeout_ms * 1000;
        set_writing(connection, true);
        return false;
    }
    connection->output_sent = 0;
    connection->write_due_us = 0;
    if (output->capacity > TALLY_HTTP_GATHER_BYTES)
        tally_buffer_release(output);
    else
        tally_buffer_clear(output);
    set_writing(connection, false);
    return connection->state != TALLY_HTTP_CLOSED;
}

bool tally_http_output_waits(const struct tally_http_connection *connection)
{
    return connection->output.length > 0;
}

bool tally_http_grow_input(struct tally_http_input *input, size_t capacity)
{
    if (input->capacity >= capacity)
        return true;
    char *data = realloc(input->data, capacity);
    if (data == NULL)
        return false;
    input->data = data;
    input->capacity = capacity;
    return true;
}

bool tally_http_wants_bytes(enum tally_http_state state)
{
    static const bool reads[] = {
#define X(name, reads) [TALLY_HTTP_##name] = (reads),
        TALLY_HTTP_STATES(X)
#undef X
    };
    return reads[state];
}

bool tally_http_receive(struct tally_http_connection *connection)
{
    struct tally_http_input *input = &connection->input;
    const struct tally_http_server_options *options = &connection->server->options;
    bool may_grow = tally_http_wants_bytes(connection->state);
    size_t capacity = input->capacity;
    if (may_grow && input->length == input->capacity) {
        capacity = capacity > 0 ? capacity * 2 : FIRST_INPUT_BYTES;
        size_t limit = options->head_bytes + TALLY_HTTP_BODY_READ_BYTES;
        if (capacity > limit)
            capacity = limit;
    }
    if (!tally_http_grow_input(input, capacity)) {
        tally_http_connection_close(connection);
        return false;
    }
    if (input->length == input->capacity) {
        tally_http_set_reading(connection, false);
        return false;
    }
    ssize_t got = recv(connection->fd, input->data + input->length, input->capacity - input->length,
                       MSG_DONTWAIT);
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR)
            tally_http_connection_close(connection);
        return false;
    }
    if (got == 0) {
        connection->peer_finished = true;
        tally_http_set_reading(connection, false);
        return true;
    }
    input->length += (size_t)got;
    return true;
}
