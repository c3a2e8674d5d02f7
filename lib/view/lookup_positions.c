#include "core/clock.h"
#include "redis/command.h"
#include "view/keys.h"
#include "view/lookup_internal.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

enum {
    RESTARTS_MOST =
        4, /* a generation that changes more often within one tick is read at the next */
};

/* The order of the fields in tally_lookup_position_send() and of the replies' elements. */
static const char *const position_fields[] = {
    TALLY_VIEW_POSITION_EPOCH,      TALLY_VIEW_POSITION_OFFSET,   TALLY_VIEW_POSITION_UNTIL,
    TALLY_VIEW_POSITION_PARTITIONS, TALLY_VIEW_POSITION_FRESH_AT,
};
enum { EPOCH, OFFSET, UNTIL, PARTITIONS, FRESH_AT, POSITION_FIELDS };

/* One reading of tally:generation and of every position, in one pipeline. */
struct round {
    struct tally_lookup *lookup;
    tally_lookup_positions_done *done;
    void *context;
    int64_t began_us; /* monotonic */
    int64_t expected; /* generation the positions are read for; 0: none is known yet */
    int64_t seen;     /* generation that was found */
    enum tally_status status;
    unsigned restarts;
    size_t outstanding;
    int32_t partitions;
    struct slot {
        struct round *round;
        struct position position;
    } slots[];
};

static struct round *round_start(const struct round *like, int64_t expected, int32_t partitions,
                                 struct tally_error *error);

enum tally_status tally_lookup_generation_send(struct tally_lookup *lookup, int64_t deadline_us,
                                               tally_redis_answered *answered, void *context,
                                               struct tally_error *error)
{
    tally_buffer_clear(&lookup->command);
    tally_redis_command(&lookup->command, 2);
    tally_redis_part_text(&lookup->command, "GET");
    tally_redis_part_text(&lookup->command, TALLY_VIEW_GENERATION_KEY);
    return tally_lookup_send(lookup, deadline_us, answered, context, error);
}

enum tally_status tally_lookup_generation_parse(const struct redisReply *reply, int64_t *number)
{
    *number = 0;
    if (reply->type == REDIS_REPLY_NIL)
        return TALLY_OK;
    if (reply->type == REDIS_REPLY_ERROR)
        return TALLY_UNAVAILABLE;
    return tally_lookup_reply_integer(reply, number) && *number > 0 ? TALLY_OK : TALLY_PROTOCOL;
}

enum tally_status tally_lookup_position_send(struct tally_lookup *lookup, int64_t generation,
                                             int32_t partition, int64_t deadline_us,
                                             tally_redis_answered *answered, void *context,
                                             struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES];
    size_t length = tally_view_position_key(key, generation, partition);
    tally_buffer_clear(&lookup->command);
    tally_redis_command(&lookup->command, 2 + POSITION_FIELDS);
    tally_redis_part_text(&lookup->command, "HMGET");
    tally_redis_part(&lookup->command, key, length);
    for (size_t i = 0; i < POSITION_FIELDS; i++)
        tally_redis_part_text(&lookup->command, position_fields[i]);
    return tally_lookup_send(lookup, deadline_us, answered, context, error);
}

enum tally_status tally_lookup_position_parse(const struct redisReply *reply,
                                              struct position *position)
{
    *position = (struct position){0};
    if (reply->type == REDIS_REPLY_ERROR)
        return TALLY_UNAVAILABLE;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != POSITION_FIELDS)
        return TALLY_PROTOCOL;
    int64_t values[POSITION_FIELDS] = {0};
    for (size_t i = 0; i < POSITION_FIELDS; i++) {
        const struct redisReply *element = reply->element[i];
        if (element->type != REDIS_REPLY_NIL && !tally_lookup_reply_integer(element, &values[i]))
            return TALLY_PROTOCOL;
    }
    /* A position without these is one that nobody writes; it is as good as none. */
    position->present = reply->element[OFFSET]->type != REDIS_REPLY_NIL &&
                        reply->element[UNTIL]->type != REDIS_REPLY_NIL && values[PARTITIONS] > 0 &&
                        values[PARTITIONS] <= PARTITIONS_MOST;
    position->epoch = values[EPOCH];
    position->offset = values[OFFSET];
    position->until = values[UNTIL];
    position->fresh_at_ms = values[FRESH_AT];
    position->partitions = position->present ? (int32_t)values[PARTITIONS] : 0;
    return TALLY_OK;
}

bool tally_lookup_position_complete(const struct tally_lookup *lookup, int32_t partition,
                                    const struct position *position)
{
    return partition < lookup->live.partitions && position->present &&
           position->partitions == lookup->live.partitions && position->offset >= position->until &&
           position->offset >= lookup->live.highest[partition] &&
           position->fresh_at_ms >= lookup->server.fresh_from_ms;
}

static void forget_live(struct tally_lookup *lookup)
{
    free(lookup->live.list);
    free(lookup->live.highest);
    lookup->live = (struct generation){0};
}

void tally_lookup_positions_release(struct tally_lookup *lookup)
{
    forget_live(lookup);
}

/* Makes room for another generation, whose offsets start from nothing. */
static enum tally_status adopt(struct tally_lookup *lookup, int64_t number, int32_t partitions)
{
    struct generation made = {
        .number = number,
        .partitions = partitions,
        .list = calloc((size_t)partitions, sizeof *made.list),
        .highest = calloc((size_t)partitions, sizeof *made.highest),
    };
    if (made.list == NULL || made.highest == NULL) {
        free(made.list);
        free(made.highest);
        return TALLY_NO_MEMORY;
    }
    forget_live(lookup);
    lookup->live = made;
    return TALLY_OK;
}

/* Takes the positions over into `live`. */
static enum tally_status commit(struct tally_lookup *lookup, const struct round *round)
{
    struct generation *live = &lookup->live;
    if (live->number != round->expected || live->partitions != round->partitions) {
        enum tally_status status = adopt(lookup, round->expected, round->partitions);
        if (status != TALLY_OK)
            return status;
    }
    for (int32_t i = 0; i < round->partitions; i++) {
        const struct position *position = &round->slots[i].position;
        live->list[i] = (struct tally_lookup_partition){
            .complete = tally_lookup_position_complete(lookup, i, position),
            .offset = position->offset,
            .until = position->until,
            .fresh_at_ms = position->fresh_at_ms,
        };
        if (position->present && position->offset > live->highest[i])
            live->highest[i] = position->offset;
    }
    lookup->loaded = true;
    lookup->seen_us = round->began_us;
    return TALLY_OK;
}

/* Which partitions another round must read, 0 where this one has read them all. Partition 0 knows
 * how many there are; where it is lost, what was known of the same generation stands. */
static int32_t partitions_to_read(const struct round *round)
{
    if (round->seen != round->expected)
        return 1;
    int32_t partitions = round->slots[0].position.partitions;
    return partitions > 0 && partitions != round->partitions ? partitions : 0;
}

static void round_finish(struct round *round)
{
    struct tally_lookup *lookup = round->lookup;
    lookup->rounds--;
    if (round->status == TALLY_OK && round->seen == 0) {
        forget_live(lookup);
        lookup->loaded = true;
    } else if (round->status == TALLY_OK) {
        int32_t partitions = partitions_to_read(round);
        if (partitions > 0 && round->restarts < RESTARTS_MOST &&
            round_start(round, round->seen, partitions, NULL) != NULL) {
            free(round);
            return;
        }
        if (partitions == 0)
            round->status = commit(lookup, round);
        else
            lookup->loaded = false;
    }
    bool same = round->status == TALLY_OK && round->seen == round->expected && round->seen != 0 &&
                round->restarts == 0;
    tally_lookup_deferred_resume(lookup);
    if (round->done != NULL)
        round->done(lookup, same, round->context);
    free(round);
}

static void round_answered(struct round *round, enum tally_status status)
{
    if (status != TALLY_OK && round->status == TALLY_OK)
        round->status = status;
    if (--round->outstanding == 0)
        round_finish(round);
}

static void on_generation(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct round *round = argument;
    if (status == TALLY_OK)
        status = tally_lookup_generation_parse(reply, &round->seen);
    round_answered(round, status);
}

static void on_position(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct slot *slot = argument;
    if (status == TALLY_OK)
        status = tally_lookup_position_parse(reply, &slot->position);
    round_answered(slot->round, status);
}

/* NULL where nothing was sent at all. Where only a part could be sent, the round ends as failed
 * once that part is answered. */
static struct round *round_start(const struct round *like, int64_t expected, int32_t partitions,
                                 struct tally_error *error)
{
    struct tally_lookup *lookup = like->lookup;
    size_t count = expected != 0 ? (size_t)partitions : 0;
    struct round *round = calloc(1, sizeof *round + (count + 1) * sizeof round->slots[0]);
    if (round == NULL) {
        (void)tally_fail(error, TALLY_NO_MEMORY, "positions");
        return NULL;
    }
    round->lookup = lookup;
    round->done = like->done;
    round->context = like->context;
    round->restarts = like->expected != 0 || like->seen != 0 ? like->restarts + 1 : 0;
    round->expected = expected;
    round->partitions = partitions;
    round->began_us = tally_clock_monotonic_us();
    int64_t deadline_us = round->began_us + lookup->options.timeout_ms * 1000;
    enum tally_status status =
        tally_lookup_generation_send(lookup, deadline_us, on_generation, round, error);
    if (status != TALLY_OK) {
        free(round);
        return NULL;
    }
    round->outstanding = 1;
    for (size_t i = 0; i < count && status == TALLY_OK; i++) {
        round->slots[i].round = round;
        status = tally_lookup_position_send(lookup, expected, (int32_t)i, deadline_us, on_position,
                                            &round->slots[i], error);
        round->outstanding += status == TALLY_OK;
    }
    round->status = status;
    lookup->rounds++;
    return round;
}

enum tally_status tally_lookup_positions_read(struct tally_lookup *lookup,
                                              tally_lookup_positions_done *done, void *context,
                                              struct tally_error *error)
{
    const struct round like = {.lookup = lookup, .done = done, .context = context};
    struct tally_error why = {.status = TALLY_UNAVAILABLE};
    int32_t partitions = lookup->live.partitions > 0 ? lookup->live.partitions : 1;
    if (round_start(&like, lookup->live.number, partitions, &why) != NULL)
        return TALLY_OK;
    return tally_fail(error, why.status, "%s", why.text);
}

void tally_lookup_positions_tick(void *argument)
{
    struct tally_lookup *lookup = argument;
    tally_timer_set(lookup->refresh, (int64_t)POSITIONS_EVERY_MS * 1000);
    if (lookup->rounds > 0 || !tally_redis_async_open(lookup->redis))
        return;
    /* Before the positions, which are judged by it. */
    tally_lookup_server_ask(lookup);
    enum tally_status status = tally_lookup_positions_read(lookup, NULL, NULL, NULL);
    (void)status; /* the next tick tries again; until then what is known gets older */
}

enum tally_status tally_lookup_positions_check(const struct tally_lookup *lookup,
                                               struct tally_error *error)
{
    if (!tally_redis_async_open(lookup->redis))
        return tally_fail(error, TALLY_UNAVAILABLE, "Redis: %s",
                          tally_redis_async_reason(lookup->redis));
    if (!lookup->loaded || !lookup->server.known)
        return tally_fail(error, TALLY_READ_MODEL_INCOMPLETE, "the positions are being read");
    if (lookup->live.partitions == 0)
        return tally_fail(error, TALLY_READ_MODEL_INCOMPLETE, "there is no read model in Redis");
    return TALLY_OK;
}
