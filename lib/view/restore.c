#include "view/restore.h"

#include "redis/command.h"
#include "view/record.h"

enum { RECORDS_BYTES = 64 << 20, FILL_ARGUMENTS = 6, REPAIR_ARGUMENTS = 10 };

void tally_restore_encoder_init(struct tally_restore_encoder *encoder)
{
    tally_buffer_init(&encoder->records, RECORDS_BYTES);
}

void tally_restore_encoder_release(struct tally_restore_encoder *encoder)
{
    tally_buffer_release(&encoder->records);
}

static void put_keys(struct tally_buffer *out, int64_t generation, int32_t partition)
{
    char key[TALLY_VIEW_KEY_BYTES];
    size_t length = tally_view_position_key(key, generation, partition);
    tally_redis_part(out, key, length);
    length = tally_view_totals_key(key, generation, partition);
    tally_redis_part(out, key, length);
}

static void put_user_key(struct tally_buffer *out, int64_t generation, int32_t partition,
                         int64_t user_id)
{
    char key[TALLY_VIEW_KEY_BYTES];
    const size_t length = tally_view_user_key(key, generation, partition, user_id);
    tally_redis_part(out, key, length);
}

static enum tally_status check(const struct tally_restore_encoder *encoder,
                               const struct tally_buffer *out, size_t users,
                               struct tally_error *error)
{
    if (out->failed || encoder->records.failed)
        return tally_fail(error, TALLY_NO_MEMORY, "a call of %zu users", users);
    return TALLY_OK;
}

enum tally_status tally_fill_encode(struct tally_restore_encoder *encoder,
                                    const struct tally_fill *fill, struct tally_buffer *out,
                                    struct tally_error *error)
{
    struct tally_totals totals = {0};
    size_t arguments = FILL_ARGUMENTS;
    tally_buffer_clear(&encoder->records);
    for (size_t i = 0; i < fill->user_count; i++) {
        const struct tally_user_state *state = fill->users[i].state;
        arguments += tally_record_put(&encoder->records, &fill->users[i]);
        if (state->deleted)
            continue;
        totals.users++;
        totals.posts += state->posts;
        totals.comments += state->comments;
    }
    tally_redis_command(out, 3 + 2 + fill->user_count + arguments);
    tally_redis_part_text(out, "EVALSHA");
    tally_redis_part_text(out, encoder->fill_sha);
    tally_record_put_number(out, (int64_t)(2 + fill->user_count));
    put_keys(out, fill->generation, fill->partition);
    for (size_t i = 0; i < fill->user_count; i++)
        put_user_key(out, fill->generation, fill->partition, fill->users[i].user_id);
    tally_record_put_number(out, fill->epoch);
    tally_record_put_number(out, fill->from);
    tally_record_put_number(out, fill->to);
    tally_record_put_number(out, totals.users);
    tally_record_put_number(out, totals.posts);
    tally_record_put_number(out, totals.comments);
    tally_buffer_append(out, encoder->records.data, encoder->records.length);
    return check(encoder, out, fill->user_count, error);
}

enum tally_status tally_fill_outcome(const redisReply *reply, struct tally_error *error)
{
    struct tally_error why = {0};
    enum tally_status status = tally_apply_outcome(reply, &why);
    if (status == TALLY_FENCED)
        return tally_fail(error, TALLY_FENCED,
                          "another writer is at the generation that is being built, or it is "
                          "lost: %s",
                          why.text);
    return status == TALLY_OK ? status : tally_fail(error, status, "fill: %s", why.text);
}

static void put_repair(struct tally_restore_encoder *encoder,
                       const struct tally_repair_user *repair, size_t *arguments)
{
    const struct tally_user_state *state = repair->user.state;
    tally_record_put_number(&encoder->records, state->version);
    tally_record_put_number(&encoder->records, state->timeline);
    tally_record_put_number(&encoder->records, state->posts);
    tally_record_put_number(&encoder->records, state->comments);
    tally_redis_part_text(&encoder->records, state->deleted ? "1" : "");
    tally_record_put_number(&encoder->records, repair->seen_version);
    tally_redis_part_text(&encoder->records, repair->known ? "1" : "");
    tally_record_put_number(&encoder->records, repair->posts_after);
    tally_record_put_number(&encoder->records, repair->comments_after);
    tally_redis_part_text(&encoder->records, repair->follow_source ? "1" : "");
    *arguments += REPAIR_ARGUMENTS + tally_record_put(&encoder->records, &repair->user);
}

enum tally_status tally_repair_encode(struct tally_restore_encoder *encoder, int64_t generation,
                                      int32_t partition, const struct tally_repair_user *users,
                                      size_t count, struct tally_buffer *out,
                                      struct tally_error *error)
{
    size_t arguments = 0;
    tally_buffer_clear(&encoder->records);
    for (size_t i = 0; i < count; i++)
        put_repair(encoder, &users[i], &arguments);
    tally_redis_command(out, 3 + 2 + count + arguments);
    tally_redis_part_text(out, "EVAL");
    tally_redis_part_text(out, tally_script_repair);
    tally_record_put_number(out, (int64_t)(2 + count));
    put_keys(out, generation, partition);
    for (size_t i = 0; i < count; i++)
        put_user_key(out, generation, partition, users[i].user.user_id);
    tally_buffer_append(out, encoder->records.data, encoder->records.length);
    return check(encoder, out, count, error);
}

enum tally_status tally_repair_outcome(const redisReply *reply, struct tally_repair_user *users,
                                       size_t count, struct tally_error *error)
{
    if (reply->type == REDIS_REPLY_ERROR)
        return tally_apply_outcome(reply, error);
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1 &&
        reply->element[0]->type == REDIS_REPLY_STRING && reply->element[0]->len == 0)
        return tally_fail(error, TALLY_READ_MODEL_INCOMPLETE,
                          "the partition has lost its position; `tallyctl rebuild` builds the "
                          "read model anew");
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != count + 1)
        return tally_fail(error, TALLY_PROTOCOL, "repair: the reply is not one for each user");
    for (size_t i = 0; i < count; i++) {
        users[i].replaced = reply->element[i + 1]->integer == 1;
        users[i].newer = reply->element[i + 1]->integer == 2;
    }
    return TALLY_OK;
}
