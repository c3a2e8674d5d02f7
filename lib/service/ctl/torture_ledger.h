/*
 * Torture ledger: what was acknowledged to each user, and what was found to be wrong.
 *
 * Only what is certain counts; a write whose outcome never became known widens the bounds of what
 * its user may have. Accounts are written by one thread each (the load's, the probe's by the main
 * thread) but for `version`, which readers look at; violations come from any thread.
 */
#ifndef TALLY_SERVICE_CTL_TORTURE_LEDGER_H
#define TALLY_SERVICE_CTL_TORTURE_LEDGER_H

#include "service/ctl/load.h"

#include <pthread.h>

struct torture_account {
    int64_t id;
    int64_t posts, comments; /* acknowledged, less those acknowledged as deleted */
    int64_t changes;         /* acknowledged */
    /* Writes whose outcome is not known. */
    int64_t posts_more, posts_less, comments_more, comments_less;
    _Atomic int64_t version; /* the highest that was acknowledged */
};

#define TORTURE_VIOLATIONS_LISTED 100
#define TORTURE_TEXT_BYTES 320
struct torture_violation {
    const char *kind;  /* static: "lost", "twice", "version", … */
    int64_t user_id;   /* 0: of no user */
    const char *fault; /* what was going on; NULL: nothing */
    double at_s;       /* since the start */
    char text[TORTURE_TEXT_BYTES];
};

struct torture_ledger {
    struct torture_account *accounts; /* owned; of the users, and last the probe's */
    int64_t count;
    _Atomic int64_t acknowledged;
    int64_t unknown;      /* writes */
    pthread_mutex_t lock; /* guards what follows */
    int64_t violation_count;
    struct torture_violation violations[TORTURE_VIOLATIONS_LISTED]; /* the first ones */
    const char *fault;
    int64_t start_us;
};

enum tally_status torture_ledger_init(struct torture_ledger *ledger, int64_t users,
                                      struct tally_error *error) TALLY_MUST_CHECK;
void torture_ledger_release(struct torture_ledger *ledger);

/* A write of account `user` was acknowledged with this version (0: not told). */
void torture_ledger_acknowledge(struct torture_ledger *ledger, int64_t user,
                                enum tally_load_kind kind, int64_t version);
/* It may have been carried out or not. */
void torture_ledger_doubt(struct torture_ledger *ledger, int64_t user, enum tally_load_kind kind);

/* Any thread. */
void torture_violate(struct torture_ledger *ledger, const char *kind, int64_t user_id,
                     const char *format, ...) TALLY_PRINTF(4, 5);
/* The fault that goes on from now; `name` is kept. */
void torture_ledger_fault(struct torture_ledger *ledger, const char *name);
int64_t torture_ledger_violations(struct torture_ledger *ledger);

/* Compares what the write model has of account `user` with the ledger. */
void torture_ledger_compare(struct torture_ledger *ledger, int64_t user, int64_t version,
                            int64_t posts, int64_t comments);

#endif
