#include "store/janitor.h"

#include "core/clock.h"
#include "core/random.h"
#include "loop/loop.h"
#include "pg/connection.h"
#include "store/migrate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PIECE_ROWS = 500,
    KEYS_PIECE = 2000,
    IDLE_MS = 1000,
    KEYS_PERIOD_MS = 60 * 1000,
    EVENTS_PERIOD_MS = 60 * 60 * 1000,
    DAYS_AHEAD = 7,
    PARAMETERS_MOST = 2,
    NUMBER_BYTES = 24,
};

enum task { TASK_SCHEMA, TASK_EVENTS, TASK_SWEEP, TASK_KEYS, TASK_COUNT };

static const struct tally_pg_statement statements[TASK_COUNT] = {
    [TASK_SCHEMA] = {.sql = TALLY_SCHEMA_VERSION_SQL},
    [TASK_EVENTS] = {.sql = "SELECT maintain_events($1::int, $2::int)", .parameter_count = 2},
    [TASK_SWEEP] = {.sql = "SELECT sweep_deleted($1::int)", .parameter_count = 1},
    [TASK_KEYS] = {.sql = "SELECT expire_idempotency_keys($1::int)", .parameter_count = 1},
};

/* Pause after a piece that found nothing; one that did work is followed by the next at once. */
static const int64_t periods_ms[TASK_COUNT] = {
    [TASK_SCHEMA] = EVENTS_PERIOD_MS,
    [TASK_EVENTS] = EVENTS_PERIOD_MS,
    [TASK_SWEEP] = IDLE_MS,
    [TASK_KEYS] = KEYS_PERIOD_MS,
};

struct tally_janitor {
    struct tally_janitor_options options;
    struct tally_pg_connection *connection;
    struct tally_timer *timer;
    struct tally_random random;
    int64_t due_us[TASK_COUNT]; /* monotonic */
    enum task running;
    int64_t schema_version;
    bool kept_events;
};

static void run_due(struct tally_janitor *janitor);

/* Between half the period and the whole: several processes do not come at the same moment. */
static int64_t jittered_us(struct tally_janitor *janitor, int64_t period_ms)
{
    uint64_t half_us = (uint64_t)period_ms * 500;
    return (int64_t)(half_us + tally_random_below(&janitor->random, half_us + 1));
}

/* What a finished piece comes to; returns whether the same task should run again at once. */
static bool take_result(struct tally_janitor *janitor, int64_t number)
{
    const struct tally_janitor_options *options = &janitor->options;
    switch (janitor->running) {
    case TASK_SCHEMA:
        janitor->schema_version = number;
        return false;
    case TASK_EVENTS:
        janitor->kept_events = true;
        return false;
    case TASK_SWEEP:
        if (number > 0 && options->on_work != NULL)
            options->on_work(number, 0, options->context);
        if (number > 0 && options->on_committed != NULL)
            options->on_committed(options->context);
        return number > 0;
    case TASK_KEYS:
        if (number > 0 && options->on_work != NULL)
            options->on_work(0, number, options->context);
        return number >= KEYS_PIECE;
    case TASK_COUNT:
        break;
    }
    return false;
}

/* What failed, or waits for tallyctl migrate, is looked at again soon. */
static int64_t pause_ms(const struct tally_janitor *janitor, enum task task, enum tally_pg_end end)
{
    bool behind = task == TASK_SCHEMA && janitor->schema_version < tally_schema_version_needed();
    return end != TALLY_PG_DONE || behind || task >= TASK_COUNT ? IDLE_MS : periods_ms[task];
}

static void on_piece_end(enum tally_pg_end end, const PGresult *result,
                         const struct tally_error *error, void *context)
{
    struct tally_janitor *janitor = context;
    enum task task = janitor->running;
    bool again = false;
    if (end == TALLY_PG_DONE)
        again = take_result(janitor, strtoll(PQgetvalue(result, 0, 0), NULL, 10));
    else if (janitor->options.on_failure != NULL)
        janitor->options.on_failure(error, janitor->options.context);
    int64_t pause_us = again ? 0 : jittered_us(janitor, pause_ms(janitor, task, end));
    janitor->due_us[task] = tally_clock_monotonic_us() + pause_us;
}

static void start_piece(struct tally_janitor *janitor, enum task task)
{
    char numbers[PARAMETERS_MOST][NUMBER_BYTES];
    const char *const values[PARAMETERS_MOST] = {numbers[0], numbers[1]};
    const int64_t first[TASK_COUNT] = {
        [TASK_SCHEMA] = 0,
        [TASK_EVENTS] = janitor->options.retention_days,
        [TASK_SWEEP] = PIECE_ROWS,
        [TASK_KEYS] = KEYS_PIECE,
    };
    (void)snprintf(numbers[0], NUMBER_BYTES, "%" PRId64, first[task]);
    (void)snprintf(numbers[1], NUMBER_BYTES, "%d", DAYS_AHEAD);
    struct tally_error error;
    janitor->running = task;
    if (tally_pg_connection_query(janitor->connection, task, values, NULL, NULL, false,
                                  on_piece_end, janitor, &error) != TALLY_OK) {
        if (janitor->options.on_failure != NULL)
            janitor->options.on_failure(&error, janitor->options.context);
        janitor->due_us[task] = tally_clock_monotonic_us() + jittered_us(janitor, IDLE_MS);
    }
}

/* The task that has been due for longest; the timer where none is due yet. */
static void run_due(struct tally_janitor *janitor)
{
    if (tally_pg_connection_state(janitor->connection) != TALLY_PG_READY)
        return;
    enum task oldest = TASK_SCHEMA;
    for (enum task task = TASK_SCHEMA; task < TASK_COUNT; task++) {
        if (janitor->due_us[task] < janitor->due_us[oldest])
            oldest = task;
    }
    int64_t wait_us = janitor->due_us[oldest] - tally_clock_monotonic_us();
    if (wait_us > 0)
        tally_timer_set(janitor->timer, wait_us);
    else
        start_piece(janitor, oldest);
}

static void on_timer(void *context)
{
    run_due(context);
}

/* READY comes after a connect and after each piece. */
static void on_change(struct tally_pg_connection *connection, void *context)
{
    struct tally_janitor *janitor = context;
    if (tally_pg_connection_state(connection) == TALLY_PG_READY) {
        tally_timer_set(janitor->timer, 0);
        return;
    }
    /* It may come back as another database, or an older one. */
    janitor->due_us[TASK_SCHEMA] = 0;
    janitor->due_us[TASK_EVENTS] = 1;
}

enum tally_status tally_janitor_new(struct event_base *base,
                                    const struct tally_janitor_options *options,
                                    struct tally_janitor **janitor, struct tally_error *error)
{
    struct tally_janitor *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "janitor");
    made->options = *options;
    tally_random_seed_from_system(&made->random);
    for (enum task task = TASK_SCHEMA; task < TASK_COUNT; task++)
        made->due_us[task] = (int64_t)task;
    enum tally_status status = tally_timer_new(base, on_timer, made, &made->timer, error);
    if (status == TALLY_OK)
        status = tally_pg_connection_new(base,
                                         &(struct tally_pg_options){
                                             .dsn = options->dsn,
                                             .application_name = "tally-janitor",
                                             .statements = statements,
                                             .statement_count = TASK_COUNT,
                                             .query_timeout_ms = options->timeout_ms,
                                             .on_change = on_change,
                                             .context = made,
                                         },
                                         &made->connection, error);
    if (status != TALLY_OK) {
        tally_janitor_free(&made);
        return status;
    }
    *janitor = made;
    return TALLY_OK;
}

void tally_janitor_free(struct tally_janitor **janitor)
{
    struct tally_janitor *gone = *janitor;
    if (gone == NULL)
        return;
    tally_pg_connection_free(&gone->connection);
    tally_timer_free(&gone->timer);
    free(gone);
    *janitor = NULL;
}

int64_t tally_janitor_schema_version(const struct tally_janitor *janitor)
{
    return janitor->schema_version;
}

bool tally_janitor_kept_events(const struct tally_janitor *janitor)
{
    return janitor->kept_events;
}
