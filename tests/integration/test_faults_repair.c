/* Calls that repair, audit and rebuild make of malloc, the system and the libraries fail once: each
 * mends the read model, or says why it does not, and the next attempt does. */
#include "core/clock.h"
#include "core/log.h"
#include "faults.h"
#include "model_fixture.h"
#include "service/ctl/audit.h"
#include "service/ctl/rebuild.h"
#include "service/ctl/repair.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* An audit or a rebuild takes long. */
enum {
    USERS = 8,
    VERSIONS = 5,
    RUNS_MOST = 1000,
    CALLS_OF_AUDIT = 24,
    CALLS_OF_REBUILD = 40,
    CALLS_OF_LOG = 25
};
static const int64_t PATIENCE_US = INT64_C(150) * 1000000;

static struct model_fixture model;

static void open_all(void)
{
    tally_log_set_level(TALLY_LOG_ERROR);
    model_open(&model);
    for (int64_t id = 1; id <= USERS; id++)
        model_add(&model, id, 1, VERSIONS);
    fixture_await_applied(&model.log);
}

/* All is well at the end, and the projector goes on with it. */
static void close_all(void)
{
    model_set_field(&model, 0, 1, "posts", "2");
    model_expect_equal(&model);
    model_add(&model, 1, VERSIONS + 1, VERSIONS + 2);
    fixture_await_version(&model.log, 1, VERSIONS + 2);
    model_expect_equal(&model);
    projector_stop(&model.projector);
    model_close(&model);
}

TestSuite(faults_repair, .init = open_all, .fini = close_all, .timeout = 600);

static void damage(void)
{
    model_set_field(&model, 0, 1, "posts", "70");
}

static void expect_mended(void)
{
    cr_expect_str_eq(fixture_user(&model.log, 1), fixture_history(VERSIONS), "after %s failed",
                     faults_failed());
}

static enum tally_status repair(struct tally_error *error)
{
    const int64_t user_id = 1;
    struct tally_repairer *repairer = NULL;
    struct tally_repair_result result = {0};
    enum tally_status status = tally_repairer_new(&model.settings, &repairer, error);
    if (status == TALLY_OK)
        status = tally_repair_users(repairer, &user_id, 1, NULL, NULL, &result, error);
    tally_repairer_free(&repairer);
    (void)faults_end();
    if (status == TALLY_OK) {
        cr_expect_eq(result.repaired, 1, "after %s failed", faults_failed());
        expect_mended();
    }
    damage();
    return status;
}

Test(faults_repair, a_user_is_repaired_or_it_is_said_why_not)
{
    damage();
    const long calls = faults_each(repair, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 20);
    cr_expect_lt(calls, RUNS_MOST);
}

static void on_ended(void *context)
{
    atomic_store((atomic_bool *)context, true);
}

static enum tally_status audit(struct tally_error *error)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    struct tally_metrics *metrics = tally_metrics_new();
    struct tally_audit *running = NULL;
    struct tally_audit_result result = {0};
    atomic_bool ended = false;
    const struct tally_audit_options options = {
        .settings = &model.settings,
        .metrics = metrics,
        .rate = 1e6,
        .grace_ms = 60000,
        .repairs_most = USERS,
        .once = true,
        .on_ended = on_ended,
        .context = &ended,
    };
    damage();
    enum tally_status status = tally_audit_start(&options, &running, error);
    while (status == TALLY_OK && !atomic_load(&ended)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "after %s failed", faults_failed());
        usleep(2000);
    }
    if (status == TALLY_OK)
        status = tally_audit_result(running, &result, error);
    tally_audit_free(&running);
    tally_metrics_free(&metrics);
    if (status == TALLY_OK) {
        cr_expect(result.completed && result.repaired == 1, "after %s failed", faults_failed());
        expect_mended();
    }
    return status;
}

Test(faults_repair, an_audit_repairs_or_says_why_not)
{
    cr_expect_gt(faults_each_place(audit, FAULTS_OF_NEW_THREADS, CALLS_OF_AUDIT),
                 15 / FAULTS_STRIDE);
}

/* A record whose headers cannot be read is set aside: then the generation differs, is not switched
 * to, and is built from its beginning the next time. */
static enum tally_status rebuild_from(enum tally_rebuild_source source, struct tally_error *error)
{
    static bool differed;
    struct tally_rebuild_result result;
    const struct tally_rebuild_options options = {
        .settings = &model.settings, .source = source, .restart = differed, .grace_ms = 60000};
    const enum tally_status status = tally_rebuild_run(&options, &result, error);
    (void)faults_end();
    differed = status == TALLY_OK && result.verified.differences > 0 && !result.switched &&
               strstr(faults_failed(), "header") != NULL;
    if (status == TALLY_OK && !differed) {
        cr_expect(result.switched && result.verified.differences == 0, "after %s failed",
                  faults_failed());
        expect_mended();
    }
    damage();
    return status;
}

static enum tally_status rebuild_from_database(struct tally_error *error)
{
    return rebuild_from(TALLY_REBUILD_DATABASE, error);
}

Test(faults_repair, users_are_read_into_a_new_generation_or_it_is_said_why_not)
{
    cr_expect_gt(faults_each_place(rebuild_from_database, FAULTS_OF_THIS_THREAD, CALLS_OF_REBUILD),
                 15 / FAULTS_STRIDE);
}

static enum tally_status rebuild_from_log(struct tally_error *error)
{
    return rebuild_from(TALLY_REBUILD_LOG, error);
}

Test(faults_repair, events_are_applied_to_a_new_generation_or_it_is_said_why_not)
{
    cr_expect_gt(faults_each_place(rebuild_from_log, FAULTS_OF_NEW_THREADS, CALLS_OF_LOG),
                 10 / FAULTS_STRIDE);
}
