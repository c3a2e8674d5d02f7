#include "service/ctl/audit_confirm.h"

#include "core/clock.h"
#include "domain/partitioner.h"
#include "pg/blocking.h"
#include "view/position.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST = TALLY_AUDIT_CLAIMS_MOST,
    PAUSE_MS = 100,
};

_Static_assert(MOST <= TALLY_RECOUNT_MOST && MOST <= TALLY_PROOF_MOST, "one read for all claims");

enum tally_status tally_audit_judge_open(struct tally_audit_judge *judge,
                                         const struct tally_settings *settings,
                                         const atomic_bool *stopping, struct tally_error *error)
{
    const struct tally_verify_options options = {
        .redis_url = settings->redis_url,
        .redis_timeout_ms = settings->redis_timeout_ms,
    };
    *judge = (struct tally_audit_judge){0};
    enum tally_status status =
        tally_pg_connect(settings->pg_dsn, "tallyctl audit", &judge->connection, error);
    if (status == TALLY_OK)
        status = tally_verify_model_open(&judge->model, &options, error);
    judge->prover = (struct tally_prover){.settings = settings,
                                          .stopping = stopping,
                                          .connection = judge->connection,
                                          .model = &judge->model};
    return status;
}

void tally_audit_judge_close(struct tally_audit_judge *judge)
{
    PQfinish(judge->connection);
    tally_verify_model_close(&judge->model);
    tally_prover_release(&judge->prover);
    *judge = (struct tally_audit_judge){0};
}

static bool needs_proof(const struct tally_audit_claim *claim)
{
    return claim->kind == TALLY_AUDIT_BEHIND || claim->kind == TALLY_AUDIT_MISSING;
}

/* Of the claims that need it: whether nothing of theirs can be under way any more. */
static enum tally_status find_proofs(struct tally_audit_judge *judge,
                                     const struct tally_audit_claims *claims, bool proven[MOST],
                                     struct tally_error *error)
{
    int64_t ids[MOST], versions[MOST];
    size_t places[MOST], count = 0;
    bool found[MOST];
    memset(proven, 0, MOST * sizeof *proven);
    for (size_t i = 0; i < claims->count; i++) {
        if (!needs_proof(&claims->list[i]))
            continue;
        ids[count] = claims->list[i].user_id;
        versions[count] = claims->list[i].expected_version;
        places[count++] = i;
    }
    if (count == 0)
        return TALLY_OK;
    enum tally_status status =
        tally_prove_applied(&judge->prover, ids, versions, count, found, error);
    for (size_t i = 0; status == TALLY_OK && i < count; i++)
        proven[places[i]] = found[i];
    return status;
}

/* Whether a key's user exists, for the claims about keys without one. */
static enum tally_status find_absent(struct tally_audit_judge *judge,
                                     const struct tally_audit_claims *claims, bool absent[MOST],
                                     struct tally_error *error)
{
    int64_t ids[MOST];
    size_t count = 0, missing = 0;
    memset(absent, 0, MOST * sizeof *absent);
    for (size_t i = 0; i < claims->count; i++) {
        if (claims->list[i].kind == TALLY_AUDIT_GHOST)
            ids[count++] = claims->list[i].user_id;
    }
    if (count == 0)
        return TALLY_OK;
    enum tally_status status = tally_recount_absent(judge->connection, ids, count, &missing, error);
    for (size_t i = 0; status == TALLY_OK && i < claims->count; i++) {
        for (size_t k = 0; k < missing && claims->list[i].kind == TALLY_AUDIT_GHOST; k++)
            absent[i] = absent[i] || ids[k] == claims->list[i].user_id;
    }
    return status;
}

/* What a user who exists shows now. `user` NULL: there is none. */
static enum tally_audit_verdict judge_user(const struct tally_audit_claim *claim,
                                           const struct tally_recount_user *user,
                                           const struct tally_verify_found *found, bool proven)
{
    struct tally_verify_differences differences;
    if (user == NULL)
        return TALLY_AUDIT_SETTLED;
    if (found->flagged && (!needs_proof(claim) || proven))
        return TALLY_AUDIT_CONFIRMED;
    if (user->deleted && found->version == 0)
        return TALLY_AUDIT_SETTLED;
    if (needs_proof(claim) && found->version < claim->expected_version)
        return proven ? TALLY_AUDIT_CONFIRMED : TALLY_AUDIT_UNCONFIRMED;
    switch (tally_verify_next_look(user, found, claim->expected_version, &differences)) {
    case TALLY_VERIFY_EQUAL:
        return TALLY_AUDIT_SETTLED;
    case TALLY_VERIFY_DIFFERENT:
        return TALLY_AUDIT_CONFIRMED;
    case TALLY_VERIFY_IN_FLIGHT:
        break;
    }
    return TALLY_AUDIT_UNCONFIRMED;
}

/* Whether there is a key at all. */
static bool is_there(const struct tally_verify_found *found)
{
    return found->version != 0 || found->posts >= 0 || found->comments >= 0 ||
           found->name != NULL || found->email != NULL || found->avatar != NULL || found->deleted ||
           found->flagged;
}

/* A look at all of them; the caller has seen the proofs before. */
static enum tally_status look(struct tally_audit_judge *judge, struct tally_audit_claims *claims,
                              const bool *proven, const bool *absent, struct tally_error *error)
{
    int64_t ids[MOST], versions[MOST];
    struct tally_verify_found found[MOST];
    struct tally_recount_rows rows;
    for (size_t i = 0; i < claims->count; i++)
        ids[i] = claims->list[i].user_id;
    enum tally_status status = tally_verify_model_read(&judge->model, ids, claims->count, error);
    for (size_t i = 0; status == TALLY_OK && i < claims->count; i++) {
        tally_verify_model_user(&judge->model, i, &found[i]);
        versions[i] = found[i].version > 0 ? found[i].version : 0;
    }
    if (status == TALLY_OK)
        status = tally_recount_at(judge->connection, ids, versions, claims->count, &rows, error);
    if (status != TALLY_OK)
        return status;
    for (size_t i = 0; i < claims->count; i++) {
        struct tally_audit_claim *claim = &claims->list[i];
        struct tally_recount_user user = {0};
        int row = 0;
        for (; row < rows.count && user.id != claim->user_id; row++)
            tally_recount_user(&rows, row, &user);
        if (claim->kind == TALLY_AUDIT_MISPLACED)
            claim->verdict = TALLY_AUDIT_CONFIRMED;
        else if (claim->kind == TALLY_AUDIT_GHOST)
            claim->verdict =
                absent[i] && is_there(&found[i]) ? TALLY_AUDIT_CONFIRMED : TALLY_AUDIT_SETTLED;
        else
            claim->verdict =
                judge_user(claim, user.id == claim->user_id ? &user : NULL, &found[i], proven[i]);
    }
    tally_recount_clear(&rows);
    return TALLY_OK;
}

enum tally_status tally_audit_confirm(struct tally_audit_judge *judge,
                                      struct tally_audit_claims *claims, struct tally_error *error)
{
    bool proven[MOST], absent[MOST];
    if (claims->count == 0)
        return TALLY_OK;
    tally_clock_sleep_ms(PAUSE_MS);
    enum tally_status status = find_proofs(judge, claims, proven, error);
    if (status == TALLY_OK)
        status = find_absent(judge, claims, absent, error);
    if (status == TALLY_OK)
        status = look(judge, claims, proven, absent, error);
    return status;
}
