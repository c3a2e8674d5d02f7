#include "view/pause.h"
#include "core/clock.h"
#include "pg/blocking.h"
#include "service/ctl/output.h"
#include "store/relay_control.h"

#include <stdio.h>
#include <string.h>

enum { KEY_REASON = 'r', REASON_MOST = 200 };
_Static_assert(REASON_MOST <= TALLY_PAUSE_REASON_MOST, "the reason must fit into PostgreSQL");
_Static_assert(REASON_MOST <= TALLY_VIEW_PAUSE_REASON_MOST, "the reason must be read back whole");

struct pause_command {
    struct tally_ctl *ctl;
    const char *part;   /* "relay" or "projector" */
    const char *reason; /* "" where none is given */
};

static const struct argp_option options[] = {
    {"reason", KEY_REASON, "TEXT", 0, "Why; shown wherever the pause is shown", 0}, {0}};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct pause_command *command = state->input;
    if (key == KEY_REASON) {
        if (strlen(argument) > REASON_MOST)
            argp_error(state, "--reason takes %d bytes at most", REASON_MOST);
        command->reason = argument;
    } else if (key == ARGP_KEY_ARG && command->part == NULL &&
               (strcmp(argument, "relay") == 0 || strcmp(argument, "projector") == 0))
        command->part = argument;
    else if (key == ARGP_KEY_ARG)
        argp_error(state, "\"%s\" is neither `relay` nor `projector`", argument);
    else if (key == ARGP_KEY_NO_ARGS)
        argp_error(state, "the argument is missing: `relay` or `projector`");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp pause_argp = {
    .options = options,
    .parser = parse,
    .args_doc = "relay|projector",
    .doc = "Stops the relay from publishing, or all projectors from applying, until `tallyctl "
           "resume`. Those that run follow within about a second and keep their lead or their "
           "partitions; those that start later are paused too. Writes go on and wait. A pause of "
           "the projectors is kept in Redis, and lost with it." TALLY_CTL_EXIT_DOC,
};

static const struct argp resume_argp = {
    .parser = parse,
    .args_doc = "relay|projector",
    .doc = "Ends a pause; resuming what is not paused does nothing." TALLY_CTL_EXIT_DOC,
};

static enum tally_status set_relay(const struct pause_command *command, bool paused,
                                   struct tally_error *error)
{
    PGconn *connection = NULL;
    enum tally_status status = tally_pg_connect(command->ctl->config.settings.pg_dsn,
                                                "tallyctl pause", &connection, error);
    if (status == TALLY_OK)
        status = paused ? tally_relay_pause(connection, command->reason, error)
                        : tally_relay_resume(connection, error);
    PQfinish(connection);
    return status;
}

static enum tally_status set_projector(const struct pause_command *command, bool paused,
                                       struct tally_error *error)
{
    const struct tally_settings *settings = &command->ctl->config.settings;
    struct tally_redis *redis = NULL;
    enum tally_status status =
        tally_redis_open_text(settings->redis_url, settings->redis_timeout_ms, &redis, error);
    if (status == TALLY_OK)
        status = paused ? tally_view_pause_set(redis, tally_clock_wall_us() / 1000, command->reason,
                                               error)
                        : tally_view_pause_clear(redis, error);
    if (redis != NULL)
        tally_redis_close(&redis);
    return status;
}

static int run(struct tally_ctl *ctl, const struct argp *argp, bool paused, int argc, char **argv)
{
    struct pause_command command = {.ctl = ctl, .reason = ""};
    int code = tally_ctl_parse(ctl, argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    struct tally_error error;
    enum tally_status status = strcmp(command.part, "relay") == 0
                                   ? set_relay(&command, paused, &error)
                                   : set_projector(&command, paused, &error);
    if (status != TALLY_OK)
        return tally_ctl_fail(ctl, &error);
    if (ctl->json)
        return tally_ctl_print_json(
            ctl, json_pack("{s:s,s:b}", "part", command.part, "paused", paused), TALLY_CTL_FINE);
    (void)printf("%s %s\n", command.part,
                 paused ? "is paused; it stops within a second" : "goes on within a second");
    return TALLY_CTL_FINE;
}

int tally_ctl_pause(struct tally_ctl *ctl, int argc, char **argv)
{
    return run(ctl, &pause_argp, true, argc, argv);
}

int tally_ctl_resume(struct tally_ctl *ctl, int argc, char **argv)
{
    return run(ctl, &resume_argp, false, argc, argv);
}
