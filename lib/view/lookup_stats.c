#include "core/clock.h"
#include "redis/command.h"
#include "view/keys.h"
#include "view/lookup_internal.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <utlist.h>

enum { KEPT_US = 1000000, DAYS_MOST = 30 };

/* The spans of active users: days, and where the sum goes. */
static const struct {
    int days;
    size_t offset;
} spans[] = {
    {1, offsetof(struct tally_lookup_stats, active_day)},
    {7, offsetof(struct tally_lookup_stats, active_week)},
    {DAYS_MOST, offsetof(struct tally_lookup_stats, active_month)},
};

struct count_asker {
    tally_lookup_counted *counted;
    void *context;
    struct count_asker *next;
};

/* One computation, for everyone who asks while it runs. */
struct count_job {
    struct tally_lookup *lookup;
    struct tally_lookup_stats stats;
    size_t outstanding;
    enum tally_status status;
    bool again; /* it has been repeated with a new generation once */
    struct count_asker *askers;
};

/* One PFCOUNT, which must know where its number goes. */
struct span_count {
    struct count_job *job;
    size_t offset;
};

static enum tally_status send_all(struct count_job *job, struct tally_error *error);

static bool all_complete(const struct tally_lookup *lookup)
{
    bool complete = lookup->live.partitions > 0;
    for (int32_t i = 0; i < lookup->live.partitions; i++)
        complete = complete && lookup->live.list[i].complete;
    return complete;
}

/* Another generation became live meanwhile, and is whole: counts that one. True where that is under
 * way. */
static bool follow_generation(struct count_job *job)
{
    const struct tally_lookup *lookup = job->lookup;
    if (job->status != TALLY_READ_MODEL_INCOMPLETE || job->again ||
        lookup->live.number == job->stats.generation || !all_complete(lookup))
        return false;
    job->again = true;
    job->stats = (struct tally_lookup_stats){0};
    return send_all(job, NULL) == TALLY_OK;
}

/* One of the job's commands, or the reading of the positions behind them, is done. */
static void job_answered(struct count_job *job, enum tally_status status)
{
    struct tally_lookup *lookup = job->lookup;
    if (status != TALLY_OK && job->status == TALLY_OK)
        job->status = status;
    if (--job->outstanding > 0 || follow_generation(job))
        return;
    lookup->counting = NULL;
    if (job->status == TALLY_OK) {
        lookup->counted = job->stats;
        lookup->counted_us = tally_clock_monotonic_us();
        job->stats.partition_count = lookup->live.partitions;
        job->stats.partitions = lookup->live.list;
    }
    for (struct count_asker *each = job->askers, *next; each != NULL; each = next) {
        next = each->next;
        each->counted(job->status, job->status == TALLY_OK ? &job->stats : NULL, each->context);
        free(each);
    }
    free(job);
}

/* The positions were read after the totals: they tell whether the totals were whole. */
static void on_positions(struct tally_lookup *lookup, bool same, void *argument)
{
    job_answered(argument, same && all_complete(lookup) ? TALLY_OK : TALLY_READ_MODEL_INCOMPLETE);
}

static void on_totals(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct count_job *job = argument;
    if (status == TALLY_OK && (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3))
        status = reply->type == REDIS_REPLY_ERROR ? TALLY_UNAVAILABLE : TALLY_PROTOCOL;
    int64_t *const sums[] = {&job->stats.users, &job->stats.posts, &job->stats.comments};
    for (size_t i = 0; status == TALLY_OK && i < 3; i++) {
        int64_t value = 0;
        /* They are written with the position, so that none are lost ones. */
        if (reply->element[i]->type == REDIS_REPLY_NIL)
            status = TALLY_READ_MODEL_INCOMPLETE;
        else if (!tally_lookup_reply_integer(reply->element[i], &value))
            status = TALLY_PROTOCOL;
        *sums[i] += value;
    }
    job_answered(job, status);
}

static void on_span(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct span_count *span = argument;
    struct count_job *job = span->job;
    int64_t value = 0;
    if (status == TALLY_OK && !tally_lookup_reply_integer(reply, &value))
        status = reply->type == REDIS_REPLY_ERROR ? TALLY_UNAVAILABLE : TALLY_PROTOCOL;
    *(int64_t *)(void *)((char *)&job->stats + span->offset) += value;
    free(span);
    job_answered(job, status);
}

static enum tally_status send_totals(struct count_job *job, int32_t partition, int64_t deadline_us,
                                     struct tally_error *error)
{
    struct tally_lookup *lookup = job->lookup;
    char key[TALLY_VIEW_KEY_BYTES];
    size_t length = tally_view_totals_key(key, job->stats.generation, partition);
    tally_buffer_clear(&lookup->command);
    tally_redis_command(&lookup->command, 5);
    tally_redis_part_text(&lookup->command, "HMGET");
    tally_redis_part(&lookup->command, key, length);
    tally_redis_part_text(&lookup->command, TALLY_VIEW_TOTALS_USERS);
    tally_redis_part_text(&lookup->command, TALLY_VIEW_TOTALS_POSTS);
    tally_redis_part_text(&lookup->command, TALLY_VIEW_TOTALS_COMMENTS);
    enum tally_status status = tally_lookup_send(lookup, deadline_us, on_totals, job, error);
    job->outstanding += status == TALLY_OK;
    return status;
}

/* The last days' HyperLogLogs of one partition share a slot, so that one PFCOUNT can merge them. */
static enum tally_status send_span(struct count_job *job, int32_t partition, size_t which,
                                   int64_t deadline_us, struct tally_error *error)
{
    struct tally_lookup *lookup = job->lookup;
    struct span_count *span = calloc(1, sizeof *span);
    if (span == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "count");
    span->job = job;
    span->offset = spans[which].offset;
    tally_buffer_clear(&lookup->command);
    tally_redis_command(&lookup->command, 1 + (size_t)spans[which].days);
    tally_redis_part_text(&lookup->command, "PFCOUNT");
    int64_t now_us = tally_clock_wall_us();
    for (int i = 0; i < spans[which].days; i++) {
        char day[TALLY_DAY_BYTES];
        char key[TALLY_VIEW_KEY_BYTES];
        tally_clock_format_day(now_us - i * INT64_C(86400000000), day);
        size_t length = tally_view_active_key(key, job->stats.generation, partition, day);
        tally_redis_part(&lookup->command, key, length);
    }
    enum tally_status status = tally_lookup_send(lookup, deadline_us, on_span, span, error);
    if (status == TALLY_OK)
        job->outstanding++;
    else
        free(span);
    return status;
}

static enum tally_status send_all(struct count_job *job, struct tally_error *error)
{
    struct tally_lookup *lookup = job->lookup;
    int64_t deadline_us = tally_clock_monotonic_us() + lookup->options.timeout_ms * 1000;
    enum tally_status status = TALLY_OK;
    job->stats.generation = lookup->live.number;
    for (int32_t i = 0; status == TALLY_OK && i < lookup->live.partitions; i++) {
        status = send_totals(job, i, deadline_us, error);
        for (size_t k = 0; status == TALLY_OK && k < sizeof spans / sizeof spans[0]; k++)
            status = send_span(job, i, k, deadline_us, error);
    }
    if (status == TALLY_OK)
        status = tally_lookup_positions_read(lookup, on_positions, job, error);
    job->outstanding += status == TALLY_OK;
    /* What has been sent calls back and brings the failure with it. */
    job->status = status;
    return job->outstanding > 0 ? TALLY_OK : status;
}

const struct tally_lookup_stats *tally_lookup_counted_lately(struct tally_lookup *lookup)
{
    struct tally_lookup_stats *counted = &lookup->counted;
    if (tally_lookup_positions_check(lookup, NULL) != TALLY_OK || !all_complete(lookup) ||
        lookup->counted_us == 0 || counted->generation != lookup->live.number ||
        tally_clock_monotonic_us() - lookup->counted_us >= KEPT_US)
        return NULL;
    counted->partition_count = lookup->live.partitions;
    counted->partitions = lookup->live.list;
    return counted;
}

enum tally_status tally_lookup_count(struct tally_lookup *lookup, tally_lookup_counted *counted,
                                     void *context, struct tally_error *error)
{
    enum tally_status status = tally_lookup_positions_check(lookup, error);
    if (status != TALLY_OK)
        return status;
    if (!all_complete(lookup))
        return tally_fail(error, TALLY_READ_MODEL_INCOMPLETE, "a partition is being built");
    struct count_asker *asker = calloc(1, sizeof *asker);
    struct count_job *job = lookup->counting;
    if (job == NULL && asker != NULL)
        job = calloc(1, sizeof *job);
    if (job == NULL || asker == NULL) {
        free(asker);
        return tally_fail(error, TALLY_NO_MEMORY, "count");
    }
    if (lookup->counting == NULL) {
        job->lookup = lookup;
        status = send_all(job, error);
        if (status != TALLY_OK) {
            free(job);
            free(asker);
            return status;
        }
        lookup->counting = job;
    }
    asker->counted = counted;
    asker->context = context;
    LL_PREPEND(job->askers, asker);
    return TALLY_OK;
}
