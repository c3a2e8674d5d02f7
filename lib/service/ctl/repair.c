#include "service/ctl/repair.h"

#include "core/id.h"
#include "service/ctl/output.h"
#include "service/ctl/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_FLAGGED = 'f',
    KEY_DIFFERING = 'd',
    KEY_GRACE = 'g',
    PENDING_MOST = 100000,
    USERS_MOST = 1000000,
    CURSOR_BYTES = 24,
    LISTED_MOST = 100,
};

struct repair_command {
    struct tally_ctl *ctl;
    bool flagged;
    bool differing;
    int64_t grace_ms;
    int64_t *ids; /* owned, grows */
    size_t count, capacity;
    bool overflow;      /* more users than can be remembered */
    bool totals_differ; /* what no single user explains */
    bool misplaced;     /* a key in the wrong partition */
    int64_t listed;
    struct tally_progress progress;
    struct tally_repair_result result;
};

static const struct argp_option options[] = {
    {"flagged", KEY_FLAGGED, NULL, 0, "Every user that is marked as degraded", 0},
    {"all-differing", KEY_DIFFERING, NULL, 0,
     "Every user that `tallyctl verify` finds to differ, and the flagged ones", 0},
    {"grace", KEY_GRACE, "SECONDS", 0,
     "Longest wait for the events of one user while verifying (default 30)", 0},
    {0}};

static bool remember(struct repair_command *command, int64_t user_id)
{
    if (command->count > 0 && command->ids[command->count - 1] == user_id)
        return true;
    if (command->count == command->capacity) {
        const size_t capacity = command->capacity > 0 ? 2 * command->capacity : 256;
        int64_t *ids =
            command->count < USERS_MOST ? realloc(command->ids, capacity * sizeof *ids) : NULL;
        if (ids == NULL) {
            command->overflow = true;
            return false;
        }
        command->ids = ids;
        command->capacity = capacity;
    }
    command->ids[command->count++] = user_id;
    return true;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct repair_command *command = state->input;
    int64_t user_id = 0;
    switch (key) {
    case KEY_FLAGGED:
        command->flagged = true;
        return 0;
    case KEY_DIFFERING:
        command->differing = true;
        return 0;
    case KEY_GRACE:
        command->grace_ms = tally_ctl_integer(state, "grace", argument, 0, 3600) * 1000;
        return 0;
    case ARGP_KEY_ARG:
        if (!tally_id_parse(argument, strlen(argument), &user_id))
            argp_error(state, "\"%s\" is no user id", argument);
        if (!remember(command, user_id))
            argp_error(state, "too many users");
        return 0;
    case ARGP_KEY_END:
        if ((command->count > 0) + command->flagged + command->differing != 1)
            argp_error(state, "name users, or give one of --flagged and --all-differing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "USER...\n--flagged\n--all-differing",
    .doc = "Restores single users of the read model from PostgreSQL, while writes go on: counts, "
           "profile and version of a recount, their part of the totals, and no longer degraded. A "
           "user who is newer in Redis than in PostgreSQL is left alone, unless PostgreSQL is on "
           "a newer timeline and so has gone back. A user who is not in Redis and whose events "
           "may be on their way is left for later." TALLY_CTL_EXIT_DOC,
};

static int by_value(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void remove_repeats(struct repair_command *command)
{
    size_t kept = 0;
    if (command->count == 0)
        return;
    qsort(command->ids, command->count, sizeof *command->ids, by_value);
    for (size_t i = 0; i < command->count; i++) {
        if (i == 0 || command->ids[i] != command->ids[i - 1])
            command->ids[kept++] = command->ids[i];
    }
    command->count = kept;
}

static enum tally_status find_flagged(struct repair_command *command,
                                      struct tally_repairer *repairer, struct tally_error *error)
{
    char cursor[CURSOR_BYTES] = "0";
    int64_t looked = 0;
    int64_t *ids = calloc(TALLY_REPAIR_SCAN_MOST, sizeof *ids);
    if (ids == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "the list of flagged users");
    tally_progress_start(&command->progress, "looking for flagged users", "keys", 0);
    enum tally_status status = TALLY_OK;
    do {
        size_t count = 0;
        status = tally_repair_find_flagged(repairer, cursor, ids, TALLY_REPAIR_SCAN_MOST, &count,
                                           &looked, error);
        for (size_t i = 0; i < count && status == TALLY_OK; i++)
            (void)remember(command, ids[i]);
        tally_progress_show(&command->progress, looked, "");
    } while (status == TALLY_OK && strcmp(cursor, "0") != 0);
    tally_progress_end(&command->progress);
    free(ids);
    return status;
}

static void on_difference(void *context, const struct tally_verify_difference *difference)
{
    struct repair_command *command = context;
    if (difference->user_id == 0)
        command->totals_differ = true;
    else if (strcmp(difference->field, "misplaced") == 0)
        command->misplaced = true;
    else
        (void)remember(command, difference->user_id);
}

static void on_progress(void *context, int64_t checked, int64_t total, size_t pending)
{
    struct repair_command *command = context;
    (void)pending;
    command->progress.total = total;
    tally_progress_show(&command->progress, checked, "");
}

static enum tally_status find_differing(struct repair_command *command, struct tally_error *error)
{
    const struct tally_settings *settings = &command->ctl->config.settings;
    const struct tally_verify_options verify = {
        .pg_dsn = settings->pg_dsn,
        .redis_url = settings->redis_url,
        .redis_timeout_ms = settings->redis_timeout_ms,
        .grace_ms = command->grace_ms,
        .pending_most = PENDING_MOST,
        .on_difference = on_difference,
        .on_progress = on_progress,
        .context = command,
    };
    struct tally_verify_result result;
    tally_progress_start(&command->progress, "verifying", "users", 0);
    enum tally_status status = tally_verify_run(&verify, &result, error);
    tally_progress_end(&command->progress);
    return status;
}

static void tell(void *context, int64_t user_id, enum tally_repair_outcome outcome)
{
    static const char *const texts[] = {
        [TALLY_REPAIR_REPAIRED] = "repaired",
        [TALLY_REPAIR_REMOVED] = "removed: PostgreSQL has no such user",
        [TALLY_REPAIR_REFUSED] = "left alone: Redis has a newer version than PostgreSQL",
        [TALLY_REPAIR_POSTPONED] = "left for later: its events are on their way; repair again",
        [TALLY_REPAIR_UNKNOWN] = "there is no such user",
    };
    struct repair_command *command = context;
    if (command->listed++ < LISTED_MOST && !command->ctl->json) {
        tally_progress_end(&command->progress);
        (void)printf("user %" PRId64 ": %s\n", user_id, texts[outcome]);
    }
    tally_progress_show(&command->progress, command->listed, "");
}

static enum tally_status repair(struct repair_command *command, struct tally_error *error)
{
    struct tally_repairer *repairer = NULL;
    enum tally_status status = tally_repairer_new(&command->ctl->config.settings, &repairer, error);
    if (status == TALLY_OK && command->differing)
        status = find_differing(command, error);
    if (status == TALLY_OK && (command->differing || command->flagged))
        status = find_flagged(command, repairer, error);
    remove_repeats(command);
    tally_progress_start(&command->progress, "repairing", "users", (int64_t)command->count);
    if (status == TALLY_OK)
        status = tally_repair_users(repairer, command->ids, command->count, tell, command,
                                    &command->result, error);
    tally_progress_end(&command->progress);
    tally_repairer_free(&repairer);
    return status;
}

static int print_result(const struct repair_command *command)
{
    const struct tally_repair_result *result = &command->result;
    const bool left = result->refused + result->postponed + result->unknown > 0 ||
                      command->totals_differ || command->misplaced || command->overflow;
    const int code = left ? TALLY_CTL_DIFFERENT : TALLY_CTL_FINE;
    if (command->ctl->json)
        return tally_ctl_print_json(
            command->ctl,
            json_pack("{s:I,s:I,s:I,s:I,s:I,s:b,s:b,s:b}", "repaired", (json_int_t)result->repaired,
                      "removed", (json_int_t)result->removed, "refused",
                      (json_int_t)result->refused, "postponed", (json_int_t)result->postponed,
                      "unknown", (json_int_t)result->unknown, "totalsDiffer",
                      command->totals_differ, "misplaced", command->misplaced, "more",
                      command->overflow),
            code);
    (void)printf("%" PRId64 " repaired, %" PRId64 " removed, %" PRId64 " left alone, %" PRId64
                 " left for later, %" PRId64 " unknown\n",
                 result->repaired, result->removed, result->refused, result->postponed,
                 result->unknown);
    if (command->misplaced)
        (void)puts("a key lies in a partition that is not its user's: nobody reads it, and "
                   "`tallyctl rebuild` leaves it behind; `tallyctl verify` names it");
    if (command->totals_differ)
        (void)puts("the totals differed before the repair: `tallyctl verify` says whether they "
                   "still do, and `tallyctl rebuild` mends them");
    if (command->overflow)
        (void)puts("there are more; repair again, or run `tallyctl rebuild`");
    return code;
}

int tally_ctl_repair(struct tally_ctl *ctl, int argc, char **argv)
{
    struct repair_command command = {.ctl = ctl, .grace_ms = 30000};
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    struct tally_error error;
    if (code == TALLY_CTL_FINE)
        code = repair(&command, &error) == TALLY_OK ? print_result(&command)
                                                    : tally_ctl_fail(ctl, &error);
    free(command.ids);
    return code;
}
