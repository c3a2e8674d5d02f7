#include "service/ctl/audit_report.h"

#include "core/clock.h"
#include "core/id.h"

#include <stdio.h>
#include <string.h>

enum { FAILURE_INTERVAL_MS = 10000, LABEL_BYTES = 32 };

/* Everything but the differences, which have a label. */
static const struct row {
    size_t offset;
    bool gauge;
    const char *name;
    const char *help;
} rows[] = {
#define ROW(field, gauge, name, help)                                 \
    {                                                                 \
        offsetof(struct tally_audit_report, field), gauge, name, help \
    }
    ROW(users_checked, false, "tally_audit_users_checked_total", "Users compared with a recount."),
    ROW(keys_checked, false, "tally_audit_keys_checked_total",
        "Keys of the read model whose user was looked for."),
    ROW(repaired, false, "tally_audit_repaired_total", "Users and keys that were repaired."),
    ROW(repair_failures, false, "tally_audit_repair_failures_total",
        "Users that differ and could not be repaired; the next sweep tries again."),
    ROW(unconfirmed, false, "tally_audit_unconfirmed_total",
        "Users whose events may still have been under way after the grace; left to the next "
        "sweep."),
    ROW(held_back, false, "tally_audit_held_back_total",
        "Differences that were not to be repaired: a dry run, too many, or a misplaced key."),
    ROW(sweeps, false, "tally_audit_sweeps_total", "Sweeps that came to their end."),
    ROW(failures, false, "tally_audit_failures_total",
        "Times that a sweep was interrupted by a server, to go on later."),
    ROW(sweep_seconds, true, "tally_audit_sweep_seconds", "Length of the last sweep that ended."),
    ROW(sweep_started, true, "tally_audit_sweep_started_timestamp_seconds",
        "When the sweep under way began."),
    ROW(sweep_completed, true, "tally_audit_sweep_completed_timestamp_seconds",
        "When the last sweep ended; 0: none has."),
    ROW(position_users, true, "tally_audit_position_users",
        "Users that the sweep under way has come past."),
    ROW(position_keys, true, "tally_audit_position_keys",
        "Keys that the sweep under way has come past, after the users."),
    ROW(users, true, "tally_audit_users", "Users there were when the sweep began or went on."),
#undef ROW
};

void tally_audit_report_init(struct tally_audit_report *report, struct tally_metrics *metrics)
{
    *report = (struct tally_audit_report){.reason = "the first look has not been made yet",
                                          .turned_us = tally_clock_monotonic_us()};
    pthread_mutex_init(&report->mutex, NULL);
    for (int kind = 0; kind < TALLY_AUDIT_KIND_COUNT; kind++) {
        char label[LABEL_BYTES];
        (void)snprintf(label, sizeof label, "kind=\"%s\"", tally_audit_kind_text(kind));
        report->differences[kind] =
            tally_metrics_counter(metrics, "tally_audit_differences_total",
                                  "Users and keys that differ for certain, by kind.", label);
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tally_metric **field =
            (struct tally_metric **)(void *)((char *)report + rows[i].offset);
        *field = rows[i].gauge ? tally_metrics_gauge(metrics, rows[i].name, rows[i].help, "")
                               : tally_metrics_counter(metrics, rows[i].name, rows[i].help, "");
    }
}

void tally_audit_report_release(struct tally_audit_report *report)
{
    pthread_mutex_destroy(&report->mutex);
}

void tally_audit_report_turn(struct tally_audit_report *report)
{
    pthread_mutex_lock(&report->mutex);
    report->turned_us = tally_clock_monotonic_us();
    pthread_mutex_unlock(&report->mutex);
}

void tally_audit_report_failure(struct tally_audit_report *report, const struct tally_error *error)
{
    pthread_mutex_lock(&report->mutex);
    const bool failed = report->reason[0] != '\0';
    (void)snprintf(report->reason, sizeof report->reason, "%s", error != NULL ? error->text : "");
    pthread_mutex_unlock(&report->mutex);
    int64_t suppressed = 0;
    if (error == NULL) {
        if (failed)
            tally_log(TALLY_LOG_INFO, "audit.sweeping");
        return;
    }
    tally_metric_add(report->failures, 1);
    if (tally_log_allow(&report->failing, FAILURE_INTERVAL_MS, &suppressed))
        tally_log(TALLY_LOG_ERROR, "audit.interrupted",
                  TALLY_TEXT("code", tally_status_slug(error->status)),
                  TALLY_TEXT("error", error->text), TALLY_INTEGER("suppressed", suppressed));
}

bool tally_audit_report_ready(struct tally_audit_report *report,
                              char reason[TALLY_AUDIT_REASON_BYTES])
{
    pthread_mutex_lock(&report->mutex);
    memcpy(reason, report->reason, TALLY_AUDIT_REASON_BYTES);
    pthread_mutex_unlock(&report->mutex);
    return reason[0] == '\0';
}

int64_t tally_audit_report_turned_us(struct tally_audit_report *report)
{
    pthread_mutex_lock(&report->mutex);
    const int64_t turned_us = report->turned_us;
    pthread_mutex_unlock(&report->mutex);
    return turned_us;
}

void tally_audit_report_place(struct tally_audit_report *report,
                              const struct tally_audit_place *place, int64_t users)
{
    tally_metric_set(report->sweep_started, (double)place->started_at_ms / 1e3);
    tally_metric_set(report->sweep_completed, (double)place->completed_at_ms / 1e3);
    tally_metric_set(report->sweep_seconds, (double)place->last_sweep_ms / 1e3);
    tally_metric_set(report->position_users, (double)place->checked);
    tally_metric_set(report->position_keys, (double)place->keys);
    if (users > 0)
        tally_metric_set(report->users, (double)users);
}

void tally_audit_report_completed(struct tally_audit_report *report,
                                  const struct tally_audit_place *place)
{
    tally_log(TALLY_LOG_INFO, "audit.sweep_completed", TALLY_INTEGER("users", place->checked),
              TALLY_INTEGER("keys", place->keys), TALLY_INTEGER("differing", place->differing),
              TALLY_INTEGER("repaired", place->repaired),
              TALLY_REAL("seconds", (double)place->last_sweep_ms / 1e3));
    tally_audit_report_place(report, place, 0);
    /* Last: who sees the new count sees the sweep's other figures too. */
    tally_metric_add(report->sweeps, 1);
}

void tally_audit_report_claim(struct tally_audit_report *report,
                              const struct tally_audit_claim *claim, enum tally_audit_end end)
{
    static const struct {
        const char *event;
        enum tally_log_level level;
    } lines[] = {
        [TALLY_AUDIT_REPAIRED] = {"audit.repaired", TALLY_LOG_WARNING},
        [TALLY_AUDIT_FAILED] = {"audit.repair_failed", TALLY_LOG_ERROR},
        [TALLY_AUDIT_HELD_BACK] = {"audit.differs", TALLY_LOG_WARNING},
    };
    struct tally_metric *const counters[] = {
        [TALLY_AUDIT_REPAIRED] = report->repaired,
        [TALLY_AUDIT_FAILED] = report->repair_failures,
        [TALLY_AUDIT_HELD_BACK] = report->held_back,
    };
    char user[TALLY_ID_TEXT_BYTES];
    tally_id_format(claim->user_id, user);
    tally_metric_add(report->differences[claim->kind], 1);
    tally_metric_add(counters[end], 1);
    tally_log(lines[end].level, lines[end].event, TALLY_TEXT("user", user),
              TALLY_TEXT("kind", tally_audit_kind_text(claim->kind)),
              TALLY_TEXT("expected", claim->expected), TALLY_TEXT("found", claim->found),
              TALLY_INTEGER("expected_version", claim->expected_version),
              TALLY_INTEGER("found_version", claim->found_version));
}
