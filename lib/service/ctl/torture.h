/*
 * Torture: breaks a running stack in the ways that its operator names, under load, and says at the
 * end whether every acknowledged write was counted exactly once.
 *
 * Three threads: the load, which keeps the ledger; readers, which look at the users all the time;
 * and the caller's, which breaks and heals, and measures by writes of its own how long it takes
 * until a write is readable again. A reader's rule: what was shown once is never followed by an
 * older version, none is older than was asked for, and one version has one pair of counts; a read
 * that cannot keep it has to be a 503. A writer's: equal requests sent at once under one key have
 * one effect, and one answer where they are not told to wait.
 */
#ifndef TALLY_SERVICE_CTL_TORTURE_H
#define TALLY_SERVICE_CTL_TORTURE_H

#include "core/settings.h"
#include "service/ctl/torture_faults.h"
#include "service/ctl/torture_ledger.h"

#include <jansson.h>

struct torture_options {
    const struct tally_settings *settings;
    struct tally_faults faults;
    uint64_t seed;
    int64_t duration_ms; /* 0: until the rounds are done */
    int64_t rounds;      /* 0: until the time is over */
    int64_t pause_ms;    /* between two faults, on average */
    int64_t patience_ms; /* longest wait for a recovery, and for the lag to be gone at the end */
    int64_t users;
    double rate_s;
    int connections;
    bool mend;
    bool quiet; /* no progress */
};

struct torture_fault_report {
    int64_t count;
    int64_t failed; /* the inject or heal command failed */
    int64_t unrecovered;
    struct tally_latency recovery;
};

enum torture_read {
    TORTURE_READ_SHOWN,
    TORTURE_READ_ABSENT,
    TORTURE_READ_REFUSED, /* 503 */
    TORTURE_READ_NOTHING, /* no answer */
    TORTURE_READ_UNEXPECTED,
    TORTURE_READS
};

#define TORTURE_NAMED_BYTES 256

struct torture_report {
    struct torture_ledger ledger;
    struct tally_load_report load;
    struct torture_fault_report faults[TALLY_FAULTS_MOST];
    int64_t reads[TORTURE_READS];
    int64_t rounds; /* begun */
    int64_t steps;  /* faults done */
    double seconds;
    bool interrupted;
    bool verified;                    /* the end was reached, and compared */
    int64_t posts, comments;          /* of our users in PostgreSQL */
    char named[TORTURE_NAMED_BYTES];  /* the command that a message asked for; "": none */
    char mended[TORTURE_NAMED_BYTES]; /* the one that was run */
};

/* Looks whether the stack is well enough to be broken: every component up, and no difference.
 * UNAVAILABLE: something is down; READ_MODEL_INCOMPLETE with what is not well otherwise. */
enum tally_status torture_examine(const struct torture_options *options,
                                  struct tally_error *error) TALLY_MUST_CHECK;

/* Blocks; SIGINT, SIGTERM and SIGHUP end it early, healed and reported. Call once, before any other
 * thread runs. `report` is filled as far as it got and released by torture_report_release() in
 * every case. UNAVAILABLE: nothing could be written at all; INTERNAL: a fault could not be healed.
 */
enum tally_status torture_run(const struct torture_options *options, struct torture_report *report,
                              struct tally_error *error) TALLY_MUST_CHECK;
void torture_report_release(struct torture_report *report);

json_t *torture_report_json(const struct torture_options *options,
                            const struct torture_report *report);
void torture_report_print(const struct torture_options *options,
                          const struct torture_report *report);

#endif
