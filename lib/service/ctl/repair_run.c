#include "domain/partitioner.h"
#include "pg/blocking.h"
#include "redis/command.h"
#include "service/ctl/repair.h"
#include "service/ctl/verify_model.h"
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

struct tally_repairer {
    const struct tally_settings *settings;
    PGconn *connection;
    struct tally_verify_model model; /* knows the live generation */
    struct tally_restore_encoder encoder;
    struct tally_buffer out;
    bool follow_source;
};

/* Users under repair, a batch at most. */
struct batch {
    int64_t ids[BATCH];
    size_t count;
    struct tally_user_state states[BATCH];
    struct tally_profile profiles[BATCH];
    struct tally_recount_user recounts[BATCH];
    int64_t seen[BATCH]; /* version in Redis before the recount */
    bool flagged[BATCH];
    bool there[BATCH]; /* in PostgreSQL */
    bool done[BATCH];
    bool
        waiting[BATCH]; /* absent from Redis, perhaps on its way: only the last attempt writes it */
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
    PQfinish((*repairer)->connection);
    tally_verify_model_close(&(*repairer)->model);
    tally_restore_encoder_release(&(*repairer)->encoder);
    tally_buffer_release(&(*repairer)->out);
    free(*repairer);
    *repairer = NULL;
}

static void take_user(struct batch *batch, const struct tally_recount_user *user, int32_t timeline)
{
    size_t at = 0;
    while (at < batch->count && batch->ids[at] != user->id)
        at++;
    if (at == batch->count)
        return;
    batch->there[at] = true;
    batch->recounts[at] = *user;
    batch->states[at] = (struct tally_user_state){
        .version = user->version,
        .posts = user->deleted ? 0 : user->posts,
        .comments = user->deleted ? 0 : user->comments,
        .timeline = timeline,
        .deleted = user->deleted,
    };
    batch->profiles[at] = (struct tally_profile){
        .name = (char *)(uintptr_t)user->name,
        .email = (char *)(uintptr_t)user->email,
        .avatar = (char *)(uintptr_t)user->avatar,
    };
}

/* Counts the batch anew in one snapshot; texts are borrowed from `rows`. */
static enum tally_status recount(struct tally_repairer *repairer, struct batch *batch,
                                 struct tally_recount_rows *rows, struct tally_error *error)
{
    int32_t timeline = 0;
    enum tally_status status = tally_recount_timeline(repairer->connection, &timeline, error);
    if (status == TALLY_OK)
        status = tally_recount_at(repairer->connection, batch->ids, batch->seen, batch->count, rows,
                                  error);
    memset(batch->there, 0, sizeof batch->there);
    memset(batch->states, 0, sizeof batch->states);
    for (size_t i = 0; i < batch->count; i++)
        batch->states[i].timeline = timeline;
    for (int i = 0; status == TALLY_OK && i < rows->count; i++) {
        struct tally_recount_user user;
        tally_recount_user(rows, i, &user);
        take_user(batch, &user, timeline);
    }
    return status;
}

/* One user as the script wants it. What happened since the version in Redis is known where all of
 * its events were found; a key that is not there was lost after its events were counted. */
static void describe(const struct tally_repairer *repairer, const struct batch *batch, size_t i,
                     struct tally_repair_user *repair)
{
    const struct tally_recount_user *recount = &batch->recounts[i];
    const bool equal = batch->there[i] && recount->version == batch->seen[i];
    const bool lost = batch->seen[i] == 0 && !batch->flagged[i];
    const bool found = batch->there[i] && !recount->deleted && batch->seen[i] > 0 &&
                       recount->version - batch->seen[i] == recount->events_after;
    *repair = (struct tally_repair_user){
        .user = {.user_id = batch->ids[i],
                 .state = &batch->states[i],
                 .parts = TALLY_APPLY_RECORD |
                          (batch->profiles[i].name != NULL ? (unsigned)TALLY_APPLY_PROFILE : 0U),
                 .profile = &batch->profiles[i],
                 .day = -1},
        .seen_version = batch->seen[i],
        .known = equal || lost || found,
        .posts_after = found && !equal ? recount->posts_after : 0,
        .comments_after = found && !equal ? recount->comments_after : 0,
        .follow_source = repairer->follow_source,
    };
}

/* The users of one partition in one call. */
static enum tally_status write_partition(struct tally_repairer *repairer, struct batch *batch,
                                         int32_t partition, struct tally_error *error)
{
    struct tally_repair_user users[BATCH];
    size_t places[BATCH], count = 0;
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->done[i] || batch->waiting[i] ||
            tally_partition_of(batch->ids[i], repairer->model.partitions) != partition)
            continue;
        places[count] = i;
        describe(repairer, batch, i, &users[count++]);
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
    for (size_t i = 0; status == TALLY_OK && i < count; i++)
        batch->done[places[i]] = users[i].replaced;
    return status;
}

/* One attempt at all that are not done. Reading the users first also proves that the generation is
 * still live. */
static enum tally_status attempt(struct tally_repairer *repairer, struct batch *batch,
                                 bool known[BATCH], bool last, struct tally_error *error)
{
    struct tally_recount_rows rows = {0};
    enum tally_status status =
        tally_verify_model_read(&repairer->model, batch->ids, batch->count, error);
    for (size_t i = 0; status == TALLY_OK && i < batch->count; i++) {
        struct tally_verify_found found;
        tally_verify_model_user(&repairer->model, i, &found);
        known[i] = known[i] || found.version != 0 || found.flagged;
        batch->seen[i] = found.version > 0 ? found.version : 0;
        batch->flagged[i] = found.flagged;
        batch->waiting[i] = found.version == 0 && !found.flagged && !last;
    }
    memset(batch->profiles, 0, sizeof batch->profiles);
    if (status == TALLY_OK)
        status = recount(repairer, batch, &rows, error);
    for (int32_t i = 0; status == TALLY_OK && i < repairer->model.partitions; i++)
        status = write_partition(repairer, batch, i, error);
    tally_recount_clear(&rows);
    return status;
}

static enum tally_repair_outcome outcome_of(const struct batch *batch, const bool *known, size_t i,
                                            struct tally_repair_result *result)
{
    if (!batch->done[i]) {
        result->refused++;
        return TALLY_REPAIR_REFUSED;
    }
    if (batch->there[i]) {
        result->repaired++;
        return TALLY_REPAIR_REPAIRED;
    }
    if (known[i]) {
        result->removed++;
        return TALLY_REPAIR_REMOVED;
    }
    result->unknown++;
    return TALLY_REPAIR_UNKNOWN;
}

static bool all_done(const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (!batch->done[i])
            return false;
    }
    return true;
}

enum tally_status tally_repair_users(struct tally_repairer *repairer, const int64_t *ids,
                                     size_t count, tally_repair_each *each, void *context,
                                     struct tally_repair_result *result, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (size_t first = 0; first < count && status == TALLY_OK; first += BATCH) {
        struct batch batch = {.count = count - first < BATCH ? count - first : BATCH};
        bool known[BATCH] = {false};
        memcpy(batch.ids, ids + first, batch.count * sizeof *ids);
        for (int i = 0; i < ATTEMPTS && status == TALLY_OK && !all_done(&batch); i++) {
            if (i > 0)
                usleep(PAUSE_US);
            status = attempt(repairer, &batch, known, i == ATTEMPTS - 1, error);
        }
        for (size_t i = 0; i < batch.count && status == TALLY_OK; i++) {
            enum tally_repair_outcome outcome = outcome_of(&batch, known, i, result);
            if (each != NULL)
                each(context, batch.ids[i], outcome);
        }
    }
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
