#include "simulation.h"

#include "core/log.h"
#include "service/projector/projector.h"
#include "service/relay/relay.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct simulation *simulation;

enum { SETTLE_STEPS_MOST = 200000, ROUND_OF_CHECKS = 64 };

static const char *const process_names[SIMULATION_PROCESSES] = {
    "projector-1", "projector-2", "projector-3", "relay-1", "relay-2",
};

void simulation_fail(const char *format, ...)
{
    if (simulation->outcome.failed)
        return;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(simulation->outcome.reason, sizeof simulation->outcome.reason, format,
                    arguments);
    va_end(arguments);
    simulation->outcome.failed = true;
    if (simulation->settings.trace)
        printf("%10" PRId64 " us  FAILED: %s\n", simulation->now_us, simulation->outcome.reason);
}

static void mix(uint64_t number)
{
    /* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/, a word at a time. */
    simulation->outcome.hash = (simulation->outcome.hash ^ number) * UINT64_C(0x100000001b3);
}

void simulation_note(const char *what, int64_t a, int64_t b, int64_t c)
{
    for (const char *at = what; *at != '\0'; at++)
        mix((unsigned char)*at);
    mix((uint64_t)a);
    mix((uint64_t)b);
    mix((uint64_t)c);
    mix((uint64_t)simulation->now_us);
    if (simulation->settings.trace)
        printf("%10" PRId64 " us  %-12s %-24s %" PRId64 " %" PRId64 " %" PRId64 "\n",
               simulation->now_us, simulation->current != NULL ? simulation->current->name : "-",
               what, a, b, c);
}

uint64_t simulation_below(uint64_t bound)
{
    return tally_random_below(&simulation->random, bound);
}

bool simulation_fault(uint64_t n)
{
    return simulation->faults && simulation_below(n) == 0;
}

struct simulation_process *simulation_process_at(size_t index)
{
    return &simulation->processes[index];
}

size_t simulation_process_index(const struct simulation_process *process)
{
    return (size_t)(process - simulation->processes);
}

/* What the services say goes into the trace. */
void __wrap_tally_log_write(enum tally_log_level level, const char *event,
                            const struct tally_log_field *fields);
void __wrap_tally_log_write(enum tally_log_level level, const char *event,
                            const struct tally_log_field *fields)
{
    simulation_note(event, (int64_t)level, 0, 0);
    if (!simulation->settings.trace || level < TALLY_LOG_INFO)
        return;
    printf("%38s", "");
    for (; fields->name != NULL; fields++) {
        if (fields->kind == TALLY_LOG_INTEGER)
            printf(" %s=%" PRId64, fields->name, fields->integer);
        else if (fields->kind == TALLY_LOG_TEXT)
            printf(" %s=\"%s\"", fields->name, fields->text != NULL ? fields->text : "");
    }
    printf("\n");
}

void __wrap_tally_log_error(enum tally_log_level level, const char *event,
                            const struct tally_error *error);
void __wrap_tally_log_error(enum tally_log_level level, const char *event,
                            const struct tally_error *error)
{
    const struct tally_log_field fields[] = {TALLY_TEXT("cause", error->text), {0}};
    __wrap_tally_log_write(level, event, fields);
}

static void on_projector_failed(void *context)
{
    struct simulation_process *process = context;
    struct tally_error error;
    if (process->killed)
        return;
    (void)tally_projector_failure(process->projector, &error);
    process->wants_rebuild = simulated_redis_was_incomplete() &&
                             strstr(error.text, "no position") != NULL &&
                             strstr(error.text, "tallyctl rebuild") != NULL;
    if (!process->wants_rebuild)
        simulation_fail("%s stops: %s", process->name, error.text);
}

static void on_projector_ended(void *context)
{
    (void)context;
}

static void start(struct simulation_process *process)
{
    struct tally_error error = {0};
    enum tally_status status = TALLY_NO_MEMORY;
    process->killed = false;
    process->ended = false;
    process->woken = false;
    process->wake_us = 0;
    process->stopped_until_us = 0;
    process->shadow = NULL;
    process->metrics = tally_metrics_new();
    simulation->starting = process;
    const struct tally_projector_options options = {
        .settings = &simulation->services,
        .metrics = process->metrics,
        .on_failed = on_projector_failed,
        .on_ended = on_projector_ended,
        .context = process,
    };
    if (process->metrics != NULL)
        status = process->projects ? tally_projector_start(&options, &process->projector, &error)
                                   : tally_relay_start(&simulation->services, process->metrics,
                                                       &process->relay, &error);
    simulation->starting = NULL;
    if (status != TALLY_OK) {
        (void)fprintf(stderr, "simulation: %s: %s\n", process->name, error.text);
        abort();
    }
    simulation_note("start", (int64_t)simulation_process_index(process), 0, 0);
}

/* Ends a process: its calls have no effect from now on, and its own code frees what it holds. */
static void kill_process(struct simulation_process *process)
{
    if (!process->running)
        return;
    process->killed = true;
    process->stopped_until_us = 0;
    if (process->projects) {
        simulated_group_leave(process);
        tally_projector_stop(process->projector);
        tally_projector_free(&process->projector);
    } else {
        simulated_producers_orphan(process);
        simulated_postgres_break_sessions(process);
        if (!tally_relay_stop(&process->relay))
            simulation_fail("%s does not stop", process->name);
    }
    if (!process->ended)
        simulation_fail("%s does not end once all its calls fail", process->name);
    tally_metrics_free(&process->metrics);
    process->running = false;
}

void simulation_crash(struct simulation_process *process)
{
    if (!process->running)
        return;
    simulation_note("crash", (int64_t)simulation_process_index(process), 0, 0);
    simulation->outcome.crashes++;
    kill_process(process);
    process->start_us = simulation->now_us + (int64_t)simulation_below(300000);
}

/* Lets one of the processes run that can. False where none can. */
static bool run_one(void)
{
    struct simulation_process *able[SIMULATION_PROCESSES];
    size_t count = 0;
    for (size_t i = 0; i < SIMULATION_PROCESSES; i++) {
        struct simulation_process *process = &simulation->processes[i];
        if (!process->running && process->start_us <= simulation->now_us)
            start(process);
        if (simulation_fiber_runnable(process))
            able[count++] = process;
    }
    if (count == 0)
        return false;
    struct simulation_process *chosen = able[simulation_below(count)];
    simulation_fiber_resume(chosen);
    if (chosen->ended && chosen->wants_rebuild) {
        /* What the operator is told to do has the effect of beginning anew. */
        chosen->wants_rebuild = false;
        simulation->outcome.rebuilds++;
        kill_process(chosen);
        if (simulated_redis_incomplete())
            simulated_redis_flush();
    } else if (chosen->ended && !simulation->outcome.failed)
        simulation_fail("%s has ended by itself", chosen->name);
    return true;
}

/* To the moment at which a process is due, where none is before. */
static void skip_time(void)
{
    int64_t next_us = INT64_MAX;
    for (size_t i = 0; i < SIMULATION_PROCESSES; i++) {
        const struct simulation_process *process = &simulation->processes[i];
        int64_t due_us = process->running ? process->wake_us : process->start_us;
        if (process->running && process->stopped_until_us > due_us)
            due_us = process->stopped_until_us;
        if (due_us < next_us)
            next_us = due_us;
    }
    if (next_us > simulation->now_us)
        simulation->now_us = next_us;
}

static void step(void)
{
    const uint64_t dice = simulation_below(16);
    simulation->outcome.steps++;
    simulation->now_us += (int64_t)simulation_below(400);
    if (dice < 8) {
        if (!run_one() && simulation_below(3) == 0)
            skip_time();
    } else if (dice < 10) {
        simulated_postgres_step();
    } else if (dice < 13) {
        simulated_connections_step();
    } else {
        simulated_producers_step();
    }
    simulated_operators_step();
    if (simulation_fault(100))
        simulation_disturb();
    if (simulation_fault(200))
        simulated_redis_save();
}

static bool at_rest(void)
{
    return simulated_postgres_published() && simulated_producers_idle() &&
           simulated_redis_current();
}

static void lose_at_rest(void)
{
    switch (simulation_below(3)) {
    case 0:
        simulated_redis_restore();
        break;
    case 1:
        simulated_redis_raise_epoch();
        break;
    default:
        break;
    }
}

/* Faults are over: all that was committed must come to be shown, within bounded time. */
static void settle(void)
{
    simulation->faults = false;
    simulation_note("settle", 0, 0, 0);
    simulated_postgres_settle();
    simulated_operators_settle();
    for (size_t i = 0; i < SIMULATION_PROCESSES; i++) {
        simulation->processes[i].stopped_until_us = 0;
        simulation->processes[i].start_us = 0;
    }
    bool lost = false;
    for (int64_t i = 0; i < SETTLE_STEPS_MOST && !simulation->outcome.failed; i++) {
        if (i == ROUND_OF_CHECKS)
            simulated_group_repair();
        if (i > ROUND_OF_CHECKS && i % ROUND_OF_CHECKS == 0 && at_rest()) {
            if (lost)
                return;
            /* Nothing comes any more that would be refused: it must be noticed all the same. */
            lost = true;
            lose_at_rest();
        }
        step();
    }
    if (!simulation->outcome.failed)
        simulation_fail(
            "the read model does not come to the end of the log: events %s, read model %s",
            simulated_postgres_published() ? "published" : "not published",
            simulated_redis_current() ? "current" : "behind");
}

static void check_end(void)
{
    simulated_postgres_check_position();
    for (size_t user = 0; user < SIMULATION_USERS; user++) {
        if (simulated_log_version(user) != simulated_user_version(user))
            simulation_fail("version %" PRId64 " of user %" PRId64 " never came to Kafka",
                            simulated_user_version(user), simulated_user_id(user));
    }
    for (int32_t i = 0; i < SIMULATION_PARTITIONS; i++)
        simulated_redis_check(i);
}

static void set_up(struct simulation *made, const struct simulation_settings *settings)
{
    made->settings = *settings;
    made->outcome.hash = UINT64_C(0xcbf29ce484222325);
    made->now_us = 1000000;
    made->faults = true;
    tally_random_seed(&made->random, settings->seed);
    struct tally_settings *services = &made->services;
    (void)snprintf(services->redis_url, sizeof services->redis_url, "redis://127.0.0.1:6379/0");
    (void)snprintf(services->topic, sizeof services->topic, "simulated");
    services->relay_batch_events = 1 + (int64_t)simulation_below(16);
    services->relay_poll_most_ms = 20;
    services->relay_in_flight_events = 8 + (int64_t)simulation_below(64);
    /* That mistake shows where the calls of two projectors end at the same offsets. */
    const uint64_t most = settings->plant == PLANT_EPOCH_IGNORED ? 2 : 32;
    services->projector_batch_events = 1 + (int64_t)simulation_below(most);
    services->projector_cache_users = 1 + (int64_t)simulation_below(2 * SIMULATION_USERS);
    services->projector_stall_ms = 3600000; /* its way out would hide mistakes */
    services->redis_timeout_ms = 500;
    services->drain_ms = 1000;
    for (size_t i = 0; i < SIMULATION_PROCESSES; i++) {
        made->processes[i].name = process_names[i];
        made->processes[i].projects = i < SIMULATION_PROJECTORS;
    }
    simulated_postgres_open();
    simulated_kafka_open();
    simulated_redis_open();
    simulated_operators_open();
}

void simulation_run(const struct simulation_settings *settings, struct simulation_outcome *outcome)
{
    simulation = calloc(1, sizeof *simulation);
    if (simulation == NULL)
        abort();
    set_up(simulation, settings);
    while (simulation->outcome.steps < settings->steps && !simulation->outcome.failed)
        step();
    if (!simulation->outcome.failed)
        settle();
    if (!simulation->outcome.failed)
        check_end();
    simulation->faults = false;
    for (size_t i = 0; i < SIMULATION_PROCESSES; i++) {
        kill_process(&simulation->processes[i]);
        simulation_fiber_release(&simulation->processes[i]);
    }
    simulated_operators_close();
    simulated_redis_close();
    simulated_kafka_close();
    simulated_postgres_close();
    *outcome = simulation->outcome;
    free(simulation);
    simulation = NULL;
}
