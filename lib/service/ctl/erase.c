#include "service/ctl/erase.h"

#include "core/id.h"
#include "service/ctl/erase_receipt.h"
#include "service/ctl/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KEY_RECEIPT = 'r',
    KEY_WAIT = 'w',
    KEY_VACUUM = 'v',
    WAIT_DEFAULT_S = 300,
    AGAIN_BYTES = 4400
};

static const char *const vacuums[] = {
    [TALLY_ERASE_VACUUM_PLAIN] = "plain",
    [TALLY_ERASE_VACUUM_FULL] = "full",
    [TALLY_ERASE_VACUUM_NONE] = "none",
};

struct erase_command {
    struct tally_ctl *ctl;
    struct tally_erase_options options;
    const char *receipt; /* path, "-" or NULL */
};

static const struct argp_option options[] = {
    {"receipt", KEY_RECEIPT, "FILE", 0,
     "Also write the receipt to FILE as JSON; - prints it as JSON instead of as text", 0},
    {"wait", KEY_WAIT, "SECONDS", 0,
     "Longest wait for what others do: background deletion, relay, projector (default 300)", 0},
    {"vacuum", KEY_VACUUM, "MODE", 0,
     "plain (default); full: also nothing is left in free space, but each table is locked while it "
     "is written anew; none: left to autovacuum",
     0},
    {0}};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct erase_command *command = state->input;
    switch (key) {
    case KEY_RECEIPT:
        if (argument[0] == '\0')
            argp_error(state, "--receipt takes a file, or -");
        command->receipt = argument;
        return 0;
    case KEY_WAIT:
        command->options.wait_ms = tally_ctl_integer(state, "wait", argument, 0, 604800) * 1000;
        return 0;
    case KEY_VACUUM:
        for (size_t i = 0; i < sizeof vacuums / sizeof vacuums[0]; i++)
            if (strcmp(argument, vacuums[i]) == 0) {
                command->options.vacuum = (enum tally_erase_vacuum)i;
                return 0;
            }
        argp_error(state, "--vacuum=%s is none of plain, full, none", argument);
        return 0;
    case ARGP_KEY_ARG:
        if (command->options.user_id != 0)
            argp_error(state, "one user at a time");
        if (!tally_id_parse(argument, strlen(argument), &command->options.user_id))
            argp_error(state, "\"%s\" is no user id", argument);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which user?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "USER",
    .doc =
        "Removes the personal data of a user for good: deletes the user as the API does, if that "
        "is not done, with its posts and comments; redacts the profile in kept events; forgets "
        "its idempotency keys; removes it from every generation of the read model; vacuums; and "
        "says in the receipt what was removed, what remains in Kafka and when it expires, and "
        "what is not covered. May be interrupted and run again at any time. Exits with 1, and "
        "says what to run, where a part has to wait longer than --wait; with 2 where there "
        "never was such a user." TALLY_CTL_EXIT_DOC,
};

static void on_wait(void *context, enum tally_erase_part part, const char *why)
{
    (void)context;
    (void)fprintf(stderr, "waiting, %s: %s\n", tally_erase_part_text(part), why);
}

/* Before anything is removed: the receipt can be written. */
static bool receipt_writable(const struct erase_command *command, struct tally_error *error)
{
    const char *path = command->receipt;
    if (path == NULL || strcmp(path, "-") == 0)
        return true;
    char folder[4096];
    (void)snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        (void)snprintf(folder, sizeof folder, ".");
    else
        slash[slash == folder ? 1 : 0] = '\0';
    if (access(folder, W_OK) == 0)
        return true;
    (void)tally_fail(error, TALLY_INVALID, "the receipt %s cannot be written: %s", path,
                     strerror(errno));
    return false;
}

static void compose_again(const struct erase_command *command, char again[AGAIN_BYTES])
{
    const bool named = command->receipt != NULL;
    const enum tally_erase_vacuum vacuum = command->options.vacuum;
    (void)snprintf(again, AGAIN_BYTES, "tallyctl erase %" PRId64 "%s%s%s%s",
                   command->options.user_id, named ? " --receipt " : "",
                   named ? command->receipt : "",
                   vacuum != TALLY_ERASE_VACUUM_PLAIN ? " --vacuum=" : "",
                   vacuum != TALLY_ERASE_VACUUM_PLAIN ? vacuums[vacuum] : "");
}

static int report(const struct erase_command *command, const struct tally_erase_result *result)
{
    char again[AGAIN_BYTES];
    struct tally_error error;
    const bool to_file = command->receipt != NULL && strcmp(command->receipt, "-") != 0;
    const bool as_json = command->ctl->json || (command->receipt != NULL && !to_file);
    int code = result->complete ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    compose_again(command, again);
    json_t *receipt = tally_erase_receipt(&command->options, result, again);
    if (receipt == NULL) {
        (void)tally_fail(&error, TALLY_NO_MEMORY, "the receipt");
        return tally_ctl_fail(command->ctl, &error);
    }
    if (to_file && tally_erase_receipt_write(receipt, command->receipt, &error) != TALLY_OK) {
        /* Standard output holds the receipt all the same. */
        (void)fprintf(stderr, "tallyctl: %s\n", error.text);
        code = TALLY_CTL_FAILED;
    }
    if (as_json)
        return tally_ctl_print_json(command->ctl, receipt, code);
    tally_erase_receipt_print(receipt);
    json_decref(receipt);
    return code;
}

int tally_ctl_erase(struct tally_ctl *ctl, int argc, char **argv)
{
    struct erase_command command = {
        .ctl = ctl,
        .options = {.settings = &ctl->config.settings,
                    .wait_ms = (int64_t)WAIT_DEFAULT_S * 1000,
                    .on_wait = on_wait},
    };
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    struct tally_error error;
    if (!receipt_writable(&command, &error)) {
        tally_ctl_print_error(ctl, &error);
        return TALLY_CTL_USAGE;
    }
    struct tally_erase_result *result = calloc(1, sizeof *result);
    if (result == NULL) {
        (void)tally_fail(&error, TALLY_NO_MEMORY, "the erasure");
        return tally_ctl_fail(ctl, &error);
    }
    enum tally_status status = tally_erase_run(&command.options, result, &error);
    if (status == TALLY_OK)
        code = report(&command, result);
    else if (status == TALLY_USER_NOT_FOUND) {
        tally_ctl_print_error(ctl, &error);
        code = TALLY_CTL_USAGE;
    } else {
        code = tally_ctl_fail(ctl, &error);
    }
    free(result);
    return code;
}
