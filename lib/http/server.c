#include "core/clock.h"
#include "http/address.h"
#include "http/internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

enum {
    ACCEPTS_A_TURN = 64, /* so that a burst of connections does not starve requests */
    ACCEPT_RETRY_US = 100000,
    MIN_SWEEP_US = 5000,
    MAX_SWEEP_US = 1000000,
};

static void set_default(int *value, int fallback)
{
    if (*value <= 0)
        *value = fallback;
}

static void set_default_size(size_t *value, size_t fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void apply_defaults(struct tally_http_server_options *options)
{
    set_default(&options->backlog, 1024);
    set_default(&options->head_timeout_ms, 10000);
    set_default(&options->body_timeout_ms, 30000);
    set_default(&options->idle_timeout_ms, 60000);
    set_default(&options->write_timeout_ms, 30000);
    set_default(&options->linger_timeout_ms, 2000);
    set_default_size(&options->max_connections, 10000);
    set_default_size(&options->head_bytes, 16384);
    set_default_size(&options->body_bytes, 65536);
    set_default_size(&options->answer_bytes, (size_t)16 * 1024 * 1024);
    set_default_size(&options->arena_bytes, (size_t)1024 * 1024);
    if (options->head_bytes > 65536)
        options->head_bytes = 65536;
}

const char *tally_http_date(struct tally_http_server *server)
{
    time_t now = (time_t)(tally_clock_wall_us() / 1000000);
    if (now != server->date_second) {
        struct tm parts;
        if (gmtime_r(&now, &parts) != NULL)
            (void)strftime(server->date, sizeof server->date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        server->date_second = now;
    }
    return server->date;
}

/*
 * Accepting.
 */

/* Room beyond max_connections for those that are told so with a 503. */
static size_t refusal_room(const struct tally_http_server *server)
{
    return server->options.max_connections / 8 + 16;
}

static void pause_accepting(struct tally_http_server *server)
{
    (void)event_del(&server->accept_event);
}

/* Without memory for the timer it goes on at once: to stop for good would be worse. */
static void retry_later(struct tally_http_server *server)
{
    const struct timeval pause = {.tv_usec = ACCEPT_RETRY_US};
    if (event_add(&server->accept_retry, &pause) == 0)
        pause_accepting(server);
}

static void resume_accepting(struct tally_http_server *server)
{
    if (server->fd >= 0 && event_add(&server->accept_event, NULL) != 0)
        event_active(&server->accept_retry, EV_TIMEOUT, 0);
}

/* Is this failure the waiting connection's own, so that the next one may be taken? */
static bool connection_failure(int code)
{
    static const int codes[] = {EINTR,     ECONNABORTED, EPROTO,       ENETDOWN,   ENOPROTOOPT,
                                EHOSTDOWN, ENONET,       EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (code == codes[i])
            return true;
    }
    return false;
}

/* False where nothing more can be taken now. */
static bool accept_one(struct tally_http_server *server)
{
    size_t bound = server->options.max_connections;
    if (server->open_count >= bound + refusal_room(server)) {
        server->accept_paused = true;
        pause_accepting(server);
        return false;
    }
    int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN)
            return false;
        if (connection_failure(errno))
            return true;
        retry_later(server);
        return false;
    }
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct tally_http_connection *connection =
        tally_http_connection_new(server, fd, server->open_count >= bound);
    if (connection == NULL) {
        retry_later(server);
        return false;
    }
    DL_APPEND(server->open, connection);
    server->open_count++;
    return true;
}

static void on_acceptable(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        if (!accept_one(context))
            return;
    }
}

static void on_accept_retry(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    resume_accepting(context);
}

static void close_listener(struct tally_http_server *server)
{
    if (server->fd < 0)
        return;
    (void)event_del(&server->accept_event);
    (void)event_del(&server->accept_retry);
    (void)close(server->fd);
    server->fd = -1;
}

/*
 * Ending connections.
 */

static void schedule_reap(struct tally_http_server *server)
{
    event_active(&server->reap, EV_TIMEOUT, 1);
}

void tally_http_server_closed(struct tally_http_server *server,
                              struct tally_http_connection *connection)
{
    DL_DELETE(server->open, connection);
    DL_APPEND(server->closed, connection);
    server->open_count--;
    if (!connection->exchange.answered)
        server->pending_count++;
    schedule_reap(server);
    if (server->accept_paused && server->fd >= 0) {
        server->accept_paused = false;
        resume_accepting(server);
    }
}

void tally_http_server_settled(struct tally_http_server *server)
{
    server->pending_count--;
    schedule_reap(server);
}

static bool drain_ends(const struct tally_http_server *server)
{
    return server->draining && server->drained != NULL && server->open_count == 0 &&
           (server->pending_count == 0 || tally_clock_monotonic_us() >= server->drain_deadline_us);
}

/* Runs after the callbacks of a turn, when nobody holds a closed connection any more. */
static void on_reap(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct tally_http_server *server = context;
    struct tally_http_connection *connection;
    struct tally_http_connection *next;
    DL_FOREACH_SAFE (server->closed, connection, next) {
        if (!connection->exchange.answered || connection->advancing)
            continue;
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): a list with a member has a head */
        DL_DELETE(server->closed, connection);
        tally_http_connection_free(connection);
    }
    if (drain_ends(server)) {
        tally_http_drained *drained = server->drained;
        server->drained = NULL;
        drained(server->drained_context); /* may free the server */
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct tally_http_server *server = context;
    struct tally_http_connection *connection;
    struct tally_http_connection *next;
    int64_t now_us = tally_clock_monotonic_us();
    bool cut = server->draining && now_us >= server->drain_deadline_us;
    DL_FOREACH_SAFE (server->open, connection, next) {
        if (cut)
            tally_http_connection_close(connection);
        else
            tally_http_connection_expire(connection, now_us);
    }
    if (cut)
        schedule_reap(server);
}

/* All deadlines are looked at together, four times within the shortest: one timer for the server
 * instead of one to be moved with every request. */
static bool start_sweep(struct tally_http_server *server, int shortest_ms)
{
    int64_t pause_us = (int64_t)shortest_ms * 1000 / 4;
    pause_us = pause_us < MIN_SWEEP_US ? MIN_SWEEP_US : pause_us;
    pause_us = pause_us > MAX_SWEEP_US ? MAX_SWEEP_US : pause_us;
    const struct timeval pause = {.tv_sec = pause_us / 1000000, .tv_usec = pause_us % 1000000};
    return event_add(&server->sweep, &pause) == 0;
}

static int shortest_timeout_ms(const struct tally_http_server_options *options)
{
    const int timeouts_ms[] = {options->head_timeout_ms, options->body_timeout_ms,
                               options->idle_timeout_ms, options->write_timeout_ms,
                               options->linger_timeout_ms};
    int shortest_ms = timeouts_ms[0];
    for (size_t i = 1; i < sizeof timeouts_ms / sizeof timeouts_ms[0]; i++)
        shortest_ms = timeouts_ms[i] < shortest_ms ? timeouts_ms[i] : shortest_ms;
    return shortest_ms;
}

void tally_http_server_drain(struct tally_http_server *server, int deadline_ms,
                             tally_http_drained *done, void *context)
{
    if (server->draining)
        abort();
    int64_t now_us = tally_clock_monotonic_us();
    server->draining = true;
    server->drained = done;
    server->drained_context = context;
    server->drain_deadline_us = now_us + (int64_t)deadline_ms * 1000;
    /* Closing a listener resets the connections that wait in its backlog. */
    while (server->fd >= 0 && accept_one(server))
        ;
    close_listener(server);
    struct tally_http_connection *connection;
    struct tally_http_connection *next;
    DL_FOREACH_SAFE (server->open, connection, next)
        tally_http_connection_drain(connection, now_us);
    (void)start_sweep(server, deadline_ms > 0 && deadline_ms < 200 ? deadline_ms : 200);
    schedule_reap(server);
}

/*
 * Making and freeing.
 */

/* At once, or when the time is over. */
static int begin_accepting(struct tally_http_server *server)
{
    const int after_ms = server->options.accept_after_ms;
    const struct timeval pause = {after_ms / 1000, after_ms % 1000 * 1000L};
    return after_ms > 0 ? event_add(&server->accept_retry, &pause)
                        : event_add(&server->accept_event, NULL);
}

void tally_http_server_accept(struct tally_http_server *server)
{
    if (server->fd >= 0 && evtimer_pending(&server->accept_retry, NULL))
        event_active(&server->accept_retry, EV_TIMEOUT, 0);
}

static enum tally_status listen_on(struct tally_http_server *server, struct tally_error *error)
{
    const char *listen_text = server->options.listen;
    struct sockaddr_storage address;
    socklen_t length = 0;
    enum tally_status status = tally_http_resolve(listen_text, true, &address, &length, error);
    if (status != TALLY_OK)
        return status;
    server->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    if (server->fd < 0 || setsockopt(server->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        (server->options.reuse_port &&
         setsockopt(server->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) ||
        bind(server->fd, (const struct sockaddr *)&address, length) != 0 ||
        listen(server->fd, server->options.backlog) != 0 ||
        getsockname(server->fd, (struct sockaddr *)&address, &length) != 0)
        return tally_fail(error, TALLY_IO, "listen on %s: %s", listen_text, strerror(errno));
    server->port =
        ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                            : ((struct sockaddr_in *)&address)->sin_port);
    return TALLY_OK;
}

static enum tally_status add_events(struct tally_http_server *server, struct tally_error *error)
{
    struct event_base *base = server->base;
    if (event_assign(&server->accept_event, base, server->fd, EV_READ | EV_PERSIST, on_acceptable,
                     server) != 0 ||
        event_assign(&server->accept_retry, base, -1, 0, on_accept_retry, server) != 0 ||
        event_assign(&server->sweep, base, -1, EV_PERSIST, on_sweep, server) != 0 ||
        event_assign(&server->reap, base, -1, 0, on_reap, server) != 0 ||
        begin_accepting(server) != 0 || !start_sweep(server, shortest_timeout_ms(&server->options)))
        return tally_fail(error, TALLY_NO_MEMORY, "events of the HTTP server");
    return TALLY_OK;
}

enum tally_status tally_http_server_new(struct event_base *base,
                                        const struct tally_http_server_options *options,
                                        const struct tally_http_route *routes, size_t route_count,
                                        void *context, struct tally_http_server **out,
                                        struct tally_error *error)
{
    struct tally_http_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "HTTP server");
    server->base = base;
    server->options = *options;
    server->context = context;
    server->fd = -1;
    apply_defaults(&server->options);
    enum tally_status status = tally_http_router_new(routes, route_count, &server->router, error);
    if (status == TALLY_OK)
        status = listen_on(server, error);
    if (status == TALLY_OK)
        status = add_events(server, error);
    if (status != TALLY_OK) {
        tally_http_server_free(&server);
        return status;
    }
    server->options.listen = NULL; /* borrowed for this call only */
    *out = server;
    return TALLY_OK;
}

uint16_t tally_http_server_port(const struct tally_http_server *server)
{
    return server->port;
}

size_t tally_http_server_connections(const struct tally_http_server *server)
{
    return server->open_count;
}

static void delete_event(struct event *event)
{
    if (event_initialized(event))
        (void)event_del(event);
}

void tally_http_server_free(struct tally_http_server **server_pointer)
{
    struct tally_http_server *server = *server_pointer;
    if (server == NULL)
        return;
    struct tally_http_connection *connection;
    struct tally_http_connection *next;
    DL_FOREACH_SAFE (server->open, connection, next)
        tally_http_connection_close(connection);
    DL_FOREACH_SAFE (server->closed, connection, next)
        tally_http_connection_free(connection);
    delete_event(&server->accept_event);
    delete_event(&server->accept_retry);
    delete_event(&server->sweep);
    delete_event(&server->reap);
    if (server->fd >= 0)
        (void)close(server->fd);
    tally_http_router_free(&server->router);
    free(server);
    *server_pointer = NULL;
}
