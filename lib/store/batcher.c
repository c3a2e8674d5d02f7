#include "store/batcher.h"

#include "core/clock.h"
#include "loop/loop.h"
#include "pg/guard.h"
#include "store/batch.h"

#include <stdlib.h>
#include <string.h>

/* A connection with the batch that is on it. While a batch is replayed, `next` is the command that
 * is in flight, alone; those before it have their outcomes. */
struct carrier {
    struct tally_batcher *batcher;
    struct tally_pg_connection *connection;
    struct tally_queued **batch; /* room for limits.batch_most */
    struct tally_command_outcome *outcomes;
    size_t count; /* 0: nothing in flight */
    size_t next;
    bool replaying;
    int64_t replay_until_us; /* monotonic: what is not sent again by then is not done */
    int64_t sent_us;
    struct tally_batch_parameters parameters;
};

struct tally_batcher {
    struct tally_batcher_options options;
    struct tally_command_queue queue;
    struct tally_pg_guard *guard;
    struct carrier carriers[TALLY_BATCHER_CONNECTIONS_MOST];
    size_t carrier_count;
    struct event *turn_end; /* activated by hand: runs behind what the turn already has to do */
    struct tally_timer *expiry;
    void (*drained)(void *context);
    void *drained_context;
    bool draining;
};

static void schedule(struct tally_batcher *batcher)
{
    event_active(batcher->turn_end, 0, 0);
}

static void finish(struct carrier *carrier, size_t index, enum tally_status status)
{
    struct tally_command_outcome outcome = {.status = status};
    tally_queued_finish(&carrier->batcher->queue, carrier->batch[index], &outcome);
}

static void report_failure(struct tally_batcher *batcher, const struct tally_error *error)
{
    if (batcher->options.on_failure != NULL)
        batcher->options.on_failure(error, batcher->options.context);
}

static void report_batch(struct carrier *carrier, size_t commands, enum tally_pg_end end)
{
    const struct tally_batcher_options *options = &carrier->batcher->options;
    if (options->on_batch == NULL)
        return;
    struct tally_batch_report report = {
        .commands = commands,
        .duration_us = tally_clock_monotonic_us() - carrier->sent_us,
        .replayed = end == TALLY_PG_REFUSED && !carrier->replaying,
        .lost = end == TALLY_PG_LOST,
    };
    options->on_batch(&report, options->context);
}

static void release_carrier(struct carrier *carrier)
{
    carrier->count = 0;
    carrier->replaying = false;
    schedule(carrier->batcher);
}

static tally_pg_callback on_batch_end;
static tally_pg_callback on_single_end;

/* Sends `count` commands from `first` on; false where nothing was sent. */
static bool send_commands(struct carrier *carrier, size_t first, size_t count,
                          tally_pg_callback *callback)
{
    struct tally_error error = {0};
    struct tally_batch_parameters *parameters = &carrier->parameters;
    enum tally_status status =
        tally_batch_parameters_fill(parameters, carrier->batch + first, count, &error);
    carrier->sent_us = tally_clock_monotonic_us();
    if (status == TALLY_OK)
        status = tally_pg_connection_query(carrier->connection, 0, parameters->values,
                                           parameters->lengths, parameters->formats, true, callback,
                                           carrier, &error);
    if (status != TALLY_OK)
        report_failure(carrier->batcher, &error);
    return status == TALLY_OK;
}

/* The first command that is in time goes out alone; what is over, or cannot be sent, was not done.
 */
static void replay_next(struct carrier *carrier)
{
    int64_t now_us = tally_clock_monotonic_us();
    while (carrier->next < carrier->count) {
        if (carrier->replay_until_us > now_us &&
            send_commands(carrier, carrier->next, 1, on_single_end))
            return;
        finish(carrier, carrier->next++, TALLY_UNAVAILABLE);
    }
    release_carrier(carrier);
}

static void committed(struct carrier *carrier)
{
    const struct tally_batcher_options *options = &carrier->batcher->options;
    if (options->on_committed != NULL)
        options->on_committed(options->context);
}

/* Reads the outcomes of `count` commands from `first` on and hands them out. */
static void hand_out(struct carrier *carrier, size_t first, size_t count, const PGresult *rows)
{
    struct tally_error error = {0};
    struct tally_command_outcome *outcomes = carrier->outcomes;
    if (tally_batch_read(rows, count, outcomes, &error) != TALLY_OK) {
        report_failure(carrier->batcher, &error);
        for (size_t i = 0; i < count; i++)
            outcomes[i] = (struct tally_command_outcome){.status = TALLY_OUTCOME_UNKNOWN};
    }
    committed(carrier);
    for (size_t i = 0; i < count; i++)
        tally_queued_finish(&carrier->batcher->queue, carrier->batch[first + i], &outcomes[i]);
}

static void on_single_end(enum tally_pg_end end, const PGresult *result,
                          const struct tally_error *error, void *context)
{
    struct carrier *carrier = context;
    report_batch(carrier, 1, end);
    size_t index = carrier->next++;
    if (end == TALLY_PG_DONE) {
        hand_out(carrier, index, 1, result);
    } else if (end == TALLY_PG_REFUSED) {
        enum tally_status status = tally_batch_refusal(result);
        if (status != TALLY_EMAIL_TAKEN)
            report_failure(carrier->batcher, error);
        finish(carrier, index, status);
    } else {
        finish(carrier, index, TALLY_OUTCOME_UNKNOWN);
        /* The rest was rolled back with the batch and not sent again: it may go to any connection.
         */
        for (size_t i = carrier->count; i > carrier->next; i--)
            tally_command_queue_put_back(&carrier->batcher->queue, carrier->batch[i - 1]);
        release_carrier(carrier);
        return;
    }
    replay_next(carrier);
}

static void on_batch_end(enum tally_pg_end end, const PGresult *result,
                         const struct tally_error *error, void *context)
{
    struct carrier *carrier = context;
    report_batch(carrier, carrier->count, end);
    if (end == TALLY_PG_REFUSED) {
        report_failure(carrier->batcher, error);
        carrier->replaying = true;
        /* From here, whatever the batch waited for: its neighbours must have time to be answered.
         */
        carrier->replay_until_us =
            tally_clock_monotonic_us() + carrier->batcher->options.timeout_ms * 1000;
        replay_next(carrier);
        return;
    }
    if (end == TALLY_PG_DONE) {
        hand_out(carrier, 0, carrier->count, result);
    } else {
        for (size_t i = 0; i < carrier->count; i++)
            finish(carrier, i, TALLY_OUTCOME_UNKNOWN);
    }
    release_carrier(carrier);
}

static void dispatch(struct carrier *carrier)
{
    struct tally_batcher *batcher = carrier->batcher;
    carrier->next = 0;
    carrier->count = tally_command_queue_take(&batcher->queue, carrier->batch);
    if (!send_commands(carrier, 0, carrier->count, on_batch_end)) {
        for (size_t i = 0; i < carrier->count; i++)
            finish(carrier, i, TALLY_UNAVAILABLE);
        carrier->count = 0;
    }
}

/* Answers what waits and has a deadline of `until_us` or before. */
static void refuse_waiting(struct tally_batcher *batcher, int64_t until_us)
{
    const struct tally_command_outcome outcome = {.status = TALLY_UNAVAILABLE};
    struct tally_queued *expired;
    while ((expired = tally_command_queue_expire(&batcher->queue, until_us)) != NULL)
        tally_queued_finish(&batcher->queue, expired, &outcome);
}

static void expire(struct tally_batcher *batcher)
{
    int64_t now_us = tally_clock_monotonic_us();
    refuse_waiting(batcher, now_us);
    int64_t deadline_us = tally_command_queue_deadline_us(&batcher->queue);
    if (deadline_us != INT64_MAX)
        tally_timer_set(batcher->expiry, deadline_us - now_us);
}

static bool idle(const struct tally_batcher *batcher)
{
    if (batcher->queue.count > 0)
        return false;
    for (size_t i = 0; i < batcher->carrier_count; i++) {
        if (batcher->carriers[i].count > 0)
            return false;
    }
    return true;
}

static void on_turn_end(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor;
    (void)what;
    struct tally_batcher *batcher = argument;
    for (size_t i = 0; i < batcher->carrier_count && batcher->queue.count > 0; i++) {
        struct carrier *carrier = &batcher->carriers[i];
        if (carrier->count == 0 && tally_pg_connection_state(carrier->connection) == TALLY_PG_READY)
            dispatch(carrier);
    }
    expire(batcher);
    if (batcher->draining && batcher->drained != NULL && idle(batcher)) {
        void (*drained)(void *context) = batcher->drained;
        batcher->drained = NULL;
        drained(batcher->drained_context);
    }
}

static void on_expiry(void *context)
{
    expire(context);
    schedule(context);
}

static void on_connection_change(struct tally_pg_connection *connection, void *context)
{
    struct carrier *carrier = context;
    if (tally_pg_connection_state(connection) == TALLY_PG_DISCONNECTED &&
        tally_pg_connection_failures(connection) <= 1)
        report_failure(carrier->batcher, tally_pg_connection_error(connection));
    tally_pg_guard_look(carrier->batcher->guard);
    schedule(carrier->batcher);
}

static void on_breaker(const struct tally_breaker *breaker, void *context)
{
    struct tally_batcher *batcher = context;
    if (tally_breaker_refuses(breaker))
        refuse_waiting(batcher, INT64_MAX);
    schedule(batcher);
    if (batcher->options.on_breaker != NULL)
        batcher->options.on_breaker(breaker, batcher->options.context);
}

static enum tally_status start_guard(struct event_base *base, struct tally_batcher *batcher,
                                     struct tally_error *error)
{
    const struct tally_pg_guard_options options = {
        .dsn = batcher->options.dsn,
        .application_name = "tally-probe",
        .patience_ms = batcher->options.patience_ms,
        .timeout_ms = batcher->options.timeout_ms,
        .on_change = on_breaker,
        .context = batcher,
    };
    return tally_pg_guard_new(base, &options, &batcher->guard, error);
}

static enum tally_status start_carrier(struct event_base *base, struct tally_batcher *batcher,
                                       struct carrier *carrier, struct tally_error *error)
{
    enum { COLUMN_SLACK_BYTES = 1 << 20 }; /* a batch's bound leaves out what escapes no count */
    /* A row that somebody else keeps locked costs its batch this much, and then only the commands
     * that need it, as many times as there are of them. */
    enum { LOCKS_PER_TIMEOUT = 10 };
    size_t most = batcher->options.limits.batch_most;
    carrier->batcher = batcher;
    carrier->batch = calloc(most, sizeof(struct tally_queued *));
    carrier->outcomes = calloc(most, sizeof *carrier->outcomes);
    if (carrier->batch == NULL || carrier->outcomes == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "batches of %zu commands", most);
    tally_batch_parameters_init(&carrier->parameters,
                                batcher->options.limits.batch_bytes + COLUMN_SLACK_BYTES);
    const struct tally_pg_options options = {
        .dsn = batcher->options.dsn,
        .application_name = "tally-command",
        .statements = &tally_batch_statement,
        .statement_count = 1,
        .query_timeout_ms = batcher->options.timeout_ms,
        .lock_timeout_ms = batcher->options.timeout_ms / LOCKS_PER_TIMEOUT,
        .on_change = on_connection_change,
        .context = carrier,
    };
    enum tally_status status = tally_pg_connection_new(base, &options, &carrier->connection, error);
    if (status == TALLY_OK)
        tally_pg_guard_watch(batcher->guard, carrier->connection);
    return status;
}

enum tally_status tally_batcher_new(struct event_base *base,
                                    const struct tally_batcher_options *options,
                                    struct tally_batcher **batcher, struct tally_error *error)
{
    struct tally_batcher *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "batcher");
    made->options = *options;
    if (made->options.connections > TALLY_BATCHER_CONNECTIONS_MOST)
        made->options.connections = TALLY_BATCHER_CONNECTIONS_MOST;
    tally_command_queue_init(&made->queue, &options->limits);
    made->turn_end = event_new(base, -1, 0, on_turn_end, made);
    enum tally_status status = made->turn_end != NULL
                                   ? tally_timer_new(base, on_expiry, made, &made->expiry, error)
                                   : tally_fail(error, TALLY_NO_MEMORY, "batcher");
    if (status == TALLY_OK)
        status = start_guard(base, made, error);
    for (size_t i = 0; status == TALLY_OK && i < made->options.connections; i++) {
        made->carrier_count++;
        status = start_carrier(base, made, &made->carriers[i], error);
    }
    if (status != TALLY_OK) {
        tally_batcher_free(&made);
        return status;
    }
    *batcher = made;
    return TALLY_OK;
}

enum tally_status tally_batcher_submit(struct tally_batcher *batcher,
                                       const struct tally_command *command,
                                       tally_command_done *done, void *context,
                                       struct tally_error *error)
{
    if (batcher->draining)
        return tally_fail(error, TALLY_STOPPING, "the service is stopping");
    if (tally_breaker_refuses(tally_batcher_breaker(batcher)))
        return tally_fail(error, TALLY_UNAVAILABLE, "PostgreSQL does not answer");
    int64_t deadline_us = tally_clock_monotonic_us() + batcher->options.timeout_ms * 1000;
    enum tally_status status =
        tally_command_queue_enter(&batcher->queue, command, deadline_us, done, context, error);
    if (status == TALLY_OK)
        schedule(batcher);
    return status;
}

void tally_batcher_drain(struct tally_batcher *batcher, void (*drained)(void *context),
                         void *context)
{
    batcher->draining = true;
    batcher->drained = drained;
    batcher->drained_context = context;
    schedule(batcher);
}

void tally_batcher_free(struct tally_batcher **batcher)
{
    struct tally_batcher *gone = *batcher;
    if (gone == NULL)
        return;
    /* The guard first: it looks at the connections. */
    tally_pg_guard_free(&gone->guard);
    for (size_t i = 0; i < gone->carrier_count; i++) {
        struct carrier *carrier = &gone->carriers[i];
        tally_pg_connection_free(&carrier->connection);
        for (size_t j = carrier->next; j < carrier->count; j++)
            tally_queued_forget(&gone->queue, carrier->batch[j]);
        free(carrier->batch);
        free(carrier->outcomes);
        tally_batch_parameters_release(&carrier->parameters);
    }
    tally_command_queue_release(&gone->queue);
    tally_timer_free(&gone->expiry);
    if (gone->turn_end != NULL)
        event_free(gone->turn_end);
    free(gone);
    *batcher = NULL;
}

size_t tally_batcher_waiting(const struct tally_batcher *batcher)
{
    return batcher->queue.count;
}

size_t tally_batcher_connections_up(const struct tally_batcher *batcher)
{
    size_t up = 0;
    for (size_t i = 0; i < batcher->carrier_count; i++)
        up += tally_pg_connection_state(batcher->carriers[i].connection) >= TALLY_PG_READY;
    return up;
}

const struct tally_breaker *tally_batcher_breaker(const struct tally_batcher *batcher)
{
    return tally_pg_guard_breaker(batcher->guard);
}
