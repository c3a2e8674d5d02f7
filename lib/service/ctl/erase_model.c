#include "core/clock.h"
#include "domain/partitioner.h"
#include "service/ctl/erase.h"
#include "view/keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LOOK_NS = 200000000 };

/* What one generation holds of the user. */
struct found {
    bool present;
    bool deleted;
    bool profile;   /* name, email or avatar */
    int64_t offset; /* next to be applied in the user's partition; -1: its position is lost */
    char key[TALLY_VIEW_KEY_BYTES];
};

static enum tally_status open_redis(const struct tally_settings *settings,
                                    struct tally_redis **redis, struct tally_error *error)
{
    return tally_redis_open_text(settings->redis_url, settings->redis_timeout_ms, redis, error);
}

static bool filled(const redisReply *reply, size_t index)
{
    return index < reply->elements && reply->element[index]->type == REDIS_REPLY_STRING;
}

/* A generation may have been built on another partition count than the topic has now; each of its
 * positions tells it. */
static enum tally_status look(struct tally_redis *redis, int64_t generation, int64_t user_id,
                              struct found *found, struct tally_error *error)
{
    struct tally_position position;
    int32_t id = 0;
    *found = (struct found){.offset = -1};
    enum tally_status status = tally_position_read(redis, generation, &id, 1, &position, error);
    if (status == TALLY_OK && !position.present)
        status = tally_fail(error, TALLY_READ_MODEL_INCOMPLETE,
                            "generation %" PRId64 " has lost its positions; `tallyctl generations "
                            "drop` removes it, or `tallyctl rebuild` replaces it",
                            generation);
    if (status != TALLY_OK)
        return status;
    id = tally_partition_of(user_id, position.partitions);
    status = tally_position_read(redis, generation, &id, 1, &position, error);
    if (status != TALLY_OK)
        return status;
    if (position.present)
        found->offset = position.offset;
    redisReply *reply = NULL;
    tally_view_user_key(found->key, generation, id, user_id);
    status = tally_redis_call(redis, &reply, error,
                              "HMGET %s " TALLY_VIEW_USER_VERSION " " TALLY_VIEW_USER_DELETED
                              " " TALLY_VIEW_USER_NAME " " TALLY_VIEW_USER_EMAIL
                              " " TALLY_VIEW_USER_AVATAR,
                              found->key);
    if (status != TALLY_OK)
        return status;
    found->present = filled(reply, 0);
    found->deleted = filled(reply, 1);
    found->profile = filled(reply, 2) || filled(reply, 3) || filled(reply, 4);
    freeReplyObject(reply);
    return TALLY_OK;
}

static const char *settle(struct tally_erase_state *state, const char *text)
{
    state->done = false;
    (void)snprintf(state->why, sizeof state->why, "%s", text);
    return "pending";
}

/* The projector takes the profile away when it applies the deletion; whoever did it for him would
 * race with what he has in memory. */
static const char *judge_live(const struct found *found, const struct tally_erasure *book,
                              int64_t user_id, struct tally_erase_state *state)
{
    const bool applied = book->log_end >= 0 && found->offset >= book->log_end;
    char text[TALLY_ERASE_WHY_BYTES];
    if (!found->profile && (found->deleted || (applied && !found->present)))
        return found->deleted ? "deleted" : "absent";
    if (applied)
        (void)snprintf(text, sizeof text,
                       "the live read model has applied everything and still shows the user: "
                       "`tallyctl repair %" PRId64 "`",
                       user_id);
    else
        (void)snprintf(text, sizeof text,
                       "the projector has not applied the deletion: it is at offset %" PRId64
                       " of %" PRId64 "; `tallyctl status` says whether it runs",
                       found->offset, book->log_end);
    return settle(state, text);
}

/* Nobody writes to a generation that is kept; after a rollback the deletion is applied to it like
 * all that came since. */
static enum tally_status remove_profile(struct tally_redis *redis, const struct found *found,
                                        const char **state, int64_t *removed,
                                        struct tally_error *error)
{
    *state = !found->present ? "absent" : found->deleted ? "deleted" : "removed";
    if (!found->profile)
        return TALLY_OK;
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_call(
        redis, &reply, error,
        "HDEL %s " TALLY_VIEW_USER_NAME " " TALLY_VIEW_USER_EMAIL " " TALLY_VIEW_USER_AVATAR,
        found->key);
    if (status != TALLY_OK)
        return status;
    freeReplyObject(reply);
    *state = "removed";
    (*removed)++;
    return TALLY_OK;
}

static enum tally_status erase_generation(struct tally_redis *redis,
                                          const struct tally_erase_options *options,
                                          struct tally_erase_result *result,
                                          struct tally_erase_generation *generation,
                                          int64_t *removed, struct tally_error *error)
{
    struct tally_erase_state *state = &result->parts[TALLY_ERASE_MODEL];
    struct found found;
    enum tally_status status =
        look(redis, generation->entry.number, options->user_id, &found, error);
    if (status == TALLY_READ_MODEL_INCOMPLETE) {
        generation->state = settle(state, error->text);
        return TALLY_OK;
    }
    if (status != TALLY_OK)
        return status;
    switch (generation->entry.role) {
    case TALLY_GENERATION_LIVE:
        generation->state = judge_live(&found, &result->book, options->user_id, state);
        break;
    case TALLY_GENERATION_BUILDING:
        generation->state = found.deleted && !found.profile
                                ? "deleted"
                                : settle(state, "a generation is being built that may still take "
                                                "the user in: let `tallyctl rebuild` come to its "
                                                "end, or `tallyctl generations drop` it");
        break;
    case TALLY_GENERATION_KEPT:
    case TALLY_GENERATION_DROPPING:
        return remove_profile(redis, &found, &generation->state, removed, error);
    }
    return TALLY_OK;
}

enum tally_status tally_erase_model(const struct tally_erase_options *options, PGconn *connection,
                                    struct tally_erase_result *result, struct tally_error *error)
{
    struct tally_generation_entry entries[TALLY_GENERATIONS_MOST];
    struct tally_redis *redis = NULL;
    int64_t removed = 0;
    result->parts[TALLY_ERASE_MODEL] = (struct tally_erase_state){.done = true};
    result->generation_count = 0;
    enum tally_status status = open_redis(options->settings, &redis, error);
    size_t count = 0;
    if (status == TALLY_OK)
        status = tally_generation_list(redis, entries, &count, error);
    for (size_t i = 0; i < count && status == TALLY_OK; i++) {
        struct tally_erase_generation *generation =
            &result->generations[result->generation_count++];
        *generation = (struct tally_erase_generation){entries[i], "pending"};
        status = erase_generation(redis, options, result, generation, &removed, error);
    }
    tally_redis_close(&redis);
    if (removed > 0) {
        struct tally_error noted;
        enum tally_status kept =
            tally_erasure_note_profiles(connection, options->user_id, removed, &noted);
        if (status == TALLY_OK && kept != TALLY_OK) {
            *error = noted;
            status = kept;
        }
    }
    return status;
}

/* --- files -------------------------------------------------------------------------------------
 */

static bool has(const redisReply *reply, const char *text)
{
    return reply->type == REDIS_REPLY_STRING && strstr(reply->str, text) != NULL;
}

/* Waits until no rewrite and no snapshot is under way; whether that is so. */
static enum tally_status await_idle(struct tally_redis *redis, int64_t due_us, bool *idle,
                                    bool *appends, bool *well, struct tally_error *error)
{
    do {
        redisReply *reply = NULL;
        enum tally_status status = tally_redis_call(redis, &reply, error, "INFO persistence");
        if (status != TALLY_OK)
            return status;
        *idle = has(reply, "aof_rewrite_in_progress:0") && has(reply, "aof_rewrite_scheduled:0") &&
                has(reply, "rdb_bgsave_in_progress:0");
        *appends = has(reply, "aof_enabled:1");
        *well =
            has(reply, "aof_last_bgrewrite_status:ok") && has(reply, "rdb_last_bgsave_status:ok");
        freeReplyObject(reply);
        if (!*idle)
            (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    } while (!*idle && tally_clock_monotonic_us() < due_us);
    return TALLY_OK;
}

/* An error reply is a denial: the file is then left to Redis's own rules. */
static enum tally_status order(struct tally_redis *redis, const char *command,
                               enum tally_erase_file *file, struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_call(redis, &reply, error, command);
    if (status == TALLY_PROTOCOL) {
        *file = TALLY_ERASE_FILE_DENIED;
        return TALLY_OK;
    }
    if (status != TALLY_OK)
        return status;
    freeReplyObject(reply);
    *file = TALLY_ERASE_FILE_WRITTEN;
    return TALLY_OK;
}

/* Only where Redis writes snapshots by itself is there one to be replaced. */
static enum tally_status order_snapshot(struct tally_redis *redis, enum tally_erase_file *file,
                                        struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_call(redis, &reply, error, "CONFIG GET save");
    if (status == TALLY_PROTOCOL) {
        *file = TALLY_ERASE_FILE_DENIED;
        return TALLY_OK;
    }
    if (status != TALLY_OK)
        return status;
    const bool told = reply->type == REDIS_REPLY_ARRAY && filled(reply, 1);
    const bool saves = told && reply->element[1]->len > 0;
    freeReplyObject(reply);
    *file = told ? TALLY_ERASE_FILE_NONE : TALLY_ERASE_FILE_DENIED;
    return saves ? order(redis, "BGSAVE", file, error) : TALLY_OK;
}

enum tally_status tally_erase_files(const struct tally_settings *settings, int64_t due_us,
                                    struct tally_erase_result *result, struct tally_error *error)
{
    struct tally_erase_state *state = &result->parts[TALLY_ERASE_FILES];
    struct tally_redis *redis = NULL;
    bool idle = false, appends = false, well = false;
    result->appends = result->snapshot = TALLY_ERASE_FILE_NONE;
    enum tally_status status = open_redis(settings, &redis, error);
    if (status == TALLY_OK) /* a rewrite that is under way may have begun before the removal */
        status = await_idle(redis, due_us, &idle, &appends, &well, error);
    if (status == TALLY_OK && idle && appends)
        status = order(redis, "BGREWRITEAOF", &result->appends, error);
    if (status == TALLY_OK && idle)
        status = await_idle(redis, due_us, &idle, &appends, &well, error);
    if (status == TALLY_OK && idle)
        status = order_snapshot(redis, &result->snapshot, error);
    if (status == TALLY_OK && idle)
        status = await_idle(redis, due_us, &idle, &appends, &well, error);
    tally_redis_close(&redis);
    if (status == TALLY_OK && !idle)
        (void)settle(state, "Redis is still writing its files anew");
    else if (status == TALLY_OK && !well)
        (void)settle(state, "Redis could not write its files anew: its log says why");
    else
        state->done = status == TALLY_OK;
    return status;
}
