#include "core/clock.h"
#include "service/ctl/audit_internal.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum {
    PENDING_MOST = 10000,
    LOOK_MS = 1000,        /* between two looks at who is in flight */
    CLAIMS_HELD_MS = 1000, /* longest wait of a claim for others to be repaired with it */
    SAVE_MS = 1000,
    PAUSE_MS = 2000, /* between two sweeps: few users are not compared again and again */
    STEPS_A_SECOND = 5,
    RETRY_FIRST_MS = 250,
    RETRY_MOST_MS = 30000,
    ATTEMPTS_ONCE = 8, /* of a single sweep, without getting on: about a minute */
    NAP_MS = 50,
};

/* Longer than any single wait of the thread while its servers answer. */
static const int64_t ALIVE_US = 60LL * 1000 * 1000;

static int64_t wall_ms(void)
{
    return tally_clock_wall_us() / 1000;
}

static bool keeps_place(const struct tally_audit *audit)
{
    return !audit->options.once && !audit->options.dry_run;
}

/* Until then, or until the audit is to stop. */
static void nap_until(struct tally_audit *audit, int64_t due_us)
{
    int64_t left_us = due_us - tally_clock_monotonic_us();
    while (left_us > 0 && !atomic_load(&audit->stopping)) {
        const int64_t nap_us = left_us < (int64_t)NAP_MS * 1000 ? left_us : (int64_t)NAP_MS * 1000;
        const struct timespec nap = {.tv_nsec = nap_us * 1000};
        (void)nanosleep(&nap, NULL);
        tally_audit_report_turn(&audit->report);
        left_us = due_us - tally_clock_monotonic_us();
    }
}

static void on_progress(void *context, int64_t checked, int64_t total, size_t pending)
{
    struct tally_audit *audit = context;
    (void)checked, (void)pending;
    tally_audit_report_place(&audit->report, &audit->place, total);
}

static void keep_rate(struct tally_audit *audit, size_t looked)
{
    const int64_t now_us = tally_clock_monotonic_us();
    if (audit->next_step_us < now_us - 1000000)
        audit->next_step_us = now_us;
    audit->next_step_us += (int64_t)((double)looked * 1e6 / audit->options.rate);
    nap_until(audit, audit->next_step_us);
}

static enum tally_status save(struct tally_audit *audit, struct tally_error *error)
{
    audit->saved_us = tally_clock_monotonic_us();
    return keeps_place(audit) ? tally_audit_place_save(audit->judge.model.redis, audit->generation,
                                                       &audit->place, error)
                              : TALLY_OK;
}

static enum tally_status on_step(void *context, const struct tally_verify_place *walk,
                                 size_t looked, struct tally_error *error)
{
    struct tally_audit *audit = context;
    const int64_t now_us = tally_clock_monotonic_us();
    enum tally_status status = TALLY_OK;
    if (audit->refused.status != TALLY_OK)
        return tally_fail(error, audit->refused.status, "%s", audit->refused.text);
    *(walk->keys ? &audit->place.keys : &audit->place.checked) += (int64_t)looked;
    tally_metric_add(walk->keys ? audit->report.keys_checked : audit->report.users_checked,
                     (int64_t)looked);
    tally_audit_report_turn(&audit->report);
    if (audit->claims.count > 0 &&
        now_us - audit->claims_since_us >= (int64_t)CLAIMS_HELD_MS * 1000)
        status = audit_work_off(audit, error);
    if (status != TALLY_OK)
        return status;
    /* The place never moves past somebody who is still to be looked at. */
    if (audit->claims.count == 0)
        audit->place.walk = *walk;
    if (now_us - audit->saved_us >= (int64_t)SAVE_MS * 1000)
        status = save(audit, error);
    if (status != TALLY_OK)
        return status;
    tally_audit_report_failure(&audit->report, NULL);
    audit->backoff.attempts = 0;
    keep_rate(audit, looked);
    return atomic_load(&audit->stopping)
               ? tally_fail(error, TALLY_STOPPING, "the audit is stopping")
               : TALLY_OK;
}

static enum tally_status begin(struct tally_audit *audit, struct tally_error *error)
{
    enum tally_status status =
        tally_audit_judge_open(&audit->judge, audit->options.settings, &audit->stopping, error);
    if (status != TALLY_OK)
        return status;
    if (audit->generation != audit->judge.model.generation) {
        audit->generation = audit->judge.model.generation;
        audit->place = (struct tally_audit_place){0};
        if (keeps_place(audit))
            status = tally_audit_place_load(audit->judge.model.redis, audit->generation,
                                            &audit->place, error);
        if (status == TALLY_OK && audit->place.started_at_ms != 0)
            tally_log(TALLY_LOG_INFO, "audit.resumed",
                      TALLY_INTEGER("generation", audit->generation),
                      TALLY_INTEGER("users", audit->place.checked),
                      TALLY_INTEGER("keys", audit->place.keys));
    }
    if (status == TALLY_OK && audit->place.started_at_ms == 0)
        audit->place = (struct tally_audit_place){.started_at_ms = wall_ms(),
                                                  .completed_at_ms = audit->place.completed_at_ms,
                                                  .last_sweep_ms = audit->place.last_sweep_ms};
    return status;
}

static enum tally_status complete(struct tally_audit *audit, struct tally_error *error)
{
    audit->place.completed_at_ms = wall_ms();
    audit->place.last_sweep_ms = audit->place.completed_at_ms - audit->place.started_at_ms;
    audit->completed = true;
    tally_audit_report_failure(&audit->report, NULL);
    tally_audit_report_completed(&audit->report, &audit->place);
    if (audit->options.once)
        return TALLY_OK;
    audit->place.started_at_ms = 0;
    audit->place.walk = (struct tally_verify_place){0};
    return save(audit, error);
}

/* From the place on to the sweep's end, or until something fails. */
static enum tally_status sweep(struct tally_audit *audit, struct tally_error *error)
{
    const struct tally_settings *settings = audit->options.settings;
    const double chunk = audit->options.rate / STEPS_A_SECOND;
    const struct tally_verify_place from = audit->place.walk;
    const struct tally_verify_options options = {
        .pg_dsn = settings->pg_dsn,
        .redis_url = settings->redis_url,
        .redis_timeout_ms = settings->redis_timeout_ms,
        .grace_ms = audit->options.grace_ms,
        .pending_most = PENDING_MOST,
        .from = &from,
        .chunk_users = chunk < 1      ? 1
                       : chunk < 1000 ? (int)chunk
                                      : 1000,
        .look_ms = LOOK_MS,
        .without_totals = true,
        .on_difference = audit_take_difference,
        .on_flagged = audit_take_flagged,
        .on_step = on_step,
        .on_progress = on_progress,
        .context = audit,
    };
    struct tally_verify_result result;
    audit->claims.count = 0;
    audit->refused = (struct tally_error){0};
    enum tally_status status = tally_verify_run(&options, &result, error);
    if (status == TALLY_OK && audit->refused.status != TALLY_OK)
        status = tally_fail(error, audit->refused.status, "%s", audit->refused.text);
    return status == TALLY_OK ? audit_work_off(audit, error) : status;
}

static enum tally_status attempt(struct tally_audit *audit, struct tally_error *error)
{
    struct tally_error ignored;
    enum tally_status status = begin(audit, error);
    if (status == TALLY_OK) {
        tally_audit_report_place(&audit->report, &audit->place, 0);
        status = sweep(audit, error);
        if (status == TALLY_OK)
            status = complete(audit, error);
        else if (status == TALLY_STOPPING)
            (void)!save(audit, &ignored);
    }
    tally_repairer_free(&audit->repairer);
    tally_audit_judge_close(&audit->judge);
    return status;
}

static void *run(void *argument)
{
    struct tally_audit *audit = argument;
    while (!atomic_load(&audit->stopping)) {
        struct tally_error error = {0};
        const enum tally_status status = attempt(audit, &error);
        if (status == TALLY_STOPPING || (status == TALLY_OK && audit->options.once))
            break;
        if (status == TALLY_OK) {
            audit->backoff.attempts = 0;
            nap_until(audit, tally_clock_monotonic_us() + (int64_t)PAUSE_MS * 1000);
            continue;
        }
        tally_audit_report_failure(&audit->report, &error);
        if (audit->options.once && audit->backoff.attempts >= ATTEMPTS_ONCE) {
            audit->failure = error;
            break;
        }
        nap_until(audit, tally_clock_monotonic_us() +
                             tally_backoff_next_ms(&audit->backoff, &audit->random) * 1000);
    }
    audit->options.on_ended(audit->options.context);
    return NULL;
}

enum tally_status tally_audit_start(const struct tally_audit_options *options,
                                    struct tally_audit **audit, struct tally_error *error)
{
    struct tally_audit *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "audit");
    made->options = *options;
    made->backoff = (struct tally_backoff){.first_ms = RETRY_FIRST_MS, .most_ms = RETRY_MOST_MS};
    tally_random_seed_from_system(&made->random);
    tally_audit_report_init(&made->report, options->metrics);
    if (pthread_create(&made->thread, NULL, run, made) != 0) {
        tally_audit_report_release(&made->report);
        free(made);
        return tally_fail(error, TALLY_NO_MEMORY, "thread of the audit");
    }
    *audit = made;
    return TALLY_OK;
}

void tally_audit_stop(struct tally_audit *audit)
{
    atomic_store(&audit->stopping, true);
}

void tally_audit_free(struct tally_audit **audit)
{
    if (*audit == NULL)
        return;
    tally_audit_stop(*audit);
    (void)pthread_join((*audit)->thread, NULL);
    tally_audit_report_release(&(*audit)->report);
    free(*audit);
    *audit = NULL;
}

enum tally_status tally_audit_result(const struct tally_audit *audit,
                                     struct tally_audit_result *result, struct tally_error *error)
{
    const int64_t ended_ms = audit->completed ? audit->place.completed_at_ms : wall_ms();
    *result = (struct tally_audit_result){
        .completed = audit->completed,
        .checked = audit->place.checked,
        .keys = audit->place.keys,
        .differing = audit->place.differing,
        .repaired = audit->place.repaired,
        .unconfirmed = audit->place.unconfirmed,
        .seconds = (double)(ended_ms - audit->place.started_at_ms) / 1e3,
    };
    *error = audit->failure;
    return audit->failure.status;
}

bool tally_audit_sweep_ready(void *context, char reason[256])
{
    struct tally_audit *audit = context;
    return tally_audit_report_ready(&audit->report, reason);
}

bool tally_audit_alive(void *context)
{
    struct tally_audit *audit = context;
    return tally_clock_monotonic_us() - tally_audit_report_turned_us(&audit->report) < ALIVE_US;
}
