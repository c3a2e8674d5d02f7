#include "service/ctl/verify_model.h"

#include "core/id.h"
#include "domain/partitioner.h"
#include "redis/command.h"
#include "view/keys.h"
#include "view/position.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMMANDS_BYTES = 512 * (TALLY_RECOUNT_MOST + 1), SCAN_COUNT = 500, PARTITIONS_MOST = 1024 };

static const char *const fields[] = {TALLY_VIEW_USER_VERSION,  TALLY_VIEW_USER_POSTS,
                                     TALLY_VIEW_USER_COMMENTS, TALLY_VIEW_USER_NAME,
                                     TALLY_VIEW_USER_EMAIL,    TALLY_VIEW_USER_AVATAR,
                                     TALLY_VIEW_USER_DELETED,  TALLY_VIEW_USER_FLAGGED};
enum { VERSION, POSTS, COMMENTS, NAME, EMAIL, AVATAR, DELETED, FLAGGED, FIELDS };

/* The partition count is a property of the model, told by every partition's position. */
static enum tally_status find_model(struct tally_verify_model *model, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    model->live = model->generation == 0;
    if (model->live)
        status = tally_generation_read(model->redis, &model->generation, error);
    if (status != TALLY_OK)
        return status;
    if (model->generation == 0)
        return tally_fail(error, TALLY_READ_MODEL_INCOMPLETE,
                          "Redis holds no read model (no tally:generation): start "
                          "tally-projector, which builds it from the topic");
    struct tally_position position;
    const int32_t first = 0;
    status = tally_position_read(model->redis, model->generation, &first, 1, &position, error);
    if (status != TALLY_OK)
        return status;
    if (!position.present || position.partitions < 1 || position.partitions > PARTITIONS_MOST)
        return tally_fail(error, TALLY_READ_MODEL_INCOMPLETE,
                          "generation %" PRId64 " has lost its positions: it must be built anew",
                          model->generation);
    model->partitions = position.partitions;
    return TALLY_OK;
}

enum tally_status tally_verify_model_open(struct tally_verify_model *model,
                                          const struct tally_verify_options *options,
                                          struct tally_error *error)
{
    *model = (struct tally_verify_model){.generation = options->generation};
    tally_buffer_init(&model->commands, COMMANDS_BYTES);
    enum tally_status status =
        tally_redis_open_text(options->redis_url, options->redis_timeout_ms, &model->redis, error);
    if (status == TALLY_OK)
        status = find_model(model, error);
    if (status != TALLY_OK)
        tally_verify_model_close(model);
    return status;
}

static void free_replies(struct tally_verify_model *model)
{
    for (size_t i = 0; i < model->reply_count; i++)
        freeReplyObject(model->replies[i]);
    model->reply_count = 0;
}

void tally_verify_model_close(struct tally_verify_model *model)
{
    free_replies(model);
    tally_buffer_release(&model->commands);
    if (model->redis != NULL)
        tally_redis_close(&model->redis);
}

static void append_user(struct tally_verify_model *model, int64_t id)
{
    char key[TALLY_VIEW_KEY_BYTES];
    size_t length =
        tally_view_user_key(key, model->generation, tally_partition_of(id, model->partitions), id);
    tally_redis_command(&model->commands, 2 + FIELDS);
    tally_redis_part_text(&model->commands, "HMGET");
    tally_redis_part(&model->commands, key, length);
    for (size_t i = 0; i < FIELDS; i++)
        tally_redis_part_text(&model->commands, fields[i]);
}

/* The generation is read in the same round trip as the users, after them: were it switched before,
 * this read would be of keys that are on their way out. */
static enum tally_status check_generation(struct tally_verify_model *model,
                                          struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_receive(model->redis, &reply, error);
    if (status != TALLY_OK)
        return status;
    char expected[TALLY_ID_TEXT_BYTES];
    tally_id_format(model->generation, expected);
    if (!model->live && (reply->type != REDIS_REPLY_INTEGER || reply->integer != 1))
        status = tally_fail(error, TALLY_READ_MODEL_INCOMPLETE, "generation %s was lost meanwhile",
                            expected);
    else if (model->live &&
             (reply->type != REDIS_REPLY_STRING || strcmp(reply->str, expected) != 0))
        status = tally_fail(error, TALLY_READ_MODEL_INCOMPLETE,
                            "the live generation is not %s any more: the read model was switched "
                            "or lost meanwhile; verify again",
                            expected);
    freeReplyObject(reply);
    return status;
}

static enum tally_status receive_users(struct tally_verify_model *model, size_t count,
                                       struct tally_error *error)
{
    for (size_t i = 0; i < count; i++) {
        redisReply *reply = NULL;
        enum tally_status status = tally_redis_receive(model->redis, &reply, error);
        if (status != TALLY_OK)
            return status;
        model->replies[model->reply_count++] = reply;
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != FIELDS)
            return tally_fail(error, TALLY_PROTOCOL, "Redis answered HMGET with %s",
                              reply->type == REDIS_REPLY_ERROR ? reply->str : "something else");
    }
    return TALLY_OK;
}

enum tally_status tally_verify_model_read(struct tally_verify_model *model, const int64_t *ids,
                                          size_t count, struct tally_error *error)
{
    free_replies(model);
    tally_buffer_clear(&model->commands);
    for (size_t i = 0; i < count; i++)
        append_user(model, ids[i]);
    char position[TALLY_VIEW_KEY_BYTES];
    tally_view_position_key(position, model->generation, 0);
    tally_redis_command(&model->commands, 2);
    tally_redis_part_text(&model->commands, model->live ? "GET" : "EXISTS");
    tally_redis_part_text(&model->commands, model->live ? TALLY_VIEW_GENERATION_KEY : position);
    if (model->commands.failed)
        return tally_fail(error, TALLY_NO_MEMORY, "a read of %zu users", count);
    enum tally_status status =
        tally_redis_append_raw(model->redis, model->commands.data, model->commands.length, error);
    if (status == TALLY_OK)
        status = receive_users(model, count, error);
    if (status == TALLY_OK)
        status = check_generation(model, error);
    return status;
}

static const char *field_text(const redisReply *reply, size_t field)
{
    const redisReply *value = reply->element[field];
    return value->type == REDIS_REPLY_STRING ? value->str : NULL;
}

static int64_t field_number(const redisReply *reply, size_t field, int64_t otherwise)
{
    const char *text = field_text(reply, field);
    if (text == NULL)
        return otherwise;
    char *end = NULL;
    long long value = strtoll(text, &end, 10);
    return end == text || *end != '\0' || value < 0 ? -1 : value;
}

void tally_verify_model_user(const struct tally_verify_model *model, size_t index,
                             struct tally_verify_found *found)
{
    const redisReply *reply = model->replies[index];
    *found = (struct tally_verify_found){
        .version = field_number(reply, VERSION, 0),
        .posts = field_number(reply, POSTS, -1),
        .comments = field_number(reply, COMMENTS, -1),
        .name = field_text(reply, NAME),
        .email = field_text(reply, EMAIL),
        .avatar = field_text(reply, AVATAR),
        .deleted = field_text(reply, DELETED) != NULL,
        .flagged = field_text(reply, FLAGGED) != NULL,
    };
}

static void sort_key(const struct tally_verify_model *model, const redisReply *key, int64_t *ids,
                     size_t *count, int64_t *misplaced, size_t *misplaced_count)
{
    struct tally_view_user_name name;
    if (key->type != REDIS_REPLY_STRING || !tally_view_user_key_parse(key->str, key->len, &name))
        return;
    if (name.partition == tally_partition_of(name.user_id, model->partitions))
        ids[(*count)++] = name.user_id;
    else
        misplaced[(*misplaced_count)++] = name.user_id;
}

enum tally_status tally_verify_model_scan(struct tally_verify_model *model,
                                          char cursor[TALLY_VERIFY_CURSOR_BYTES], int64_t *ids,
                                          size_t most, size_t *count, int64_t *misplaced,
                                          size_t *misplaced_count, struct tally_error *error)
{
    *count = 0;
    *misplaced_count = 0;
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_call(model->redis, &reply, error,
                                                "SCAN %s MATCH tally:%lld:{*}:user:* COUNT %d",
                                                cursor, (long long)model->generation, SCAN_COUNT);
    if (status != TALLY_OK)
        return status;
    bool valid = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
                 reply->element[0]->type == REDIS_REPLY_STRING &&
                 reply->element[1]->type == REDIS_REPLY_ARRAY &&
                 reply->element[1]->elements <= most;
    if (valid) {
        (void)snprintf(cursor, TALLY_VERIFY_CURSOR_BYTES, "%s", reply->element[0]->str);
        for (size_t i = 0; i < reply->element[1]->elements; i++)
            sort_key(model, reply->element[1]->element[i], ids, count, misplaced, misplaced_count);
    } else {
        status = tally_fail(error, TALLY_PROTOCOL, "Redis answered SCAN with something else");
    }
    freeReplyObject(reply);
    return status;
}

enum tally_status tally_verify_model_totals(struct tally_verify_model *model,
                                            struct tally_verify_totals *totals,
                                            struct tally_error *error)
{
    *totals = (struct tally_verify_totals){0};
    for (int32_t partition = 0; partition < model->partitions; partition++) {
        struct tally_position position;
        enum tally_status status =
            tally_position_read(model->redis, model->generation, &partition, 1, &position, error);
        if (status != TALLY_OK)
            return status;
        totals->users += position.totals.users;
        totals->posts += position.totals.posts;
        totals->comments += position.totals.comments;
    }
    return TALLY_OK;
}
