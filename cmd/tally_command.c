/*
 * tally-command: the write API, into PostgreSQL, and the relay of its events to Kafka.
 */
#include "core/config.h"
#include "core/log.h"
#include "loop/loop.h"
#include "service/admin/admin.h"
#include "service/command/command.h"
#include "service/relay/relay.h"

#include <signal.h>
#include <stdlib.h>
#include <sysexits.h>

struct program {
    struct tally_config config;
    struct event_base *base;
    struct tally_metrics *metrics;
    struct tally_lifecycle *lifecycle;
    struct tally_admin *admin;
    struct tally_relay *relay;
    struct tally_command_service *service;
};

static void take_log_level(const struct program *program)
{
    enum tally_log_level level = TALLY_LOG_INFO;
    (void)tally_log_parse_level(program->config.settings.log_level, &level);
    tally_log_set_level(level);
}

static void on_committed(void *context)
{
    tally_relay_wake(((struct program *)context)->relay);
}

static void on_drain(void *context)
{
    struct program *program = context;
    tally_log(TALLY_LOG_INFO, "command.draining");
    tally_command_service_drain(program->service);
}

/* Leaving the loop is the end of the writes; main then stops the relay, which publishes the last of
 * them. */
static void on_drained(void *context)
{
    tally_lifecycle_finish(((struct program *)context)->lifecycle);
}

static void on_reload(void *context)
{
    struct program *program = context;
    struct tally_error error = {0};
    size_t held = 0;
    if (tally_config_reload(&program->config, &held, &error) != TALLY_OK) {
        tally_log_error(TALLY_LOG_ERROR, "command.reload_refused", &error);
        return;
    }
    take_log_level(program);
    tally_log(TALLY_LOG_INFO, "command.reloaded", TALLY_INTEGER("held_until_restart", held));
}

static enum tally_status start(struct program *program, struct tally_error *error)
{
    const struct tally_settings *settings = &program->config.settings;
    program->base = tally_loop_new();
    program->metrics = tally_metrics_new();
    if (program->base == NULL || program->metrics == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "event loop");
    const struct tally_lifecycle_options lifecycle = {on_drain, on_reload, NULL, program,
                                                      settings->drain_ms};
    const struct tally_command_service_options service = {
        settings, program->base, program->metrics, on_committed, on_drained, program};
    enum tally_status status =
        tally_lifecycle_new(program->base, &lifecycle, &program->lifecycle, error);
    if (status == TALLY_OK)
        status = tally_command_service_new(&service, &program->service, error);
    if (status == TALLY_OK)
        status = tally_relay_start(settings, program->metrics, &program->relay, error);
    const struct tally_health_check checks[] = {
        {"postgresql", tally_command_check_postgresql, program->service},
        {"schema", tally_command_check_schema, program->service},
    };
    if (status == TALLY_OK)
        status = tally_admin_new(program->base, settings->admin_listen, program->metrics,
                                 program->lifecycle, checks, sizeof checks / sizeof checks[0],
                                 &program->admin, error);
    return status;
}

static void serve(struct program *program)
{
    const struct tally_settings *settings = &program->config.settings;
    tally_log(TALLY_LOG_INFO, "command.listening", TALLY_TEXT("address", settings->command_listen),
              TALLY_INTEGER("port", tally_command_service_port(program->service)),
              TALLY_TEXT("admin", settings->admin_listen));
    tally_lifecycle_ready(program->lifecycle);
    event_base_dispatch(program->base);
    if (program->relay != NULL)
        tally_relay_stop(&program->relay);
    tally_log(TALLY_LOG_INFO, "command.stopped",
              TALLY_TEXT("clean", tally_lifecycle_clean(program->lifecycle) ? "yes" : "no"));
}

static void release(struct program *program)
{
    tally_admin_free(&program->admin);
    tally_command_service_free(&program->service);
    if (program->relay != NULL)
        tally_relay_stop(&program->relay);
    tally_lifecycle_free(&program->lifecycle);
    tally_metrics_free(&program->metrics);
    if (program->base != NULL)
        event_base_free(program->base);
}

int main(int argc, char **argv)
{
    struct program program = {0};
    struct tally_error error = {0};
    tally_log_start("tally-command", TALLY_LOG_INFO);
    if (tally_config_parse(&program.config, TALLY_PROGRAM_COMMAND,
                           "Takes Tally's writes into PostgreSQL and publishes them to Kafka.",
                           argc, argv, &error) != TALLY_OK) {
        tally_log_error(TALLY_LOG_ERROR, "command.configuration", &error);
        return EX_CONFIG;
    }
    if (program.config.action == TALLY_CONFIG_CHECK)
        return EXIT_SUCCESS;
    take_log_level(&program);
    (void)signal(SIGPIPE, SIG_IGN); /* libpq writes to sockets whose peer may have gone */
    int code = EXIT_SUCCESS;
    if (start(&program, &error) == TALLY_OK) {
        serve(&program);
    } else {
        tally_log_error(TALLY_LOG_ERROR, "command.start", &error);
        code = error.status == TALLY_CONFIG ? EX_CONFIG : EXIT_FAILURE;
    }
    release(&program);
    return code;
}
