#include "pg/connection.h"

#include "core/clock.h"
#include "core/random.h"
#include "loop/loop.h"
#include "pg/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONNECT_TIMEOUT_MS =
        5000, /* of one attempt, with the preparation; libpq's own is not kept here */
    BACKOFF_FIRST_MS = 50,
    BACKOFF_MOST_MS = 2000,
    STEADY_US = 5000000, /* a connection that lasts so long was no failure */
    STATEMENT_NAME_BYTES = 24,
};

struct tally_pg_connection {
    struct event_base *base;
    struct tally_pg_options options;
    struct tally_pg_parameters parameters;
    enum tally_pg_state state;
    PGconn *session;        /* NULL in DISCONNECTED only */
    struct event *readable; /* on the session's socket; libpq may change it while connecting */
    struct event *writable;
    struct tally_timer *timer; /* back-off, attempt or query, by state */
    struct tally_random random;
    struct tally_backoff backoff;
    unsigned failures; /* attempts to connect, since the last READY */
    struct tally_error error;
    size_t prepared;  /* steps of the preparation that are done; the first is the session's setup */
    PGresult *result; /* first result of the query, or its error */
    tally_pg_callback *callback;
    void *callback_context;
    int64_t asked_us; /* when connecting, or the query, began */
    int64_t heard_us; /* the last bytes from the server */
    int64_t ready_us; /* when it came up */
};

/* The one place where the state moves; the timer belongs to the state. */
static void set_state(struct tally_pg_connection *connection, enum tally_pg_state state,
                      int64_t timer_ms)
{
    connection->state = state;
    if (timer_ms > 0)
        tally_timer_set(connection->timer, timer_ms * 1000);
    else
        tally_timer_cancel(connection->timer);
}

static void tell_change(struct tally_pg_connection *connection)
{
    if (connection->options.on_change != NULL)
        connection->options.on_change(connection, connection->options.context);
}

static void close_session(struct tally_pg_connection *connection)
{
    event_del(connection->readable);
    event_del(connection->writable);
    PQfinish(connection->session);
    connection->session = NULL;
    /* Of a preparation that failed; a query's was handed over before. */
    PQclear(connection->result);
    connection->result = NULL;
}

/* Takes the callback off, so that it cannot come twice, and calls it. */
static void end_query(struct tally_pg_connection *connection, enum tally_pg_end end)
{
    PGresult *result = connection->result;
    tally_pg_callback *callback = connection->callback;
    struct tally_error error = connection->error;
    connection->result = NULL;
    connection->callback = NULL;
    if (end == TALLY_PG_REFUSED)
        tally_pg_fail_result(result, &error);
    if (callback != NULL)
        callback(end, end != TALLY_PG_LOST ? result : NULL, &error, connection->callback_context);
    PQclear(result);
}

/* connection->error says why. */
static void disconnect(struct tally_pg_connection *connection)
{
    bool queried = connection->state == TALLY_PG_BUSY;
    if (connection->state < TALLY_PG_READY)
        connection->failures++;
    else if (tally_clock_monotonic_us() - connection->ready_us >= STEADY_US)
        connection->backoff.attempts = 0;
    PGresult *kept = NULL;
    if (queried) {
        kept = connection->result;
        connection->result = NULL;
    }
    close_session(connection);
    set_state(connection, TALLY_PG_DISCONNECTED,
              tally_backoff_next_ms(&connection->backoff, &connection->random));
    connection->result = kept;
    if (queried)
        end_query(connection, TALLY_PG_LOST);
    tell_change(connection);
}

static void disconnect_because(struct tally_pg_connection *connection, const char *doing)
{
    tally_pg_fail_connection(connection->session, doing, &connection->error);
    disconnect(connection);
}

static void watch(struct tally_pg_connection *connection, bool read, bool write)
{
    if (read)
        event_add(connection->readable, NULL);
    else
        event_del(connection->readable);
    if (write)
        event_add(connection->writable, NULL);
    else
        event_del(connection->writable);
}

/* Sends what libpq holds back; a lost session shows at the next read. */
static void flush(struct tally_pg_connection *connection)
{
    watch(connection, true, PQflush(connection->session) == 1);
}

static void send_preparation(struct tally_pg_connection *connection)
{
    size_t step = connection->prepared;
    int sent;
    if (step == 0) {
        char setup[TALLY_PG_SETUP_BYTES];
        tally_pg_setup_sql(connection->options.query_timeout_ms * 4 / 5,
                           connection->options.lock_timeout_ms, setup);
        sent = PQsendQuery(connection->session, setup);
    } else {
        const struct tally_pg_statement *statement = &connection->options.statements[step - 1];
        char name[STATEMENT_NAME_BYTES];
        (void)snprintf(name, sizeof name, "s%zu", step - 1);
        sent = PQsendPrepare(connection->session, name, statement->sql, statement->parameter_count,
                             statement->parameter_types);
    }
    if (sent == 1)
        flush(connection);
    else
        disconnect_because(connection, "preparing");
}

static void become_ready(struct tally_pg_connection *connection)
{
    connection->failures = 0;
    connection->error = (struct tally_error){0};
    connection->ready_us = tally_clock_monotonic_us();
    set_state(connection, TALLY_PG_READY, 0);
    tell_change(connection);
}

static void on_preparation_done(struct tally_pg_connection *connection)
{
    if (PQresultStatus(connection->result) == PGRES_FATAL_ERROR) {
        tally_pg_fail_result(connection->result, &connection->error);
        PQclear(connection->result);
        connection->result = NULL;
        disconnect(connection);
        return;
    }
    PQclear(connection->result);
    connection->result = NULL;
    if (connection->prepared++ == connection->options.statement_count)
        become_ready(connection);
    else
        send_preparation(connection);
}

static void on_query_done(struct tally_pg_connection *connection)
{
    ExecStatusType kind = PQresultStatus(connection->result);
    set_state(connection, TALLY_PG_READY, 0);
    end_query(connection, kind == PGRES_TUPLES_OK || kind == PGRES_COMMAND_OK ? TALLY_PG_DONE
                                                                              : TALLY_PG_REFUSED);
    tell_change(connection);
}

/* Collects until libpq says that the server is ready for the next query. Before that nothing is
 * certain: in the extended protocol the rows may arrive before the commit, and an error after them.
 */
static void collect_results(struct tally_pg_connection *connection)
{
    while (!PQisBusy(connection->session)) {
        PGresult *result = PQgetResult(connection->session);
        if (PQstatus(connection->session) == CONNECTION_BAD) {
            PQclear(result);
            disconnect_because(connection, "waiting for an answer");
            return;
        }
        if (result == NULL) {
            if (connection->state == TALLY_PG_PREPARING)
                on_preparation_done(connection);
            else
                on_query_done(connection);
            return;
        }
        if (connection->result == NULL || PQresultStatus(result) == PGRES_FATAL_ERROR) {
            PQclear(connection->result);
            connection->result = result;
        } else {
            PQclear(result);
        }
    }
}

static void on_session_io(struct tally_pg_connection *connection)
{
    if (PQconsumeInput(connection->session) != 1) {
        disconnect_because(connection, "reading");
        return;
    }
    flush(connection);
    if (connection->state == TALLY_PG_READY) {
        /* Nothing was asked: a notice, or the server's farewell. */
        if (PQstatus(connection->session) == CONNECTION_BAD)
            disconnect_because(connection, "idle");
        return;
    }
    collect_results(connection);
}

static void assign_socket(struct tally_pg_connection *connection);

static void poll_connecting(struct tally_pg_connection *connection)
{
    watch(connection, false, false); /* before libpq may close the socket */
    PostgresPollingStatusType wanted = PQconnectPoll(connection->session);
    if (wanted == PGRES_POLLING_FAILED) {
        disconnect_because(connection, "connecting");
        return;
    }
    assign_socket(connection); /* another address of the same name is another socket */
    if (wanted != PGRES_POLLING_OK) {
        watch(connection, wanted == PGRES_POLLING_READING, wanted == PGRES_POLLING_WRITING);
        return;
    }
    if (PQsetnonblocking(connection->session, 1) != 0) {
        disconnect_because(connection, "connecting");
        return;
    }
    connection->prepared = 0;
    connection->state = TALLY_PG_PREPARING; /* under the timer of the attempt */
    send_preparation(connection);
}

static void on_socket(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor;
    struct tally_pg_connection *connection = argument;
    if ((what & EV_READ) != 0)
        connection->heard_us = tally_clock_monotonic_us();
    if (connection->state == TALLY_PG_CONNECTING)
        poll_connecting(connection);
    else
        on_session_io(connection);
}

static void assign_socket(struct tally_pg_connection *connection)
{
    int descriptor = PQsocket(connection->session);
    event_del(connection->readable);
    event_del(connection->writable);
    event_assign(connection->readable, connection->base, descriptor, EV_READ | EV_PERSIST,
                 on_socket, connection);
    event_assign(connection->writable, connection->base, descriptor, EV_WRITE | EV_PERSIST,
                 on_socket, connection);
}

static void connect_session(struct tally_pg_connection *connection)
{
    connection->session =
        PQconnectStartParams(connection->parameters.keywords, connection->parameters.values, 1);
    if (connection->session == NULL) {
        tally_fail(&connection->error, TALLY_NO_MEMORY, "PostgreSQL connection");
        disconnect(connection);
        return;
    }
    PQsetNoticeReceiver(connection->session, tally_pg_drop_notice, NULL);
    if (PQstatus(connection->session) == CONNECTION_BAD) {
        disconnect_because(connection, "connecting");
        return;
    }
    set_state(connection, TALLY_PG_CONNECTING, CONNECT_TIMEOUT_MS);
    connection->asked_us = tally_clock_monotonic_us();
    assign_socket(connection);
    watch(connection, false, true);
}

static void on_timer(void *context)
{
    struct tally_pg_connection *connection = context;
    if (connection->state == TALLY_PG_DISCONNECTED) {
        connect_session(connection);
        return;
    }
    tally_fail(&connection->error, TALLY_UNAVAILABLE, "PostgreSQL did not answer in time while %s",
               tally_pg_state_text(connection->state));
    disconnect(connection);
}

enum tally_status tally_pg_connection_new(struct event_base *base,
                                          const struct tally_pg_options *options,
                                          struct tally_pg_connection **connection,
                                          struct tally_error *error)
{
    struct tally_pg_connection *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "PostgreSQL connection");
    made->base = base;
    made->options = *options;
    made->backoff =
        (struct tally_backoff){.first_ms = BACKOFF_FIRST_MS, .most_ms = BACKOFF_MOST_MS};
    tally_random_seed_from_system(&made->random);
    enum tally_status status =
        tally_pg_parameters_fill(&made->parameters, options->dsn, options->application_name, error);
    if (status == TALLY_OK)
        status = tally_timer_new(base, on_timer, made, &made->timer, error);
    made->readable = event_new(base, -1, 0, on_socket, made);
    made->writable = event_new(base, -1, 0, on_socket, made);
    if (status == TALLY_OK && (made->readable == NULL || made->writable == NULL))
        status = tally_fail(error, TALLY_NO_MEMORY, "PostgreSQL connection");
    if (status != TALLY_OK) {
        tally_pg_connection_free(&made);
        return status;
    }
    tally_timer_set(made->timer, 0);
    *connection = made;
    return TALLY_OK;
}

void tally_pg_connection_free(struct tally_pg_connection **connection)
{
    struct tally_pg_connection *gone = *connection;
    if (gone == NULL)
        return;
    if (gone->readable != NULL)
        event_free(gone->readable);
    if (gone->writable != NULL)
        event_free(gone->writable);
    PQclear(gone->result);
    PQfinish(gone->session);
    tally_timer_free(&gone->timer);
    free(gone);
    *connection = NULL;
}

enum tally_pg_state tally_pg_connection_state(const struct tally_pg_connection *connection)
{
    return connection->state;
}

unsigned tally_pg_connection_failures(const struct tally_pg_connection *connection)
{
    return connection->failures;
}

const struct tally_error *tally_pg_connection_error(const struct tally_pg_connection *connection)
{
    return &connection->error;
}

int64_t tally_pg_connection_asked_us(const struct tally_pg_connection *connection)
{
    bool asks = connection->state != TALLY_PG_DISCONNECTED && connection->state != TALLY_PG_READY;
    return asks ? connection->asked_us : INT64_MAX;
}

int64_t tally_pg_connection_heard_us(const struct tally_pg_connection *connection)
{
    return connection->heard_us;
}

enum tally_status tally_pg_connection_query(struct tally_pg_connection *connection,
                                            size_t statement, const char *const *values,
                                            const int *lengths, const int *formats,
                                            bool binary_result, tally_pg_callback *callback,
                                            void *context, struct tally_error *error)
{
    if (connection->state != TALLY_PG_READY || statement >= connection->options.statement_count)
        return tally_fail(error, TALLY_UNAVAILABLE, "the PostgreSQL connection is %s",
                          tally_pg_state_text(connection->state));
    char name[STATEMENT_NAME_BYTES];
    (void)snprintf(name, sizeof name, "s%zu", statement);
    if (PQsendQueryPrepared(connection->session, name,
                            connection->options.statements[statement].parameter_count, values,
                            lengths, formats, binary_result ? 1 : 0) != 1)
        return tally_pg_fail_connection(connection->session, "sending", error);
    connection->callback = callback;
    connection->callback_context = context;
    set_state(connection, TALLY_PG_BUSY, connection->options.query_timeout_ms);
    connection->asked_us = tally_clock_monotonic_us();
    flush(connection);
    return TALLY_OK;
}
