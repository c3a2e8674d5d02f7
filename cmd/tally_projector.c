/*
 * tally-projector: keeps the read model in Redis current with the events in Kafka.
 */
#include "service/process/process.h"
#include "service/projector/projector.h"

#include <stdatomic.h>

struct program {
    struct tally_process *process;
    struct tally_wakeup *changed; /* the projector failed or ended */
    atomic_bool ended;
    struct tally_projector *projector;
};

/* The next two come from the projector's thread. */
static void on_failed(void *context)
{
    tally_wakeup_signal(((struct program *)context)->changed);
}

static void on_ended(void *context)
{
    struct program *program = context;
    atomic_store(&program->ended, true);
    tally_wakeup_signal(program->changed);
}

static void on_changed(void *context)
{
    struct program *program = context;
    struct tally_error error = {0};
    if (tally_projector_failure(program->projector, &error) != TALLY_OK)
        tally_process_fail(program->process, &error);
    if (atomic_load(&program->ended))
        tally_process_drained(program->process);
}

static enum tally_status start(void *context, struct tally_process *process,
                               struct tally_error *error)
{
    struct program *program = context;
    const struct tally_projector_options options = {&process->config.settings, process->metrics,
                                                    on_failed, on_ended, program};
    program->process = process;
    enum tally_status status =
        tally_wakeup_new(process->base, on_changed, program, &program->changed, error);
    if (status == TALLY_OK)
        status = tally_projector_start(&options, &program->projector, error);
    if (status != TALLY_OK)
        return status;
    const struct tally_health_check checks[] = {
        {"kafka", tally_projector_kafka_ready, program->projector, false},
        {"redis", tally_projector_redis_ready, program->projector, false},
        {"progress", tally_projector_progress_ready, program->projector, false},
    };
    return tally_process_admin(process, checks, sizeof checks / sizeof checks[0], error);
}

static void drain(void *context)
{
    tally_projector_stop(((struct program *)context)->projector);
}

static bool alive(void *context)
{
    return tally_projector_alive(((struct program *)context)->projector);
}

static void log_level(void *context, enum tally_log_level level)
{
    tally_projector_set_verbose(((struct program *)context)->projector, level == TALLY_LOG_DEBUG);
}

static void release(void *context)
{
    struct program *program = context;
    if (program->projector != NULL)
        tally_projector_stop(program->projector);
    tally_projector_free(&program->projector);
    tally_wakeup_free(&program->changed);
}

int main(int argc, char **argv)
{
    static const struct tally_process_service description = {
        .program = TALLY_PROGRAM_PROJECTOR,
        .name = "tally-projector",
        .doc = "Keeps Tally's read model in Redis current with the events in Kafka.",
        .start = start,
        .drain = drain,
        .alive = alive,
        .log_level = log_level,
        .release = release,
    };
    struct program program = {0};
    return tally_process_run(&description, &program, argc, argv);
}
