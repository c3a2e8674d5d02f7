#include "service/ctl/dlq_retry.h"

#include "domain/partitioner.h"
#include "view/position.h"

#include <inttypes.h>
#include <stdio.h>

enum { STATE_BYTES = 1024 };

enum tally_status tally_dlq_retry_open(struct tally_dlq_retry *retry,
                                       const struct tally_settings *settings,
                                       struct tally_error *error)
{
    struct tally_position position = {0};
    const int32_t first = 0;
    *retry = (struct tally_dlq_retry){0};
    enum tally_status status = tally_redis_open_text(
        settings->redis_url, settings->redis_timeout_ms, &retry->redis, error);
    if (status == TALLY_OK)
        status = tally_generation_read(retry->redis, &retry->generation, error);
    if (status == TALLY_OK && retry->generation != 0)
        status = tally_position_read(retry->redis, retry->generation, &first, 1, &position, error);
    if (status == TALLY_OK && !position.present)
        status = tally_fail(error, TALLY_READ_MODEL_INCOMPLETE, "there is no read model");
    retry->partitions = position.partitions;
    if (status == TALLY_OK)
        status = tally_repairer_new(settings, &retry->repairer, error);
    return status;
}

void tally_dlq_retry_close(struct tally_dlq_retry *retry)
{
    if (retry->repairer != NULL)
        tally_repairer_free(&retry->repairer);
    if (retry->redis != NULL)
        tally_redis_close(&retry->redis);
}

static enum tally_status read_user(struct tally_dlq_retry *retry, int64_t user_id,
                                   struct tally_user_state *state, struct tally_error *error)
{
    struct tally_buffer command;
    redisReply *reply = NULL;
    tally_buffer_init(&command, STATE_BYTES);
    tally_user_append_read(&command, retry->generation,
                           tally_partition_of(user_id, retry->partitions), user_id);
    enum tally_status status =
        command.failed ? tally_fail(error, TALLY_NO_MEMORY, "user")
                       : tally_redis_append_raw(retry->redis, command.data, command.length, error);
    if (status == TALLY_OK)
        status = tally_redis_receive(retry->redis, &reply, error);
    if (status == TALLY_OK)
        status = tally_user_read_reply(reply, state, error);
    if (reply != NULL)
        freeReplyObject(reply);
    tally_buffer_release(&command);
    return status;
}

static bool is_settled(const struct tally_user_state *state, int64_t version)
{
    return !state->flagged && state->version > 0 && state->version >= version;
}

enum tally_status tally_dlq_retry_user(struct tally_dlq_retry *retry, int64_t user_id,
                                       int64_t version, bool *settled,
                                       char why[TALLY_DLQ_RETRY_WHY_BYTES],
                                       struct tally_error *error)
{
    struct tally_user_state state = {0};
    *settled = false;
    if (user_id == 0) {
        (void)snprintf(why, TALLY_DLQ_RETRY_WHY_BYTES,
                       "its key names no user, so there is nobody to restore; discard it");
        return TALLY_OK;
    }
    enum tally_status status = read_user(retry, user_id, &state, error);
    struct tally_repair_result result = {0};
    if (status == TALLY_OK && !is_settled(&state, version)) {
        status = tally_repair_users(retry->repairer, &user_id, 1, NULL, NULL, &result, error);
        if (status == TALLY_OK)
            status = read_user(retry, user_id, &state, error);
    }
    if (status != TALLY_OK)
        return status;
    *settled = is_settled(&state, version) || result.removed + result.unknown > 0 ||
               (result.repaired > 0 && !state.flagged);
    if (result.removed + result.unknown > 0)
        (void)snprintf(why, TALLY_DLQ_RETRY_WHY_BYTES, "PostgreSQL knows no user %" PRId64,
                       user_id);
    else if (*settled)
        (void)snprintf(why, TALLY_DLQ_RETRY_WHY_BYTES,
                       "user %" PRId64 " is restored, at version %" PRId64, user_id, state.version);
    else if (result.postponed > 0)
        (void)snprintf(why, TALLY_DLQ_RETRY_WHY_BYTES,
                       "events of user %" PRId64 " are on their way; retry it again", user_id);
    else
        (void)snprintf(why, TALLY_DLQ_RETRY_WHY_BYTES,
                       "user %" PRId64 " is newer in Redis than in PostgreSQL, at version %" PRId64,
                       user_id, state.version);
    return status;
}
