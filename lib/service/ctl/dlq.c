#include "core/buffer.h"
#include "core/clock.h"
#include "core/id.h"
#include "pg/blocking.h"
#include "service/ctl/dlq_retry.h"
#include "service/ctl/letter.h"
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
    HEADERS_MOST = 64,
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
    struct tally_closed_letters closed;
    /* Found on the walk. */
    int64_t open, done, listed;
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
        "letter is named by its offset, or PARTITION:OFFSET, in the topic TALLY_DLQ_TOPIC. `list` "
        "exits with 1 while any is open. `retry`: a letter's version is past, so its user is "
        "restored from PostgreSQL instead, and the letter is done; exits with 1 where that was "
        "not possible. `discard` marks letters as done, with the reason "
        "given, and changes no user." TALLY_CTL_EXIT_DOC,
};

static json_t *letter_json(const struct tally_letter *letter,
                           const struct tally_closed_letter *closed)
{
    char user[TALLY_ID_TEXT_BYTES] = "";
    if (letter->user_id != 0)
        (void)tally_id_format(letter->user_id, user);
    const double age_s =
        (double)tally_clock_wall_us() / 1e6 - (double)letter->place.written_at_ms / 1e3;
    return json_pack("{s:i,s:I,s:s,s:f,s:s,s:{s:s,s:i,s:I},s:s?,s:s,s:I,s:s?,s:s?}", "partition",
                     (int)letter->place.partition, "offset", (json_int_t)letter->place.offset,
                     "state", closed != NULL ? closed->action : "open", "ageSeconds", age_s,
                     "reason", letter->reason, "source", "topic", letter->source_topic, "partition",
                     (int)letter->source_partition, "offset", (json_int_t)letter->source_offset,
                     "user", user[0] != '\0' ? user : NULL, "type", letter->type, "version",
                     (json_int_t)letter->version, "closedReason",
                     closed != NULL ? closed->reason : NULL, "closedAt",
                     closed != NULL ? closed->closed_at : NULL);
}

static void print_row(const struct tally_letter *letter, const struct tally_closed_letter *closed)
{
    char age[TALLY_DURATION_BYTES], user[TALLY_ID_TEXT_BYTES] = "-";
    if (letter->user_id != 0)
        (void)tally_id_format(letter->user_id, user);
    tally_ctl_format_duration(
        (double)tally_clock_wall_us() / 1e6 - (double)letter->place.written_at_ms / 1e3, age);
    (void)printf("%d:%-8" PRId64 " %-9s %-12s from %s %d:%" PRId64 "  user %s  %s  %s%s%s%s\n",
                 letter->place.partition, letter->place.offset,
                 closed != NULL ? closed->action : "open", age, letter->source_topic,
                 letter->source_partition, letter->source_offset, user,
                 letter->type[0] != '\0' ? letter->type : "(no type)", letter->reason,
                 closed != NULL ? " (" : "", closed != NULL ? closed->reason : "",
                 closed != NULL ? ")" : "");
}

/* Bytes as JSON text, or as hexadecimal under another name where they are no UTF-8. */
static void set_bytes(json_t *object, const char *name, const char *hex_name, const char *bytes,
                      size_t length)
{
    json_t *text = bytes != NULL ? json_stringn(bytes, length) : json_null();
    if (text != NULL) {
        (void)json_object_set_new(object, name, text);
        return;
    }
    struct tally_buffer hex;
    tally_buffer_init(&hex, 2 * length + 1);
    for (size_t i = 0; bytes != NULL && i < length; i++)
        tally_buffer_format(&hex, "%02x", (unsigned)(unsigned char)bytes[i]);
    (void)json_object_set_new(object, hex_name, json_string(tally_buffer_text(&hex)));
    tally_buffer_release(&hex);
}

static void add_whole(json_t *object, const struct tally_record *record)
{
    struct tally_record_header headers[HEADERS_MOST];
    const size_t count = tally_record_headers(record, headers, HEADERS_MOST);
    json_t *list = json_object();
    for (size_t i = 0; i < count; i++)
        set_bytes(list, headers[i].name, headers[i].name, headers[i].value, headers[i].length);
    (void)json_object_set_new(object, "headers", list);
    set_bytes(object, "key", "keyHex", record->key, record->key_length);
    set_bytes(object, "value", "valueHex", record->value, record->value_length);
}

static bool choose(struct dlq_command *command, const struct tally_letter *letter)
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
        (struct chosen){letter->place, letter->user_id, letter->version};
    return true;
}

static bool on_letter(void *context, const struct tally_letter *letter)
{
    struct dlq_command *command = context;
    struct tally_closed_letter closed;
    const bool done = tally_closed_letters_find(&command->closed, &letter->place, &closed);
    command->open += !done;
    command->done += done;
    command->known = true;
    if (command->verb == VERB_RETRY || command->verb == VERB_DISCARD)
        return done || choose(command, letter);
    if (done && command->verb == VERB_LIST && !command->with_done)
        return true;
    if (command->verb == VERB_LIST && command->listed >= command->limit)
        return true;
    command->listed++;
    if (command->verb == VERB_LIST && !command->ctl->json) {
        print_row(letter, done ? &closed : NULL);
        return true;
    }
    json_t *object = letter_json(letter, done ? &closed : NULL);
    if (command->verb == VERB_SHOW)
        add_whole(object, letter->record);
    (void)json_array_append_new(command->list, object);
    return true;
}

static int finish_list(struct dlq_command *command)
{
    const int code = command->open == 0 ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    if (command->ctl->json)
        return tally_ctl_print_json(command->ctl,
                                    json_pack("{s:I,s:I,s:O}", "open", (json_int_t)command->open,
                                              "done", (json_int_t)command->done, "letters",
                                              command->list),
                                    code);
    (void)printf("%" PRId64 " open, %" PRId64 " done\n", command->open, command->done);
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

static enum tally_status retry(struct dlq_command *command, size_t *closed,
                               struct tally_error *error)
{
    struct tally_dlq_retry retry;
    enum tally_status status = tally_dlq_retry_open(&retry, &command->ctl->config.settings, error);
    for (size_t i = 0; status == TALLY_OK && i < command->chosen_count; i++) {
        const struct chosen *chosen = &command->chosen[i];
        char why[TALLY_DLQ_RETRY_WHY_BYTES];
        bool settled = false;
        status =
            tally_dlq_retry_user(&retry, chosen->user_id, chosen->version, &settled, why, error);
        if (status == TALLY_OK && settled) {
            status = tally_closed_letters_add(command->connection,
                                              command->ctl->config.settings.dlq_topic,
                                              &chosen->place, "retried", why, error);
            *closed += status == TALLY_OK;
        } else if (status == TALLY_OK) {
            char place[48];
            (void)snprintf(place, sizeof place, "%d:%" PRId64, chosen->place.partition,
                           chosen->place.offset);
            (void)json_array_append_new(command->list,
                                        json_pack("{s:s,s:s}", "letter", place, "waitsFor", why));
            if (!command->ctl->json)
                (void)printf("%s stays open: %s\n", place, why);
        }
    }
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
        .single = command->placed,
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
        status = tally_closed_letters_read(command->connection, settings->dlq_topic,
                                           &command->closed, &error);
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
    tally_closed_letters_clear(&command.closed);
    PQfinish(command.connection);
    json_decref(command.list);
    free(command.chosen);
    return code;
}
