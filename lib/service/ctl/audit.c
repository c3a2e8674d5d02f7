#include "service/ctl/audit.h"

#include "service/ctl/output.h"
#include "service/process/process.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { KEY_RATE = 'r', KEY_ONCE = 'o', KEY_DRY_RUN = 'n', KEY_GRACE = 'g', KEY_MOST = 'm' };

struct audit_command {
    struct tally_ctl *ctl;
    struct tally_audit_options options;
    struct tally_process *process;
    struct tally_wakeup *ended;
    struct tally_audit *audit;
    struct tally_audit_result result;
    struct tally_error failure;
};

static const struct argp_option options[] = {
    {"rate", KEY_RATE, "N", 0, "Users, and then keys, a second (default 1000)", 0},
    {"once", KEY_ONCE, NULL, 0,
     "One whole sweep from the first user, without an admin port; then the result", 0},
    {"dry-run", KEY_DRY_RUN, NULL, 0, "Repair nothing, report only", 0},
    {"grace", KEY_GRACE, "SECONDS", 0,
     "Longest wait for the events of one user to arrive (default 10)", 0},
    {"repairs-most", KEY_MOST, "N", 0,
     "Repairs of one sweep (default 10000); where more users differ, rebuild", 0},
    {0}};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct audit_command *command = state->input;
    switch (key) {
    case KEY_RATE:
        command->options.rate = tally_ctl_real(state, "rate", argument, 0.1, 1000000);
        return 0;
    case KEY_ONCE:
        command->options.once = true;
        return 0;
    case KEY_DRY_RUN:
        command->options.dry_run = true;
        return 0;
    case KEY_GRACE:
        command->options.grace_ms = tally_ctl_integer(state, "grace", argument, 0, 3600) * 1000;
        return 0;
    case KEY_MOST:
        command->options.repairs_most =
            tally_ctl_integer(state, "repairs-most", argument, 1, 1000000000);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc = "Compares all users with a recount again and again, slowly, and repairs those that "
           "differ for certain. Runs until it is told to stop, and goes on where it was when it is "
           "started again; /livez, /readyz and /metrics are at TALLY_ADMIN_LISTEN, the log, with a "
           "line for each repaired user, is on standard error." TALLY_CTL_EXIT_DOC,
};

/* From the audit's thread. */
static void on_ended(void *context)
{
    tally_wakeup_signal(((struct audit_command *)context)->ended);
}

static void on_wakeup(void *context)
{
    struct audit_command *command = context;
    (void)tally_audit_result(command->audit, &command->result, &command->failure);
    tally_process_drained(command->process);
}

static enum tally_status start(void *context, struct tally_process *process,
                               struct tally_error *error)
{
    struct audit_command *command = context;
    command->process = process;
    command->options.settings = &process->config.settings;
    command->options.metrics = process->metrics;
    command->options.on_ended = on_ended;
    command->options.context = command;
    enum tally_status status =
        tally_wakeup_new(process->base, on_wakeup, command, &command->ended, error);
    if (status == TALLY_OK)
        status = tally_audit_start(&command->options, &command->audit, error);
    if (status != TALLY_OK || command->options.once)
        return status;
    const struct tally_health_check checks[] = {
        {"sweep", tally_audit_sweep_ready, command->audit, false},
    };
    return tally_process_admin(process, checks, sizeof checks / sizeof checks[0], error);
}

static void drain(void *context)
{
    tally_audit_stop(((struct audit_command *)context)->audit);
}

static bool alive(void *context)
{
    return tally_audit_alive(((struct audit_command *)context)->audit);
}

static void release(void *context)
{
    struct audit_command *command = context;
    tally_audit_free(&command->audit);
    tally_wakeup_free(&command->ended);
}

static int print_result(const struct audit_command *command)
{
    const struct tally_audit_result *result = &command->result;
    const bool fine = result->repaired == result->differing && result->unconfirmed == 0;
    const int code = fine ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    char checked[TALLY_NUMBER_BYTES], duration[TALLY_DURATION_BYTES];
    if (command->ctl->json)
        return tally_ctl_print_json(
            command->ctl,
            json_pack("{s:I,s:I,s:I,s:I,s:I,s:f}", "usersChecked", (json_int_t)result->checked,
                      "keysChecked", (json_int_t)result->keys, "differing",
                      (json_int_t)result->differing, "repaired", (json_int_t)result->repaired,
                      "unconfirmed", (json_int_t)result->unconfirmed, "seconds", result->seconds),
            code);
    tally_ctl_format_duration(result->seconds, duration);
    (void)printf("%s users checked in %s: %" PRId64 " differ, %" PRId64 " of them repaired\n",
                 tally_ctl_format_number(result->checked, checked), duration, result->differing,
                 result->repaired);
    if (result->unconfirmed > 0)
        (void)printf("%" PRId64
                     " more may have had events under way: audit again, and see `tallyctl "
                     "status` for the relay and the projector\n",
                     result->unconfirmed);
    return code;
}

/* The result of a single sweep; a worker that was told to stop has none to print. */
static int finish(struct audit_command *command, int code)
{
    if (code != EXIT_SUCCESS)
        return code == EXIT_FAILURE ? TALLY_CTL_FAILED : TALLY_CTL_USAGE;
    if (command->failure.status != TALLY_OK)
        return tally_ctl_fail(command->ctl, &command->failure);
    if (!command->options.once)
        return TALLY_CTL_FINE;
    if (command->result.completed)
        return print_result(command);
    struct tally_error stopped;
    (void)tally_fail(&stopped, TALLY_STOPPING, "the sweep was stopped before its end");
    return tally_ctl_fail(command->ctl, &stopped);
}

int tally_ctl_audit(struct tally_ctl *ctl, int argc, char **argv)
{
    static const struct tally_process_service description = {
        .program = TALLY_PROGRAM_CTL,
        .name = "tally-audit",
        .start = start,
        .drain = drain,
        .alive = alive,
        .release = release,
    };
    struct audit_command command = {
        .ctl = ctl,
        .options = {.rate = 1000, .grace_ms = 10000, .repairs_most = 10000},
    };
    const int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    return finish(&command, tally_process_run_with(&description, &command, &ctl->config));
}
