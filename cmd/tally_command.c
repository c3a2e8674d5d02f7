/*
 * tally-command: the write API, into PostgreSQL, and the relay of its events to Kafka.
 */
#include "service/command/command.h"
#include "service/process/process.h"
#include "service/relay/relay.h"

#include <stdlib.h>

struct program {
    struct tally_process *process;
    struct tally_command_service *service;
    struct tally_relay *relay;
};

static void on_committed(void *context)
{
    tally_relay_wake(((struct program *)context)->relay);
}

/* Writes go on without Kafka: their events wait in PostgreSQL. */
static bool check_relay(void *context, char reason[TALLY_HEALTH_REASON_BYTES])
{
    const char *state;
    tally_relay_state(((struct program *)context)->relay, &state, reason,
                      TALLY_HEALTH_REASON_BYTES);
    return reason[0] == '\0' && tally_relay_pause_note(((struct program *)context)->relay, reason);
}

/* Every write has its answer. The relay publishes the last of them when it is stopped. */
static void on_drained(void *context)
{
    tally_process_drained(((struct program *)context)->process);
}

static enum tally_status start(void *context, struct tally_process *process,
                               struct tally_error *error)
{
    struct program *program = context;
    const struct tally_settings *settings = &process->config.settings;
    const struct tally_command_service_options options = {
        settings, process->base, process->metrics, on_committed, on_drained, program};
    program->process = process;
    enum tally_status status =
        tally_relay_start(settings, process->metrics, &program->relay, error);
    if (status == TALLY_OK)
        status = tally_command_service_new(&options, &program->service, error);
    if (status != TALLY_OK)
        return status;
    tally_log(TALLY_LOG_INFO, "command.listening", TALLY_TEXT("address", settings->command_listen),
              TALLY_INTEGER("port", tally_command_service_port(program->service)));
    const struct tally_health_check checks[] = {
        {"postgresql", tally_command_check_postgresql, program->service, false},
        {"schema", tally_command_check_schema, program->service, false},
        {"relay", check_relay, program, true},
    };
    return tally_process_admin(process, checks, sizeof checks / sizeof checks[0], error);
}

static void drain(void *context)
{
    struct program *program = context;
    tally_relay_drain(program->relay);
    tally_command_service_drain(program->service);
}

/* The loop turns, or this would not be asked; the relay has a thread of its own. */
static bool alive(void *context)
{
    return tally_relay_alive(((struct program *)context)->relay);
}

static void release(void *context)
{
    struct program *program = context;
    tally_command_service_free(&program->service);
    if (!tally_relay_stop(&program->relay)) {
        tally_log(TALLY_LOG_ERROR, "relay.stop_cut_off");
        _Exit(EXIT_FAILURE);
    }
}

int main(int argc, char **argv)
{
    static const struct tally_process_service description = {
        .program = TALLY_PROGRAM_COMMAND,
        .name = "tally-command",
        .doc = "Takes Tally's writes into PostgreSQL and publishes them to Kafka.",
        .start = start,
        .drain = drain,
        .alive = alive,
        .release = release,
    };
    struct program program = {0};
    return tally_process_run(&description, &program, argc, argv);
}
