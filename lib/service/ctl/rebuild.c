#include "service/ctl/rebuild.h"

#include "core/clock.h"
#include "service/ctl/differences.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    KEY_FROM = 'f',
    KEY_RESTART = 'r',
    KEY_ACCEPT = 'a',
    KEY_RATE = 't',
    KEY_GRACE = 'g',
    KEY_LIMIT = 'l',
    KEY_RESTORED = 'b'
};

struct rebuild_command {
    struct tally_ctl *ctl;
    struct tally_rebuild_options options;
    struct tally_difference_list list;
    struct tally_progress progress;
    const char *step; /* whose progress is shown */
    bool restored;
};

static const struct argp_option options[] = {
    {"from", KEY_FROM, "SOURCE", 0,
     "database (the default): one consistent snapshot of PostgreSQL, then the log; log: the log "
     "alone, which must still be whole",
     0},
    {"after-restore", KEY_RESTORED, NULL, 0,
     "PostgreSQL was restored to an earlier moment: keep nothing that could bring back what is "
     "gone, "
     "neither the generation that is live now nor the part of the log before the new one",
     0},
    {"restart", KEY_RESTART, NULL, 0, "Start an unfinished generation over instead of continuing",
     0},
    {"accept-differences", KEY_ACCEPT, NULL, 0,
     "Switch although the new generation differs from the recount", 0},
    {"rate", KEY_RATE, "N", 0, "Read at most N users a second from PostgreSQL", 0},
    {"grace", KEY_GRACE, "SECONDS", 0,
     "Longest wait for the events of one user while verifying (default 30)", 0},
    {"limit-differences", KEY_LIMIT, "N", 0, "List at most N differences (default 20); all count",
     0},
    {0}};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct rebuild_command *command = state->input;
    switch (key) {
    case KEY_FROM:
        if (strcmp(argument, "log") == 0)
            command->options.source = TALLY_REBUILD_LOG;
        else if (strcmp(argument, "database") != 0)
            argp_error(state, "--from=%s is neither database nor log", argument);
        return 0;
    case KEY_RESTORED:
        command->restored = true;
        return 0;
    case KEY_RESTART:
        command->options.restart = true;
        return 0;
    case KEY_ACCEPT:
        command->options.accept_differences = true;
        return 0;
    case KEY_RATE:
        command->options.rate_s = tally_ctl_integer(state, "rate", argument, 1, 100000000);
        return 0;
    case KEY_GRACE:
        command->options.grace_ms = tally_ctl_integer(state, "grace", argument, 0, 3600) * 1000;
        return 0;
    case KEY_LIMIT:
        command->list.limit = tally_ctl_integer(state, "limit-differences", argument, 0, 1000000);
        return 0;
    case ARGP_KEY_END:
        if (command->restored && command->options.source == TALLY_REBUILD_LOG)
            argp_error(state, "--after-restore reads the database: the log has another history");
        if (command->restored)
            command->options.source = TALLY_REBUILD_RESTORED;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Builds the read model anew beside the live one, while writes and reads go on: shows "
        "progress, continues where an earlier call was interrupted, catches up with Kafka, proves "
        "the result equal to a recount, and switches to it at once. Projectors and query services "
        "follow by themselves. The generation that was live is kept for `tallyctl generations "
        "rollback`; older ones are dropped. Differences refuse the switch (exit code 1) and are "
        "listed." TALLY_CTL_EXIT_DOC,
};

static void show_progress(void *context, const struct tally_rebuild_progress *progress)
{
    struct rebuild_command *command = context;
    if (command->step == NULL || strcmp(command->step, progress->what) != 0) {
        tally_progress_end(&command->progress);
        tally_progress_start(&command->progress, progress->what, progress->unit, progress->total);
        command->step = progress->what;
    }
    command->progress.total = progress->total;
    tally_progress_show(&command->progress, progress->done, progress->more);
}

static void show_note(void *context, const char *text)
{
    struct rebuild_command *command = context;
    tally_progress_end(&command->progress);
    (void)fprintf(stderr, "%s\n", text);
}

static void on_difference(void *context, const struct tally_verify_difference *difference)
{
    struct rebuild_command *command = context;
    tally_progress_end(&command->progress);
    tally_difference_list_add(&command->list, difference);
}

static json_t *result_json(const struct rebuild_command *command,
                           const struct tally_rebuild_result *result, double seconds)
{
    return json_pack("{s:I,s:I,s:b,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:O}", "generation",
                     (json_int_t)result->generation, "previous", (json_int_t)result->previous,
                     "switched", result->switched, "resumed", result->resumed, "usersRead",
                     (json_int_t)result->users, "eventsApplied", (json_int_t)result->events,
                     "usersVerified", (json_int_t)result->verified.checked, "usersDiffering",
                     (json_int_t)result->verified.differing, "differences",
                     (json_int_t)result->verified.differences, "keysDropped",
                     (json_int_t)result->dropped, "recordsForgotten", (json_int_t)result->forgotten,
                     "switchMs", (double)result->switch_us / 1000, "seconds", seconds, "listed",
                     command->list.json);
}

static void print_result(const struct rebuild_command *command,
                         const struct tally_rebuild_result *result, double seconds)
{
    char users[TALLY_NUMBER_BYTES], events[TALLY_NUMBER_BYTES], checked[TALLY_NUMBER_BYTES];
    char duration[TALLY_DURATION_BYTES];
    const struct tally_verify_result *verified = &result->verified;
    tally_ctl_format_duration(seconds, duration);
    if (verified->differences > command->list.listed)
        (void)printf("%" PRId64 " more differences; list more with --limit-differences\n",
                     verified->differences - command->list.listed);
    (void)printf(
        "generation %" PRId64 ": %s users read, %s events applied, %s users verified, %" PRId64
        " differ, in %s\n",
        result->generation, tally_ctl_format_number(result->users, users),
        tally_ctl_format_number(result->events, events),
        tally_ctl_format_number(verified->checked, checked), verified->differing, duration);
    if (!result->switched)
        (void)printf("not switched: the new generation differs from the recount. `tallyctl "
                     "rebuild%s --restart` starts over, --accept-differences switches all the "
                     "same\n",
                     command->restored ? " --after-restore" : "");
    else if (command->restored)
        (void)printf("it is live. The generation before it is gone, and %" PRId64
                     " records of the log, with the writes that the restore took away\n",
                     result->forgotten);
    else if (result->previous != 0)
        (void)printf("it is live since %.0f ms after the last write to generation %" PRId64
                     ", which is kept for `tallyctl generations rollback`\n",
                     (double)result->switch_us / 1000, result->previous);
    else
        (void)puts("it is live; there was none before");
}

int tally_ctl_rebuild(struct tally_ctl *ctl, int argc, char **argv)
{
    struct rebuild_command command = {.ctl = ctl, .options = {.grace_ms = 30000}};
    tally_difference_list_init(&command.list, ctl);
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    command.options.settings = &ctl->config.settings;
    command.options.on_progress = show_progress;
    command.options.on_difference = on_difference;
    command.options.on_note = show_note;
    command.options.context = &command;
    struct tally_rebuild_result result;
    struct tally_error error;
    int64_t start_us = tally_clock_monotonic_us();
    enum tally_status status = tally_rebuild_run(&command.options, &result, &error);
    tally_progress_end(&command.progress);
    double seconds = (double)(tally_clock_monotonic_us() - start_us) / 1e6;
    if (status != TALLY_OK) {
        code = tally_ctl_fail(ctl, &error);
    } else {
        code = result.switched ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
        if (ctl->json)
            code = tally_ctl_print_json(ctl, result_json(&command, &result, seconds), code);
        else
            print_result(&command, &result, seconds);
    }
    tally_difference_list_release(&command.list);
    return code;
}
