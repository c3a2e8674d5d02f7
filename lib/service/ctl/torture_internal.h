/*
 * Torture, inside: what its files share.
 */
#ifndef TALLY_SERVICE_CTL_TORTURE_INTERNAL_H
#define TALLY_SERVICE_CTL_TORTURE_INTERNAL_H

#include "http/client.h"
#include "service/ctl/torture.h"

#include <pthread.h>

/* What is shown on standard error meanwhile: a line for each thing that happens, and on a terminal
 * one below it that is rewritten each second. */
struct torture_show {
    struct torture_ledger *ledger;
    bool quiet, terminal;
    bool shown; /* the terminal's line holds something */
    int64_t next_us;
};
void torture_show_init(struct torture_show *show, struct torture_ledger *ledger, bool quiet);
void torture_tell(struct torture_show *show, const char *format, ...) TALLY_PRINTF(2, 3);
/* `end_us`: monotonic, when it will be over; 0: not known. */
void torture_show(struct torture_show *show, int64_t end_us, const char *what);
void torture_show_end(struct torture_show *show);
/* Since the start. */
double torture_seconds(const struct torture_ledger *ledger);

/* The load generator in a thread of its own; it writes to the ledger. Not to be moved. */
struct torture_load {
    struct torture_report *report;
    struct tally_load_options options;
    pthread_t thread;
    _Atomic bool users_made, ended, stop;
    enum tally_status status; /* of the load, once it has ended */
    struct tally_error error;
};
enum tally_status torture_load_start(struct torture_load *load,
                                     const struct torture_options *options,
                                     struct torture_report *report,
                                     struct tally_error *error) TALLY_MUST_CHECK;
/* Waits until what is in flight is known, or given up. */
void torture_load_stop(struct torture_load *load);

/* One request at a time, waited for. */
struct torture_asker {
    struct event_base *base;
    struct tally_http_client *client;
    bool answered;
    enum tally_status status; /* OK: an answer came */
    int http;                 /* its status; 0: none */
    json_t *body;             /* owned; NULL: no JSON */
};
enum tally_status torture_asker_open(struct torture_asker *asker, const char *address,
                                     struct tally_error *error) TALLY_MUST_CHECK;
void torture_asker_close(struct torture_asker *asker);
/* The answer is in the asker until the next call. */
void torture_ask(struct torture_asker *asker, const struct tally_http_client_request *request);

/* Writes of a user of its own, one after the other, each until it is known and readable. */
struct torture_probe {
    struct torture_ledger *ledger;
    struct torture_asker write, read;
    uint64_t nonce;
    int64_t number;
    bool open; /* the write `number` is not known yet */
};
enum tally_status torture_probe_open(struct torture_probe *probe,
                                     const struct tally_settings *settings,
                                     struct torture_ledger *ledger,
                                     struct tally_error *error) TALLY_MUST_CHECK;
void torture_probe_close(struct torture_probe *probe);
/* Whether a new write became readable before `due_us` (monotonic) and before `*stop`. */
bool torture_probe_recovered(struct torture_probe *probe, int64_t due_us, const _Atomic int *stop);
/* Makes the open write, if there is one, known before `due_us`, or counts it as unknown. */
void torture_probe_settle(struct torture_probe *probe, int64_t due_us);

/* Reads users of the ledger all the time, in a thread of its own. */
struct torture_readers;
enum tally_status torture_readers_start(const struct tally_settings *settings,
                                        struct torture_ledger *ledger, int64_t reads[TORTURE_READS],
                                        struct torture_readers **readers,
                                        struct tally_error *error) TALLY_MUST_CHECK;
/* Waits for its end; then `reads` is final. NULL is fine. */
void torture_readers_stop(struct torture_readers **readers);

/* A difference that was found at the end, before it is called a violation. */
struct torture_finding {
    const char *kind;
    int64_t user_id;
    char text[TORTURE_TEXT_BYTES];
};
struct torture_judgement {
    bool lagging;               /* the lag did not go away */
    struct tally_error failure; /* status is not OK: verify could not be done */
    int64_t differences;
    size_t count;
    struct torture_finding findings[TORTURE_VIOLATIONS_LISTED];
};
/* Waits until nothing lags, `patience_ms` at most, and verifies. */
void torture_judge(const struct torture_options *options, struct torture_judgement *judgement);
/* Compares the ledger with the rows of its users, and their rows with what the read API shows; adds
 * to `report`. */
enum tally_status torture_compare(const struct torture_options *options,
                                  struct torture_report *report,
                                  struct tally_error *error) TALLY_MUST_CHECK;

/* The operator's command that a message of the stack asks for, into `named`; "" where none does at
 * any of `looks` looks, which are a second apart. */
void torture_find_named(const struct torture_options *options, int looks,
                        char named[TORTURE_NAMED_BYTES]);
/* The same in a text; pure: the last line that names one, several joined by " && ". */
void torture_named_in(const char *text, char named[TORTURE_NAMED_BYTES]);
/* Runs it, and what revives services. */
enum tally_status torture_mend(const struct torture_options *options, const char *named,
                               struct tally_error *error) TALLY_MUST_CHECK;

#endif
