#include "service/ctl/load.h"

#include "service/ctl/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    KEY_USERS = 'u',
    KEY_DISTRIBUTION = 'd',
    KEY_CONNECTIONS = 'c',
    KEY_RATE = 'r',
    KEY_COMMANDS = 'n',
    KEY_DURATION = 't',
    KEY_MIX = 'm',
    KEY_SEED = 's',
    KEY_VISIBILITY = 'v',
    KEY_RETRY = 'y',
    KEY_LEDGER = 'l',
    KEY_ALSO = 'a',
    KEY_KEEP = 'k',
    DEFAULT_COMMANDS = 10000,
    MORE_BYTES = 96,
};

static const char default_mix[] = "post=45,comment=45,delete-post=5,delete-comment=5";

struct load_command {
    struct tally_load_options options;
    const char *phase; /* of the progress line; NULL before the first */
    struct tally_progress progress;
    bool seeded;
};

static const struct argp_option options[] = {
    {"users", KEY_USERS, "N", 0,
     "Users to make first, or to find again with the same seed (default 1000)", 0},
    {"distribution", KEY_DISTRIBUTION, "NAME", 0,
     "Which user writes: zipf (exponent 1), zipf:EXPONENT or uniform (default zipf)", 0},
    {"connections", KEY_CONNECTIONS, "N", 0, "Connections, with one command each (default 64)", 0},
    {"rate", KEY_RATE, "PER_SECOND", 0,
     "Commands a second, with latencies from the moment each was due; without it, as fast as it "
     "goes",
     0},
    {"commands", KEY_COMMANDS, "N", 0, "Commands to send (default 10000 without --duration)", 0},
    {"duration", KEY_DURATION, "SECONDS", 0, "Time to send commands for", 0},
    {"mix", KEY_MIX, "KIND=WEIGHT,...", 0,
     "Shares of post, comment, delete-post and delete-comment (default post=45,comment=45,"
     "delete-post=5,delete-comment=5); what is deleted was made by this run",
     0},
    {"seed", KEY_SEED, "N", 0, "Repeats the choices of a run, with the same users (default: new)",
     0},
    {"sample-visibility", KEY_VISIBILITY, "SHARE", 0,
     "Share of the writes, 0 to 1, that are read back with minVersion (default 0)", 0},
    {"retry-for", KEY_RETRY, "SECONDS", 0, "Longest time one command is repeated (default 60)", 0},
    {"also", KEY_ALSO, "HOST:PORT", 0,
     "A second tally-command on the same database; a connection that gets no answer turns to the "
     "other one",
     0},
    {"keep-commented", KEY_KEEP, NULL, 0,
     "Comment on posts alone that are never deleted: the comments alive are then those made less "
     "those deleted, as no post takes any with it",
     0},
    {"ledger", KEY_LEDGER, "FILE", 0,
     "Write a line for each acknowledged command: kind, id, user, version, post commented on", 0},
    {0}};

static void parse_texts(struct load_command *command, int key, const char *argument,
                        struct argp_state *state)
{
    struct tally_error error;
    enum tally_status status =
        key == KEY_MIX ? tally_mix_parse(argument, &command->options.mix, &error)
                       : tally_distribution_parse(argument, &command->options.distribution, &error);
    if (status != TALLY_OK)
        argp_error(state, "%s", error.text);
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct load_command *command = state->input;
    struct tally_load_options *load = &command->options;
    switch (key) {
    case KEY_USERS:
        load->users = tally_ctl_integer(state, "users", argument, 1, 100000000);
        return 0;
    case KEY_DISTRIBUTION:
    case KEY_MIX:
        parse_texts(command, key, argument, state);
        return 0;
    case KEY_CONNECTIONS:
        load->connections = (int)tally_ctl_integer(state, "connections", argument, 1, 10000);
        return 0;
    case KEY_RATE:
        load->rate_s = tally_ctl_real(state, "rate", argument, 0.01, 1e6);
        return 0;
    case KEY_COMMANDS:
        load->commands = tally_ctl_integer(state, "commands", argument, 1, INT64_C(1) << 40);
        return 0;
    case KEY_DURATION:
        load->duration_s = tally_ctl_integer(state, "duration", argument, 1, 1000000);
        return 0;
    case KEY_SEED:
        load->seed = (uint64_t)tally_ctl_integer(state, "seed", argument, 0, INT64_MAX);
        command->seeded = true;
        return 0;
    case KEY_VISIBILITY:
        load->visibility = tally_ctl_real(state, "sample-visibility", argument, 0, 1);
        return 0;
    case KEY_RETRY:
        load->retry_for_s = tally_ctl_integer(state, "retry-for", argument, 1, 86400);
        return 0;
    case KEY_ALSO:
        load->other_address = argument;
        return 0;
    case KEY_KEEP:
        load->keep_commented = true;
        return 0;
    case KEY_LEDGER:
        load->ledger_path = argument;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Sends writes to tally-command (TALLY_COMMAND_LISTEN) and reports how fast they were and "
        "what was acknowledged. Every POST has an Idempotency-Key and is repeated with it on 503 "
        "and lost connections. A DELETE has none: one that is repeated and finds nothing counts as "
        "done. Exits with 1 where a command failed or a read was stale." TALLY_CTL_EXIT_DOC,
};

static void show_progress(void *context, const char *phase, int64_t done, int64_t total)
{
    struct load_command *command = context;
    if (command->phase == NULL || strcmp(command->phase, phase) != 0) {
        tally_progress_end(&command->progress);
        tally_progress_start(&command->progress, phase,
                             strcmp(phase, "writing") == 0 ? "commands" : "users", total);
        command->phase = phase;
    }
    tally_progress_show(&command->progress, done, "");
}

double tally_load_milliseconds(int64_t microseconds)
{
    return (double)microseconds / 1000;
}

static double throughput(const struct tally_load_report *report)
{
    return report->seconds > 0 ? (double)report->commands / report->seconds : 0;
}

static json_t *latency_json(const struct tally_latency *latency)
{
    return json_pack("{s:I,s:f,s:f,s:f,s:f,s:f}", "count", (json_int_t)latency->count, "meanMs",
                     latency->count > 0 ? (double)latency->sum_us / (double)latency->count / 1000
                                        : 0.0,
                     "p50Ms", tally_load_milliseconds(tally_latency_percentile_us(latency, 50)),
                     "p95Ms", tally_load_milliseconds(tally_latency_percentile_us(latency, 95)),
                     "p99Ms", tally_load_milliseconds(tally_latency_percentile_us(latency, 99)),
                     "maxMs", tally_load_milliseconds(latency->max_us));
}

int64_t tally_load_repeated(const struct tally_load_report *report)
{
    /* A repeated deletion that finds nothing has no latency: nobody knows which attempt did it. */
    return report->repeated.count + report->gone_after_retry;
}

json_t *tally_load_errors_json(const struct tally_load_errors *errors)
{
    json_t *object = json_object();
    for (size_t i = 0; i < errors->count; i++)
        tally_ctl_json_set(&object, errors->list[i].name,
                           json_integer((json_int_t)errors->list[i].count));
    return object;
}

/* The comments alive are known only where no post took any with it. */
static int64_t comments_alive(const struct tally_load_report *report)
{
    return report->made[TALLY_LOAD_COMMENT] - report->made[TALLY_LOAD_DELETE_COMMENT];
}

static json_t *acknowledged_json(const struct load_command *command,
                                 const struct tally_load_report *report)
{
    return json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "users",
        (json_int_t)report->users_made + report->users_found, "usersFound",
        (json_int_t)report->users_found, "posts", (json_int_t)report->made[TALLY_LOAD_POST],
        "comments", (json_int_t)report->made[TALLY_LOAD_COMMENT], "postsDeleted",
        (json_int_t)report->made[TALLY_LOAD_DELETE_POST], "commentsDeleted",
        (json_int_t)report->made[TALLY_LOAD_DELETE_COMMENT], "postsAlive",
        (json_int_t)report->made[TALLY_LOAD_POST] - report->made[TALLY_LOAD_DELETE_POST],
        "commentsAlive",
        command->options.keep_commented ? json_integer((json_int_t)comments_alive(report))
                                        : json_null());
}

static json_t *report_json(const struct load_command *command,
                           const struct tally_load_report *report)
{
    return json_pack(
        "{s:I,s:I,s:f,s:f,s:o,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:b,s:o,s:o,s:{s:o,s:I,s:I,s:I}}", "seed",
        (json_int_t)command->options.seed, "commands", (json_int_t)report->commands, "seconds",
        report->seconds, "perSecond", throughput(report), "acknowledged",
        acknowledged_json(command, report), "refused", (json_int_t)report->refused, "gone",
        (json_int_t)report->gone, "goneAfterRetry", (json_int_t)report->gone_after_retry, "failed",
        (json_int_t)report->failed, "retries", (json_int_t)report->retries, "errors",
        tally_load_errors_json(&report->errors), "retryCauses",
        tally_load_errors_json(&report->retry_causes), "interrupted", report->interrupted,
        "latency", latency_json(&report->write), "latencyRepeated", latency_json(&report->repeated),
        "visibility", "latency", latency_json(&report->visibility), "skipped",
        (json_int_t)report->reads_skipped, "failed", (json_int_t)report->reads_failed, "stale",
        (json_int_t)report->reads_stale);
}

static void print_latency(const char *what, const struct tally_latency *latency)
{
    if (latency->count == 0)
        return;
    (void)printf("%-22s p50 %.2f ms, p95 %.2f ms, p99 %.2f ms, max %.2f ms (%" PRId64 ")\n", what,
                 tally_load_milliseconds(tally_latency_percentile_us(latency, 50)),
                 tally_load_milliseconds(tally_latency_percentile_us(latency, 95)),
                 tally_load_milliseconds(tally_latency_percentile_us(latency, 99)),
                 tally_load_milliseconds(latency->max_us), latency->count);
}

static void print_errors(const char *what, const struct tally_load_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++)
        (void)printf("%-22s %s: %" PRId64 "\n", i == 0 ? what : "", errors->list[i].name,
                     errors->list[i].count);
}

static void print_report(const struct load_command *command, const struct tally_load_report *report)
{
    char commands[TALLY_NUMBER_BYTES], rate[TALLY_NUMBER_BYTES], duration[TALLY_DURATION_BYTES];
    tally_ctl_format_duration(report->seconds, duration);
    (void)printf("%-22s %s in %s, %s/s (seed %" PRIu64 ")%s\n", "commands",
                 tally_ctl_format_number(report->commands, commands), duration,
                 tally_ctl_format_number((int64_t)throughput(report), rate), command->options.seed,
                 report->interrupted ? ", interrupted" : "");
    print_latency("write latency", &report->write);
    print_latency("with repeats", &report->repeated);
    print_latency("until visible", &report->visibility);
    (void)printf("%-22s %" PRId64 " users (%" PRId64 " found), %" PRId64 " posts, %" PRId64
                 " comments; deleted %" PRId64 " posts, %" PRId64 " comments\n",
                 "acknowledged", report->users_made + report->users_found, report->users_found,
                 report->made[TALLY_LOAD_POST], report->made[TALLY_LOAD_COMMENT],
                 report->made[TALLY_LOAD_DELETE_POST], report->made[TALLY_LOAD_DELETE_COMMENT]);
    if (command->options.keep_commented)
        (void)printf("%-22s %" PRId64 " posts, %" PRId64 " comments\n", "alive",
                     report->made[TALLY_LOAD_POST] - report->made[TALLY_LOAD_DELETE_POST],
                     comments_alive(report));
    if (report->refused + report->gone > 0)
        (void)printf("%-22s %" PRId64 " comments on a deleted post; %" PRId64
                     " deletes found nothing, %" PRId64 " of them repeated ones\n",
                     "refused", report->refused, report->gone, report->gone_after_retry);
    if (report->reads_failed + report->reads_stale + report->reads_skipped > 0)
        (void)printf("%-22s %" PRId64 " failed, %" PRId64 " stale, %" PRId64 " skipped\n", "reads",
                     report->reads_failed, report->reads_stale, report->reads_skipped);
    if (report->retries > 0)
        (void)printf("%-22s %" PRId64 "\n", "attempts repeated", report->retries);
    print_errors("  because of", &report->retry_causes);
    print_errors("failed", &report->errors);
}

static void complete_options(struct load_command *command, const struct tally_settings *settings)
{
    struct tally_load_options *load = &command->options;
    load->command_address = settings->command_listen;
    load->query_address = settings->query_listen;
    if (load->commands == 0 && load->duration_s == 0)
        load->commands = DEFAULT_COMMANDS;
    if (!command->seeded) {
        struct tally_random random;
        tally_random_seed_from_system(&random);
        load->seed = tally_random_below(&random, UINT64_C(1) << 48);
    }
}

int tally_ctl_load(struct tally_ctl *ctl, int argc, char **argv)
{
    struct load_command command = {
        .options = {.users = 1000,
                    .distribution = {.exponent = 1},
                    .connections = 64,
                    .retry_for_s = 60,
                    .on_progress = show_progress},
    };
    struct tally_error error;
    if (tally_mix_parse(default_mix, &command.options.mix, &error) != TALLY_OK)
        return tally_ctl_fail(ctl, &error);
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    complete_options(&command, &ctl->config.settings);
    command.options.context = &command;
    static struct tally_load_report report; /* three histograms: too much for the stack */
    enum tally_status status = tally_load_run(&command.options, &report, &error);
    tally_progress_end(&command.progress);
    if (status != TALLY_OK)
        return tally_ctl_fail(ctl, &error);
    code = report.failed + report.reads_stale > 0 ? TALLY_CTL_DIFFERENT : TALLY_CTL_FINE;
    if (ctl->json)
        return tally_ctl_print_json(ctl, report_json(&command, &report), code);
    print_report(&command, &report);
    return code;
}
