#include "core/clock.h"
#include "domain/partitioner.h"
#include "pg/blocking.h"
#include "service/ctl/rebuild_internal.h"
#include "store/recount.h"
#include "view/restore.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

enum { FETCH = 4000, OUT_BYTES = 256 << 20 };

/* One fetch of users, sorted by partition. */
struct fill {
    struct rebuild *rebuild;
    PGconn *connection;
    struct tally_restore_encoder encoder;
    struct tally_buffer out;
    size_t calls; /* sent and not answered yet */
    int32_t timeline;
    int64_t total;
    int64_t started_us;
    int64_t read;
    struct tally_user_state states[FETCH];
    struct tally_profile profiles[FETCH];
    struct tally_apply_user users[FETCH]; /* of the partition at hand */
    int32_t partitions[FETCH];
    int64_t ids[FETCH];
};

/* What PostgreSQL has of one user, as the fold would have made it. */
static void take_user(struct fill *fill, int index, const struct tally_recount_user *user)
{
    fill->ids[index] = user->id;
    fill->partitions[index] = tally_partition_of(user->id, fill->rebuild->topology.partitions);
    fill->states[index] = (struct tally_user_state){
        .version = user->version,
        .posts = user->deleted ? 0 : user->posts,
        .comments = user->deleted ? 0 : user->comments,
        /* Every version up to this one is of this timeline or an older one. */
        .timeline = fill->timeline,
        .deleted = user->deleted,
    };
    /* Borrowed from the rows, which outlive the encoding. */
    fill->profiles[index] = (struct tally_profile){
        .name = (char *)(uintptr_t)user->name,
        .email = (char *)(uintptr_t)user->email,
        .avatar = (char *)(uintptr_t)user->avatar,
    };
}

static enum tally_status encode_call(struct fill *fill, int32_t partition, size_t count, int64_t to,
                                     struct tally_error *error)
{
    struct rebuild *rebuild = fill->rebuild;
    const struct tally_fill call = {
        .generation = rebuild->number,
        .partition = partition,
        .epoch = rebuild->stands[partition].epoch,
        .from = rebuild->marks[partition],
        .to = to,
        .users = fill->users,
        .user_count = count,
    };
    rebuild->marks[partition] = to;
    rebuild->result->users += (int64_t)count;
    fill->calls++;
    return tally_fill_encode(&fill->encoder, &call, &fill->out, error);
}

/* The calls of one partition; the last one moves its mark to the end of the fetch, whether the
 * partition has users there or not. */
static enum tally_status encode_partition(struct fill *fill, int32_t partition, int rows,
                                          struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    size_t count = 0;
    const int64_t mark = fill->rebuild->marks[partition];
    for (int i = 0; i < rows && status == TALLY_OK; i++) {
        if (fill->partitions[i] != partition || fill->ids[i] <= mark)
            continue;
        if (count == TALLY_APPLY_USERS_MOST) {
            status = encode_call(fill, partition, count, fill->users[count - 1].user_id, error);
            count = 0;
        }
        fill->users[count++] = (struct tally_apply_user){
            .user_id = fill->ids[i],
            .state = &fill->states[i],
            .parts =
                TALLY_APPLY_RECORD | (fill->states[i].deleted ? 0U : (unsigned)TALLY_APPLY_PROFILE),
            .profile = &fill->profiles[i],
            .day = -1,
        };
    }
    if (status == TALLY_OK && fill->ids[rows - 1] > mark)
        status = encode_call(fill, partition, count, fill->ids[rows - 1], error);
    return status;
}

/* Waits for the calls that were sent before the last fetch: Redis wrote while PostgreSQL read. */
static enum tally_status collect(struct fill *fill, struct tally_error *error)
{
    enum tally_status outcome = TALLY_OK;
    for (; fill->calls > 0; fill->calls--) {
        redisReply *reply = NULL;
        enum tally_status status = tally_redis_receive(fill->rebuild->redis, &reply, error);
        if (status != TALLY_OK)
            return status;
        struct tally_error why = {0};
        status = tally_fill_outcome(reply, &why);
        if (status != TALLY_OK && outcome == TALLY_OK)
            outcome = tally_fail(error, status, "%s", why.text);
        freeReplyObject(reply);
    }
    return outcome;
}

static enum tally_status write_rows(struct fill *fill, const struct tally_recount_rows *rows,
                                    struct tally_error *error)
{
    struct tally_recount_user user;
    for (int i = 0; i < rows->count; i++) {
        tally_recount_user(rows, i, &user);
        take_user(fill, i, &user);
    }
    enum tally_status status = collect(fill, error);
    tally_buffer_clear(&fill->out);
    for (int32_t i = 0; i < fill->rebuild->topology.partitions && status == TALLY_OK; i++)
        status = encode_partition(fill, i, rows->count, error);
    struct tally_redis *redis = fill->rebuild->redis;
    if (status == TALLY_OK)
        status = tally_redis_append_raw(redis, fill->out.data, fill->out.length, error);
    return status == TALLY_OK ? tally_redis_flush(redis, error) : status;
}

/* Spares the servers where a rate is given. */
static void keep_rate(const struct fill *fill)
{
    const int64_t rate_s = fill->rebuild->options->rate_s;
    if (rate_s == 0)
        return;
    const int64_t due_us = fill->started_us + fill->read * 1000000 / rate_s;
    const int64_t now_us = tally_clock_monotonic_us();
    if (due_us > now_us)
        usleep((useconds_t)(due_us - now_us));
}

static int fetch_size(const struct fill *fill)
{
    const int64_t rate_s = fill->rebuild->options->rate_s;
    if (rate_s == 0 || rate_s / 4 >= FETCH)
        return FETCH;
    return rate_s >= 4 ? (int)(rate_s / 4) : 1;
}

static enum tally_status read_all(struct fill *fill, struct tally_error *error)
{
    const int size = fetch_size(fill);
    enum tally_status status = TALLY_OK;
    for (int count = size; status == TALLY_OK && count == size;) {
        struct tally_recount_rows rows = {0};
        status = tally_ctl_lease_check(fill->rebuild->lease, error);
        if (status == TALLY_OK)
            status = tally_recount_stream_next(fill->connection, size, &rows, error);
        count = rows.count;
        if (status == TALLY_OK && count > 0)
            status = write_rows(fill, &rows, error);
        tally_recount_clear(&rows);
        fill->read += count;
        rebuild_show(fill->rebuild, &(struct tally_rebuild_progress){.what = "reading",
                                                                     .unit = "users",
                                                                     .done = fill->read,
                                                                     .total = fill->total,
                                                                     .more = ""});
        keep_rate(fill);
    }
    return status == TALLY_OK ? collect(fill, error) : status;
}

static enum tally_status fill_from(struct fill *fill, int64_t after_id, struct tally_error *error)
{
    struct rebuild *rebuild = fill->rebuild;
    enum tally_status status =
        tally_pg_connect(rebuild->settings->pg_dsn, "tallyctl rebuild", &fill->connection, error);
    if (status == TALLY_OK)
        status =
            tally_script_load(rebuild->redis, tally_script_fill, fill->encoder.fill_sha, error);
    if (status != TALLY_OK)
        return status;
    fill->started_us = tally_clock_monotonic_us();
    status = tally_recount_stream_begin(fill->connection, after_id, &fill->total, error);
    if (status == TALLY_OK)
        status = tally_recount_timeline(fill->connection, &fill->timeline, error);
    if (status == TALLY_OK)
        status = rebuild_check_room(rebuild, fill->total, error);
    if (status == TALLY_OK)
        status = read_all(fill, error);
    return status;
}

/* The marks go: from here on the positions alone say how far the generation is. */
static enum tally_status end_fill(struct rebuild *rebuild, struct tally_error *error)
{
    for (int32_t i = 0; i < rebuild->topology.partitions; i++)
        rebuild->changes[i] = (struct tally_position_change){
            .epoch = rebuild->stands[i].epoch, .until = -1, .fresh_at_ms = -1, .filled = true};
    return tally_positions_change(rebuild->redis, rebuild->number, rebuild->topology.partitions,
                                  rebuild->changes, rebuild->stands, error);
}

enum tally_status rebuild_fill(struct rebuild *rebuild, struct tally_error *error)
{
    int64_t after_id = INT64_MAX;
    for (int32_t i = 0; i < rebuild->topology.partitions; i++) {
        if (rebuild->marks[i] >= 0 && rebuild->marks[i] < after_id)
            after_id = rebuild->marks[i];
    }
    if (after_id == INT64_MAX)
        return TALLY_OK;
    struct fill *fill = calloc(1, sizeof *fill);
    if (fill == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "a fetch of %d users", FETCH);
    fill->rebuild = rebuild;
    tally_restore_encoder_init(&fill->encoder);
    tally_buffer_init(&fill->out, OUT_BYTES);
    enum tally_status status =
        rebuild->options->source == TALLY_REBUILD_LOG ? TALLY_OK : fill_from(fill, after_id, error);
    if (status == TALLY_OK)
        status = end_fill(rebuild, error);
    PQfinish(fill->connection);
    tally_restore_encoder_release(&fill->encoder);
    tally_buffer_release(&fill->out);
    free(fill);
    return status;
}
