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
    KAFKA_MS = 2000,
    APPLIED_MS = 5000, /* longest wait for the projector to come to the ends seen */
};

_Static_assert(MOST <= TALLY_RECOUNT_MOST, "one read for all claims");

enum tally_status tally_audit_judge_open(struct tally_audit_judge *judge,
                                         const struct tally_settings *settings,
                                         const atomic_bool *stopping, struct tally_error *error)
{
    const struct tally_verify_options options = {
        .redis_url = settings->redis_url,
        .redis_timeout_ms = settings->redis_timeout_ms,
    };
    *judge = (struct tally_audit_judge){.settings = settings, .stopping = stopping};
    enum tally_status status =
        tally_pg_connect(settings->pg_dsn, "tallyctl audit", &judge->connection, error);
    if (status == TALLY_OK)
        status = tally_verify_model_open(&judge->model, &options, error);
    if (status == TALLY_OK)
        status = tally_kafka_admin_new(settings->kafka_brokers, &judge->kafka, error);
    return status;
}

void tally_audit_judge_close(struct tally_audit_judge *judge)
{
    PQfinish(judge->connection);
    tally_verify_model_close(&judge->model);
    tally_kafka_admin_free(&judge->kafka);
    *judge = (struct tally_audit_judge){0};
}

static bool needs_proof(const struct tally_audit_claim *claim)
{
    return claim->kind == TALLY_AUDIT_BEHIND || claim->kind == TALLY_AUDIT_MISSING;
}

/* Of the claims that need it: whether their events are all in Kafka. */
static enum tally_status find_published(struct tally_audit_judge *judge,
                                        const struct tally_audit_claims *claims,
                                        bool published[MOST], struct tally_error *error)
{
    int64_t ids[MOST], versions[MOST];
    size_t places[MOST], count = 0;
    bool found[MOST] = {false};
    memset(published, 0, MOST * sizeof *published);
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
        tally_recount_published(judge->connection, ids, versions, count, found, error);
    for (size_t i = 0; status == TALLY_OK && i < count; i++)
        published[places[i]] = found[i];
    return status;
}

/* Where a partition ends, seen after everything in question was published. */
static bool find_end(struct tally_audit_judge *judge, int32_t partition, int64_t *end)
{
    int64_t low = 0;
    return tally_kafka_admin_watermarks(judge->kafka, judge->settings->topic, partition, KAFKA_MS,
                                        &low, end, NULL) == TALLY_OK;
}

/* Waits until the partition's position is at `end`, or until `due_us` (monotonic); `*applied` says
 * whether it came. A position beyond the log's end is of another log, and says nothing. */
static enum tally_status await_applied(struct tally_audit_judge *judge, int32_t partition,
                                       int64_t end, int64_t due_us, bool *applied,
                                       struct tally_error *error)
{
    for (;;) {
        struct tally_position position;
        int64_t later_end = 0;
        enum tally_status status = tally_position_read(judge->model.redis, judge->model.generation,
                                                       &partition, 1, &position, error);
        *applied = status == TALLY_OK && position.present && position.offset >= end;
        if (*applied)
            *applied = find_end(judge, partition, &later_end) && position.offset <= later_end;
        if (status != TALLY_OK || *applied || tally_clock_monotonic_us() >= due_us ||
            atomic_load(judge->stopping))
            return status;
        tally_clock_sleep_ms(PAUSE_MS);
    }
}

/* Of the claims that need it: whether nothing of theirs can be under way any more. A partition is
 * asked for once, and all that lag are waited for together. */
static enum tally_status find_proofs(struct tally_audit_judge *judge,
                                     const struct tally_audit_claims *claims, bool proven[MOST],
                                     struct tally_error *error)
{
    const int64_t due_us = tally_clock_monotonic_us() + (int64_t)APPLIED_MS * 1000;
    int32_t partitions[MOST];
    bool published[MOST], done[MOST] = {false};
    enum tally_status status = find_published(judge, claims, published, error);
    for (size_t i = 0; i < claims->count; i++)
        partitions[i] = tally_partition_of(claims->list[i].user_id, judge->model.partitions);
    memset(proven, 0, MOST * sizeof *proven);
    bool answers = true;
    for (size_t i = 0; i < claims->count && status == TALLY_OK && answers; i++) {
        int64_t end = 0;
        bool applied = false;
        if (!published[i] || done[i])
            continue;
        answers = find_end(judge, partitions[i], &end);
        if (answers)
            status = await_applied(judge, partitions[i], end, due_us, &applied, error);
        for (size_t k = i; k < claims->count; k++) {
            if (partitions[k] != partitions[i])
                continue;
            done[k] = true;
            proven[k] = published[k] && applied;
        }
    }
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
