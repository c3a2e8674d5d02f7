#include "service/process/process.h"

#include <signal.h>
#include <stdlib.h>
#include <sysexits.h>

/* What the hooks of the life cycle are called with. */
struct run {
    struct tally_process process;
    const struct tally_process_service *description;
    void *service;
};

static enum tally_log_level take_log_level(const struct run *run)
{
    enum tally_log_level level = TALLY_LOG_INFO;
    (void)tally_log_parse_level(run->process.config.settings.log_level, &level);
    tally_log_set_level(level);
    return level;
}

/* For a service that is running. */
static void tell_log_level(const struct run *run)
{
    const enum tally_log_level level = take_log_level(run);
    if (run->description->log_level != NULL)
        run->description->log_level(run->service, level);
}

static void on_drain(void *context)
{
    struct run *run = context;
    tally_log(TALLY_LOG_INFO, "service.draining");
    run->description->drain(run->service);
}

static void on_reload(void *context)
{
    struct run *run = context;
    struct tally_error error = {0};
    size_t held = 0;
    if (tally_config_reload(&run->process.config, &held, &error) != TALLY_OK) {
        tally_log_error(TALLY_LOG_ERROR, "service.reload_refused", &error);
        return;
    }
    tell_log_level(run);
    tally_log(TALLY_LOG_INFO, "service.reloaded", TALLY_INTEGER("held_until_restart", held));
}

static bool on_alive(void *context)
{
    const struct run *run = context;
    return run->description->alive == NULL || run->description->alive(run->service);
}

enum tally_status tally_process_admin(struct tally_process *process,
                                      const struct tally_health_check *checks, size_t count,
                                      struct tally_error *error)
{
    return tally_admin_new(process->base, process->config.settings.admin_listen, process->metrics,
                           process->lifecycle, checks, count, &process->admin, error);
}

void tally_process_drained(struct tally_process *process)
{
    tally_lifecycle_finish(process->lifecycle);
}

void tally_process_fail(struct tally_process *process, const struct tally_error *error)
{
    if (process->failure.status != TALLY_OK)
        return;
    process->failure = *error;
    tally_log_error(TALLY_LOG_ERROR, "service.failed", error);
    tally_lifecycle_stop(process->lifecycle);
}

static enum tally_status start(struct run *run, struct tally_error *error)
{
    struct tally_process *process = &run->process;
    const struct tally_lifecycle_options options = {on_drain, on_reload, on_alive, run,
                                                    process->config.settings.drain_ms};
    process->base = tally_loop_new();
    process->metrics = tally_metrics_new();
    if (process->base == NULL || process->metrics == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "event loop");
    enum tally_status status =
        tally_lifecycle_new(process->base, &options, &process->lifecycle, error);
    return status == TALLY_OK ? run->description->start(run->service, process, error) : status;
}

static int serve(struct run *run)
{
    struct tally_process *process = &run->process;
    tell_log_level(run);
    tally_log(TALLY_LOG_INFO, "service.started",
              TALLY_TEXT("admin", process->config.settings.admin_listen));
    tally_lifecycle_ready(process->lifecycle);
    event_base_dispatch(process->base);
    const bool clean = tally_lifecycle_clean(process->lifecycle);
    tally_log(clean ? TALLY_LOG_INFO : TALLY_LOG_ERROR,
              clean ? "service.drained" : "service.drain_cut_off",
              TALLY_INTEGER("drain_ms", process->config.settings.drain_ms));
    if (!clean)
        _Exit(EXIT_FAILURE);
    return process->failure.status == TALLY_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void release(struct run *run)
{
    struct tally_process *process = &run->process;
    tally_admin_free(&process->admin);
    run->description->release(run->service);
    tally_lifecycle_free(&process->lifecycle);
    tally_metrics_free(&process->metrics);
    if (process->base != NULL)
        event_base_free(process->base);
}

static int run_configured(struct run *run)
{
    struct tally_error error = {0};
    (void)take_log_level(run);
    /* libpq and hiredis write to sockets whose peer may have gone. */
    (void)signal(SIGPIPE, SIG_IGN);
    int code = EXIT_SUCCESS;
    if (start(run, &error) == TALLY_OK) {
        code = serve(run);
    } else {
        tally_log_error(TALLY_LOG_ERROR, "service.start", &error);
        code = error.status == TALLY_CONFIG ? EX_CONFIG : EXIT_FAILURE;
    }
    release(run);
    tally_log(TALLY_LOG_INFO, "service.stopped", TALLY_INTEGER("code", code));
    return code;
}

int tally_process_run(const struct tally_process_service *description, void *service, int argc,
                      char **argv)
{
    struct run run = {.description = description, .service = service};
    struct tally_error error = {0};
    tally_log_start(description->name, TALLY_LOG_INFO);
    if (tally_config_parse(&run.process.config, description->program, description->doc, argc, argv,
                           &error) != TALLY_OK) {
        tally_log_error(TALLY_LOG_ERROR, "service.configuration", &error);
        return EX_CONFIG;
    }
    if (run.process.config.action == TALLY_CONFIG_CHECK)
        return EXIT_SUCCESS;
    return run_configured(&run);
}

int tally_process_run_with(const struct tally_process_service *description, void *service,
                           const struct tally_config *config)
{
    struct run run = {.description = description, .service = service};
    tally_log_start(description->name, TALLY_LOG_INFO);
    run.process.config = *config;
    return run_configured(&run);
}
