#include "pg/guard.h"

#include "core/clock.h"
#include "loop/loop.h"

#include <stdlib.h>

enum {
    LOOKS_PER_PATIENCE = 8,
    PROBES_PER_PATIENCE = 3,
    IDLE_PROBE_US = 1000000,
};

struct tally_pg_guard {
    struct tally_pg_guard_options options;
    struct tally_breaker breaker;
    struct tally_timer *timer;
    struct tally_pg_connection *probe;
    const struct tally_pg_connection *watched[TALLY_PG_GUARD_CONNECTIONS_MOST];
    size_t watched_count;
    int64_t probed_us;  /* when the last probe was sent */
    int64_t looked_us;  /* … and the last look at the connections was */
    int64_t excused_us; /* since then it has looked in time */
};

static const struct tally_pg_statement probe_statement = {.sql = "select 1"};

static void take_in(struct tally_breaker_sight *sight, const struct tally_pg_connection *connection)
{
    int64_t asked_us = tally_pg_connection_asked_us(connection);
    int64_t heard_us = tally_pg_connection_heard_us(connection);
    if (asked_us < sight->asked_us)
        sight->asked_us = asked_us;
    if (heard_us > sight->heard_us)
        sight->heard_us = heard_us;
}

static bool being_made(enum tally_pg_state state)
{
    return state == TALLY_PG_CONNECTING || state == TALLY_PG_PREPARING;
}

static struct tally_breaker_sight see(const struct tally_pg_guard *guard)
{
    const enum tally_pg_state probing = tally_pg_connection_state(guard->probe);
    struct tally_breaker_sight sight = {
        .trying = being_made(probing) || probing == TALLY_PG_BUSY,
        .asked_us = INT64_MAX,
    };
    take_in(&sight, guard->probe);
    for (size_t i = 0; i < guard->watched_count; i++) {
        const struct tally_pg_connection *connection = guard->watched[i];
        enum tally_pg_state state = tally_pg_connection_state(connection);
        take_in(&sight, connection);
        sight.connected = sight.connected || state >= TALLY_PG_READY;
        sight.trying = sight.trying || being_made(state);
        if (tally_pg_connection_failures(connection) > 0)
            sight.failure = tally_pg_connection_error(connection);
    }
    if (sight.asked_us < guard->excused_us)
        sight.asked_us = guard->excused_us;
    return sight;
}

static void judge(struct tally_pg_guard *guard, const struct tally_breaker_sight *sight)
{
    if (tally_breaker_look(&guard->breaker, sight, tally_clock_monotonic_us()) &&
        guard->options.on_change != NULL)
        guard->options.on_change(&guard->breaker, guard->options.context);
}

void tally_pg_guard_look(struct tally_pg_guard *guard)
{
    const struct tally_breaker_sight sight = see(guard);
    judge(guard, &sight);
}

static void on_probe_end(enum tally_pg_end end, const PGresult *result,
                         const struct tally_error *error, void *context)
{
    (void)result;
    (void)error;
    struct tally_pg_guard *guard = context;
    if (end != TALLY_PG_LOST)
        tally_breaker_measured(&guard->breaker, tally_clock_monotonic_us() - guard->probed_us);
    tally_pg_guard_look(guard);
}

/* Where it cannot be sent, the connection is failing, which is seen at the next look. */
static void send_probe(struct tally_pg_guard *guard)
{
    struct tally_error error;
    guard->probed_us = tally_clock_monotonic_us();
    enum tally_status status = tally_pg_connection_query(guard->probe, 0, NULL, NULL, NULL, false,
                                                         on_probe_end, guard, &error);
    (void)status;
}

static bool probe_is_due(const struct tally_pg_guard *guard,
                         const struct tally_breaker_sight *sight)
{
    if (tally_pg_connection_state(guard->probe) != TALLY_PG_READY)
        return false;
    const int64_t now_us = tally_clock_monotonic_us();
    const int64_t wait_us = guard->options.patience_ms * 1000 / PROBES_PER_PATIENCE;
    const bool unanswered = sight->asked_us != INT64_MAX && now_us - sight->asked_us >= wait_us;
    return now_us - guard->probed_us >= (unanswered ? wait_us : IDLE_PROBE_US);
}

/* A process that was stopped, or starved, did not hear what was said meanwhile. */
static void excuse_stall(struct tally_pg_guard *guard)
{
    const int64_t now_us = tally_clock_monotonic_us();
    if (now_us - guard->looked_us > guard->options.patience_ms * 1000 / 2)
        guard->excused_us = now_us;
    guard->looked_us = now_us;
}

static void on_tick(void *argument)
{
    struct tally_pg_guard *guard = argument;
    excuse_stall(guard);
    const struct tally_breaker_sight sight = see(guard);
    if (probe_is_due(guard, &sight))
        send_probe(guard);
    judge(guard, &sight);
    tally_timer_set(guard->timer, guard->options.patience_ms * 1000 / LOOKS_PER_PATIENCE);
}

static void on_probe_change(struct tally_pg_connection *probe, void *context)
{
    /* A new connection need not wait for the time of the next probe. */
    if (tally_pg_connection_state(probe) == TALLY_PG_DISCONNECTED)
        ((struct tally_pg_guard *)context)->probed_us = 0;
}

enum tally_status tally_pg_guard_new(struct event_base *base,
                                     const struct tally_pg_guard_options *options,
                                     struct tally_pg_guard **guard, struct tally_error *error)
{
    struct tally_pg_guard *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "guard of PostgreSQL");
    made->options = *options;
    if (made->options.patience_ms > options->timeout_ms)
        made->options.patience_ms = options->timeout_ms;
    tally_breaker_init(&made->breaker, made->options.patience_ms, options->timeout_ms);
    enum tally_status status = tally_timer_new(base, on_tick, made, &made->timer, error);
    if (status == TALLY_OK)
        status = tally_pg_connection_new(base,
                                         &(struct tally_pg_options){
                                             .dsn = options->dsn,
                                             .application_name = options->application_name,
                                             .statements = &probe_statement,
                                             .statement_count = 1,
                                             .query_timeout_ms = options->timeout_ms,
                                             .on_change = on_probe_change,
                                             .context = made,
                                         },
                                         &made->probe, error);
    if (status != TALLY_OK) {
        tally_pg_guard_free(&made);
        return status;
    }
    tally_timer_set(made->timer, 0);
    *guard = made;
    return TALLY_OK;
}

void tally_pg_guard_watch(struct tally_pg_guard *guard,
                          const struct tally_pg_connection *connection)
{
    if (guard->watched_count < TALLY_PG_GUARD_CONNECTIONS_MOST)
        guard->watched[guard->watched_count++] = connection;
}

const struct tally_breaker *tally_pg_guard_breaker(const struct tally_pg_guard *guard)
{
    return &guard->breaker;
}

void tally_pg_guard_free(struct tally_pg_guard **guard)
{
    struct tally_pg_guard *gone = *guard;
    if (gone == NULL)
        return;
    tally_pg_connection_free(&gone->probe);
    tally_timer_free(&gone->timer);
    free(gone);
    *guard = NULL;
}
