#include "service/projector/load.h"

#include "redis/command.h"

/* Users of one EXISTS: Redis answers nothing else meanwhile. */
enum { EXISTS_MOST = 1000, OUT_LIMIT_BYTES = 256 << 20 };

/* The user after `slot` that the same EXISTS does not name any more. */
static struct tally_user_slot *group_end(struct tally_user_slot *slot, size_t *count)
{
    *count = 0;
    for (; slot != NULL && *count < EXISTS_MOST; slot = slot->next_new)
        (*count)++;
    return slot;
}

static void append_exists(const struct tally_model *model, int32_t partition,
                          const struct tally_user_slot *first, size_t count,
                          struct tally_buffer *out)
{
    char key[TALLY_VIEW_KEY_BYTES];
    tally_redis_command(out, 1 + count);
    tally_redis_part_text(out, "EXISTS");
    for (size_t i = 0; i < count; i++, first = first->next_new) {
        const size_t length =
            tally_view_user_key(key, model->generation, partition, first->user_id);
        tally_redis_part(out, key, length);
    }
}

static size_t append_all(const struct tally_round *round, const struct tally_model *model,
                         struct tally_buffer *out)
{
    size_t users = round->missing_count;
    for (size_t i = 0; i < round->missing_count; i++)
        tally_user_append_read(out, model->generation, round->missing_partitions[i],
                               round->missing[i]->user_id);
    for (int32_t id = 0; id < model->partition_count; id++) {
        struct tally_user_slot *slot = model->partitions[id].new_users;
        while (slot != NULL) {
            size_t count = 0;
            struct tally_user_slot *end = group_end(slot, &count);
            append_exists(model, id, slot, count, out);
            users += count;
            slot = end;
        }
    }
    return users;
}

static enum tally_status send_buffer(struct tally_redis *redis, const struct tally_buffer *out,
                                     struct tally_error *error)
{
    if (out->failed)
        return tally_fail(error, TALLY_NO_MEMORY, "questions for users");
    enum tally_status status = tally_redis_append_raw(redis, out->data, out->length, error);
    return status == TALLY_OK ? tally_redis_flush(redis, error) : status;
}

enum tally_status tally_load_ask(struct tally_round *round, struct tally_model *model,
                                 struct tally_redis *redis, size_t *loaded,
                                 struct tally_error *error)
{
    *loaded = append_all(round, model, &round->out);
    enum tally_status status = *loaded > 0 ? send_buffer(redis, &round->out, error) : TALLY_OK;
    tally_buffer_clear(&round->out);
    return status;
}

static enum tally_status read_user(struct tally_redis *redis, struct tally_user_slot *slot,
                                   struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_receive(redis, &reply, error);
    if (status != TALLY_OK)
        return status;
    status = tally_user_read_reply(reply, &slot->state, error);
    freeReplyObject(reply);
    slot->loaded = status == TALLY_OK;
    slot->awaited = false;
    return status;
}

/* Reads the states of a group of new users after all, since Redis has some of them. */
static enum tally_status read_group(const struct tally_model *model, int32_t partition,
                                    struct tally_user_slot *first, size_t count,
                                    struct tally_redis *redis, struct tally_error *error)
{
    struct tally_buffer out;
    tally_buffer_init(&out, OUT_LIMIT_BYTES);
    struct tally_user_slot *slot = first;
    for (size_t i = 0; i < count; i++, slot = slot->next_new)
        tally_user_append_read(&out, model->generation, partition, slot->user_id);
    enum tally_status status = send_buffer(redis, &out, error);
    tally_buffer_release(&out);
    for (size_t i = 0; i < count && status == TALLY_OK; i++, first = first->next_new)
        status = read_user(redis, first, error);
    return status;
}

/* A group of new users, and whether Redis has any of them. */
struct group {
    int32_t partition;
    struct tally_user_slot *first;
    size_t count;
};

static enum tally_status read_exists(struct tally_redis *redis, const struct group *group,
                                     bool *some, struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_receive(redis, &reply, error);
    if (status != TALLY_OK)
        return status;
    if (reply->type == REDIS_REPLY_ERROR && tally_redis_error_passes(reply->str))
        status = tally_fail(error, TALLY_UNAVAILABLE, "EXISTS: %s", reply->str);
    else if (reply->type != REDIS_REPLY_INTEGER)
        status = tally_fail(error, TALLY_PROTOCOL, "EXISTS answers no number");
    else
        *some = reply->integer > 0;
    freeReplyObject(reply);
    struct tally_user_slot *slot = group->first;
    for (size_t i = 0; i < group->count && status == TALLY_OK && !*some; i++) {
        slot->loaded = true;
        slot->awaited = false;
        slot = slot->next_new;
    }
    return status;
}

enum tally_status tally_load_answer(struct tally_round *round, struct tally_model *model,
                                    struct tally_redis *redis, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (size_t i = 0; i < round->missing_count && status == TALLY_OK; i++)
        status = read_user(redis, round->missing[i], error);
    for (int32_t id = 0; id < model->partition_count && status == TALLY_OK; id++) {
        struct group group = {id, model->partitions[id].new_users, 0};
        while (group.first != NULL && status == TALLY_OK) {
            bool some = false;
            struct tally_user_slot *end = group_end(group.first, &group.count);
            status = read_exists(redis, &group, &some, error);
            group.first = end;
        }
    }
    /* The groups that were not settled: asked for only now, when all replies are in. */
    for (int32_t id = 0; id < model->partition_count && status == TALLY_OK; id++) {
        struct group group = {id, model->partitions[id].new_users, 0};
        while (group.first != NULL && status == TALLY_OK) {
            struct tally_user_slot *end = group_end(group.first, &group.count);
            if (!group.first->loaded)
                status = read_group(model, id, group.first, group.count, redis, error);
            group.first = end;
        }
    }
    return status;
}

void tally_load_end(struct tally_model *model)
{
    for (int32_t id = 0; id < model->partition_count; id++)
        model->partitions[id].new_users = NULL;
}
