#include "service/ctl/verify.h"

#include "core/clock.h"
#include "service/ctl/differences.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    KEY_SAMPLE = 's',
    KEY_LIMIT = 'l',
    KEY_GRACE = 'g',
    PENDING_MOST = 100000,
    MORE_BYTES = 64,
    LIMIT_MOST = 100000
};

struct verify_command {
    struct tally_ctl *ctl;
    struct tally_verify_options options;
    struct tally_difference_list list;
    struct tally_progress progress;
    int64_t ahead; /* differences of users whose version PostgreSQL has not got */
};

static const struct argp_option options[] = {
    {"sample", KEY_SAMPLE, "N|P%", 0,
     "Check about N users, or P percent of them (at most 1000000), picked at random; no ghosts and "
     "no "
     "totals are looked for",
     0},
    {"limit-differences", KEY_LIMIT, "N", 0,
     "List at most N <= 100000 differences (default 20); all count", 0},
    {"grace", KEY_GRACE, "SECONDS", 0,
     "Longest wait for the events of one user to arrive (default 30)", 0},
    {0}};

static void parse_sample(struct tally_verify_options *verify, char *argument,
                         struct argp_state *state)
{
    const size_t length = strlen(argument);
    verify->sample = 0;
    verify->sample_percent = 0;
    if (length > 1 && argument[length - 1] == '%') {
        argument[length - 1] = '\0';
        verify->sample_percent = tally_ctl_real(state, "sample", argument, 0.000001, 100);
    } else {
        verify->sample = tally_ctl_integer(state, "sample", argument, 1, TALLY_VERIFY_SAMPLE_MOST);
    }
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct verify_command *command = state->input;
    if (key == KEY_SAMPLE)
        parse_sample(&command->options, argument, state);
    else if (key == KEY_LIMIT)
        command->list.limit =
            tally_ctl_integer(state, "limit-differences", argument, 0, LIMIT_MOST);
    else if (key == KEY_GRACE)
        command->options.grace_ms = tally_ctl_integer(state, "grace", argument, 0, 3600) * 1000;
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Compares every user in Redis with a recount in PostgreSQL, while writes go on. Equal "
        "versions must have equal counts and profiles; another version is in flight and is looked "
        "at again. Keys without a user are looked for, and totals are compared where nothing was "
        "written meanwhile." TALLY_CTL_EXIT_DOC,
};

static void on_difference(void *context, const struct tally_verify_difference *difference)
{
    struct verify_command *command = context;
    tally_progress_end(&command->progress);
    command->ahead += difference->found_version > difference->expected_version;
    tally_difference_list_add(&command->list, difference);
}

static void show_progress(void *context, int64_t checked, int64_t total, size_t pending)
{
    struct verify_command *command = context;
    char more[MORE_BYTES] = "";
    if (pending > 0)
        (void)snprintf(more, sizeof more, "%zu in flight", pending);
    command->progress.total = total;
    tally_progress_show(&command->progress, checked, more);
}

static bool is_sample(const struct verify_command *command)
{
    return command->options.sample > 0 || command->options.sample_percent > 0;
}

/* What a sample without a difference says of everyone, with 95 % confidence: the rule of three
 * (J. A. Hanley and A. Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA
 * 249(13), 1983). Negative: nothing, since there are differences, or nobody was looked at. */
static double differing_share_most(const struct tally_verify_result *result)
{
    if (result->differences > 0 || result->checked == 0)
        return -1;
    if (result->checked >= result->population)
        return 0;
    const double share = 3.0 / (double)result->checked;
    return share < 1 ? share : 1;
}

static json_t *sample_json(const struct verify_command *command,
                           const struct tally_verify_result *result)
{
    const double share = differing_share_most(result);
    if (!is_sample(command))
        return json_null();
    return json_pack("{s:I,s:I,s:f,s:o}", "users", (json_int_t)result->checked, "of",
                     (json_int_t)result->population, "confidence", 0.95, "differingShareAtMost",
                     share < 0 ? json_null() : json_real(share));
}

static json_t *result_json(const struct verify_command *command,
                           const struct tally_verify_result *result, double seconds)
{
    return json_pack(
        "{s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:i,s:f,s:{s:b,s:s?,s:I,s:I,s:I},s:o,s:O}", "equal",
        result->differences == 0, "usersChecked", (json_int_t)result->checked, "usersEqual",
        (json_int_t)result->equal, "usersInFlightResolved", (json_int_t)result->resolved,
        "usersDiffering", (json_int_t)result->differing, "usersFlagged",
        (json_int_t)result->flagged, "keysScanned", (json_int_t)result->keys, "differences",
        (json_int_t)result->differences, "generation", (json_int_t)result->generation, "partitions",
        (int)result->partitions, "seconds", seconds, "totals", "compared", result->totals_compared,
        "reason", result->totals_reason, "users", (json_int_t)result->users, "posts",
        (json_int_t)result->posts, "comments", (json_int_t)result->comments, "sample",
        sample_json(command, result), "listed", command->list.json);
}

static void print_sample(const struct tally_verify_result *result)
{
    char checked[TALLY_NUMBER_BYTES], population[TALLY_NUMBER_BYTES];
    const double share = differing_share_most(result);
    (void)printf("a random sample of %s of %s users",
                 tally_ctl_format_number(result->checked, checked),
                 tally_ctl_format_number(result->population, population));
    if (share >= 0)
        (void)printf(": with 95 %% confidence at most %.3g %% of all users differ", share * 100);
    (void)putchar('\n');
}

static void print_result(const struct verify_command *command,
                         const struct tally_verify_result *result, double seconds)
{
    char checked[TALLY_NUMBER_BYTES], equal[TALLY_NUMBER_BYTES], resolved[TALLY_NUMBER_BYTES];
    char users[TALLY_NUMBER_BYTES], posts[TALLY_NUMBER_BYTES], comments[TALLY_NUMBER_BYTES];
    char duration[TALLY_DURATION_BYTES];
    tally_ctl_format_duration(seconds, duration);
    (void)printf("%s users checked in %s: %s equal (%s of them after being in flight)\n",
                 tally_ctl_format_number(result->checked, checked), duration,
                 tally_ctl_format_number(result->equal, equal),
                 tally_ctl_format_number(result->resolved, resolved));
    if (is_sample(command))
        print_sample(result);
    if (result->totals_compared)
        (void)printf("totals compared: %s users, %s posts, %s comments\n",
                     tally_ctl_format_number(result->users, users),
                     tally_ctl_format_number(result->posts, posts),
                     tally_ctl_format_number(result->comments, comments));
    else
        (void)printf("totals not compared: %s\n", result->totals_reason);
    if (result->flagged > 0)
        (void)printf("%" PRId64 " equal users are flagged as degraded\n", result->flagged);
    if (result->differences > command->list.listed)
        (void)printf("%" PRId64 " more differences; list more with --limit-differences\n",
                     result->differences - command->list.listed);
    if (result->differences == 0)
        (void)puts(is_sample(command) ? "no difference in the sample"
                                      : "no difference: the read model equals the recount");
    else
        (void)printf("%" PRId64 " difference%s: %" PRId64 " users differ\n", result->differences,
                     result->differences == 1 ? "" : "s", result->differing);
    if (result->differences > command->ahead)
        (void)puts("`tallyctl repair --all-differing` restores them; where there are many, "
                   "`tallyctl rebuild`");
    if (command->ahead > 0)
        (void)printf("%" PRId64 " of them where Redis is ahead of PostgreSQL: if that was restored "
                     "to an earlier moment, run `tallyctl rebuild --after-restore`\n",
                     command->ahead);
}

int tally_ctl_verify(struct tally_ctl *ctl, int argc, char **argv)
{
    struct verify_command command = {
        .ctl = ctl,
        .options = {.grace_ms = 30000, .pending_most = PENDING_MOST},
    };
    tally_difference_list_init(&command.list, ctl);
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    const struct tally_settings *settings = &ctl->config.settings;
    command.options.pg_dsn = settings->pg_dsn;
    command.options.redis_url = settings->redis_url;
    command.options.redis_timeout_ms = settings->redis_timeout_ms;
    command.options.on_difference = on_difference;
    command.options.on_progress = show_progress;
    command.options.context = &command;
    struct tally_verify_result result;
    struct tally_error error;
    int64_t start_us = tally_clock_monotonic_us();
    tally_progress_start(&command.progress, "verifying", "users", 0);
    enum tally_status status = tally_verify_run(&command.options, &result, &error);
    tally_progress_end(&command.progress);
    double seconds = (double)(tally_clock_monotonic_us() - start_us) / 1e6;
    if (status != TALLY_OK) {
        code = tally_ctl_fail(ctl, &error);
    } else {
        code = result.differences == 0 ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
        if (ctl->json)
            code = tally_ctl_print_json(ctl, result_json(&command, &result, seconds), code);
        else
            print_result(&command, &result, seconds);
    }
    tally_difference_list_release(&command.list);
    return code;
}
