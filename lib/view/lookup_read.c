#include "core/clock.h"
#include "domain/partitioner.h"
#include "redis/command.h"
#include "view/keys.h"
#include "view/lookup_internal.h"

#define HASH_NONFATAL_OOM 1
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

/* The order of the fields in the command and of the reply's elements. */
static const char *const user_fields[] = {
    TALLY_VIEW_USER_VERSION, TALLY_VIEW_USER_POSTS,   TALLY_VIEW_USER_COMMENTS,
    TALLY_VIEW_USER_DELETED, TALLY_VIEW_USER_FLAGGED, TALLY_VIEW_USER_NAME,
    TALLY_VIEW_USER_EMAIL,   TALLY_VIEW_USER_AVATAR,  TALLY_VIEW_USER_CORRECTED,
};
enum { VERSION, POSTS, COMMENTS, DELETED, FLAGGED, NAME, EMAIL, AVATAR, CORRECTED, USER_FIELDS };

/* Who asked for a read. The first lives in the read itself, which most reads have alone. */
struct asker {
    tally_lookup_answered *answered;
    void *context;
    struct asker *next;
};

/* The read of one user, from the first command to the answer of everyone who shares it. */
struct read {
    struct tally_lookup *lookup;
    int64_t user_id;
    int64_t generation;
    int32_t partition;
    int64_t turn; /* of the connection, when the command was queued */
    int64_t deadline_us;
    bool again;  /* it has been repeated with a new generation once */
    bool shared; /* stands in lookup->unsent */
    struct asker first;
    struct asker *last;
    /* The confirmation of a miss: two replies. */
    size_t outstanding;
    enum tally_status confirmed;
    int64_t seen;
    struct position position;
    struct read *next; /* in lookup->deferred */
    UT_hash_handle hh; /* in lookup->unsent */
};

void tally_lookup_write_fields(struct tally_buffer *out)
{
    for (size_t i = 0; i < USER_FIELDS; i++)
        tally_redis_part_text(out, user_fields[i]);
}

/*
 * The answer.
 */

static void finish(struct read *read, enum tally_status status,
                   const struct tally_lookup_user *user)
{
    struct tally_lookup *lookup = read->lookup;
    if (read->shared)
        HASH_DEL(lookup->unsent, read);
    struct asker *asker = &read->first;
    while (asker != NULL) {
        struct asker *next = asker->next;
        lookup->in_flight--;
        asker->answered(status, user, asker->context);
        if (asker != &read->first)
            free(asker);
        asker = next;
    }
    free(read);
}

static void fail(struct read *read, enum tally_status status)
{
    if (status == TALLY_UNAVAILABLE)
        read->lookup->tallies.redis_errors++;
    finish(read, status, NULL);
}

static struct tally_lookup_text text_of(const struct redisReply *reply)
{
    if (reply->type != REDIS_REPLY_STRING)
        return (struct tally_lookup_text){0};
    return (struct tally_lookup_text){.bytes = reply->str, .length = (size_t)reply->len};
}

/* USER_NOT_FOUND with version 0 where there is nothing, else with the version that deleted it. */
static enum tally_status parse_user(const struct redisReply *reply, struct tally_lookup_user *user)
{
    if (reply->type == REDIS_REPLY_ERROR)
        return TALLY_UNAVAILABLE;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != USER_FIELDS)
        return TALLY_PROTOCOL;
    struct redisReply *const *field = reply->element;
    /* Known only by an event that could not be read: there is such a user, and nothing to show. */
    if (field[VERSION]->type == REDIS_REPLY_NIL)
        return field[FLAGGED]->type != REDIS_REPLY_NIL ? TALLY_USER_UNREADABLE
                                                       : TALLY_USER_NOT_FOUND;
    if (!tally_lookup_reply_integer(field[VERSION], &user->version) || user->version <= 0)
        return TALLY_PROTOCOL;
    if (field[DELETED]->type != REDIS_REPLY_NIL)
        return TALLY_USER_NOT_FOUND;
    user->degraded = field[FLAGGED]->type != REDIS_REPLY_NIL;
    int64_t corrected = 0;
    if (field[CORRECTED]->type != REDIS_REPLY_NIL &&
        !tally_lookup_reply_integer(field[CORRECTED], &corrected))
        return TALLY_PROTOCOL;
    user->corrected = corrected >= user->version;
    user->name = text_of(field[NAME]);
    user->email = text_of(field[EMAIL]);
    user->avatar = text_of(field[AVATAR]);
    bool counted = (field[POSTS]->type == REDIS_REPLY_NIL ||
                    tally_lookup_reply_integer(field[POSTS], &user->posts)) &&
                   (field[COMMENTS]->type == REDIS_REPLY_NIL ||
                    tally_lookup_reply_integer(field[COMMENTS], &user->comments));
    return counted ? TALLY_OK : TALLY_PROTOCOL;
}

static int64_t fresh_at_ms(const struct read *read)
{
    const struct generation *live = &read->lookup->live;
    return read->partition < live->partitions ? live->list[read->partition].fresh_at_ms : 0;
}

/*
 * Reading.
 */

static enum tally_status send_read(struct read *read, struct tally_error *error);

static void repeat(struct read *read)
{
    struct tally_error error = {0};
    enum tally_status status = tally_lookup_positions_check(read->lookup, &error);
    if (status == TALLY_OK)
        status = tally_clock_monotonic_us() < read->deadline_us ? send_read(read, &error)
                                                                : TALLY_UNAVAILABLE;
    if (status != TALLY_OK)
        fail(read, status);
}

void tally_lookup_deferred_resume(struct tally_lookup *lookup)
{
    struct read *deferred = lookup->deferred;
    lookup->deferred = NULL;
    for (struct read *next; deferred != NULL; deferred = next) {
        next = deferred->next;
        /* The round that ended may have begun before the generation changed; another is under way.
         */
        if (lookup->rounds > 0 && lookup->live.number != deferred->seen)
            LL_PREPEND(lookup->deferred, deferred);
        else
            repeat(deferred);
    }
}

/* Another generation is live than the one that was read: reads that one, once it is known. */
static void follow_generation(struct read *read)
{
    struct tally_lookup *lookup = read->lookup;
    if (read->again || read->seen == 0) {
        lookup->loaded = lookup->loaded && read->seen != 0;
        fail(read, TALLY_READ_MODEL_INCOMPLETE);
        return;
    }
    read->again = true;
    if (lookup->live.number == read->seen) {
        repeat(read);
        return;
    }
    enum tally_status status = tally_lookup_positions_read(lookup, NULL, NULL, NULL);
    if (status == TALLY_OK)
        LL_PREPEND(lookup->deferred, read);
    else
        fail(read, status);
}

static void confirm_answered(struct read *read, enum tally_status status)
{
    struct tally_lookup *lookup = read->lookup;
    if (status != TALLY_OK && read->confirmed == TALLY_OK)
        read->confirmed = status;
    if (--read->outstanding > 0)
        return;
    if (read->confirmed != TALLY_OK) {
        fail(read, read->confirmed);
    } else if (read->seen != read->generation) {
        follow_generation(read);
    } else if (lookup->live.number != read->seen ||
               !tally_lookup_position_complete(lookup, read->partition, &read->position)) {
        fail(read, TALLY_READ_MODEL_INCOMPLETE);
    } else {
        lookup->tallies.misses++;
        const struct tally_lookup_user absent = {.id = read->user_id,
                                                 .fresh_at_ms = read->position.fresh_at_ms};
        finish(read, TALLY_USER_NOT_FOUND, &absent);
    }
}

static void on_generation(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct read *read = argument;
    if (status == TALLY_OK)
        status = tally_lookup_generation_parse(reply, &read->seen);
    confirm_answered(read, status);
}

static void on_position(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct read *read = argument;
    if (status == TALLY_OK)
        status = tally_lookup_position_parse(reply, &read->position);
    confirm_answered(read, status);
}

/* The user is absent. That only counts where generation and position are there after it was read.
 */
static void confirm(struct read *read)
{
    struct tally_lookup *lookup = read->lookup;
    read->confirmed = TALLY_OK;
    read->outstanding = 0;
    enum tally_status status =
        tally_clock_monotonic_us() < read->deadline_us
            ? tally_lookup_generation_send(lookup, read->deadline_us, on_generation, read, NULL)
            : TALLY_UNAVAILABLE;
    if (status != TALLY_OK) {
        fail(read, status);
        return;
    }
    read->outstanding++;
    status = tally_lookup_position_send(lookup, read->generation, read->partition,
                                        read->deadline_us, on_position, read, NULL);
    if (status == TALLY_OK)
        read->outstanding++;
    else
        read->confirmed = status;
}

/* Whether what has just been read may be given: replies come in order, so that the generation was
 * seen live before it was read. */
static bool is_trusted(const struct read *read)
{
    const struct tally_lookup *lookup = read->lookup;
    const int64_t age_us = tally_clock_monotonic_us() - lookup->seen_us;
    return read->generation == lookup->live.number && age_us <= TALLY_VIEW_TRUST_MS * INT64_C(1000);
}

/* Behind another look at which generation is live, which all share that are read anew. */
static void read_anew(struct read *read)
{
    struct tally_lookup *lookup = read->lookup;
    enum tally_status status = TALLY_OK;
    if (lookup->rounds == 0)
        status = tally_lookup_positions_read(lookup, NULL, NULL, NULL);
    if (status == TALLY_OK)
        repeat(read);
    else
        fail(read, status);
}

static void on_user(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct read *read = argument;
    struct tally_lookup_user user = {.id = read->user_id, .fresh_at_ms = fresh_at_ms(read)};
    if (status == TALLY_OK)
        status = parse_user(reply, &user);
    if (status == TALLY_USER_NOT_FOUND && user.version == 0)
        confirm(read);
    else if ((status == TALLY_OK || status == TALLY_USER_NOT_FOUND) && !is_trusted(read))
        read_anew(read);
    else if (status == TALLY_OK || status == TALLY_USER_NOT_FOUND)
        finish(read, status, &user);
    else
        fail(read, status);
}

/* Sends the command for the generation that is live now. */
static enum tally_status send_read(struct read *read, struct tally_error *error)
{
    struct tally_lookup *lookup = read->lookup;
    read->generation = lookup->live.number;
    read->partition = tally_partition_of(read->user_id, lookup->live.partitions);
    if (!lookup->live.list[read->partition].complete)
        return tally_fail(error, TALLY_READ_MODEL_INCOMPLETE, "partition %d is being built",
                          (int)read->partition);
    char key[TALLY_VIEW_KEY_BYTES];
    size_t length = tally_view_user_key(key, read->generation, read->partition, read->user_id);
    tally_buffer_clear(&lookup->command);
    tally_redis_command(&lookup->command, 2 + USER_FIELDS);
    tally_redis_part(&lookup->command, "HMGET", 5);
    tally_redis_part(&lookup->command, key, length);
    tally_buffer_append(&lookup->command, lookup->fields.data, lookup->fields.length);
    return tally_lookup_send(lookup, read->deadline_us, on_user, read, error);
}

/* Joins a read of the same user that has not left yet; false where there is none. */
static bool join(struct tally_lookup *lookup, int64_t user_id, tally_lookup_answered *answered,
                 void *context, enum tally_status *status)
{
    struct read *read = NULL;
    HASH_FIND(hh, lookup->unsent, &user_id, sizeof user_id, read);
    if (read == NULL)
        return false;
    if (read->turn != tally_redis_async_turn(lookup->redis)) {
        /* It has left: what it answers may be older than this request. */
        HASH_DEL(lookup->unsent, read);
        read->shared = false;
        return false;
    }
    struct asker *asker = calloc(1, sizeof *asker);
    *status = asker != NULL ? TALLY_OK : TALLY_NO_MEMORY;
    if (asker == NULL)
        return true;
    asker->answered = answered;
    asker->context = context;
    read->last->next = asker;
    read->last = asker;
    return true;
}

enum tally_status tally_lookup_read(struct tally_lookup *lookup, int64_t user_id,
                                    tally_lookup_answered *answered, void *context,
                                    struct tally_error *error)
{
    enum tally_status status = tally_lookup_positions_check(lookup, error);
    if (status != TALLY_OK)
        return status;
    if (lookup->in_flight >= lookup->options.in_flight_most)
        return tally_fail(error, TALLY_OVERLOADED, "%zu reads are in flight", lookup->in_flight);
    lookup->tallies.reads++;
    if (join(lookup, user_id, answered, context, &status)) {
        lookup->in_flight += status == TALLY_OK;
        return status;
    }
    struct read *read = calloc(1, sizeof *read);
    if (read == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "read");
    read->lookup = lookup;
    read->user_id = user_id;
    read->deadline_us = tally_clock_monotonic_us() + lookup->options.timeout_ms * 1000;
    read->first = (struct asker){.answered = answered, .context = context};
    read->last = &read->first;
    status = send_read(read, error);
    if (status != TALLY_OK) {
        free(read);
        return status;
    }
    read->turn = tally_redis_async_turn(lookup->redis);
    HASH_ADD(hh, lookup->unsent, user_id, sizeof read->user_id, read);
    /* Without memory for the table the read goes on, unshared. */
    read->shared = read->hh.tbl != NULL;
    lookup->tallies.reads_sent++;
    lookup->in_flight++;
    return TALLY_OK;
}
