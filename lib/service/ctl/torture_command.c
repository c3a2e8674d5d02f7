#include "service/ctl/output.h"
#include "service/ctl/torture.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KEY_FAULTS = 'f',
    KEY_LOCAL = 'l',
    KEY_FAULT = 'F',
    KEY_CHECK = 'k',
    KEY_DURATION = 't',
    KEY_ROUNDS = 'n',
    KEY_PAUSE = 'p',
    KEY_SEED = 's',
    KEY_USERS = 'u',
    KEY_RATE = 'r',
    KEY_CONNECTIONS = 'c',
    KEY_PATIENCE = 'w',
    KEY_MEND = 'm',
    KEY_YES = 'y',
    NAMES_MOST = TALLY_FAULTS_MOST,
    USERS_MOST = 1000000,
    LINE_BYTES = 1024,
    VALUE_BYTES = TALLY_SETTING_TEXT_BYTES,
};

struct torture_command {
    struct torture_options options;
    const char *file;
    char local[PATH_MAX]; /* the stack's folder; "": none */
    const char *names[NAMES_MOST];
    size_t name_count;
    bool check, seeded, confirmed;
};

static const struct argp_option options[] = {
    {"faults", KEY_FAULTS, "FILE", 0,
     "What to break and how to heal it; deploy/torture has examples", 0},
    {"local", KEY_LOCAL, "DIR", 0,
     "The stack that deploy/local/up --detach has started in DIR (.local in the checkout), with "
     "the "
     "faults that are built in",
     0},
    {"fault", KEY_FAULT, "NAME", 0, "Only this one of the faults; any number of times", 0},
    {"check", KEY_CHECK, NULL, 0, "List the faults and exit; nothing is done", 0},
    {"duration", KEY_DURATION, "TIME", 0, "How long, as in 90s, 10m or 2h (default 10m)", 0},
    {"rounds", KEY_ROUNDS, "N", 0, "How often each fault comes, instead of a time", 0},
    {"pause-between", KEY_PAUSE, "TIME", 0, "Between two faults, on average (default 5s)", 0},
    {"seed", KEY_SEED, "N", 0, "Repeats the order and the times of a run (default: new)", 0},
    {"users", KEY_USERS, "N", 0, "Users that write (default 500); they stay in the database", 0},
    {"rate", KEY_RATE, "PER_SECOND", 0, "Writes a second (default 300)", 0},
    {"connections", KEY_CONNECTIONS, "N", 0, "Connections that write (default 32)", 0},
    {"patience", KEY_PATIENCE, "TIME", 0,
     "Longest wait for a recovery, and for the lag to go at the end (default 2m)", 0},
    {"mend", KEY_MEND, NULL, 0,
     "Where the stack asks for `tallyctl rebuild`, `refill` or `repair`, run it, once", 0},
    {"yes-break-it", KEY_YES, NULL, 0, "Do not ask whether this stack may be broken", 0},
    {0}};

/* The settings of a local stack go before those of the environment: what it names is what is
 * broken. */
static enum tally_status read_local(struct torture_command *command, const char *folder,
                                    struct tally_error *error)
{
    char path[PATH_MAX + 16], line[LINE_BYTES];
    if (realpath(folder, command->local) == NULL)
        return tally_fail(error, TALLY_INVALID, "%s: %s", folder, strerror(errno));
    (void)snprintf(path, sizeof path, "%s/process", command->local);
    bool known = access(path, X_OK) == 0;
    (void)snprintf(path, sizeof path, "%s/env", command->local);
    FILE *stream = known ? fopen(path, "re") : NULL;
    if (stream == NULL)
        return tally_fail(error, TALLY_INVALID,
                          "%s holds no running stack: `deploy/local/up --detach` starts one",
                          folder);
    bool all = true;
    while (fgets(line, sizeof line, stream) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *equals = strchr(line, '=');
        if (equals == NULL || strncmp(line, "TALLY_", 6) != 0)
            continue;
        *equals = '\0';
        all = all && setenv(line, equals + 1, 1) == 0;
    }
    (void)fclose(stream);
    if (!all || setenv("TALLY_LOCAL_DIR", command->local, 1) != 0)
        return tally_fail(error, TALLY_NO_MEMORY, "the environment");
    return TALLY_OK;
}

static int64_t duration(struct argp_state *state, const char *name, const char *argument,
                        int64_t least_ms)
{
    struct tally_error error;
    int64_t ms = 0;
    if (tally_duration_parse(argument, &ms, &error) != TALLY_OK)
        argp_error(state, "--%s: %s", name, error.text);
    else if (ms < least_ms)
        argp_error(state, "--%s=%s is too short", name, argument);
    return ms;
}

static error_t parse_load(int key, char *argument, struct argp_state *state)
{
    struct torture_options *torture = &((struct torture_command *)state->input)->options;
    switch (key) {
    case KEY_USERS:
        torture->users = tally_ctl_integer(state, "users", argument, 1, USERS_MOST);
        return 0;
    case KEY_RATE:
        torture->rate_s = tally_ctl_real(state, "rate", argument, 0.1, 1e6);
        return 0;
    case KEY_CONNECTIONS:
        torture->connections = (int)tally_ctl_integer(state, "connections", argument, 1, 1000);
        return 0;
    case KEY_PATIENCE:
        torture->patience_ms = duration(state, "patience", argument, 1000);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct torture_command *command = state->input;
    struct torture_options *torture = &command->options;
    struct tally_error error;
    switch (key) {
    case KEY_FAULTS:
        command->file = argument;
        return 0;
    case KEY_LOCAL:
        if (read_local(command, argument, &error) != TALLY_OK)
            argp_error(state, "--local: %s", error.text);
        return 0;
    case KEY_FAULT:
        if (command->name_count == NAMES_MOST)
            argp_error(state, "--fault is given more than %d times", NAMES_MOST);
        else
            command->names[command->name_count++] = argument;
        return 0;
    case KEY_CHECK:
        command->check = true;
        return 0;
    case KEY_DURATION:
        torture->duration_ms = duration(state, "duration", argument, 1);
        return 0;
    case KEY_ROUNDS:
        torture->rounds = tally_ctl_integer(state, "rounds", argument, 1, 1000000);
        return 0;
    case KEY_PAUSE:
        torture->pause_ms = duration(state, "pause-between", argument, 0);
        return 0;
    case KEY_SEED:
        torture->seed = (uint64_t)tally_ctl_integer(state, "seed", argument, 0, INT64_MAX);
        command->seeded = true;
        return 0;
    case KEY_MEND:
        torture->mend = true;
        return 0;
    case KEY_YES:
        command->confirmed = true;
        return 0;
    case ARGP_KEY_END:
        if (command->file == NULL && command->local[0] == '\0')
            argp_error(state, "what is to be broken? --local DIR or --faults FILE says it");
        if (torture->rounds > 0 && torture->duration_ms > 0)
            argp_error(state, "--rounds and --duration exclude each other");
        return 0;
    default:
        return parse_load(key, argument, state);
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Breaks a running stack, under load, in the ways that its operator names, heals it again, "
        "and says at the end whether every acknowledged write was counted exactly once. Writes are "
        "repeated under their Idempotency-Key until their outcome is known, and some are sent "
        "twice at once; readers watch that no version goes back; at the end the acknowledged "
        "writes are compared with the rows in PostgreSQL and with what is read. Commands run in "
        "/bin/sh with the settings of this stack "
        "in their environment (TALLY_REDIS_URL and so on). Ctrl-C heals, and still reports. Exits "
        "with 1 where a promise was broken." TALLY_CTL_EXIT_DOC,
};

static enum tally_status load_faults(struct torture_command *command, struct tally_error *error)
{
    struct tally_faults *faults = &command->options.faults;
    enum tally_status status =
        command->file != NULL ? tally_faults_read(command->file, faults, error)
                              : tally_faults_parse(tally_faults_local, "built in", faults, error);
    if (status == TALLY_OK && command->name_count > 0)
        status = tally_faults_choose(faults, command->names, command->name_count, error);
    return status;
}

/* The settings in force, however they were given, for the commands that are run. */
static enum tally_status export_settings(const struct tally_settings *settings,
                                         struct tally_error *error)
{
    bool all = true;
    for (size_t i = 0; i < tally_settings_count; i++) {
        const struct tally_setting *row = &tally_settings_table[i];
        const char *field = (const char *)settings + row->offset;
        char number[VALUE_BYTES];
        if ((row->programs & TALLY_PROGRAM_CTL) == 0)
            continue;
        if (row->type == TALLY_SETTING_INTEGER) {
            (void)snprintf(number, sizeof number, "%" PRId64,
                           *(const int64_t *)(const void *)field);
            field = number;
        }
        all = all && setenv(row->name, field, 1) == 0;
    }
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    if (!all || setenv("TALLYCTL", program, 1) != 0)
        return tally_fail(error, TALLY_NO_MEMORY, "the environment");
    return TALLY_OK;
}

static int list_faults(const struct tally_ctl *ctl, const struct tally_faults *faults)
{
    json_t *list = json_array();
    for (size_t i = 0; i < faults->count; i++) {
        const struct tally_fault *fault = &faults->list[i];
        if (!ctl->json)
            (void)printf("%-24s %s%s%s\n", fault->name, fault->inject,
                         fault->heal[0] != '\0' ? "  |  " : "", fault->heal);
        tally_ctl_json_append(&list, json_pack("{s:s,s:s,s:s?,s:I,s:I,s:I}", "fault", fault->name,
                                               "inject", fault->inject, "heal",
                                               fault->heal[0] != '\0' ? fault->heal : NULL,
                                               "lastsLeastMs", (json_int_t)fault->lasts_least_ms,
                                               "lastsMostMs", (json_int_t)fault->lasts_most_ms,
                                               "recoversMs", (json_int_t)fault->recovers_ms));
    }
    if (ctl->json)
        return tally_ctl_print_json(ctl, json_pack("{s:o}", "faults", list), TALLY_CTL_FINE);
    json_decref(list);
    return TALLY_CTL_FINE;
}

static bool confirm(const struct torture_command *command)
{
    const struct tally_settings *settings = command->options.settings;
    char answer[LINE_BYTES] = "";
    if (command->confirmed)
        return true;
    if (isatty(STDIN_FILENO) != 1) {
        (void)fputs("tallyctl: this breaks a running stack, and there is no terminal to ask at; "
                    "--yes-break-it says that it may\n",
                    stderr);
        return false;
    }
    (void)fprintf(stderr,
                  "This breaks the stack whose write API is %s and whose read API is %s, by %zu "
                  "faults, and writes %" PRId64 " users into it.\nType \"break it\" to go on: ",
                  settings->command_listen, settings->query_listen, command->options.faults.count,
                  command->options.users);
    return fgets(answer, sizeof answer, stdin) != NULL && strcmp(answer, "break it\n") == 0;
}

static void complete_options(struct torture_command *command)
{
    struct torture_options *torture = &command->options;
    if (torture->rounds == 0 && torture->duration_ms == 0)
        torture->duration_ms = 600000;
    if (!command->seeded) {
        struct tally_random random;
        tally_random_seed_from_system(&random);
        torture->seed = tally_random_below(&random, UINT64_C(1) << 48);
    }
}

static int run(struct tally_ctl *ctl, const struct torture_options *torture)
{
    struct tally_error error;
    (void)fprintf(stderr, "seed %" PRIu64 "; looking whether the stack is well\n", torture->seed);
    enum tally_status status = torture_examine(torture, &error);
    if (status != TALLY_OK) {
        int code = tally_ctl_fail(ctl, &error);
        return status == TALLY_READ_MODEL_INCOMPLETE ? TALLY_CTL_DIFFERENT : code;
    }
    struct torture_report *report = calloc(1, sizeof *report);
    if (report == NULL) {
        (void)tally_fail(&error, TALLY_NO_MEMORY, "the report");
        return tally_ctl_fail(ctl, &error);
    }
    status = torture_run(torture, report, &error);
    int code = TALLY_CTL_FINE;
    if (report->ledger.violation_count > 0)
        code = TALLY_CTL_DIFFERENT;
    else if (status != TALLY_OK)
        code = TALLY_CTL_FAILED;
    if (status != TALLY_OK)
        (void)fprintf(stderr, "tallyctl: %s\n", error.text);
    if (ctl->json) {
        json_t *json = torture_report_json(torture, report);
        if (status != TALLY_OK)
            tally_ctl_json_set(&json, "error", tally_ctl_error_json(&error));
        code = tally_ctl_print_json(ctl, json, code);
    } else {
        torture_report_print(torture, report);
    }
    torture_report_release(report);
    free(report);
    return code;
}

int tally_ctl_torture(struct tally_ctl *ctl, int argc, char **argv)
{
    /* Too much for the stack. */
    static struct torture_command command = {
        .options = {.pause_ms = 5000,
                    .patience_ms = 120000,
                    .users = 500,
                    .rate_s = 300,
                    .connections = 32},
    };
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    command.options.settings = &ctl->config.settings;
    struct tally_error error;
    if (load_faults(&command, &error) != TALLY_OK) {
        tally_ctl_print_error(ctl, &error);
        return TALLY_CTL_USAGE;
    }
    if (command.check)
        return list_faults(ctl, &command.options.faults);
    complete_options(&command);
    if (!confirm(&command))
        return TALLY_CTL_USAGE;
    if (export_settings(&ctl->config.settings, &error) != TALLY_OK)
        return tally_ctl_fail(ctl, &error);
    return run(ctl, &command.options);
}
