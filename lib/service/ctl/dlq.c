#include "pg/blocking.h"
#include "service/ctl/dlq_retry.h"
#include "service/ctl/letter_show.h"
#include "service/ctl/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_ALL = 'a',
    KEY_REASON = 'r',
    KEY_DONE = 'd',
    KEY_LIMIT = 'l',
    KEY_SCAN = 't',
    SCAN_DEFAULT_S = 20,
    LIST_DEFAULT = 100,
    CHOSEN_MOST = 1000000,
};

enum verb { VERB_NONE, VERB_LIST, VERB_SHOW, VERB_RETRY, VERB_DISCARD };

static const char *const verbs[] = {
    [VERB_LIST] = "list", [VERB_SHOW] = "show", [VERB_RETRY] = "retry", [VERB_DISCARD] = "discard"};

/* A letter to be closed. */
struct chosen {
    struct tally_letter_place place;
    int64_t user_id;
    int64_t version;
};

struct dlq_command {
    struct tally_ctl *ctl;
    enum verb verb;
    bool all;
    bool with_done;
    bool placed; /* a letter was named */
    int32_t partition;
    int64_t offset;
    const char *reason;
    int64_t limit;
    int64_t scan_ms;
    PGconn *connection;
    struct tally_letter_book book;
    /* Found on the walk. */
    int64_t listed;
    bool known;            /* the named letter exists */
    json_t *list;          /* owned */
    struct chosen *chosen; /* owned: open letters to be closed */
    size_t chosen_count, chosen_capacity;
    bool failed; /* no memory, or more letters than fit */
};

static const struct argp_option options[] = {
    {"all", KEY_ALL, NULL, 0, "retry, discard: all open letters", 0},
    {"reason", KEY_REASON, "TEXT", 0, "discard: why; needed, and kept", 0},
    {"done", KEY_DONE, NULL, 0, "list: also those that were retried or discarded", 0},
    {"limit", KEY_LIMIT, "N", 0, "list: at most N letters (default 100); all are counted", 0},
    {"scan-seconds", KEY_SCAN, "SECONDS", 0, "Longest time to read a partition (default 20)", 0},
    {0}};

static void parse_argument(struct dlq_command *command, const char *argument,
                           struct argp_state *state)
{
    if (command->verb == VERB_NONE) {
        for (int verb = VERB_LIST; verb <= VERB_DISCARD; verb++)
            if (strcmp(argument, verbs[verb]) == 0)
                command->verb = (enum verb)verb;
        if (command->verb == VERB_NONE)
            argp_error(state, "\"%s\" is none of list, show, retry, discard", argument);
        return;
    }
    if (command->verb == VERB_LIST || command->placed ||
        !tally_letter_place_parse(argument, &command->partition, &command->offset))
        argp_error(state, "\"%s\" is not understood; a letter is OFFSET or PARTITION:OFFSET",
                   argument);
    command->placed = true;
}

static void check(const struct dlq_command *command, struct argp_state *state)
{
    const bool closes = command->verb == VERB_RETRY || command->verb == VERB_DISCARD;
    if (command->verb == VERB_NONE)
        argp_error(state, "the argument is missing: list, show, retry or discard");
    if (command->verb == VERB_SHOW && !command->placed)
        argp_error(state, "which letter? OFFSET or PARTITION:OFFSET");
    if (closes && command->placed == command->all)
        argp_error(state, "which letter? OFFSET, PARTITION:OFFSET or --all");
    if (!closes && command->all)
        argp_error(state, "--all is for retry and discard");
    if (command->verb == VERB_DISCARD && command->reason == NULL)
        argp_error(state, "--reason is missing: why are they discarded?");
    if (command->verb != VERB_DISCARD && command->reason != NULL)
        argp_error(state, "--reason is for discard");
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct dlq_command *command = state->input;
    if (key == KEY_ALL)
        command->all = true;
    else if (key == KEY_DONE)
        command->with_done = true;
    else if (key == KEY_LIMIT)
        command->limit = tally_ctl_integer(state, "limit", argument, 0, 1000000);
    else if (key == KEY_SCAN)
        command->scan_ms = tally_ctl_integer(state, "scan-seconds", argument, 1, 86400) * 1000;
    else if (key == KEY_REASON) {
        if (argument[0] == '\0' || strlen(argument) > TALLY_LETTER_REASON_MOST)
            argp_error(state, "--reason takes 1 to %d bytes", TALLY_LETTER_REASON_MOST);
        command->reason = argument;
    } else if (key == ARGP_KEY_ARG)
        parse_argument(command, argument, state);
    else if (key == ARGP_KEY_END)
        check(command, state);
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "list\nshow OFFSET\nretry OFFSET|--all\ndiscard OFFSET|--all --reason=TEXT",
    .doc =
        "Dead letters are events that could not be applied; their users read as degraded. A "
        "letter is named by its offset, or PARTITION:OFFSET, in the topic TALLY_DLQ_TOPIC. A "
        "record "
        "that was written there more than once is one letter, the first; the others are counted as "
        "its repeats, and are open or done as it is. `list` exits with 1 while any is open. "
        "`retry`: a letter's version is past, so its user is "
        "restored from PostgreSQL instead, and the letter is done; exits with 1 where that was "
        "not possible. `discard` marks letters as done, with the reason "
        "given, and changes no user." TALLY_CTL_EXIT_DOC,
};

static bool choose(struct dlq_command *command, const struct tally_letter *letter,
                   const struct tally_letter_entry *entry)
{
    if (command->chosen_count == command->chosen_capacity) {
        const size_t capacity = command->chosen_capacity > 0 ? 2 * command->chosen_capacity : 64;
        struct chosen *chosen = capacity <= (size_t)2 * CHOSEN_MOST
                                    ? realloc(command->chosen, capacity * sizeof *chosen)
                                    : NULL;
        if (chosen == NULL) {
            command->failed = true;
            return false;
        }
        command->chosen = chosen;
        command->chosen_capacity = capacity;
    }
    command->chosen[command->chosen_count++] =
        (struct chosen){entry->first, letter->user_id, letter->version};
    return true;
}

static bool on_letter(void *context, const struct tally_letter *letter)
{
    struct dlq_command *command = context;
    struct tally_letter_entry entry;
    tally_letter_book_take(&command->book, letter, &entry);
    /* What comes before the named one tells whether that is a repeat. */
    if (command->placed ? letter->place.offset != command->offset : entry.repeat)
        return true;
    command->known = true;
    if (command->verb == VERB_RETRY || command->verb == VERB_DISCARD)
        return entry.done || choose(command, letter, &entry);
    if (entry.done && command->verb == VERB_LIST && !command->with_done)
        return true;
    if (command->verb == VERB_LIST && command->listed >= command->limit)
        return true;
    command->listed++;
    if (command->verb == VERB_LIST && !command->ctl->json) {
        tally_letter_print_row(letter, &entry);
        return true;
    }
    json_t *object = tally_letter_json(letter, &entry);
    if (command->verb == VERB_SHOW)
        tally_letter_add_whole(&object, letter);
    tally_ctl_json_append(&command->list, object);
    return true;
}

static int finish_list(struct dlq_command *command)
{
    const struct tally_letter_book *book = &command->book;
    const int code = book->open == 0 ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    if (command->ctl->json)
        return tally_ctl_print_json(command->ctl,
                                    json_pack("{s:I,s:I,s:I,s:O}", "open", (json_int_t)book->open,
                                              "done", (json_int_t)book->done, "repeats",
                                              (json_int_t)book->repeats, "letters", command->list),
                                    code);
    (void)printf("%" PRId64 " open, %" PRId64 " done", book->open, book->done);
    if (book->repeats > 0)
        (void)printf("; %" PRId64 " repeats of them", book->repeats);
    (void)putchar('\n');
    return code;
}

/* The letter as JSON in both forms: what it holds has no better one. */
static int finish_show(struct dlq_command *command)
{
    return tally_ctl_print_json(command->ctl, json_incref(json_array_get(command->list, 0)),
                                TALLY_CTL_FINE);
}

static enum tally_status discard(struct dlq_command *command, size_t *closed,
                                 struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (size_t i = 0; status == TALLY_OK && i < command->chosen_count; i++) {
        status = tally_closed_letters_add(
            command->connection, command->ctl->config.settings.dlq_topic, &command->chosen[i].place,
            "discarded", command->reason, error);
        *closed += status == TALLY_OK;
    }
    return status;
}

/* Says what a letter waits for, and leaves it open. */
static void leave_open(struct dlq_command *command, const struct chosen *chosen, const char *why)
{
    char place[TALLY_LETTER_PLACE_BYTES];
    (void)tally_letter_place_text(&chosen->place, place);
    tally_ctl_json_append(&command->list, json_pack("{s:s,s:s}", "letter", place, "waitsFor", why));
    if (!command->ctl->json)
        (void)printf("%s stays open: %s\n", place, why);
}

static enum tally_status retry(struct dlq_command *command, size_t *closed,
                               struct tally_error *error)
{
    struct tally_dlq_retry retry;
    struct tally_progress progress;
    enum tally_status status = tally_dlq_retry_open(&retry, &command->ctl->config.settings, error);
    tally_progress_start(&progress, "retrying", "letters", (int64_t)command->chosen_count);
    for (size_t i = 0; status == TALLY_OK && i < command->chosen_count; i++) {
        const struct chosen *chosen = &command->chosen[i];
        char why[TALLY_DLQ_RETRY_WHY_BYTES];
        bool settled = false;
        tally_progress_show(&progress, (int64_t)i, "");
        status =
            tally_dlq_retry_user(&retry, chosen->user_id, chosen->version, &settled, why, error);
        if (status == TALLY_OK && settled) {
            status = tally_closed_letters_add(command->connection,
                                              command->ctl->config.settings.dlq_topic,
                                              &chosen->place, "retried", why, error);
            *closed += status == TALLY_OK;
        } else if (status == TALLY_OK) {
            tally_progress_end(&progress);
            leave_open(command, chosen, why);
        }
    }
    tally_progress_end(&progress);
    tally_dlq_retry_close(&retry);
    return status;
}

static int finish_closing(struct dlq_command *command)
{
    struct tally_error error;
    size_t closed = 0;
    const bool retries = command->verb == VERB_RETRY;
    enum tally_status status =
        retries ? retry(command, &closed, &error) : discard(command, &closed, &error);
    if (status != TALLY_OK)
        return tally_ctl_fail(command->ctl, &error);
    const size_t left = command->chosen_count - closed;
    const int code = left == 0 ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    if (command->ctl->json)
        return tally_ctl_print_json(command->ctl,
                                    json_pack("{s:I,s:I,s:O}", "closed", (json_int_t)closed, "open",
                                              (json_int_t)left, "waiting", command->list),
                                    code);
    (void)printf("%zu letter%s %s, %zu still open\n", closed, closed == 1 ? "" : "s",
                 retries ? "done" : "discarded", left);
    return code;
}

static int run(struct dlq_command *command)
{
    const struct tally_settings *settings = &command->ctl->config.settings;
    const struct tally_letter_walk walk = {
        .settings = settings,
        .timeout_ms = command->scan_ms,
        .up_to_one = command->placed,
        .partition = command->partition,
        .offset = command->offset,
        .on_letter = on_letter,
        .context = command,
    };
    struct tally_error error;
    int64_t left = 0;
    enum tally_status status =
        tally_pg_connect(settings->pg_dsn, "tallyctl dlq", &command->connection, &error);
    if (status == TALLY_OK)
        status = tally_letter_book_open(&command->book, command->connection, settings->dlq_topic,
                                        &error);
    if (status == TALLY_OK)
        status = tally_letter_walk(&walk, &left, &error);
    if (status == TALLY_OK && command->failed)
        status = tally_fail(&error, TALLY_NO_MEMORY, "more letters than fit into memory");
    if (status == TALLY_OK && left > 0)
        status = tally_fail(&error, TALLY_UNAVAILABLE,
                            "%" PRId64 " offsets of %s were not read in time; see --scan-seconds",
                            left, settings->dlq_topic);
    if (status != TALLY_OK)
        return tally_ctl_fail(command->ctl, &error);
    if (command->placed && !command->known) {
        (void)tally_fail(&error, TALLY_NOT_FOUND, "there is no letter %d:%" PRId64 " in %s",
                         command->partition, command->offset, settings->dlq_topic);
        tally_ctl_print_error(command->ctl, &error);
        return TALLY_CTL_DIFFERENT;
    }
    if (command->verb == VERB_LIST)
        return finish_list(command);
    return command->verb == VERB_SHOW ? finish_show(command) : finish_closing(command);
}

int tally_ctl_dlq(struct tally_ctl *ctl, int argc, char **argv)
{
    struct dlq_command command = {
        .ctl = ctl, .limit = LIST_DEFAULT, .scan_ms = INT64_C(1000) * SCAN_DEFAULT_S};
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    command.list = json_array();
    code = run(&command);
    tally_letter_book_close(&command.book);
    PQfinish(command.connection);
    json_decref(command.list);
    free(command.chosen);
    return code;
}
