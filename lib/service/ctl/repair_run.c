#include "domain/partitioner.h"
#include "pg/blocking.h"
#include "redis/command.h"
#include "service/ctl/proof.h"
#include "service/ctl/repair.h"
#include "view/generation.h"
#include "view/restore.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BATCH = TALLY_REPAIR_USERS_MOST,
    ATTEMPTS = 5,
    PAUSE_US = 50000,
    OUT_BYTES = 64 << 20,
    STEP = TALLY_RECOUNT_MOST,
};

_Static_assert(BATCH <= TALLY_PROOF_MOST, "one proof for all of a batch");

struct tally_repairer {
    const struct tally_settings *settings;
    PGconn *connection;
    struct tally_verify_model model; /* knows the live generation */
    struct tally_prover prover;
    struct tally_restore_encoder encoder;
    struct tally_buffer out;
    bool follow_source;
};

/* What is known of a user under repair. */
struct patient {
    int64_t id;
    int64_t seen; /* version in Redis before the recount; 0: none */
    int64_t
        proven;   /* version that had been applied before the user's key was lost; 0: not proven */
    bool flagged; /* in Redis */
    bool known;   /* to Redis, at any attempt */
    bool there;   /* in PostgreSQL, by the last recount */
    bool replaced;
    bool newer;
    struct tally_recount_user recount; /* texts borrowed from its rows */
    struct tally_user_state state;
    struct tally_profile profile; /* likewise */
};

/* Those that are not done, a batch at most. */
struct batch {
    struct patient patients[BATCH];
    size_t count;
};

static enum tally_status open_model(struct tally_repairer *repairer, struct tally_error *error)
{
    const struct tally_verify_options options = {
        .redis_url = repairer->settings->redis_url,
        .redis_timeout_ms = repairer->settings->redis_timeout_ms,
    };
    return tally_verify_model_open(&repairer->model, &options, error);
}

enum tally_status tally_repairer_new(const struct tally_settings *settings,
                                     struct tally_repairer **repairer, struct tally_error *error)
{
    struct tally_repairer *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "repair");
    made->settings = settings;
    tally_restore_encoder_init(&made->encoder);
    tally_buffer_init(&made->out, OUT_BYTES);
    enum tally_status status = open_model(made, error);
    if (status == TALLY_OK)
        status = tally_pg_connect(settings->pg_dsn, "tallyctl repair", &made->connection, error);
    made->prover = (struct tally_prover){
        .settings = settings, .connection = made->connection, .model = &made->model};
    if (status == TALLY_OK)
        *repairer = made;
    else
        tally_repairer_free(&made);
    return status;
}

void tally_repairer_follow_source(struct tally_repairer *repairer)
{
    repairer->follow_source = true;
}

void tally_repairer_free(struct tally_repairer **repairer)
{
    if (*repairer == NULL)
        return;
    tally_prover_release(&(*repairer)->prover);
    PQfinish((*repairer)->connection);
    tally_verify_model_close(&(*repairer)->model);
    tally_restore_encoder_release(&(*repairer)->encoder);
    tally_buffer_release(&(*repairer)->out);
    free(*repairer);
    *repairer = NULL;
}

/* Redis has nothing of it: its events are on their way, or its key was lost after they had been
 * counted. */
static bool is_absent(const struct patient *patient)
{
    return patient->seen == 0 && !patient->flagged;
}

/* The version that the totals hold, as far as is known. */
static int64_t counted_version(const struct patient *patient)
{
    return is_absent(patient) ? patient->proven : patient->seen;
}

static void take_recount(struct batch *batch, const struct tally_recount_user *user,
                         int32_t timeline)
{
    size_t at = 0;
    while (at < batch->count && batch->patients[at].id != user->id)
        at++;
    if (at == batch->count)
        return;
    struct patient *patient = &batch->patients[at];
    patient->there = true;
    patient->recount = *user;
    patient->state = (struct tally_user_state){
        .version = user->version,
        .posts = user->deleted ? 0 : user->posts,
        .comments = user->deleted ? 0 : user->comments,
        .timeline = timeline,
        .deleted = user->deleted,
    };
    patient->profile = (struct tally_profile){
        .name = (char *)(uintptr_t)user->name,
        .email = (char *)(uintptr_t)user->email,
        .avatar = (char *)(uintptr_t)user->avatar,
    };
}

/* Counts the batch anew in one snapshot; texts are borrowed from `rows`. */
static enum tally_status recount(struct tally_repairer *repairer, struct batch *batch,
                                 struct tally_recount_rows *rows, struct tally_error *error)
{
    int64_t ids[BATCH], versions[BATCH];
    int32_t timeline = 0;
    enum tally_status status = tally_recount_timeline(repairer->connection, &timeline, error);
    for (size_t i = 0; i < batch->count; i++) {
        struct patient *patient = &batch->patients[i];
        ids[i] = patient->id;
        versions[i] = counted_version(patient);
        patient->there = false;
        patient->profile = (struct tally_profile){0};
        patient->state = (struct tally_user_state){.timeline = timeline};
    }
    if (status == TALLY_OK)
        status = tally_recount_at(repairer->connection, ids, versions, batch->count, rows, error);
    for (int i = 0; status == TALLY_OK && i < rows->count; i++) {
        struct tally_recount_user user;
        tally_recount_user(rows, i, &user);
        take_recount(batch, &user, timeline);
    }
    return status;
}

/* One user as the script wants it. What happened since the version that the totals hold is known
 * where all of its events were found. */
static void describe(const struct tally_repairer *repairer, const struct patient *patient,
                     struct tally_repair_user *repair)
{
    const struct tally_recount_user *user = &patient->recount;
    const int64_t counted = counted_version(patient);
    const bool equal = patient->there && counted > 0 && user->version == counted;
    const bool found = patient->there && !user->deleted && counted > 0 &&
                       user->version - counted == user->events_after;
    *repair = (struct tally_repair_user){
        .user = {.user_id = patient->id,
                 .state = &patient->state,
                 .parts = TALLY_APPLY_RECORD |
                          (patient->profile.name != NULL ? (unsigned)TALLY_APPLY_PROFILE : 0U),
                 .profile = &patient->profile,
                 .day = -1},
        .seen_version = patient->seen,
        .known = equal || found,
        .posts_after = found && !equal ? user->posts_after : 0,
        .comments_after = found && !equal ? user->comments_after : 0,
        .follow_source = repairer->follow_source,
    };
}

/* The users of one partition in one call. */
static enum tally_status write_partition(struct tally_repairer *repairer, struct batch *batch,
                                         int32_t partition, struct tally_error *error)
{
    struct tally_repair_user users[BATCH];
    struct patient *patients[BATCH];
    size_t count = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct patient *patient = &batch->patients[i];
        const bool waits = patient->there && is_absent(patient) && patient->proven == 0;
        if (waits || tally_partition_of(patient->id, repairer->model.partitions) != partition)
            continue;
        patients[count] = patient;
        describe(repairer, patient, &users[count++]);
    }
    if (count == 0)
        return TALLY_OK;
    tally_buffer_clear(&repairer->out);
    redisReply *reply = NULL;
    enum tally_status status = tally_repair_encode(&repairer->encoder, repairer->model.generation,
                                                   partition, users, count, &repairer->out, error);
    if (status == TALLY_OK)
        status = tally_redis_append_raw(repairer->model.redis, repairer->out.data,
                                        repairer->out.length, error);
    if (status == TALLY_OK)
        status = tally_redis_receive(repairer->model.redis, &reply, error);
    if (status != TALLY_OK)
        return status;
    status = tally_repair_outcome(reply, users, count, error);
    freeReplyObject(reply);
    for (size_t i = 0; status == TALLY_OK && i < count; i++) {
        patients[i]->replaced = users[i].replaced;
        patients[i]->newer = users[i].newer;
    }
    return status;
}

/* Of the absent ones that PostgreSQL has, by the recount before: whether all of that has been
 * applied, so that the totals hold it. */
static enum tally_status prove(struct tally_repairer *repairer, struct batch *batch,
                               struct tally_error *error)
{
    int64_t ids[BATCH], versions[BATCH];
    size_t places[BATCH], count = 0;
    bool proven[BATCH];
    for (size_t i = 0; i < batch->count; i++) {
        const struct patient *patient = &batch->patients[i];
        if (!patient->there || !is_absent(patient) || patient->proven != 0)
            continue;
        ids[count] = patient->id;
        versions[count] = patient->recount.version;
        places[count++] = i;
    }
    if (count == 0)
        return TALLY_OK;
    enum tally_status status =
        tally_prove_applied(&repairer->prover, ids, versions, count, proven, error);
    for (size_t i = 0; status == TALLY_OK && i < count; i++)
        batch->patients[places[i]].proven = proven[i] ? versions[i] : 0;
    return status;
}

/* One attempt at all of the batch. Reading the users first also proves that the generation is still
 * live. */
static enum tally_status attempt(struct tally_repairer *repairer, struct batch *batch,
                                 struct tally_error *error)
{
    struct tally_recount_rows rows = {0};
    int64_t ids[BATCH];
    for (size_t i = 0; i < batch->count; i++)
        ids[i] = batch->patients[i].id;
    enum tally_status status = tally_verify_model_read(&repairer->model, ids, batch->count, error);
    for (size_t i = 0; status == TALLY_OK && i < batch->count; i++) {
        struct patient *patient = &batch->patients[i];
        struct tally_verify_found found;
        tally_verify_model_user(&repairer->model, i, &found);
        patient->known = patient->known || found.version != 0 || found.flagged;
        patient->seen = found.version > 0 ? found.version : 0;
        patient->flagged = found.flagged;
    }
    if (status == TALLY_OK)
        status = recount(repairer, batch, &rows, error);
    for (int32_t i = 0; status == TALLY_OK && i < repairer->model.partitions; i++)
        status = write_partition(repairer, batch, i, error);
    tally_recount_clear(&rows);
    return status;
}

static enum tally_repair_outcome outcome_of(const struct patient *patient,
                                            struct tally_repair_result *result)
{
    if (!patient->replaced && patient->newer) {
        result->refused++;
        return TALLY_REPAIR_REFUSED;
    }
    if (!patient->replaced) {
        result->postponed++;
        return TALLY_REPAIR_POSTPONED;
    }
    if (patient->there) {
        result->repaired++;
        return TALLY_REPAIR_REPAIRED;
    }
    if (patient->known) {
        result->removed++;
        return TALLY_REPAIR_REMOVED;
    }
    result->unknown++;
    return TALLY_REPAIR_UNKNOWN;
}

/* Tells of those that are done, or of all, and keeps the others. */
static void settle(struct batch *batch, bool all, tally_repair_each *each, void *context,
                   struct tally_repair_result *result)
{
    size_t kept = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const struct patient *patient = &batch->patients[i];
        if (!all && !patient->replaced) {
            batch->patients[kept++] = *patient;
            continue;
        }
        const enum tally_repair_outcome outcome = outcome_of(patient, result);
        if (each != NULL)
            each(context, patient->id, outcome);
    }
    batch->count = kept;
}

static enum tally_status repair_batch(struct tally_repairer *repairer, struct batch *batch,
                                      tally_repair_each *each, void *context,
                                      struct tally_repair_result *result, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (int i = 0; i < ATTEMPTS && status == TALLY_OK && batch->count > 0; i++) {
        if (i > 0) {
            usleep(PAUSE_US);
            status = prove(repairer, batch, error);
        }
        if (status == TALLY_OK)
            status = attempt(repairer, batch, error);
        if (status == TALLY_OK)
            settle(batch, i == ATTEMPTS - 1, each, context, result);
    }
    return status;
}

enum tally_status tally_repair_users(struct tally_repairer *repairer, const int64_t *ids,
                                     size_t count, tally_repair_each *each, void *context,
                                     struct tally_repair_result *result, struct tally_error *error)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "repair");
    enum tally_status status = TALLY_OK;
    for (size_t first = 0; first < count && status == TALLY_OK; first += BATCH) {
        *batch = (struct batch){.count = count - first < BATCH ? count - first : BATCH};
        for (size_t i = 0; i < batch->count; i++)
            batch->patients[i].id = ids[first + i];
        status = repair_batch(repairer, batch, each, context, result, error);
    }
    free(batch);
    return status;
}

static enum tally_status keep_flagged(struct tally_repairer *repairer, const int64_t *found,
                                      size_t found_count, int64_t *ids, size_t *count,
                                      struct tally_error *error)
{
    enum tally_status status = tally_verify_model_read(&repairer->model, found, found_count, error);
    for (size_t i = 0; status == TALLY_OK && i < found_count; i++) {
        struct tally_verify_found user;
        tally_verify_model_user(&repairer->model, i, &user);
        if (user.flagged)
            ids[(*count)++] = found[i];
    }
    return status;
}

enum tally_status tally_repair_find_flagged(struct tally_repairer *repairer, char *cursor,
                                            int64_t *ids, size_t most, size_t *count,
                                            int64_t *looked, struct tally_error *error)
{
    int64_t *found = calloc(2 * most, sizeof *found);
    size_t found_count = 0, misplaced = 0;
    *count = 0;
    if (found == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "the list of keys");
    enum tally_status status = tally_verify_model_scan(
        &repairer->model, cursor, found, most, &found_count, found + most, &misplaced, error);
    *looked += (int64_t)found_count;
    for (size_t done = 0; done < found_count && status == TALLY_OK; done += STEP)
        status =
            keep_flagged(repairer, found + done,
                         found_count - done < STEP ? found_count - done : STEP, ids, count, error);
    free(found);
    return status;
}
