#include "service/projector/round.h"

#include "domain/partitioner.h"
#include "view/generation.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS_MOST = 32, OUT_LIMIT_BYTES = 512 << 20 };

const char *tally_outcome_text(enum tally_outcome outcome)
{
    if (outcome == TALLY_OUTCOME_POISON)
        return "poison";
    if (outcome == TALLY_OUTCOME_DROPPED)
        return "dropped";
    return tally_fold_result_text((enum tally_fold_result)outcome);
}

bool tally_round_init(struct tally_round *round, size_t most)
{
    *round = (struct tally_round){.most = most};
    tally_buffer_init(&round->out, OUT_LIMIT_BYTES);
    round->items = calloc(most, sizeof *round->items);
    round->missing = calloc(most, sizeof(struct tally_user_slot *));
    round->missing_partitions = calloc(most, sizeof *round->missing_partitions);
    if (round->items != NULL && round->missing != NULL && round->missing_partitions != NULL)
        return true;
    tally_round_release(round);
    return false;
}

void tally_round_drop_items(struct tally_round *round)
{
    for (size_t i = 0; i < round->count && round->items != NULL; i++) {
        tally_record_release(&round->items[i].record);
        free(round->items[i].poison);
        tally_profile_clear(&round->items[i].profile);
    }
    round->count = 0;
    round->missing_count = 0;
    round->misplaced = NULL;
}

void tally_round_clear(struct tally_round *round)
{
    tally_round_drop_items(round);
    round->call_count = 0;
    round->failed = false;
    round->headless = NULL;
    tally_buffer_clear(&round->out);
}

void tally_round_release(struct tally_round *round)
{
    tally_round_clear(round);
    free(round->items);
    free(round->missing);
    free(round->missing_partitions);
    free(round->calls);
    tally_buffer_release(&round->out);
    *round = (struct tally_round){0};
}

/* Marks the item as one that cannot be applied. */
static void poison(struct tally_round *round, struct tally_round_item *item,
                   const struct tally_error *error)
{
    item->outcome = TALLY_OUTCOME_POISON;
    item->poison = strdup(error->text);
    if (item->poison == NULL)
        round->failed = true;
}

static void decode(struct tally_round *round, struct tally_round_item *item)
{
    struct tally_record_header raw[HEADERS_MOST];
    struct tally_header headers[HEADERS_MOST];
    const struct tally_record *record = &item->record;
    const size_t count = tally_record_headers(record, raw, HEADERS_MOST);
    for (size_t i = 0; i < count; i++) {
        headers[i] = (struct tally_header){raw[i].name, raw[i].value, raw[i].length};
        if (strcmp(raw[i].name, "traceparent") == 0 && raw[i].value != NULL &&
            raw[i].length < sizeof item->parent)
            memcpy(item->parent, raw[i].value, raw[i].length);
    }
    struct tally_event *event = &item->event;
    struct tally_error error;
    enum tally_status status =
        tally_event_decode(event, record->key, record->key_length, record->value,
                           record->value_length, headers, count, &error);
    if (status == TALLY_OK &&
        (event->type == TALLY_EVENT_USER_CREATED || event->type == TALLY_EVENT_USER_UPDATED))
        status = tally_profile_parse(&item->profile, event->value, event->value_length, &error);
    if (status == TALLY_NO_MEMORY)
        round->failed = true;
    else if (status != TALLY_OK)
        poison(round, item, &error);
}

/* A user's events all belong to one partition; elsewhere they would make a second user that nobody
 * reads, beside the true one. */
static void check_partition(struct tally_round *round, const struct tally_model *model,
                            struct tally_round_item *item)
{
    struct tally_error error;
    if (item->event.user_id == 0)
        return;
    const int32_t right = tally_partition_of(item->event.user_id, model->partition_count);
    if (right == item->record.partition)
        return;
    item->event.user_id = 0;
    (void)tally_fail(&error, TALLY_INVALID, "the key belongs to partition %d", right);
    if (item->poison != NULL)
        return;
    poison(round, item, &error);
    item->misplaced = item->poison != NULL;
    if (round->misplaced == NULL && item->misplaced)
        round->misplaced = item;
}

bool tally_round_take(struct tally_round *round, struct tally_model *model,
                      struct tally_record *record)
{
    const int32_t partition = record->partition;
    if (partition < 0 || partition >= model->partition_count ||
        tally_partition_judge(&model->partitions[partition], record->offset) !=
            TALLY_VERDICT_TAKE) {
        tally_record_release(record);
        return false;
    }
    struct tally_round_item *item = &round->items[round->count++];
    *item = (struct tally_round_item){.record = *record};
    record->handle = NULL;
    model->partitions[partition].next = item->record.offset + 1;
    decode(round, item);
    check_partition(round, model, item);
    if (item->poison == NULL)
        tally_record_forget_headers(&item->record);
    if (item->event.user_id == 0)
        return true;
    item->slot = tally_users_get(model->users, partition, item->event.user_id);
    if (item->slot == NULL) {
        round->failed = true;
        return true;
    }
    if (!item->slot->loaded && !item->slot->awaited) {
        item->slot->awaited = true;
        if (item->poison == NULL && item->event.version == 1) {
            item->slot->next_new = model->partitions[partition].new_users;
            model->partitions[partition].new_users = item->slot;
        } else {
            round->missing_partitions[round->missing_count] = partition;
            round->missing[round->missing_count++] = item->slot;
        }
    }
    return true;
}

static struct tally_round_call *add_call(struct tally_round *round)
{
    if (round->call_count == round->call_capacity) {
        const size_t capacity = round->call_capacity > 0 ? 2 * round->call_capacity : 64;
        struct tally_round_call *calls = realloc(round->calls, capacity * sizeof *calls);
        if (calls == NULL)
            return NULL;
        round->calls = calls;
        round->call_capacity = capacity;
    }
    return &round->calls[round->call_count++];
}

static enum tally_status add_apply(struct tally_round *round, struct tally_apply_encoder *encoder,
                                   const struct tally_apply *apply, size_t events,
                                   struct tally_error *error)
{
    struct tally_round_call *call = add_call(round);
    if (call == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "apply calls");
    *call = (struct tally_round_call){apply->partition, apply->to_offset, events};
    return tally_apply_encode(encoder, apply, &round->out, error);
}

/* Turns what the partition's chunk holds into a call. */
static enum tally_status cut(struct tally_round *round, struct tally_model *model,
                             struct tally_apply_encoder *encoder, int32_t id,
                             struct tally_error *error)
{
    struct tally_chunk *chunk = &model->chunks[id];
    struct tally_partition *partition = &model->partitions[id];
    if (chunk->serial == 0 || chunk->to_offset == chunk->from_offset)
        return TALLY_OK;
    struct tally_apply apply;
    tally_chunk_describe(chunk, model->generation, id, partition->epoch, &apply);
    apply.mark_ms = partition->mark_ms;
    enum tally_status status = add_apply(round, encoder, &apply, chunk->events, error);
    partition->totals = chunk->totals;
    if (chunk->event_at_ms > partition->event_at_ms)
        partition->event_at_ms = chunk->event_at_ms;
    tally_chunk_begin(chunk, ++model->serials, chunk->to_offset, &partition->totals);
    return status;
}

/* The chunk of a partition, open at the first offset of this round. */
static struct tally_chunk *open_chunk(struct tally_model *model, int32_t id, int64_t offset)
{
    struct tally_chunk *chunk = &model->chunks[id];
    if (chunk->users == NULL && !tally_chunk_init(chunk))
        return NULL;
    if (chunk->serial == 0)
        tally_chunk_begin(chunk, ++model->serials, offset, &model->partitions[id].totals);
    return chunk;
}

/* Whether the record is one of those that the read model is being built from. */
static bool is_of_beginning(const struct tally_round_item *item,
                            const struct tally_partition *partition)
{
    return partition->until != TALLY_UNTIL_NEVER && item->record.offset < partition->until;
}

/* A user whose first event is missing from the log that the read model is being built from: others
 * may be missing altogether, and nobody would know. Such is a topic that was made anew and not
 * filled again. A user whose first event was set aside is flagged, and no such case. */
static enum tally_status check_first(const struct tally_round_item *item, struct tally_error *error)
{
    const struct tally_user_state *state = &item->slot->state;
    if (state->version > 0 || state->flagged || item->event.version == 1)
        return TALLY_OK;
    return tally_fail(error, TALLY_CONFIG,
                      "the read model is being built from a log that does not hold all: user "
                      "%" PRId64 " begins with version %" PRId64 " in partition %d; `tallyctl "
                      "rebuild` builds it from PostgreSQL",
                      item->event.user_id, item->event.version, item->record.partition);
}

/* A log that cannot be built from. One in which a key is where it does not belong has events from
 * before partitions were added. */
static enum tally_status check_beginning(const struct tally_round_item *item,
                                         const struct tally_partition *partition,
                                         struct tally_error *error)
{
    if (!is_of_beginning(item, partition))
        return TALLY_OK;
    if (item->misplaced)
        return tally_fail(error, TALLY_CONFIG,
                          "the read model is being built from a log whose events went by another "
                          "partition count: partition %d, offset %" PRId64 ": %s; `tallyctl "
                          "rebuild` builds it from PostgreSQL",
                          item->record.partition, item->record.offset, item->poison);
    return item->poison == NULL && item->slot != NULL ? check_first(item, error) : TALLY_OK;
}

static enum tally_status fold_item(struct tally_round *round, struct tally_model *model,
                                   struct tally_apply_encoder *encoder,
                                   struct tally_round_item *item, int64_t from,
                                   struct tally_error *error)
{
    const int32_t id = item->record.partition;
    struct tally_chunk *chunk = open_chunk(model, id, from);
    if (chunk == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "chunk");
    enum tally_status status = TALLY_OK;
    if (item->slot != NULL && !tally_chunk_fits(chunk, item->slot, item->event.at_us))
        status = cut(round, model, encoder, id, error);
    if (status == TALLY_OK)
        status = check_beginning(item, &model->partitions[id], error);
    if (status == TALLY_CONFIG)
        round->headless = item;
    if (status != TALLY_OK)
        return status;
    if (item->poison != NULL || item->slot == NULL) {
        tally_chunk_flag(chunk, item->record.offset, item->slot);
        return TALLY_OK;
    }
    const struct tally_user_state before = item->slot->state;
    item->outcome = (enum tally_outcome)tally_chunk_fold(chunk, item->record.offset, item->slot,
                                                         &item->event, &item->profile);
    item->flagged = before.flagged;
    item->lost = item->slot->state.lost && !before.lost;
    return TALLY_OK;
}

enum tally_status tally_round_fold(struct tally_round *round, struct tally_model *model,
                                   struct tally_apply_encoder *encoder, struct tally_error *error)
{
    if (round->failed)
        return tally_fail(error, TALLY_NO_MEMORY, "round of %zu records", round->count);
    for (int32_t id = 0; id < model->partition_count; id++)
        model->chunks[id].serial = 0;
    enum tally_status status = TALLY_OK;
    for (size_t i = 0; i < round->count && status == TALLY_OK; i++) {
        struct tally_round_item *item = &round->items[i];
        struct tally_partition *partition = &model->partitions[item->record.partition];
        if (partition->standing != TALLY_PARTITION_CURRENT) {
            item->outcome = TALLY_OUTCOME_DROPPED;
            continue;
        }
        status = fold_item(round, model, encoder, item, partition->folded, error);
        partition->folded = item->record.offset + 1;
        partition->mark_ms = item->record.timestamp_ms;
    }
    for (int32_t id = 0; id < model->partition_count && status == TALLY_OK; id++)
        status = cut(round, model, encoder, id, error);
    if (status == TALLY_OK && round->failed)
        status = tally_fail(error, TALLY_NO_MEMORY, "round of %zu records", round->count);
    return status;
}

enum tally_status tally_round_heartbeat(struct tally_round *round, struct tally_model *model,
                                        struct tally_apply_encoder *encoder, int32_t partition,
                                        int64_t fresh_at_ms, struct tally_error *error)
{
    const struct tally_partition *stands = &model->partitions[partition];
    const struct tally_apply apply = {
        .generation = model->generation,
        .partition = partition,
        .epoch = stands->epoch,
        .from_offset = stands->folded,
        .to_offset = stands->folded,
        .event_at_ms = -1,
        .fresh_at_ms = fresh_at_ms,
        /* Should their key have been evicted or removed, they are back before anybody starts from
         * what is left. */
        .totals = stands->totals,
        .totals_changed = true,
    };
    return add_apply(round, encoder, &apply, 0, error);
}
