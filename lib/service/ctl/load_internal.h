/*
 * Load, inside: the state that its files share. A load has lanes, each with a connection and at
 * most one command; and readers, which watch an acknowledged write become visible. All on one loop.
 */
#ifndef TALLY_SERVICE_CTL_LOAD_INTERNAL_H
#define TALLY_SERVICE_CTL_LOAD_INTERNAL_H

#include "core/buffer.h"
#include "http/client.h"
#include "loop/loop.h"
#include "service/ctl/load.h"

#include <stdio.h>

enum { LOAD_ADDRESSES = 2, LOAD_NAME_BYTES = 48 };
enum load_phase { LOAD_MAKING_USERS, LOAD_WRITING };

struct load;

/* What a request was answered for good. */
struct load_answer {
    int http; /* status; 0: nothing that says what became of the command */
    bool replayed;
    struct tally_buffer body;
};

/* A lane is free, waits for its command's time or for the next attempt (timer), has a request in
 * flight (one of its clients), or waits for the answer to the request that was sent beside its
 * first one. */
struct load_lane {
    struct load *load;
    struct tally_http_client *clients[LOAD_ADDRESSES]; /* NULL where there is no such address */
    int place;                                         /* of the client in use */
    struct tally_timer *timer;
    bool busy, ended;                      /* ended: but for its twin */
    struct tally_http_client *twin_client; /* NULL: nothing is sent twice */
    bool twin_sent, twin_busy;             /* of the command */
    struct load_answer own, twin;          /* to the command */
    int64_t number;                        /* of the command, from 0 in each phase */
    enum tally_load_kind kind;
    int64_t user;       /* index, of the author */
    int64_t subject;    /* the post to comment on, or what to delete; 0 where neither */
    int64_t due_us;     /* monotonic; latency counts from here */
    int64_t give_up_us; /* no attempt starts after */
    struct tally_backoff backoff;
    unsigned attempts;
    unsigned awaited; /* attempts that were told to wait for the twin's outcome */
    struct tally_buffer target, headers, body;
};

struct load_reader {
    struct load *load;
    struct tally_http_client *client;
    bool busy;
    int64_t acknowledged_us;
    int64_t user_id, version;
};

struct load {
    const struct tally_load_options *options;
    struct tally_load_report *report;
    struct tally_error *error; /* why making users failed */
    struct event_base *base;
    enum load_phase phase;
    int64_t next; /* number of the next command of the phase */
    int64_t done;
    int64_t start_us;     /* of the phase, monotonic */
    bool stopping;        /* no new commands */
    int64_t signalled_us; /* monotonic; when stopping by a signal began */
    bool failed;          /* a user could not be made */
    int64_t *users;       /* their ids; owned */
    uint64_t nonce;       /* makes the keys of this run's commands its own */
    struct tally_zipf zipf;
    struct tally_random random;
    struct tally_made posts, comments;
    struct tally_made kept;  /* posts to comment on, with options->keep_commented */
    struct load_lane *lanes; /* options->connections of them; owned */
    int busy_lanes;
    FILE *ledger;                /* owned; NULL where none is kept */
    struct load_reader *readers; /* owned; none where nothing is read back */
    int reader_count;
    int busy_readers;
};

/* Opens lanes and readers; load_lanes_close() also after a failure. */
enum tally_status load_lanes_open(struct load *load, struct tally_error *error) TALLY_MUST_CHECK;
void load_lanes_close(struct load *load);
/* Gives every lane work; the loop ends by load_check_end(). */
void load_lanes_start(struct load *load);

/* Ends the lane's command once its twin is answered too. */
void load_lane_settle(struct load_lane *lane);

/* The slug of the problem, or the HTTP status, or the slug of the client's failure. */
void load_answer_name(const struct tally_http_client_answer *answer, char name[LOAD_NAME_BYTES]);
/* Whether the same request may be answered otherwise later, or was not answered at all. */
bool load_answer_may_change(const struct tally_http_client_answer *answer, const char *name);
void load_answer_keep(struct load_answer *kept, const struct tally_http_client_answer *answer);
void load_answer_forget(struct load_answer *answer);
/* Whether equal requests under one key got answers that cannot both be true: pure. */
bool load_answers_differ(const struct load_answer *one, const struct load_answer *other);

/* Where the options say that commands are sent twice; load_twin_close() also after a failure. */
enum tally_status load_twin_open(struct load_lane *lane,
                                 struct tally_error *error) TALLY_MUST_CHECK;
void load_twin_close(struct load_lane *lane);
/* The lane's first attempt is `request`: sends it over another connection too, where the dice say
 * so. */
void load_twin_begin(struct load_lane *lane, const struct tally_http_client_request *request);

/* A command of the lane is done for sure. `id`: what it made or removed. */
void load_ledger_note(const struct load_lane *lane, int64_t id, int64_t user_id, int64_t version);
/* IO where it cannot be opened, or where not all of it could be written. */
enum tally_status load_ledger_open(struct load *load, struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status load_ledger_close(struct load *load, struct tally_error *error) TALLY_MUST_CHECK;

/* Prepares target, headers and body of the lane's command. False where memory has run out. */
bool load_compose_user(struct load_lane *lane);
bool load_compose_command(struct load_lane *lane);

enum tally_status load_readers_open(struct load *load, struct tally_error *error) TALLY_MUST_CHECK;
void load_readers_close(struct load *load);
/* A write was acknowledged now: reads it back where the dice say so. */
void load_maybe_read(struct load *load, int64_t user_id, int64_t version);

/* Leaves the loop once no lane and no reader is busy. */
void load_check_end(struct load *load);
void load_count_error(struct tally_load_errors *errors, const char *name);

#endif
