#include "core/clock.h"
#include "pg/blocking.h"
#include "service/ctl/erase.h"
#include "store/relay_control.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LOOK_NS = 200000000, FILES_MS = 30000 };

struct run {
    const struct tally_erase_options *options;
    struct tally_erase_result *result;
    PGconn *connection;
    int64_t due_us;
    int64_t horizon; /* 0: not taken yet */
};

static void wait_for(struct tally_erase_state *state, const char *why)
{
    (void)snprintf(state->why, sizeof state->why, "%s", why);
}

static enum tally_status read_book(struct run *run, struct tally_error *error)
{
    return tally_erasure_read(run->connection, run->options->user_id, &run->result->book, error);
}

static enum tally_status erase_rows(struct run *run, struct tally_erase_state *state,
                                    struct tally_error *error)
{
    const struct tally_erasure *book = &run->result->book;
    enum tally_status status = read_book(run, error);
    if (status != TALLY_OK)
        return status;
    state->done = book->swept;
    (void)snprintf(state->why, sizeof state->why,
                   "%s%" PRId64 " posts and comments of the user are still being removed, which a "
                   "running tally-command does in the background",
                   book->left >= TALLY_ERASURE_LEFT_MOST ? "more than " : "", book->left);
    return TALLY_OK;
}

static enum tally_status note_published(struct run *run, struct tally_error *error)
{
    struct tally_erase_log *log = &run->result->log;
    enum tally_status status =
        tally_erase_log_read(run->options->settings, run->options->user_id, log, error);
    if (status == TALLY_OK)
        status =
            tally_erasure_note_published(run->connection, run->options->user_id, log->high, error);
    return status == TALLY_OK ? read_book(run, error) : status;
}

static enum tally_status erase_relay(struct run *run, struct tally_erase_state *state,
                                     struct tally_error *error)
{
    struct tally_relay_view view;
    bool published = run->result->book.published_at_us != 0;
    enum tally_status status = TALLY_OK;
    if (!published) {
        status = tally_erasure_published(run->connection, run->options->user_id, &published, error);
        if (status == TALLY_OK && published)
            status = note_published(run, error);
    }
    state->done = status == TALLY_OK && published;
    if (status != TALLY_OK || published)
        return status;
    status = tally_relay_view_read(run->connection, &view, error);
    if (status == TALLY_OK)
        wait_for(state, view.orders.paused ? "the relay is paused: `tallyctl resume relay`"
                        : view.leader_pid == 0
                            ? "nobody publishes the deletion: is a tally-command running?"
                            : "the relay has not published all events of the user yet");
    return status;
}

static enum tally_status erase_model(struct run *run, struct tally_erase_state *state,
                                     struct tally_error *error)
{
    (void)state;
    return tally_erase_model(run->options, run->connection, run->result, error);
}

static enum tally_status erase_letters(struct run *run, struct tally_erase_state *state,
                                       struct tally_error *error)
{
    struct tally_erase_log *log = &run->result->log;
    enum tally_status status = tally_erase_letters(run->options->settings, run->connection,
                                                   run->options->user_id, log, error);
    state->done = status == TALLY_OK && log->letters_unread == 0;
    (void)snprintf(state->why, sizeof state->why,
                   "%" PRId64 " dead letters could not be read in time", log->letters_unread);
    return status;
}

/* Nothing can be taken out of the log, so it is enough that it does not stay for ever. */
static enum tally_status erase_log(struct run *run, struct tally_erase_state *state,
                                   struct tally_error *error)
{
    const struct tally_settings *settings = run->options->settings;
    struct tally_erase_log *log = &run->result->log;
    enum tally_status status = tally_erase_log_read(settings, run->options->user_id, log, error);
    if (status != TALLY_OK)
        return status;
    const struct {
        const char *name;
        const struct tally_erase_topic *topic;
    } topics[] = {{settings->topic, &log->events}, {settings->dlq_topic, &log->letters}};
    state->done = true;
    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++) {
        const struct tally_erase_topic *topic = topics[i].topic;
        if (topic->partitions == 0)
            continue;
        if (!tally_erase_topic_compacts(topic) && tally_erase_topic_expiry_ms(topic, 0) >= 0)
            continue;
        state->done = false;
        (void)snprintf(
            state->why, sizeof state->why,
            "topic %s has cleanup.policy=%s and retention.ms=%" PRId64
            ": records must go by age and by age alone, for compaction would leave holes "
            "in the counts; set cleanup.policy=delete and a retention.ms",
            topics[i].name, topic->policy, topic->retention_ms);
    }
    return TALLY_OK;
}

static enum tally_status erase_vacuum(struct run *run, struct tally_erase_state *state,
                                      struct tally_error *error)
{
    const enum tally_erase_vacuum how = run->options->vacuum;
    char holder[TALLY_ERASURE_HOLDER_BYTES];
    state->done = how == TALLY_ERASE_VACUUM_NONE ||
                  (how == TALLY_ERASE_VACUUM_PLAIN && run->result->book.vacuumed_at_us != 0);
    if (state->done)
        return TALLY_OK;
    if (!run->result->parts[TALLY_ERASE_ROWS].done ||
        !run->result->parts[TALLY_ERASE_LETTERS].done) {
        wait_for(state, "it comes after rows and dead-letters");
        return TALLY_OK;
    }
    enum tally_status status = TALLY_OK;
    if (run->horizon == 0)
        status = tally_erasure_horizon(run->connection, &run->horizon, error);
    if (status == TALLY_OK)
        status = tally_erasure_holder(run->connection, run->horizon, holder, error);
    if (status == TALLY_OK && holder[0] != '\0') {
        (void)snprintf(state->why, sizeof state->why,
                       "%.180s keeps removed rows from being vacuumed", holder);
        return TALLY_OK;
    }
    if (status == TALLY_OK)
        status = tally_erasure_vacuum(run->connection, run->options->user_id,
                                      how == TALLY_ERASE_VACUUM_FULL, error);
    state->done = status == TALLY_OK;
    return status == TALLY_OK ? read_book(run, error) : status;
}

static bool all_written(const struct tally_erase_result *result)
{
    return result->appends != TALLY_ERASE_FILE_DENIED &&
           result->snapshot != TALLY_ERASE_FILE_DENIED &&
           (result->appends == TALLY_ERASE_FILE_WRITTEN ||
            result->snapshot == TALLY_ERASE_FILE_WRITTEN);
}

static enum tally_status erase_files(struct run *run, struct tally_erase_state *state,
                                     struct tally_error *error)
{
    const struct tally_erasure *book = &run->result->book;
    state->done = book->completed_at_us != 0 && book->files_written_at_us != 0;
    if (state->done)
        return TALLY_OK;
    if (!run->result->parts[TALLY_ERASE_MODEL].done) {
        wait_for(state, "it comes after read-model");
        return TALLY_OK;
    }
    /* Ours, and begun just now, so that it gets time of its own. */
    const int64_t least_us = tally_clock_monotonic_us() + (int64_t)FILES_MS * 1000;
    enum tally_status status =
        tally_erase_files(run->options->settings, run->due_us > least_us ? run->due_us : least_us,
                          run->result, error);
    if (status == TALLY_OK && state->done && all_written(run->result))
        status = tally_erasure_note_files(run->connection, run->options->user_id, error);
    return status == TALLY_OK ? read_book(run, error) : status;
}

typedef enum tally_status attempt_part(struct run *run, struct tally_erase_state *state,
                                       struct tally_error *error);

static attempt_part *const attempts[TALLY_ERASE_PART_COUNT] = {
    [TALLY_ERASE_ROWS] = erase_rows,   [TALLY_ERASE_RELAY] = erase_relay,
    [TALLY_ERASE_MODEL] = erase_model, [TALLY_ERASE_LETTERS] = erase_letters,
    [TALLY_ERASE_LOG] = erase_log,     [TALLY_ERASE_VACUUM] = erase_vacuum,
    [TALLY_ERASE_FILES] = erase_files,
};

const char *tally_erase_part_text(enum tally_erase_part part)
{
    static const char *const texts[TALLY_ERASE_PART_COUNT] = {
#define X(name, text) text,
        TALLY_ERASE_PART_LIST(X)
#undef X
    };
    return texts[part];
}

/* Whether more time may change it: the configuration of a topic stays as it is. */
static bool worth_waiting(const struct run *run, enum tally_erase_part part)
{
    return part != TALLY_ERASE_LOG && tally_clock_monotonic_us() < run->due_us;
}

/* Attempts one part until it is done or the time is over. A server that does not answer is waited
 * for like everything else, except for the PostgreSQL session that holds it all together. */
static enum tally_status finish_part(struct run *run, enum tally_erase_part part,
                                     struct tally_error *error)
{
    const struct tally_erase_options *options = run->options;
    struct tally_erase_state *state = &run->result->parts[part];
    bool told = false;
    for (;;) {
        enum tally_status status = attempts[part](run, state, error);
        if (status != TALLY_OK && PQstatus(run->connection) != CONNECTION_OK)
            return status;
        if (status != TALLY_OK) {
            state->done = false;
            wait_for(state, error->text);
        }
        if (state->done) {
            state->why[0] = '\0';
            return TALLY_OK;
        }
        if (!worth_waiting(run, part))
            return TALLY_OK;
        if (!told && options->on_wait != NULL)
            options->on_wait(options->context, part, state->why);
        told = true;
        (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    }
}

static enum tally_status finish(struct run *run, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    run->result->complete = true;
    for (int part = 0; part < TALLY_ERASE_PART_COUNT && status == TALLY_OK; part++) {
        status = finish_part(run, (enum tally_erase_part)part, error);
        run->result->complete = run->result->complete && run->result->parts[part].done;
    }
    if (status == TALLY_OK && run->result->complete)
        status = tally_erasure_note_complete(run->connection, run->options->user_id, error);
    return status == TALLY_OK ? read_book(run, error) : status;
}

enum tally_status tally_erase_run(const struct tally_erase_options *options,
                                  struct tally_erase_result *result, struct tally_error *error)
{
    struct run run = {.options = options,
                      .result = result,
                      .due_us = tally_clock_monotonic_us() + options->wait_ms * 1000};
    bool known = false;
    *result = (struct tally_erase_result){.log = {.low = -1, .high = -1}};
    enum tally_status status =
        tally_pg_connect(options->settings->pg_dsn, "tallyctl erase", &run.connection, error);
    if (status == TALLY_OK)
        status = tally_erasure_begin(run.connection, options->user_id, &known, error);
    if (status == TALLY_OK && !known)
        status = tally_fail(error, TALLY_USER_NOT_FOUND,
                            "there never was a user %" PRId64
                            " in PostgreSQL; nothing was done (where the read model shows one, "
                            "`tallyctl repair %" PRId64 "` removes it)",
                            options->user_id, options->user_id);
    if (status == TALLY_OK)
        status = tally_erasure_scrub(run.connection, options->user_id, error);
    if (status == TALLY_OK)
        status = finish(&run, error);
    PQfinish(run.connection);
    return status;
}
