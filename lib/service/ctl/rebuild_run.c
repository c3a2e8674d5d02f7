#include "core/clock.h"
#include "service/ctl/rebuild_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How Redis refuses a write once maxmemory is reached. */
static const char FULL[] = "OOM command not allowed";

enum { PENDING_MOST = 100000, LOOK_US = 20000, MORE_BYTES = 64 };

static const char *const source_texts[] = {
    [TALLY_REBUILD_DATABASE] = "database",
    [TALLY_REBUILD_LOG] = "log",
    [TALLY_REBUILD_RESTORED] = "restored database",
};

/* --- an unfinished generation, or a new one -------------------------------------------------- */

static enum tally_status read_source(struct rebuild *rebuild, int64_t number, bool *same,
                                     struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES];
    redisReply *reply = NULL;
    tally_view_rebuild_key(key, number);
    enum tally_status status =
        tally_redis_call(rebuild->redis, &reply, error, "HGET %s source", key);
    if (status != TALLY_OK)
        return status;
    *same = reply->type == REDIS_REPLY_STRING &&
            strcmp(reply->str, source_texts[rebuild->options->source]) == 0;
    freeReplyObject(reply);
    return TALLY_OK;
}

/* Whether an unfinished generation can be continued; says why not. */
static enum tally_status judge(struct rebuild *rebuild, int64_t number, bool *usable,
                               struct tally_error *error)
{
    struct tally_error why = {0};
    bool same = false;
    *usable = false;
    if (rebuild->options->restart) {
        rebuild_note(rebuild, "the unfinished generation %" PRId64 " is dropped", number);
        return TALLY_OK;
    }
    enum tally_status status = read_source(rebuild, number, &same, error);
    if (status != TALLY_OK)
        return status;
    if (!same) {
        rebuild_note(rebuild,
                     "the unfinished generation %" PRId64 " has another source and is dropped",
                     number);
        return TALLY_OK;
    }
    status = rebuild_fits(rebuild, number, NULL, &why);
    *usable = status == TALLY_OK;
    if (status != TALLY_OK && status != TALLY_CONFIG && status != TALLY_READ_MODEL_INCOMPLETE)
        return tally_fail(error, status, "%s", why.text);
    if (!*usable)
        rebuild_note(rebuild, "the unfinished generation %" PRId64 " cannot be continued: %s",
                     number, why.text);
    return TALLY_OK;
}

/* Whatever wrote it before is refused from here on. */
static enum tally_status take_over(struct rebuild *rebuild, int64_t number,
                                   struct tally_error *error)
{
    rebuild->number = number;
    for (int32_t i = 0; i < rebuild->topology.partitions; i++)
        rebuild->changes[i] = (struct tally_position_change){
            .epoch = -1, .until = TALLY_UNTIL_NEVER, .fresh_at_ms = -1};
    enum tally_status status =
        tally_positions_change(rebuild->redis, number, rebuild->topology.partitions,
                               rebuild->changes, rebuild->stands, error);
    if (status == TALLY_OK)
        status = tally_generation_marks(rebuild->redis, number, rebuild->topology.partitions,
                                        rebuild->marks, error);
    return status;
}

/* Where the log is read from: its ends now, or its beginning. */
static enum tally_status capture_offsets(struct rebuild *rebuild, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (int32_t i = 0; i < rebuild->topology.partitions && status == TALLY_OK; i++) {
        int64_t low = 0, high = 0;
        status = rebuild_watermarks(rebuild, i, &low, &high, error);
        rebuild->offsets[i] = rebuild->options->source == TALLY_REBUILD_LOG ? 0 : high;
        if (status == TALLY_OK && rebuild->options->source == TALLY_REBUILD_LOG && low != 0)
            status = tally_fail(error, TALLY_CONFIG,
                                "the log no longer has its beginning (partition %d starts at "
                                "offset %" PRId64 "); use --from database",
                                i, low);
    }
    return status;
}

static enum tally_status begin(struct rebuild *rebuild, int64_t number, struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES];
    enum tally_status status = rebuild->options->source == TALLY_REBUILD_LOG
                                   ? TALLY_OK
                                   : rebuild_await_relay(rebuild, error);
    if (status == TALLY_OK)
        status = capture_offsets(rebuild, error);
    /* Known before it exists, so that nothing of it is left behind unseen. */
    if (status == TALLY_OK)
        status = tally_generation_note(rebuild->redis, number, TALLY_GENERATION_BUILDING, error);
    if (status == TALLY_OK)
        status = tally_generation_prepare(rebuild->redis, number, rebuild->topology.cluster,
                                          rebuild->topology.partitions, rebuild->offsets, error);
    redisReply *reply = NULL;
    tally_view_rebuild_key(key, number);
    if (status == TALLY_OK)
        status = tally_redis_call(
            rebuild->redis, &reply, error, "HSET %s source %s started_at_ms %lld", key,
            source_texts[rebuild->options->source], (long long)(tally_clock_wall_us() / 1000));
    if (status != TALLY_OK)
        return status;
    freeReplyObject(reply);
    return take_over(rebuild, number, error);
}

static enum tally_status begin_or_continue(struct rebuild *rebuild, struct tally_error *error)
{
    struct tally_generation_entry entries[TALLY_GENERATIONS_MOST];
    size_t count = 0;
    int64_t next = tally_clock_wall_us() / 1000000, found = 0;
    enum tally_status status = tally_generation_list(rebuild->redis, entries, &count, error);
    for (size_t i = count; i-- > 0 && status == TALLY_OK;) {
        bool usable = false;
        if (entries[i].number >= next)
            next = entries[i].number + 1;
        if (entries[i].role != TALLY_GENERATION_BUILDING &&
            entries[i].role != TALLY_GENERATION_DROPPING)
            continue;
        if (entries[i].role == TALLY_GENERATION_BUILDING && found == 0)
            status = judge(rebuild, entries[i].number, &usable, error);
        if (status == TALLY_OK && usable)
            found = entries[i].number;
        else if (status == TALLY_OK)
            status = rebuild_drop(rebuild, entries[i].number, error);
    }
    if (status != TALLY_OK)
        return status;
    rebuild->result->resumed = found != 0;
    rebuild->result->generation = found != 0 ? found : next;
    rebuild_note(rebuild,
                 found != 0 ? "continuing the unfinished generation %" PRId64 " from the %s"
                            : "building generation %" PRId64 " from the %s",
                 rebuild->result->generation, source_texts[rebuild->options->source]);
    return found != 0 ? take_over(rebuild, found, error) : begin(rebuild, next, error);
}

/* --- catching up and proving ------------------------------------------------------------------ */

/* Until everything that Kafka has now is applied. */
static enum tally_status catch_up(struct rebuild *rebuild, struct tally_error *error)
{
    const int32_t partitions = rebuild->topology.partitions;
    int64_t total = 0, left = 0;
    enum tally_status status = rebuild_follow(rebuild, error);
    for (int32_t i = 0; i < partitions && status == TALLY_OK; i++) {
        int64_t low = 0;
        status = rebuild_watermarks(rebuild, i, &low, &rebuild->offsets[i], error);
        total += rebuild->offsets[i] - rebuild->stands[i].offset;
    }
    while (status == TALLY_OK) {
        left = 0;
        for (int32_t i = 0; i < partitions; i++) {
            const int64_t applied = tally_follower_applied(rebuild->follower, i);
            left += applied < rebuild->offsets[i] ? rebuild->offsets[i] - applied : 0;
        }
        rebuild_show(rebuild, &(struct tally_rebuild_progress){.what = "catching up",
                                                               .unit = "events",
                                                               .done = total - left,
                                                               .total = total,
                                                               .more = ""});
        if (left == 0)
            break;
        usleep(LOOK_US);
        status = tally_follower_check(rebuild->follower, error);
        if (status == TALLY_OK)
            status = tally_ctl_lease_check(rebuild->lease, error);
    }
    return status;
}

static void on_verify_progress(void *context, int64_t checked, int64_t total, size_t pending)
{
    char more[MORE_BYTES] = "";
    if (pending > 0)
        (void)snprintf(more, sizeof more, "%zu in flight", pending);
    rebuild_show(context,
                 &(struct tally_rebuild_progress){"verifying", "users", checked, total, more});
}

/* A difference counts only while the log is being applied. */
static void on_difference(void *context, const struct tally_verify_difference *difference)
{
    const struct rebuild *rebuild = context;
    if (rebuild->options->on_difference != NULL &&
        tally_follower_check(rebuild->follower, NULL) == TALLY_OK)
        rebuild->options->on_difference(rebuild->options->context, difference);
}

static enum tally_status prove(struct rebuild *rebuild, bool *equal, struct tally_error *error)
{
    const struct tally_verify_options options = {
        .pg_dsn = rebuild->settings->pg_dsn,
        .redis_url = rebuild->settings->redis_url,
        .redis_timeout_ms = rebuild->settings->redis_timeout_ms,
        .generation = rebuild->number,
        .grace_ms = rebuild->options->grace_ms,
        .pending_most = PENDING_MOST,
        .on_difference = on_difference,
        .on_progress = on_verify_progress,
        .context = rebuild,
    };
    enum tally_status status = tally_verify_run(&options, &rebuild->result->verified, error);
    if (status == TALLY_OK)
        status = tally_follower_check(rebuild->follower, error);
    *equal = rebuild->result->verified.differences == 0;
    if (status == TALLY_OK && !*equal)
        status = tally_follow_check_partitions(rebuild->probe, &rebuild->topology, error);
    return status;
}

/* One generation is kept for rollback: the one that was live until now, unless the database has
 * gone back since. */
static enum tally_status drop_older(struct rebuild *rebuild, struct tally_error *error)
{
    struct tally_generation_entry entries[TALLY_GENERATIONS_MOST];
    struct tally_error listing = {0};
    size_t count = 0;
    const int64_t kept =
        rebuild->options->source == TALLY_REBUILD_RESTORED ? 0 : rebuild->live.number;
    enum tally_status status = tally_generation_list(rebuild->redis, entries, &count, &listing);
    for (size_t i = 0; i < count && status == TALLY_OK; i++) {
        if (entries[i].role == TALLY_GENERATION_LIVE || entries[i].number == kept)
            continue;
        struct tally_error why = {0};
        status = rebuild_drop(rebuild, entries[i].number, &why);
        if (status != TALLY_OK)
            return tally_fail(error, status,
                              "generation %" PRId64 " is live, but %" PRId64
                              " is not dropped (`tallyctl generations drop %" PRId64
                              "` goes on): %s",
                              rebuild->number, entries[i].number, entries[i].number, why.text);
    }
    return status == TALLY_OK ? status
                              : tally_fail(error, status,
                                           "generation %" PRId64
                                           " is live, but the older ones are not dropped (see "
                                           "`tallyctl generations`): %s",
                                           rebuild->number, listing.text);
}

static enum tally_status run(struct rebuild *rebuild, struct tally_error *error)
{
    bool equal = false;
    enum tally_status status = rebuild_open(rebuild, error);
    if (status != TALLY_OK)
        return status;
    rebuild->result->previous = rebuild->live.number;
    status = begin_or_continue(rebuild, error);
    if (status == TALLY_OK)
        status = rebuild_fill(rebuild, error);
    if (status == TALLY_OK)
        status = catch_up(rebuild, error);
    if (status == TALLY_OK)
        status = prove(rebuild, &equal, error);
    if (status != TALLY_OK)
        return status;
    if (!equal && !rebuild->options->accept_differences)
        return tally_follower_stop(rebuild->follower, error);
    status = rebuild_switch(rebuild, error);
    if (status != TALLY_OK)
        return status;
    rebuild->result->switched = true;
    if (rebuild->options->source == TALLY_REBUILD_RESTORED)
        status = rebuild_forget(rebuild, error);
    return status == TALLY_OK ? drop_older(rebuild, error) : status;
}

enum tally_status tally_rebuild_run(const struct tally_rebuild_options *options,
                                    struct tally_rebuild_result *result, struct tally_error *error)
{
    *result = (struct tally_rebuild_result){0};
    struct rebuild rebuild = {.options = options, .result = result, .settings = options->settings};
    struct tally_error why = {0};
    enum tally_status status = run(&rebuild, &why);
    rebuild_close(&rebuild);
    if (status == TALLY_OK)
        return TALLY_OK;
    if (strstr(why.text, FULL) != NULL && rebuild.number == 0)
        return tally_fail(error, status,
                          "Redis is full: raise its maxmemory, or drop a generation that is not "
                          "needed (`tallyctl generations`)");
    if (strstr(why.text, FULL) != NULL && !result->switched)
        return tally_fail(
            error, status,
            "Redis is full: raise its maxmemory and run the command again, which goes "
            "on with generation %" PRId64 "; `tallyctl generations drop %" PRId64
            "` frees what was written",
            rebuild.number, rebuild.number);
    return tally_fail(error, status, "%s", why.text);
}
