/*
 * tally-query: the read API, from Redis alone.
 */
#include "service/process/process.h"
#include "service/query/query.h"

struct program {
    struct tally_process *process;
    struct tally_query *query;
};

static void on_drained(void *context)
{
    tally_process_drained(((struct program *)context)->process);
}

static enum tally_status start(void *context, struct tally_process *process,
                               struct tally_error *error)
{
    struct program *program = context;
    const struct tally_settings *settings = &process->config.settings;
    const struct tally_query_options options = {settings, process->base, process->metrics,
                                                on_drained, program};
    program->process = process;
    enum tally_status status = tally_query_new(&options, &program->query, error);
    if (status != TALLY_OK)
        return status;
    tally_log(TALLY_LOG_INFO, "query.listening", TALLY_TEXT("address", settings->query_listen),
              TALLY_INTEGER("threads", settings->query_threads));
    const struct tally_health_check checks[] = {
        {"redis", tally_query_check_redis, program->query, false},
        {"read_model", tally_query_check_read_model, program->query, false},
    };
    return tally_process_admin(process, checks, sizeof checks / sizeof checks[0], error);
}

static void drain(void *context)
{
    tally_query_drain(((struct program *)context)->query);
}

static bool alive(void *context)
{
    return tally_query_alive(((struct program *)context)->query);
}

static void log_level(void *context, enum tally_log_level level)
{
    tally_query_log_requests(((struct program *)context)->query, level == TALLY_LOG_DEBUG);
}

static void release(void *context)
{
    tally_query_free(&((struct program *)context)->query);
}

int main(int argc, char **argv)
{
    static const struct tally_process_service description = {
        .program = TALLY_PROGRAM_QUERY,
        .name = "tally-query",
        .doc = "Serves Tally's read API from Redis.",
        .start = start,
        .drain = drain,
        .alive = alive,
        .log_level = log_level,
        .release = release,
    };
    struct program program = {0};
    return tally_process_run(&description, &program, argc, argv);
}
