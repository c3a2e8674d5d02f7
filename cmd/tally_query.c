/*
 * tally-query: the read API, from Redis alone.
 */
#include "core/config.h"
#include "core/log.h"
#include "loop/loop.h"
#include "service/admin/admin.h"
#include "service/query/query.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

struct program {
    struct tally_config config;
    struct event_base *base;
    struct tally_metrics *metrics;
    struct tally_lifecycle *lifecycle;
    struct tally_admin *admin;
    struct tally_query *query;
};

static void take_log_level(struct program *program)
{
    enum tally_log_level level = TALLY_LOG_INFO;
    (void)tally_log_parse_level(program->config.settings.log_level, &level);
    tally_log_set_level(level);
    if (program->query != NULL)
        tally_query_log_requests(program->query, level == TALLY_LOG_DEBUG);
}

static void on_drain(void *context)
{
    struct program *program = context;
    tally_log(TALLY_LOG_INFO, "query.draining");
    tally_query_drain(program->query);
}

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
        tally_log_error(TALLY_LOG_ERROR, "query.reload_refused", &error);
        return;
    }
    take_log_level(program);
    tally_log(TALLY_LOG_INFO, "query.reloaded", TALLY_INTEGER("held_until_restart", held));
}

static bool alive(void *context)
{
    return tally_query_alive(((struct program *)context)->query);
}

static enum tally_status start(struct program *program, struct tally_error *error)
{
    const struct tally_settings *settings = &program->config.settings;
    program->base = tally_loop_new();
    program->metrics = tally_metrics_new();
    if (program->base == NULL || program->metrics == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "event loop");
    const struct tally_query_options query = {settings, program->base, program->metrics, on_drained,
                                              program};
    enum tally_status status = tally_query_new(&query, &program->query, error);
    const struct tally_lifecycle_options lifecycle = {on_drain, on_reload, alive, program,
                                                      settings->drain_ms};
    if (status == TALLY_OK)
        status = tally_lifecycle_new(program->base, &lifecycle, &program->lifecycle, error);
    const struct tally_health_check checks[] = {
        {"redis", tally_query_check_redis, program->query},
        {"read_model", tally_query_check_read_model, program->query},
    };
    if (status == TALLY_OK)
        status = tally_admin_new(program->base, settings->admin_listen, program->metrics,
                                 program->lifecycle, checks, sizeof checks / sizeof checks[0],
                                 &program->admin, error);
    return status;
}

int main(int argc, char **argv)
{
    struct program program = {0};
    struct tally_error error = {0};
    tally_log_start("tally-query", TALLY_LOG_INFO);
    if (tally_config_parse(&program.config, TALLY_PROGRAM_QUERY,
                           "Serves Tally's read API from Redis.", argc, argv, &error) != TALLY_OK) {
        tally_log_error(TALLY_LOG_ERROR, "query.configuration", &error);
        return EX_CONFIG;
    }
    if (program.config.action == TALLY_CONFIG_CHECK)
        return EXIT_SUCCESS;
    take_log_level(&program);
    int code = EXIT_FAILURE;
    if (start(&program, &error) == TALLY_OK) {
        tally_log(TALLY_LOG_INFO, "query.listening",
                  TALLY_TEXT("address", program.config.settings.query_listen),
                  TALLY_TEXT("admin", program.config.settings.admin_listen),
                  TALLY_INTEGER("threads", program.config.settings.query_threads));
        tally_lifecycle_ready(program.lifecycle);
        event_base_dispatch(program.base);
        tally_log(TALLY_LOG_INFO, "query.stopped",
                  TALLY_TEXT("clean", tally_lifecycle_clean(program.lifecycle) ? "yes" : "no"));
        code = EXIT_SUCCESS;
    } else {
        tally_log_error(TALLY_LOG_ERROR, "query.start", &error);
        code = error.status == TALLY_CONFIG ? EX_CONFIG : EXIT_FAILURE;
    }
    tally_query_free(&program.query);
    tally_admin_free(&program.admin);
    tally_lifecycle_free(&program.lifecycle);
    tally_metrics_free(&program.metrics);
    if (program.base != NULL)
        event_base_free(program.base);
    return code;
}
