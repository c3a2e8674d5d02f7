#include "core/clock.h"
#include "core/id.h"
#include "service/ctl/load_internal.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TARGET_BYTES = 128,
    HEADERS_BYTES = 256,
    BODY_BYTES = 512,
    ATTEMPT_TIMEOUT_MS = 10000,
    BACKOFF_FIRST_MS = 20,
    BACKOFF_MOST_MS = 2000,
    FIRST_ANSWER_S = 5,
    KEPT_ONE_IN = 4, /* posts to comment on, where those are not deleted */
};

static const char not_found[] = "http-404";

static void start_next(struct load_lane *lane);
static void attempt(struct load_lane *lane);

/* What an acknowledgement says. */
struct acknowledged {
    int64_t id, user_id, version;
};

static bool read_id(const json_t *body, const char *name, int64_t *id)
{
    const char *text = json_string_value(json_object_get(body, name));
    return text != NULL && tally_id_parse(text, strlen(text), id);
}

static bool read_acknowledged(const struct tally_http_client_answer *answer,
                              struct acknowledged *acknowledged)
{
    size_t length = 0;
    const char *text = tally_http_client_body(answer, &length);
    json_t *body = json_loadb(text, length, 0, NULL);
    acknowledged->version = json_integer_value(json_object_get(body, "version"));
    bool valid =
        read_id(body, "id", &acknowledged->id) && read_id(body, "userId", &acknowledged->user_id);
    json_decref(body);
    return valid;
}

static void tell(const struct load_lane *lane, enum tally_load_outcome outcome, int64_t version,
                 const char *failure)
{
    const struct tally_load_options *options = lane->load->options;
    if (options->on_event == NULL || lane->load->phase != LOAD_WRITING)
        return;
    const struct tally_load_event event = {
        .outcome = outcome,
        .kind = lane->kind,
        .user = lane->user,
        .target = lane->subject,
        .version = version,
        .attempts = lane->attempts,
        .failure = failure,
    };
    options->on_event(options->context, &event);
}

void load_lane_settle(struct load_lane *lane)
{
    struct load *load = lane->load;
    if (!lane->ended || lane->twin_busy)
        return;
    if (load_answers_differ(&lane->own, &lane->twin))
        tell(lane, TALLY_LOAD_DIFFERING, 0, "another answer to the same request at once");
    load->done++;
    if (load->phase == LOAD_WRITING)
        load->report->commands++;
    lane->busy = false;
    load->busy_lanes--;
    start_next(lane);
}

static void finish(struct load_lane *lane)
{
    lane->ended = true;
    load_lane_settle(lane);
}

static void fail(struct load_lane *lane, enum tally_load_outcome outcome, const char *failure)
{
    struct load *load = lane->load;
    tell(lane, outcome, 0, failure);
    load->report->failed++;
    load_count_error(&load->report->errors, failure);
    if (load->phase == LOAD_MAKING_USERS && !load->failed) {
        load->failed = true;
        load->stopping = true;
        bool absent = strcmp(failure, tally_status_slug(TALLY_UNAVAILABLE)) == 0;
        bool taken = strcmp(failure, tally_status_slug(TALLY_EMAIL_TAKEN)) == 0;
        (void)tally_fail(load->error, TALLY_UNAVAILABLE,
                         "user %" PRId64 " could not be made at %s: %s%s", lane->number,
                         load->options->command_address, failure,
                         taken    ? " (from a run of more than a day ago: choose another --seed)"
                         : absent ? " (is tally-command up there, TALLY_COMMAND_LISTEN?)"
                                  : "");
    }
    finish(lane);
}

static void count_user(struct load_lane *lane, const struct tally_http_client_answer *answer,
                       const struct acknowledged *acknowledged)
{
    struct load *load = lane->load;
    load->users[lane->user] = acknowledged->id;
    bool replayed = tally_http_client_header(answer, "Idempotent-Replayed") != NULL;
    /* A replay after an attempt without an answer is that attempt's. */
    if (replayed && lane->attempts == 1)
        load->report->users_found++;
    else
        load->report->users_made++;
}

static void keep_made(struct load *load, enum tally_load_kind kind, struct tally_made_thing thing)
{
    if (kind == TALLY_LOAD_COMMENT)
        tally_made_add(&load->comments, thing, &load->random);
    else if (kind == TALLY_LOAD_POST && load->options->keep_commented &&
             (load->kept.count == 0 || tally_random_below(&load->random, KEPT_ONE_IN) == 0))
        tally_made_add(&load->kept, thing, &load->random);
    else if (kind == TALLY_LOAD_POST)
        tally_made_add(&load->posts, thing, &load->random);
}

static void count_command(struct load_lane *lane, const struct acknowledged *acknowledged)
{
    struct load *load = lane->load;
    load->report->made[lane->kind]++;
    keep_made(load, lane->kind, (struct tally_made_thing){acknowledged->id, lane->user});
    tell(lane, TALLY_LOAD_ACKNOWLEDGED, acknowledged->version, "");
    int64_t latency_us = tally_clock_monotonic_us() - lane->due_us;
    tally_latency_record(lane->attempts - lane->awaited == 1 ? &load->report->write
                                                             : &load->report->repeated,
                         latency_us);
    if (acknowledged->version > 0)
        load_maybe_read(load, acknowledged->user_id, acknowledged->version);
}

static void acknowledge(struct load_lane *lane, const struct tally_http_client_answer *answer)
{
    struct acknowledged acknowledged;
    if (!read_acknowledged(answer, &acknowledged)) {
        fail(lane, TALLY_LOAD_UNEXPECTED, "answer-not-understood");
        return;
    }
    load_ledger_note(lane, acknowledged.id, acknowledged.user_id, acknowledged.version);
    if (lane->load->phase == LOAD_MAKING_USERS)
        count_user(lane, answer, &acknowledged);
    else
        count_command(lane, &acknowledged);
    finish(lane);
}

/* Answers that say no and are right to. */
static bool refused_rightly(struct load_lane *lane, int http)
{
    struct tally_load_report *report = lane->load->report;
    if (lane->load->phase != LOAD_WRITING || http != 404)
        return false;
    if (lane->kind == TALLY_LOAD_COMMENT) {
        tell(lane, TALLY_LOAD_MISSING, 0, not_found);
        report->refused++;
        return true;
    }
    if (lane->kind == TALLY_LOAD_POST)
        return false;
    report->gone++;
    if (lane->attempts > 1) {
        report->gone_after_retry++;
        report->made[lane->kind]++;
        load_ledger_note(lane, lane->subject, 0, 0);
        tell(lane, TALLY_LOAD_ACKNOWLEDGED, 0, "");
    } else {
        tell(lane, TALLY_LOAD_MISSING, 0, not_found);
    }
    return true;
}

static void try_later(struct load_lane *lane, const char *failure)
{
    struct load *load = lane->load;
    int64_t wait_ms = tally_backoff_next_ms(&lane->backoff, &load->random);
    if (tally_clock_monotonic_us() + wait_ms * 1000 > lane->give_up_us) {
        fail(lane, TALLY_LOAD_UNKNOWN, failure);
        return;
    }
    if (lane->clients[1] != NULL)
        lane->place = 1 - lane->place;
    if (lane->twin_sent && strcmp(failure, tally_status_slug(TALLY_KEY_IN_USE)) == 0) {
        lane->awaited++;
    } else {
        load->report->retries++;
        load_count_error(&load->report->retry_causes, failure);
    }
    tally_timer_set(lane->timer, wait_ms * 1000);
}

static void keep_own(struct load_lane *lane, const struct tally_http_client_answer *answer)
{
    if (lane->twin_client != NULL)
        load_answer_keep(&lane->own, answer);
}

static void on_answered(const struct tally_http_client_answer *answer, void *context)
{
    struct load_lane *lane = context;
    int http = tally_http_client_http_status(answer);
    if (tally_http_client_status(answer) == TALLY_OK && http >= 200 && http < 300) {
        keep_own(lane, answer);
        acknowledge(lane, answer);
        return;
    }
    if (tally_http_client_status(answer) == TALLY_OK && refused_rightly(lane, http)) {
        keep_own(lane, answer);
        finish(lane);
        return;
    }
    char failure[LOAD_NAME_BYTES];
    load_answer_name(answer, failure);
    if (load_answer_may_change(answer, failure)) {
        try_later(lane, failure);
        return;
    }
    keep_own(lane, answer);
    fail(lane, TALLY_LOAD_UNEXPECTED, failure);
}

static void attempt(struct load_lane *lane)
{
    bool delete = lane->load->phase == LOAD_WRITING &&
                  (lane->kind == TALLY_LOAD_DELETE_POST || lane->kind == TALLY_LOAD_DELETE_COMMENT);
    const struct tally_http_client_request request = {
        .method = delete ? "DELETE" : "POST",
        .target = tally_buffer_text(&lane->target),
        .headers = tally_buffer_text(&lane->headers),
        .body = delete ? NULL : lane->body.data,
        .body_length = delete ? 0 : lane->body.length,
        .timeout_ms = ATTEMPT_TIMEOUT_MS,
    };
    struct tally_error error;
    if (lane->attempts++ == 0)
        load_twin_begin(lane, &request);
    if (tally_http_client_send(lane->clients[lane->place], &request, on_answered, lane, &error) !=
        TALLY_OK)
        try_later(lane, tally_status_slug(error.status));
}

static void on_timer(void *context)
{
    struct load_lane *lane = context;
    if (lane->attempts > 0) {
        attempt(lane);
        return;
    }
    /* Composed when it is due and not before, so that it can use what was made until then. */
    bool composed = lane->load->phase == LOAD_MAKING_USERS ? load_compose_user(lane)
                                                           : load_compose_command(lane);
    /* A server that never answered is more likely a wrong address than one that is being restarted.
     */
    bool strange = lane->load->phase == LOAD_MAKING_USERS && lane->load->done == 0;
    int64_t retry_for_s = lane->load->options->retry_for_s;
    if (strange && retry_for_s > FIRST_ANSWER_S)
        retry_for_s = FIRST_ANSWER_S;
    lane->give_up_us = tally_clock_monotonic_us() + retry_for_s * 1000000;
    if (composed)
        attempt(lane);
    else
        try_later(lane, tally_status_slug(TALLY_NO_MEMORY));
}

/* When the next command of the phase is due; -1 where there is none. */
static int64_t next_due_us(const struct load *load)
{
    const struct tally_load_options *options = load->options;
    int64_t now_us = tally_clock_monotonic_us();
    if (load->stopping)
        return -1;
    if (load->phase == LOAD_MAKING_USERS)
        return load->next < options->users ? now_us : -1;
    int64_t due_us = options->rate_s > 0
                         ? load->start_us + (int64_t)((double)load->next * 1e6 / options->rate_s)
                         : now_us;
    bool over = options->commands > 0 && load->next >= options->commands;
    bool late = options->duration_s > 0 && due_us >= load->start_us + options->duration_s * 1000000;
    return over || late ? -1 : due_us;
}

static void start_next(struct load_lane *lane)
{
    struct load *load = lane->load;
    int64_t due_us = next_due_us(load);
    if (due_us < 0) {
        load_check_end(load);
        return;
    }
    lane->busy = true;
    lane->ended = false;
    load->busy_lanes++;
    lane->number = load->next++;
    lane->due_us = due_us;
    lane->attempts = 0;
    lane->awaited = 0;
    lane->backoff.attempts = 0;
    int64_t wait_us = due_us - tally_clock_monotonic_us();
    if (wait_us > 0)
        tally_timer_set(lane->timer, wait_us);
    else
        on_timer(lane);
}

void load_lanes_start(struct load *load)
{
    for (int i = 0; i < load->options->connections; i++)
        start_next(&load->lanes[i]);
}

static enum tally_status open_clients(struct load_lane *lane, struct tally_error *error)
{
    const struct tally_load_options *options = lane->load->options;
    const char *const addresses[LOAD_ADDRESSES] = {options->command_address,
                                                   options->other_address};
    enum tally_status status = TALLY_OK;
    for (int i = 0; status == TALLY_OK && i < LOAD_ADDRESSES && addresses[i] != NULL; i++)
        status = tally_http_client_new(lane->load->base, addresses[i], 0, &lane->clients[i], error);
    return status;
}

enum tally_status load_lanes_open(struct load *load, struct tally_error *error)
{
    load->lanes = calloc((size_t)load->options->connections, sizeof *load->lanes);
    if (load->lanes == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "%d connections", load->options->connections);
    enum tally_status status = TALLY_OK;
    for (int i = 0; status == TALLY_OK && i < load->options->connections; i++) {
        struct load_lane *lane = &load->lanes[i];
        lane->load = load;
        lane->backoff =
            (struct tally_backoff){.first_ms = BACKOFF_FIRST_MS, .most_ms = BACKOFF_MOST_MS};
        tally_buffer_init(&lane->target, TARGET_BYTES);
        tally_buffer_init(&lane->headers, HEADERS_BYTES);
        tally_buffer_init(&lane->body, BODY_BYTES);
        status = open_clients(lane, error);
        if (status == TALLY_OK)
            status = load_twin_open(lane, error);
        lane->place = lane->clients[1] != NULL ? i % LOAD_ADDRESSES : 0;
        if (status == TALLY_OK)
            status = tally_timer_new(load->base, on_timer, lane, &lane->timer, error);
    }
    return status;
}

void load_lanes_close(struct load *load)
{
    for (int i = 0; load->lanes != NULL && i < load->options->connections; i++) {
        struct load_lane *lane = &load->lanes[i];
        for (int place = 0; place < LOAD_ADDRESSES; place++) {
            if (lane->clients[place] != NULL)
                tally_http_client_free(&lane->clients[place]);
        }
        load_twin_close(lane);
        if (lane->timer != NULL)
            tally_timer_free(&lane->timer);
        tally_buffer_release(&lane->target);
        tally_buffer_release(&lane->headers);
        tally_buffer_release(&lane->body);
    }
    free(load->lanes);
    load->lanes = NULL;
}
