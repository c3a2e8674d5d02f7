#include "service/ctl/torture_ledger.h"

#include "core/clock.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum tally_status torture_ledger_init(struct torture_ledger *ledger, int64_t users,
                                      struct tally_error *error)
{
    *ledger = (struct torture_ledger){.count = users + 1, .start_us = tally_clock_monotonic_us()};
    (void)pthread_mutex_init(&ledger->lock, NULL);
    ledger->accounts = calloc((size_t)ledger->count, sizeof *ledger->accounts);
    if (ledger->accounts == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "the accounts of %" PRId64 " users", users);
    return TALLY_OK;
}

void torture_ledger_release(struct torture_ledger *ledger)
{
    free(ledger->accounts);
    ledger->accounts = NULL;
    (void)pthread_mutex_destroy(&ledger->lock);
}

void torture_ledger_acknowledge(struct torture_ledger *ledger, int64_t user,
                                enum tally_load_kind kind, int64_t version)
{
    struct torture_account *account = &ledger->accounts[user];
    account->posts += (kind == TALLY_LOAD_POST) - (kind == TALLY_LOAD_DELETE_POST);
    account->comments += (kind == TALLY_LOAD_COMMENT) - (kind == TALLY_LOAD_DELETE_COMMENT);
    account->changes++;
    if (version > atomic_load(&account->version))
        atomic_store(&account->version, version);
    (void)atomic_fetch_add(&ledger->acknowledged, 1);
}

void torture_ledger_doubt(struct torture_ledger *ledger, int64_t user, enum tally_load_kind kind)
{
    struct torture_account *account = &ledger->accounts[user];
    account->posts_more += kind == TALLY_LOAD_POST;
    account->posts_less += kind == TALLY_LOAD_DELETE_POST;
    account->comments_more += kind == TALLY_LOAD_COMMENT;
    account->comments_less += kind == TALLY_LOAD_DELETE_COMMENT;
    ledger->unknown++;
}

void torture_violate(struct torture_ledger *ledger, const char *kind, int64_t user_id,
                     const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)pthread_mutex_lock(&ledger->lock);
    if (ledger->violation_count < TORTURE_VIOLATIONS_LISTED) {
        struct torture_violation *violation = &ledger->violations[ledger->violation_count];
        violation->kind = kind;
        violation->user_id = user_id;
        violation->fault = ledger->fault;
        violation->at_s = (double)(tally_clock_monotonic_us() - ledger->start_us) / 1e6;
        (void)vsnprintf(violation->text, sizeof violation->text, format, arguments);
    }
    ledger->violation_count++;
    (void)pthread_mutex_unlock(&ledger->lock);
    va_end(arguments);
}

void torture_ledger_fault(struct torture_ledger *ledger, const char *name)
{
    (void)pthread_mutex_lock(&ledger->lock);
    ledger->fault = name;
    (void)pthread_mutex_unlock(&ledger->lock);
}

int64_t torture_ledger_violations(struct torture_ledger *ledger)
{
    (void)pthread_mutex_lock(&ledger->lock);
    int64_t count = ledger->violation_count;
    (void)pthread_mutex_unlock(&ledger->lock);
    return count;
}

/* "lost" below `least`, "twice" above `most`. */
static void compare(struct torture_ledger *ledger, int64_t user_id, const char *what, int64_t least,
                    int64_t most, int64_t found)
{
    if (found >= least && found <= most)
        return;
    torture_violate(ledger, found < least ? "lost" : "twice", user_id,
                    "%s: acknowledged %" PRId64 "%s, in PostgreSQL %" PRId64, what, least,
                    most > least ? " at least" : "", found);
}

void torture_ledger_compare(struct torture_ledger *ledger, int64_t user, int64_t version,
                            int64_t posts, int64_t comments)
{
    const struct torture_account *account = &ledger->accounts[user];
    int64_t unknown =
        account->posts_more + account->posts_less + account->comments_more + account->comments_less;
    compare(ledger, account->id, "posts", account->posts - account->posts_less,
            account->posts + account->posts_more, posts);
    compare(ledger, account->id, "comments", account->comments - account->comments_less,
            account->comments + account->comments_more, comments);
    /* A user begins with version 1; a loss and a repeat that hide each other in a count show here.
     */
    compare(ledger, account->id, "changes", account->changes, account->changes + unknown,
            version - 1);
    if (atomic_load(&account->version) > version)
        torture_violate(ledger, "lost", account->id,
                        "version %" PRId64 " was acknowledged, in PostgreSQL it is %" PRId64,
                        (int64_t)atomic_load(&account->version), version);
}
