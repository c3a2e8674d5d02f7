#include "core/clock.h"
#include "service/ctl/output.h"
#include "service/ctl/torture_internal.h"
#include "service/ctl/torture_shell.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    COMMAND_TIMEOUT_MS = 180000,
    SLICE_MS = 100,
    SLICE_US = SLICE_MS * 1000,
    HEAL_ATTEMPTS = 3,
    LOOKS = 5,
};

/* Signals that came; also what the waiting loops look at. */
static _Atomic int signalled;

struct run {
    const struct torture_options *options;
    struct torture_report *report;
    struct torture_load load;
    struct torture_readers *readers;
    struct torture_probe probe;
    const struct tally_fault *injected; /* to be healed; NULL: none */
    int64_t end_us;                     /* monotonic; 0: after the rounds */
    struct torture_show show;
};

/* False where a signal ended it. */
static bool rest(struct run *run, int64_t milliseconds, const char *what)
{
    const int64_t due_us = tally_clock_monotonic_us() + milliseconds * 1000;
    int64_t left_us = 0;
    while (atomic_load(&signalled) == 0 && (left_us = due_us - tally_clock_monotonic_us()) > 0) {
        torture_show(&run->show, run->end_us, what);
        int64_t slice_us = left_us < SLICE_US ? left_us : SLICE_US;
        const struct timespec slice = {.tv_nsec = slice_us * 1000};
        (void)nanosleep(&slice, NULL);
    }
    return atomic_load(&signalled) == 0;
}

static enum tally_status await_users(struct run *run, struct tally_error *error)
{
    while (!atomic_load(&run->load.users_made) && !atomic_load(&run->load.ended) &&
           rest(run, SLICE_MS, "making users"))
        continue;
    if (atomic_load(&run->load.users_made))
        return TALLY_OK;
    if (!atomic_load(&run->load.ended))
        return tally_fail(error, TALLY_STOPPING, "interrupted before anything was done");
    *error = run->load.error;
    return run->load.status != TALLY_OK
               ? run->load.status
               : tally_fail(error, TALLY_UNAVAILABLE, "the load ended before all users were made");
}

/*
 * The faults.
 */

static enum tally_status heal(struct run *run, struct tally_error *error)
{
    const struct tally_fault *fault = run->injected;
    enum tally_status status = TALLY_OK;
    if (fault == NULL || fault->heal[0] == '\0') {
        run->injected = NULL;
        return TALLY_OK;
    }
    for (int i = 0; i < HEAL_ATTEMPTS; i++) {
        struct tally_error cause;
        status = tally_shell_run(fault->heal, COMMAND_TIMEOUT_MS, NULL, 0, &cause);
        if (status == TALLY_OK) {
            run->injected = NULL;
            return TALLY_OK;
        }
        torture_tell(&run->show, "%s: could not be healed: %s", fault->name, cause.text);
    }
    (void)tally_fail(error, status, "%s could not be healed", fault->name);
    return status;
}

/* Asks the stack itself what would help. False: it stays as it is. */
static bool mend(struct run *run, const char *named)
{
    struct torture_report *report = run->report;
    struct tally_error error;
    if (named[0] == '\0')
        return false;
    (void)snprintf(report->named, sizeof report->named, "%s", named);
    if (!run->options->mend || report->mended[0] != '\0') {
        torture_tell(&run->show, "the stack asks for: %s", named);
        return false;
    }
    torture_tell(&run->show, "the stack asks for it, so it is run: %s", named);
    (void)snprintf(report->mended, sizeof report->mended, "%s", named);
    if (torture_mend(run->options, named, &error) == TALLY_OK)
        return true;
    torture_tell(&run->show, "%s", error.text);
    return false;
}

/* Until a new write is readable; false where it never was, or a signal came. */
static bool recover(struct run *run, const struct tally_fault *fault, int64_t start_us)
{
    struct torture_fault_report *report = &run->report->faults[fault - run->options->faults.list];
    const int64_t patience_us = run->options->patience_ms * 1000;
    bool mended = false;
    for (;;) {
        if (torture_probe_recovered(&run->probe, tally_clock_monotonic_us() + patience_us,
                                    &signalled))
            break;
        if (atomic_load(&signalled) > 0)
            return false;
        char named[TORTURE_NAMED_BYTES];
        torture_find_named(run->options, LOOKS, named);
        if (mended || !mend(run, named)) {
            report->unrecovered++;
            torture_violate(&run->report->ledger, "recovery", 0,
                            "no new write was readable within %" PRId64 " s%s%s",
                            run->options->patience_ms / 1000,
                            named[0] != '\0' ? "; the stack asks for: " : "", named);
            return false;
        }
        mended = true;
    }
    int64_t took_us = tally_clock_monotonic_us() - start_us;
    tally_latency_record(&report->recovery, took_us);
    if (fault->recovers_ms > 0 && took_us > fault->recovers_ms * 1000)
        torture_violate(&run->report->ledger, "recovery", 0, "took %.1f s, and %.1f s is the bound",
                        (double)took_us / 1e6, (double)fault->recovers_ms / 1e3);
    char duration[TALLY_DURATION_BYTES];
    tally_ctl_format_duration((double)took_us / 1e6, duration);
    torture_tell(&run->show, "%s: recovered after %s", fault->name, duration);
    return true;
}

/* False where the run has to end; the error says why unless a signal did. */
static bool do_step(struct run *run, const struct tally_fault_step *step, struct tally_error *error)
{
    const struct tally_fault *fault = step->fault;
    struct torture_fault_report *report = &run->report->faults[fault - run->options->faults.list];
    torture_ledger_fault(&run->report->ledger, fault->name);
    torture_tell(&run->show, "%s for %.1f s (round %" PRId64 ")", fault->name,
                 (double)step->lasts_ms / 1e3, step->round);
    report->count++;
    run->report->steps++;
    run->injected = fault;
    struct tally_error cause;
    if (tally_shell_run(fault->inject, COMMAND_TIMEOUT_MS, NULL, 0, &cause) != TALLY_OK) {
        report->failed++;
        torture_tell(&run->show, "%s: could not be injected: %s", fault->name, cause.text);
    } else {
        (void)rest(run, step->lasts_ms, fault->name);
    }
    int64_t start_us = tally_clock_monotonic_us();
    if (heal(run, error) != TALLY_OK) {
        report->failed++;
        return false;
    }
    bool recovered = recover(run, fault, start_us);
    if (!recovered && atomic_load(&signalled) == 0)
        (void)tally_fail(error, TALLY_UNAVAILABLE, "after %s the stack did not recover",
                         fault->name);
    return recovered;
}

static enum tally_status run_faults(struct run *run)
{
    const struct torture_options *options = run->options;
    struct tally_error error = {.status = TALLY_OK};
    struct tally_fault_plan plan;
    tally_fault_plan_init(&plan, &options->faults, options->seed, options->pause_ms);
    if (options->duration_ms > 0)
        run->end_us = tally_clock_monotonic_us() + options->duration_ms * 1000;
    for (;;) {
        struct tally_fault_step step;
        tally_fault_plan_next(&plan, &step);
        bool over = run->end_us > 0 ? tally_clock_monotonic_us() >= run->end_us
                                    : step.round > options->rounds;
        if (over || atomic_load(&signalled) > 0)
            break;
        run->report->rounds = step.round;
        if (!do_step(run, &step, &error) || !rest(run, step.pause_ms, "all is healed"))
            break;
        torture_ledger_fault(&run->report->ledger, NULL);
    }
    if (error.status != TALLY_OK)
        torture_tell(&run->show, "%s", error.text);
    return run->injected != NULL ? TALLY_INTERNAL : TALLY_OK;
}

/*
 * The end.
 */

static void stop_load(struct run *run)
{
    torture_tell(&run->show, "ending the load: what is in flight is repeated until it is known");
    torture_load_stop(&run->load);
    torture_probe_settle(&run->probe,
                         tally_clock_monotonic_us() + run->options->patience_ms * 1000);
    torture_readers_stop(&run->readers);
}

static enum tally_status judge(struct run *run, struct tally_error *error)
{
    struct torture_judgement *judgement = calloc(1, sizeof *judgement);
    if (judgement == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "the judgement");
    struct torture_ledger *ledger = &run->report->ledger;
    torture_tell(&run->show, "waiting for the lag to be gone, and verifying");
    for (int i = 0; i < 2; i++) {
        torture_judge(run->options, judgement);
        if (!judgement->lagging && judgement->failure.status == TALLY_OK &&
            judgement->differences == 0)
            break;
        char named[TORTURE_NAMED_BYTES] = "";
        for (size_t place = 0; named[0] == '\0' && place < judgement->count; place++)
            torture_named_in(judgement->findings[place].text, named);
        if (named[0] == '\0')
            torture_find_named(run->options, 1, named);
        if (!mend(run, named))
            break;
    }
    if (judgement->lagging)
        torture_violate(ledger, "lag", 0, "was not gone after %" PRId64 " s; see `tallyctl status`",
                        run->options->patience_ms / 1000);
    for (size_t i = 0; i < judgement->count; i++)
        torture_violate(ledger, judgement->findings[i].kind, judgement->findings[i].user_id, "%s",
                        judgement->findings[i].text);
    enum tally_status status = judgement->failure.status;
    *error = judgement->failure;
    free(judgement);
    if (status == TALLY_OK)
        status = torture_compare(run->options, run->report, error);
    run->report->verified = status == TALLY_OK;
    return status;
}

static void on_signal(int number)
{
    (void)number;
    (void)atomic_fetch_add(&signalled, 1);
}

/* The threads that are started meanwhile leave the signals to the caller's. */
static void hold_signals(int how)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)pthread_sigmask(how, &set, NULL);
}

static void handle_signals(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
}

static enum tally_status run_all(struct run *run, struct tally_error *error)
{
    const struct tally_settings *settings = run->options->settings;
    struct torture_report *report = run->report;
    enum tally_status status = torture_probe_open(&run->probe, settings, &report->ledger, error);
    if (status != TALLY_OK)
        return status;
    hold_signals(SIG_BLOCK);
    status = torture_load_start(&run->load, run->options, report, error);
    hold_signals(SIG_UNBLOCK);
    if (status != TALLY_OK)
        return status;
    status = await_users(run, error);
    if (status == TALLY_OK) {
        hold_signals(SIG_BLOCK);
        status =
            torture_readers_start(settings, &report->ledger, report->reads, &run->readers, error);
        hold_signals(SIG_UNBLOCK);
    }
    enum tally_status healed = TALLY_OK;
    if (status == TALLY_OK)
        healed = run_faults(run);
    torture_ledger_fault(&report->ledger, NULL);
    report->interrupted = atomic_load(&signalled) > 0;
    /* `timeout` and terminals send a signal twice at once. */
    if (report->interrupted)
        (void)sleep(1);
    /* Nothing is broken any more, so that another signal may end the waiting as usual. */
    handle_signals(SIG_DFL);
    stop_load(run);
    if (status == TALLY_OK)
        status = judge(run, error);
    if (status == TALLY_OK && healed != TALLY_OK)
        status = tally_fail(error, TALLY_INTERNAL, "%s could not be healed: run by hand: %s",
                            run->injected->name, run->injected->heal);
    return status;
}

enum tally_status torture_run(const struct torture_options *options, struct torture_report *report,
                              struct tally_error *error)
{
    memset(report, 0, sizeof *report);
    struct run *run = calloc(1, sizeof *run);
    enum tally_status status = torture_ledger_init(&report->ledger, options->users, error);
    if (run == NULL && status == TALLY_OK)
        status = tally_fail(error, TALLY_NO_MEMORY, "the run");
    if (status == TALLY_OK && run != NULL) {
        run->options = options;
        run->report = report;
        torture_show_init(&run->show, &report->ledger, options->quiet);
        handle_signals(on_signal);
        status = run_all(run, error);
        report->seconds = torture_seconds(&report->ledger);
        torture_show_end(&run->show);
        torture_probe_close(&run->probe);
    }
    free(run);
    return status;
}

void torture_report_release(struct torture_report *report)
{
    torture_ledger_release(&report->ledger);
}
