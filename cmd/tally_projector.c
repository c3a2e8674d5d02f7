/*
 * tally-projector: keeps the read model in Redis current with the events in Kafka.
 *
 * Exit codes: 0 told to stop; 1 it cannot go on, and the last log line, `projector.failed`, says
 * why and what to do; 78 (EX_CONFIG) the configuration is not valid.
 */
#include "core/config.h"
#include "core/log.h"
#include "loop/loop.h"
#include "service/admin/admin.h"
#include "service/projector/projector.h"

#include <signal.h>
#include <stdlib.h>
#include <sysexits.h>

struct program {
    struct tally_config config;
    struct event_base *base;
    struct tally_metrics *metrics;
    struct tally_lifecycle *lifecycle;
    struct tally_wakeup *ended;
    struct tally_projector *projector;
    struct tally_admin *admin;
    int code;
};

static void take_log_level(const struct program *program)
{
    enum tally_log_level level = TALLY_LOG_INFO;
    (void)tally_log_parse_level(program->config.settings.log_level, &level);
    tally_log_set_level(level);
    if (program->projector != NULL)
        tally_projector_set_verbose(program->projector, level == TALLY_LOG_DEBUG);
}

static void on_drain(void *context)
{
    const struct program *program = context;
    tally_log(TALLY_LOG_INFO, "projector.draining");
    tally_projector_stop(program->projector);
}

static void on_reload(void *context)
{
    struct program *program = context;
    struct tally_error error = {0};
    size_t held = 0;
    if (tally_config_reload(&program->config, &held, &error) != TALLY_OK) {
        tally_log_error(TALLY_LOG_ERROR, "projector.reload_refused", &error);
        return;
    }
    take_log_level(program);
    tally_log(TALLY_LOG_INFO, "projector.reloaded", TALLY_INTEGER("held_until_restart", held));
}

static bool on_alive(void *context)
{
    return tally_projector_alive(((struct program *)context)->projector);
}

/* From the projector's thread. */
static void on_ended(void *context)
{
    tally_wakeup_signal(((struct program *)context)->ended);
}

static void on_ended_here(void *context)
{
    struct program *program = context;
    struct tally_error error = {0};
    if (tally_projector_failure(program->projector, &error) != TALLY_OK) {
        tally_log_error(TALLY_LOG_ERROR, "projector.failed", &error);
        program->code = EXIT_FAILURE;
    }
    tally_lifecycle_finish(program->lifecycle);
}

static enum tally_status start(struct program *program, struct tally_error *error)
{
    const struct tally_settings *settings = &program->config.settings;
    program->base = tally_loop_new();
    program->metrics = tally_metrics_new();
    if (program->base == NULL || program->metrics == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "event loop");
    const struct tally_lifecycle_options lifecycle = {on_drain, on_reload, on_alive, program,
                                                      settings->drain_ms};
    const struct tally_projector_options projector = {settings, program->metrics, on_ended,
                                                      program};
    enum tally_status status =
        tally_wakeup_new(program->base, on_ended_here, program, &program->ended, error);
    if (status == TALLY_OK)
        status = tally_projector_start(&projector, &program->projector, error);
    if (status == TALLY_OK)
        status = tally_lifecycle_new(program->base, &lifecycle, &program->lifecycle, error);
    const struct tally_health_check checks[] = {
        {"kafka", tally_projector_kafka_ready, program->projector},
        {"redis", tally_projector_redis_ready, program->projector},
        {"progress", tally_projector_progress_ready, program->projector},
    };
    if (status == TALLY_OK)
        status = tally_admin_new(program->base, settings->admin_listen, program->metrics,
                                 program->lifecycle, checks, sizeof checks / sizeof checks[0],
                                 &program->admin, error);
    return status;
}

static void serve(struct program *program)
{
    take_log_level(program);
    tally_log(TALLY_LOG_INFO, "projector.started",
              TALLY_TEXT("admin", program->config.settings.admin_listen));
    tally_lifecycle_ready(program->lifecycle);
    event_base_dispatch(program->base);
    tally_log(TALLY_LOG_INFO, "projector.stopped",
              TALLY_TEXT("clean", tally_lifecycle_clean(program->lifecycle) ? "yes" : "no"));
}

static void release(struct program *program)
{
    tally_admin_free(&program->admin);
    if (program->projector != NULL)
        tally_projector_stop(program->projector);
    tally_projector_free(&program->projector);
    tally_lifecycle_free(&program->lifecycle);
    tally_wakeup_free(&program->ended);
    tally_metrics_free(&program->metrics);
    if (program->base != NULL)
        event_base_free(program->base);
}

int main(int argc, char **argv)
{
    struct program program = {.code = EXIT_SUCCESS};
    struct tally_error error = {0};
    tally_log_start("tally-projector", TALLY_LOG_INFO);
    if (tally_config_parse(&program.config, TALLY_PROGRAM_PROJECTOR,
                           "Keeps Tally's read model in Redis current with the events in Kafka.",
                           argc, argv, &error) != TALLY_OK) {
        tally_log_error(TALLY_LOG_ERROR, "projector.configuration", &error);
        return EX_CONFIG;
    }
    if (program.config.action == TALLY_CONFIG_CHECK)
        return EXIT_SUCCESS;
    (void)signal(SIGPIPE, SIG_IGN); /* hiredis writes to sockets whose peer may have gone */
    if (start(&program, &error) == TALLY_OK) {
        serve(&program);
        /* The drain was cut off: its thread may wait for a server that does not answer. */
        if (!tally_lifecycle_clean(program.lifecycle))
            _Exit(EXIT_FAILURE);
    } else {
        tally_log_error(TALLY_LOG_ERROR, "projector.start", &error);
        program.code = error.status == TALLY_CONFIG ? EX_CONFIG : EXIT_FAILURE;
    }
    release(&program);
    return program.code;
}
