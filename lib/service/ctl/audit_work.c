#include "core/clock.h"
#include "service/ctl/audit_internal.h"

/* The confirmed claims under repair, and what each user came to. */
struct repairing {
    struct tally_audit *audit;
    const bool *chosen; /* of its claims */
};

static void on_repaired(void *context, int64_t user_id, enum tally_repair_outcome outcome)
{
    const struct repairing *repairing = context;
    struct tally_audit *audit = repairing->audit;
    for (size_t i = 0; i < audit->claims.count; i++) {
        const struct tally_audit_claim *claim = &audit->claims.list[i];
        if (claim->user_id != user_id || !repairing->chosen[i])
            continue;
        const bool mended = outcome == TALLY_REPAIR_REPAIRED || outcome == TALLY_REPAIR_REMOVED ||
                            (outcome == TALLY_REPAIR_UNKNOWN && claim->kind == TALLY_AUDIT_GHOST);
        audit->place.repaired += mended;
        tally_audit_report_claim(&audit->report, claim,
                                 mended ? TALLY_AUDIT_REPAIRED : TALLY_AUDIT_FAILED);
    }
}

static enum tally_status open_repairer(struct tally_audit *audit, struct tally_error *error)
{
    if (audit->repairer != NULL)
        return TALLY_OK;
    enum tally_status status = tally_repairer_new(audit->options.settings, &audit->repairer, error);
    if (status == TALLY_OK)
        tally_repairer_follow_source(audit->repairer);
    return status;
}

/* Which claims are to be repaired: what is confirmed, as long as the sweep may repair more. */
static void choose(const struct tally_audit *audit, bool chosen[TALLY_AUDIT_CLAIMS_MOST])
{
    int64_t left = audit->options.repairs_most - audit->place.repaired;
    for (size_t i = 0; i < audit->claims.count; i++) {
        const struct tally_audit_claim *claim = &audit->claims.list[i];
        chosen[i] = claim->verdict == TALLY_AUDIT_CONFIRMED && left > 0 &&
                    claim->kind != TALLY_AUDIT_MISPLACED && !audit->options.dry_run;
        left -= chosen[i];
    }
}

static enum tally_status repair_chosen(struct tally_audit *audit, const bool *chosen,
                                       struct tally_error *error)
{
    int64_t ids[TALLY_AUDIT_CLAIMS_MOST];
    size_t count = 0;
    struct tally_repair_result result = {0};
    struct repairing repairing = {audit, chosen};
    for (size_t i = 0; i < audit->claims.count; i++) {
        if (chosen[i])
            ids[count++] = audit->claims.list[i].user_id;
    }
    if (count == 0)
        return TALLY_OK;
    enum tally_status status = open_repairer(audit, error);
    if (status == TALLY_OK)
        status = tally_repair_users(audit->repairer, ids, count, on_repaired, &repairing, &result,
                                    error);
    return status;
}

static void book_claims(struct tally_audit *audit, const bool *chosen)
{
    for (size_t i = 0; i < audit->claims.count; i++) {
        const struct tally_audit_claim *claim = &audit->claims.list[i];
        if (claim->verdict == TALLY_AUDIT_UNCONFIRMED) {
            audit->place.unconfirmed++;
            tally_metric_add(audit->report.unconfirmed, 1);
        } else if (claim->verdict == TALLY_AUDIT_CONFIRMED) {
            audit->place.differing++;
            if (!chosen[i])
                tally_audit_report_claim(&audit->report, claim, TALLY_AUDIT_HELD_BACK);
        }
    }
}

enum tally_status audit_work_off(struct tally_audit *audit, struct tally_error *error)
{
    bool chosen[TALLY_AUDIT_CLAIMS_MOST] = {false};
    const bool begun = audit->place.repaired < audit->options.repairs_most;
    enum tally_status status = tally_audit_confirm(&audit->judge, &audit->claims, error);
    if (status == TALLY_OK) {
        choose(audit, chosen);
        status = repair_chosen(audit, chosen, error);
    }
    if (status == TALLY_OK)
        book_claims(audit, chosen);
    if (begun && audit->place.repaired >= audit->options.repairs_most)
        tally_log(TALLY_LOG_ERROR, "audit.too_many",
                  TALLY_INTEGER("repaired", audit->place.repaired),
                  TALLY_TEXT("text", "the rest of this sweep repairs nothing more; where so many "
                                     "users differ, run `tallyctl verify` and `tallyctl rebuild`"));
    audit->claims.count = 0;
    return status;
}

/* Also because a walk over keys may come to one of them twice. */
static bool is_claimed(const struct tally_audit_claims *claims,
                       const struct tally_verify_difference *difference)
{
    for (size_t i = 0; i < claims->count; i++) {
        if (claims->list[i].user_id == difference->user_id)
            return !tally_audit_claims_continue(claims, difference);
    }
    return false;
}

/* A user is claimed once at a time: what else differs is found by the next sweep. */
static void claim(struct tally_audit *audit, const struct tally_verify_difference *difference)
{
    if (audit->refused.status != TALLY_OK || difference->user_id == 0 ||
        is_claimed(&audit->claims, difference))
        return;
    if (audit->claims.count == TALLY_AUDIT_CLAIMS_MOST &&
        !tally_audit_claims_continue(&audit->claims, difference) &&
        audit_work_off(audit, &audit->refused) != TALLY_OK)
        return;
    if (audit->claims.count == 0)
        audit->claims_since_us = tally_clock_monotonic_us();
    tally_audit_claims_add(&audit->claims, difference);
}

void audit_take_difference(void *context, const struct tally_verify_difference *difference)
{
    claim(context, difference);
}

void audit_take_flagged(void *context, int64_t user_id, int64_t version)
{
    const struct tally_verify_difference difference = {
        .user_id = user_id,
        .field = "flagged",
        .expected = "no",
        .found = "yes",
        .expected_version = version,
        .found_version = version,
    };
    claim(context, &difference);
}
