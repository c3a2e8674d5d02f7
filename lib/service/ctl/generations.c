#include "core/id.h"
#include "service/ctl/drop.h"
#include "service/ctl/output.h"
#include "service/ctl/rebuild.h"
#include "view/generation.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct generations_command {
    struct tally_ctl *ctl;
    const char *verb;
    int64_t number;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    static const char *const verbs[] = {"list", "rollback", "drop"};
    struct generations_command *command = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num == 1 && strcmp(command->verb, "drop") == 0 &&
            tally_id_parse(argument, strlen(argument), &command->number))
            return 0;
        for (size_t i = 0; state->arg_num == 0 && i < sizeof verbs / sizeof verbs[0]; i++) {
            if (strcmp(argument, verbs[i]) == 0) {
                command->verb = verbs[i];
                return 0;
            }
        }
        argp_error(state, "\"%s\" is not understood here", argument);
        return 0;
    case ARGP_KEY_END:
        if (strcmp(command->verb, "drop") == 0 && command->number == 0)
            argp_error(state, "which generation is to be dropped?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .parser = parse,
    .args_doc = "[list]\nrollback\ndrop NUMBER",
    .doc = "Generations of the read model in Redis. `list` shows them; `rollback` makes the one "
           "that was live before the present one live again, and until its projectors have brought "
           "it up to date reads answer 503 read-model-incomplete rather than an older count; "
           "`drop` removes one that is not live." TALLY_CTL_EXIT_DOC,
};

static enum tally_status open_redis(const struct tally_ctl *ctl, struct tally_redis **redis,
                                    struct tally_error *error)
{
    const struct tally_settings *settings = &ctl->config.settings;
    return tally_redis_open_text(settings->redis_url, settings->redis_timeout_ms, redis, error);
}

/* --- list ------------------------------------------------------------------------------------- */

/* What the positions of one generation add up to. */
struct sums {
    int32_t partitions;
    int32_t present;
    int32_t complete;
    struct tally_totals totals;
};

static enum tally_status sum_up(struct tally_redis *redis, int64_t number, struct sums *sums,
                                struct tally_error *error)
{
    *sums = (struct sums){.partitions = 1};
    for (int32_t i = 0; i < sums->partitions; i++) {
        struct tally_position position;
        enum tally_status status = tally_position_read(redis, number, &i, 1, &position, error);
        if (status != TALLY_OK)
            return status;
        if (i == 0 && position.present)
            sums->partitions = position.partitions;
        sums->present += position.present;
        sums->complete += position.present && position.offset >= position.until;
        sums->totals.users += position.totals.users;
        sums->totals.posts += position.totals.posts;
        sums->totals.comments += position.totals.comments;
    }
    return TALLY_OK;
}

static void print_generation(const struct tally_generation_entry *entry, const struct sums *sums,
                             const struct tally_ctl *ctl, json_t **list)
{
    const bool complete = sums->complete == sums->partitions;
    const char *role = tally_generation_role_text(entry->role);
    char users[TALLY_NUMBER_BYTES], posts[TALLY_NUMBER_BYTES], comments[TALLY_NUMBER_BYTES];
    if (ctl->json) {
        tally_ctl_json_append(list, json_pack("{s:I,s:s,s:i,s:b,s:I,s:I,s:I}", "generation",
                                              (json_int_t)entry->number, "role", role, "partitions",
                                              (int)sums->partitions, "complete", complete, "users",
                                              (json_int_t)sums->totals.users, "posts",
                                              (json_int_t)sums->totals.posts, "comments",
                                              (json_int_t)sums->totals.comments));
        return;
    }
    (void)printf("%-12" PRId64 " %-9s %-10s %15s users %15s posts %15s comments\n", entry->number,
                 role,
                 sums->present < sums->partitions ? "lost"
                 : complete                       ? "complete"
                                                  : "incomplete",
                 tally_ctl_format_number(sums->totals.users, users),
                 tally_ctl_format_number(sums->totals.posts, posts),
                 tally_ctl_format_number(sums->totals.comments, comments));
}

static int list(const struct tally_ctl *ctl)
{
    struct tally_generation_entry entries[TALLY_GENERATIONS_MOST];
    struct tally_redis *redis = NULL;
    struct tally_error error;
    size_t count = 0;
    bool live = false;
    json_t *json = json_array();
    enum tally_status status = open_redis(ctl, &redis, &error);
    if (status == TALLY_OK)
        status = tally_generation_list(redis, entries, &count, &error);
    for (size_t i = 0; i < count && status == TALLY_OK; i++) {
        struct sums sums;
        status = sum_up(redis, entries[i].number, &sums, &error);
        live = live || entries[i].role == TALLY_GENERATION_LIVE;
        if (status == TALLY_OK)
            print_generation(&entries[i], &sums, ctl, &json);
    }
    tally_redis_close(&redis);
    int code = live ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    if (status != TALLY_OK)
        code = tally_ctl_fail(ctl, &error);
    else if (ctl->json)
        code = tally_ctl_print_json(ctl, json_pack("{s:O}", "generations", json), code);
    else if (!live)
        (void)puts("no generation is live: there is no read model");
    json_decref(json);
    return code;
}

/* --- rollback --------------------------------------------------------------------------------- */

static int roll_back(const struct tally_ctl *ctl)
{
    struct tally_rollback_result result;
    struct tally_error error;
    if (tally_rebuild_rollback(&ctl->config.settings, &result, &error) != TALLY_OK)
        return tally_ctl_fail(ctl, &error);
    if (ctl->json)
        return tally_ctl_print_json(
            ctl,
            json_pack("{s:I,s:I,s:I,s:f}", "generation", (json_int_t)result.generation, "previous",
                      (json_int_t)result.previous, "eventsBehind", (json_int_t)result.behind,
                      "switchMs", (double)result.switch_us / 1000),
            TALLY_CTL_FINE);
    char behind[TALLY_NUMBER_BYTES];
    (void)printf(
        "generation %" PRId64 " is live again, %" PRId64 " is kept. It is %s events behind; "
        "until they are applied reads answer 503 read-model-incomplete\n",
        result.generation, result.previous, tally_ctl_format_number(result.behind, behind));
    return TALLY_CTL_FINE;
}

/* --- drop ------------------------------------------------------------------------------------- */

static enum tally_status check_droppable(struct tally_redis *redis, int64_t number,
                                         struct tally_error *error)
{
    struct tally_generation_entry entries[TALLY_GENERATIONS_MOST];
    size_t count = 0;
    enum tally_status status = tally_generation_list(redis, entries, &count, error);
    for (size_t i = 0; i < count && status == TALLY_OK; i++) {
        if (entries[i].number != number)
            continue;
        if (entries[i].role == TALLY_GENERATION_LIVE)
            return tally_fail(error, TALLY_INVALID, "generation %" PRId64 " is live", number);
        return TALLY_OK;
    }
    return status != TALLY_OK
               ? status
               : tally_fail(error, TALLY_NOT_FOUND, "there is no generation %" PRId64, number);
}

static void show_progress(void *context, int64_t removed)
{
    tally_progress_show(context, removed, "");
}

static enum tally_status remove_keys(const struct tally_ctl_lease *lease, struct tally_redis *redis,
                                     int64_t number, int64_t *removed, struct tally_error *error)
{
    struct tally_progress progress;
    const struct tally_drop drop = {.lease = lease,
                                    .redis = redis,
                                    .generation = number,
                                    .on_progress = show_progress,
                                    .context = &progress};
    tally_progress_start(&progress, "dropping", "keys", 0);
    enum tally_status status = tally_drop_run(&drop, removed, error);
    tally_progress_end(&progress);
    return status;
}

static int drop(const struct tally_ctl *ctl, int64_t number)
{
    struct tally_ctl_lease *lease = NULL;
    struct tally_redis *redis = NULL;
    struct tally_error error;
    int64_t removed = 0;
    enum tally_status status = open_redis(ctl, &redis, &error);
    if (status == TALLY_OK)
        status = tally_ctl_lease_take(&ctl->config.settings, &lease, &error);
    if (status == TALLY_OK)
        status = check_droppable(redis, number, &error);
    if (status == TALLY_OK)
        status = remove_keys(lease, redis, number, &removed, &error);
    tally_ctl_lease_release(&lease);
    tally_redis_close(&redis);
    if (status != TALLY_OK)
        return tally_ctl_fail(ctl, &error);
    if (ctl->json)
        return tally_ctl_print_json(ctl,
                                    json_pack("{s:I,s:I}", "generation", (json_int_t)number,
                                              "keysDropped", (json_int_t)removed),
                                    TALLY_CTL_FINE);
    char keys[TALLY_NUMBER_BYTES];
    (void)printf("generation %" PRId64 " is gone: %s keys\n", number,
                 tally_ctl_format_number(removed, keys));
    return TALLY_CTL_FINE;
}

int tally_ctl_generations(struct tally_ctl *ctl, int argc, char **argv)
{
    struct generations_command command = {.ctl = ctl, .verb = "list"};
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    if (strcmp(command.verb, "rollback") == 0)
        return roll_back(ctl);
    return strcmp(command.verb, "drop") == 0 ? drop(ctl, command.number) : list(ctl);
}
