/*
 * Load: a generator of writes over HTTP, on one event loop, that counts exactly what was
 * acknowledged.
 *
 * Every POST carries an Idempotency-Key and is repeated with it where the answer says that another
 * attempt may succeed, or where there is none; so an effect is counted once although tally-command
 * is killed in between. A DELETE has no key: one that is repeated and then finds nothing counts as
 * done, because the attempt before it may have been carried out.
 *
 * At a constant rate latencies are measured from the moment a command was due, not from when a
 * connection was free for it, so that a stalled server shows in full (coordinated omission, Gil
 * Tene; https://github.com/giltene/wrk2#readme).
 */
#ifndef TALLY_SERVICE_CTL_LOAD_H
#define TALLY_SERVICE_CTL_LOAD_H

#include "service/ctl/choice.h"
#include "service/ctl/histogram.h"

#include <jansson.h>

/* How a command ended, for a caller that keeps books of its own. */
enum tally_load_outcome {
    TALLY_LOAD_ACKNOWLEDGED, /* also a repeated deletion that finds nothing any more */
    TALLY_LOAD_UNKNOWN,      /* given up after answers, or none, that do not say */
    TALLY_LOAD_MISSING,      /* not found, though it was made and not removed */
    TALLY_LOAD_UNEXPECTED,   /* an answer nobody expects */
    TALLY_LOAD_DIFFERING,    /* beside another outcome: the same request, sent at once over another
                                connection, got another answer */
};
struct tally_load_event {
    enum tally_load_outcome outcome;
    enum tally_load_kind kind;
    int64_t user;        /* index of the user whose count moves */
    int64_t target;      /* what was commented on or deleted; 0: nothing */
    int64_t version;     /* of the user after it; 0: the answer has none */
    unsigned attempts;   /* > 0 */
    const char *failure; /* slug, "" where acknowledged */
};

struct tally_load_options {
    const char *command_address; /* host:port of the write API */
    const char *other_address;   /* of a second one on the same database, or NULL. Connections are
                                    shared out; one that gets no answer turns to the other. */
    const char *query_address;   /* of the read API; used with `visibility` > 0 */
    int64_t users;               /* made first, or found again by the same seed; > 0 */
    struct tally_distribution distribution;
    struct tally_mix mix;
    int connections;    /* > 0 */
    double rate_s;      /* commands a second; 0: as fast as it goes */
    int64_t commands;   /* to send; 0: until `duration_s` has passed */
    int64_t duration_s; /* 0: until `commands` are done */
    uint64_t seed;
    double visibility;   /* share of writes that are read back, 0 to 1 */
    double twice;        /* share of POSTs that are sent over two connections at once, 0 to 1 */
    int64_t retry_for_s; /* longest time one command is repeated */
    /* Takes a line for each acknowledged command, its fields separated by tabs: kind ("user" or a
     * name of the mix), id of what was made or removed, whose count moved, their version after it,
     * and the post that was commented on or 0. User and version are 0 where a repeated delete found
     * nothing and so counts as done. NULL: none is kept. */
    const char *ledger_path;
    /* A post is either commented on or deleted, never both: so that a deletion moves the count of
     * its author alone. */
    bool keep_commented;
    /* Ends the sending as a signal does, which then is left to the caller. May be NULL. */
    const _Atomic bool *stop;
    /* In the thread of tally_load_run(), each may be NULL: all users are made, `ids` lives as long
     * as the run; a command of the writing has ended; a write that was read back was answered by an
     * older version than its own. */
    void (*on_users)(void *context, const int64_t *ids);
    void (*on_event)(void *context, const struct tally_load_event *event);
    void (*on_stale)(void *context, int64_t user_id, int64_t wanted, int64_t shown);
    /* Several times a second: `phase` is "making users" or "writing"; `total` may be 0. */
    void (*on_progress)(void *context, const char *phase, int64_t done, int64_t total);
    void *context;
};

/* Bounds the table of errors; what comes beyond is counted as "other". */
#define TALLY_LOAD_ERRORS 24
struct tally_load_errors {
    struct {
        char name[48]; /* slug of the problem, or of the client's failure */
        int64_t count;
    } list[TALLY_LOAD_ERRORS];
    size_t count;
};

struct tally_load_report {
    int64_t users_made;                  /* by this run */
    int64_t users_found;                 /* from an earlier run with the same seed */
    int64_t made[TALLY_LOAD_KIND_COUNT]; /* acknowledged, by kind */
    int64_t gone; /* deletes that found nothing: of comments that went with their post, or
                     repeated after an attempt whose answer was lost */
    int64_t gone_after_retry; /* of `gone`, those that were repeated; counted in `made` too */
    int64_t refused;          /* comments on a post that was deleted meanwhile */
    int64_t failed;           /* commands given up, and answers nobody expects */
    int64_t retries;
    int64_t twice;                   /* commands that were sent over two connections at once */
    int64_t commands;                /* finished, in whatever way */
    double seconds;                  /* of the writing, without the making of users */
    struct tally_latency write;      /* acknowledged commands, without those that were repeated */
    struct tally_latency repeated;   /* those that were, until the last answer */
    struct tally_latency visibility; /* acknowledgement to visible read */
    int64_t reads_skipped;           /* every reading connection was busy */
    int64_t reads_failed;            /* not visible within 10 s, or no answer */
    int64_t reads_stale;             /* answered with an older version: must never be */
    struct tally_load_errors errors; /* why commands failed */
    struct tally_load_errors retry_causes;
    bool interrupted; /* SIGINT or SIGTERM ended it; the report covers what was done */
};

/* Commands of the writing that were repeated until they were known to be done. */
int64_t tally_load_repeated(const struct tally_load_report *report);
/* Counts by name, as an object owned by the caller; NULL: no memory. */
json_t *tally_load_errors_json(const struct tally_load_errors *errors);
/* For a report: 1234 us as 1.234. */
double tally_load_milliseconds(int64_t microseconds);

/* Blocks until done. UNAVAILABLE: not one user could be made; otherwise `report` is filled and
 * counts the failures. */
enum tally_status tally_load_run(const struct tally_load_options *options,
                                 struct tally_load_report *report,
                                 struct tally_error *error) TALLY_MUST_CHECK;

#endif
