#include "core/clock.h"
#include "pg/blocking.h"
#include "service/ctl/verify_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CHUNK = TALLY_RECOUNT_MOST,
    LOOK_FIRST_MS = 20, /* an event is usually through in a few milliseconds */
    LOOK_MOST_MS = 1000,
    QUIET_GRACE_MS = 500,
};

void verify_pause_ms(int64_t milliseconds)
{
    struct timespec pause = {.tv_sec = milliseconds / 1000,
                             .tv_nsec = milliseconds % 1000 * 1000000};
    (void)nanosleep(&pause, NULL);
}

void verify_progress(const struct verify_run *run)
{
    if (run->options->on_progress != NULL)
        run->options->on_progress(run->options->context, run->result->checked, run->total,
                                  run->pending_count);
}

enum tally_status verify_step(const struct verify_run *run, size_t looked, const char *cursor)
{
    if (run->options->on_step == NULL)
        return TALLY_OK;
    /* Who is pending is there in the order of the walk. */
    struct tally_verify_place place = {
        .keys = cursor != NULL,
        .user_id = run->pending_count > 0 ? run->pending[0].id - 1 : run->last_id,
    };
    if (cursor != NULL)
        memcpy(place.cursor, cursor, sizeof place.cursor);
    return run->options->on_step(run->options->context, &place, looked, run->error);
}

void verify_tell(struct verify_run *run, const struct tally_verify_difference *difference)
{
    run->result->differences++;
    if (run->options->on_difference != NULL)
        run->options->on_difference(run->options->context, difference);
}

static void settle_different(struct verify_run *run)
{
    run->result->differing++;
    for (size_t i = 0; i < run->differences.count; i++)
        verify_tell(run, &run->differences.list[i]);
}

static void settle_equal(struct verify_run *run, int64_t id, const struct tally_verify_found *found)
{
    run->result->equal++;
    run->result->flagged += found->flagged;
    if (found->flagged && run->options->on_flagged != NULL)
        run->options->on_flagged(run->options->context, id, found->version);
}

static void wait_for(struct verify_run *run, int64_t id, int64_t wanted)
{
    run->pending[run->pending_count++] = (struct verify_pending){
        .id = id,
        .wanted = wanted,
        .due_us = tally_clock_monotonic_us() + run->options->grace_ms * 1000,
    };
}

/* Compares rows that were just read from PostgreSQL with Redis, which is read now. */
static enum tally_status first_look(struct verify_run *run, const struct tally_recount_rows *rows)
{
    int64_t ids[CHUNK];
    struct tally_recount_user user;
    for (int i = 0; i < rows->count; i++) {
        tally_recount_user(rows, i, &user);
        ids[i] = user.id;
    }
    enum tally_status status =
        tally_verify_model_read(&run->model, ids, (size_t)rows->count, run->error);
    for (int i = 0; status == TALLY_OK && i < rows->count; i++) {
        struct tally_verify_found found;
        tally_recount_user(rows, i, &user);
        tally_verify_model_user(&run->model, (size_t)i, &found);
        run->result->checked++;
        if (run->summing && !user.deleted) {
            run->result->users++;
            run->result->posts += user.posts;
            run->result->comments += user.comments;
        }
        switch (tally_verify_first_look(&user, &found, &run->differences)) {
        case TALLY_VERIFY_EQUAL:
            settle_equal(run, user.id, &found);
            break;
        case TALLY_VERIFY_DIFFERENT:
            settle_different(run);
            break;
        case TALLY_VERIFY_IN_FLIGHT:
            wait_for(run, user.id, user.version);
            break;
        }
    }
    return status;
}

/* Judges one user of a look; true where the user need not be waited for any longer. */
static bool judge(struct verify_run *run, struct verify_pending *pending,
                  const struct tally_recount_user *user, const struct tally_verify_found *found)
{
    switch (tally_verify_next_look(user, found, pending->wanted, &run->differences)) {
    case TALLY_VERIFY_EQUAL:
        settle_equal(run, user->id, found);
        run->result->resolved++;
        return true;
    case TALLY_VERIFY_DIFFERENT:
        settle_different(run);
        return true;
    case TALLY_VERIFY_IN_FLIGHT:
        if (user->deleted)
            pending->wanted = user->version;
        return false;
    }
    return false;
}

/* The users of a look that the read model has brought far enough to be judged. */
struct look {
    int64_t ids[CHUNK], versions[CHUNK];
    size_t places[CHUNK]; /* index in the slice of pending */
    size_t count;
};

static enum tally_status judge_all(struct verify_run *run, struct verify_pending *slice,
                                   const struct look *look, bool *settled)
{
    if (look->count == 0)
        return TALLY_OK;
    struct tally_recount_rows rows;
    enum tally_status status = tally_recount_at(run->connection, look->ids, look->versions,
                                                look->count, &rows, run->error);
    if (status != TALLY_OK)
        return status;
    for (int i = 0; i < rows.count; i++) {
        struct tally_recount_user user;
        tally_recount_user(&rows, i, &user);
        for (size_t k = 0; k < look->count; k++) {
            if (look->ids[k] != user.id)
                continue;
            struct tally_verify_found found;
            tally_verify_model_user(&run->model, look->places[k], &found);
            settled[look->places[k]] = judge(run, &slice[look->places[k]], &user, &found);
        }
    }
    tally_recount_clear(&rows);
    return TALLY_OK;
}

/* Removes the settled and the overdue from the slice [first, first + count); returns how many. */
static size_t sweep_slice(struct verify_run *run, size_t first, size_t count, const bool *settled)
{
    int64_t now_us = tally_clock_monotonic_us();
    size_t kept = first;
    for (size_t i = 0; i < count; i++) {
        const struct verify_pending pending = run->pending[first + i];
        bool overdue = !settled[i] && now_us >= pending.due_us;
        if (overdue) {
            struct tally_verify_found found;
            tally_verify_model_user(&run->model, i, &found);
            /* A user who is written to all the time may have left behind the version that was
             * waited for without ever standing still: that is progress, and no difference. */
            overdue = found.version < pending.wanted;
            if (overdue) {
                tally_verify_overdue(pending.id, pending.wanted, &found, &run->differences);
                settle_different(run);
            } else {
                run->pending[first + i].due_us = now_us + run->options->grace_ms * 1000;
            }
        }
        if (!settled[i] && !overdue)
            run->pending[kept++] = run->pending[first + i];
    }
    size_t removed = first + count - kept;
    memmove(&run->pending[kept], &run->pending[first + count],
            (run->pending_count - first - count) * sizeof *run->pending);
    run->pending_count -= removed;
    return removed;
}

/* Looks again at up to CHUNK pending users from `first` on. Redis is read before PostgreSQL. */
static enum tally_status next_look(struct verify_run *run, size_t first, size_t *removed,
                                   size_t *looked)
{
    struct verify_pending *slice = &run->pending[first];
    size_t count = run->pending_count - first < CHUNK ? run->pending_count - first : CHUNK;
    int64_t ids[CHUNK] = {0};
    bool settled[CHUNK] = {false};
    struct look look = {.count = 0};
    for (size_t i = 0; i < count; i++)
        ids[i] = slice[i].id;
    enum tally_status status = tally_verify_model_read(&run->model, ids, count, run->error);
    for (size_t i = 0; status == TALLY_OK && i < count; i++) {
        struct tally_verify_found found;
        tally_verify_model_user(&run->model, i, &found);
        if (found.version < slice[i].wanted)
            continue;
        look.ids[look.count] = slice[i].id;
        look.versions[look.count] = found.version;
        look.places[look.count++] = i;
    }
    if (status == TALLY_OK)
        status = judge_all(run, slice, &look, settled);
    *looked = count;
    *removed = status == TALLY_OK ? sweep_slice(run, first, count, settled) : 0;
    return status;
}

/* One look at all who are pending. */
static enum tally_status look_again(struct verify_run *run)
{
    bool any = false;
    for (size_t first = 0; first < run->pending_count;) {
        size_t removed = 0, looked = 0;
        enum tally_status status = next_look(run, first, &removed, &looked);
        if (status != TALLY_OK)
            return status;
        first += looked - removed;
        any = any || removed > 0;
        verify_progress(run);
        status = verify_step(run, 0, NULL);
        if (status != TALLY_OK)
            return status;
    }
    if (any)
        run->backoff.attempts = 0;
    run->next_look_us = tally_clock_monotonic_us() + run->options->look_ms * 1000;
    return TALLY_OK;
}

static enum tally_status drain_pending(struct verify_run *run, size_t down_to)
{
    enum tally_status status = TALLY_OK;
    while (status == TALLY_OK && run->pending_count > down_to) {
        /* It grows while nothing is settled. */
        verify_pause_ms(tally_backoff_next_ms(&run->backoff, &run->random));
        status = look_again(run);
    }
    return status;
}

/* After each chunk: bounds who is waited for, by looking again until half of them are settled. */
static enum tally_status after_chunk(struct verify_run *run, size_t count)
{
    verify_progress(run);
    enum tally_status status = verify_step(run, count, NULL);
    if (status != TALLY_OK)
        return status;
    if (run->pending_count >= run->options->pending_most)
        return drain_pending(run, run->options->pending_most / 2);
    if (run->options->look_ms > 0 && tally_clock_monotonic_us() >= run->next_look_us)
        return look_again(run);
    return TALLY_OK;
}

static enum tally_status walk_all(struct verify_run *run)
{
    enum tally_status status = TALLY_OK;
    const int wanted = run->options->chunk_users;
    const int chunk = wanted > 0 && wanted < CHUNK ? wanted : CHUNK;
    int count = chunk;
    while (status == TALLY_OK && count == chunk) {
        struct tally_recount_rows rows;
        status = tally_recount_after(run->connection, run->last_id, chunk, &rows, run->error);
        if (status != TALLY_OK)
            break;
        count = rows.count;
        if (count > 0) {
            struct tally_recount_user user;
            tally_recount_user(&rows, count - 1, &user);
            run->last_id = user.id;
            status = first_look(run, &rows);
        }
        tally_recount_clear(&rows);
        if (status == TALLY_OK)
            status = after_chunk(run, (size_t)count);
    }
    return status;
}

static enum tally_status walk_ids(struct verify_run *run, const int64_t *ids, size_t count)
{
    static const int64_t no_versions[CHUNK];
    enum tally_status status = TALLY_OK;
    for (size_t done = 0; status == TALLY_OK && done < count;) {
        size_t step = count - done < CHUNK ? count - done : CHUNK;
        struct tally_recount_rows rows;
        status =
            tally_recount_at(run->connection, ids + done, no_versions, step, &rows, run->error);
        if (status != TALLY_OK)
            break;
        status = first_look(run, &rows);
        tally_recount_clear(&rows);
        done += step;
        if (status == TALLY_OK)
            status = after_chunk(run, step);
    }
    return status;
}

static int64_t sample_wanted(const struct verify_run *run)
{
    double wanted = (double)run->options->sample;
    if (run->options->sample == 0)
        wanted = ceil((double)run->result->population * run->options->sample_percent / 100);
    return wanted < TALLY_VERIFY_SAMPLE_MOST ? (int64_t)wanted : TALLY_VERIFY_SAMPLE_MOST;
}

static enum tally_status walk_sample(struct verify_run *run)
{
    const int64_t wanted = sample_wanted(run);
    /* The spread of a sample's size is its root: it is never cut, which would favour a part. */
    size_t most = (size_t)wanted + (size_t)wanted / 4 + CHUNK, count = 0;
    int64_t *ids = calloc(most, sizeof *ids);
    if (ids == NULL)
        return tally_fail(run->error, TALLY_NO_MEMORY, "a sample of %zu users", most);
    enum tally_status status =
        tally_recount_sample(run->connection, wanted, ids, most, &count, run->error);
    run->total = (int64_t)count;
    if (status == TALLY_OK)
        status = walk_ids(run, ids, count);
    free(ids);
    return status;
}

/* Gives the transactions of the last commands a moment to end, so that totals can be compared. */
static enum tally_status read_state_before(struct verify_run *run,
                                           struct tally_recount_state *before)
{
    const int64_t due_us = tally_clock_monotonic_us() + (int64_t)QUIET_GRACE_MS * 1000;
    enum tally_status status = tally_recount_state(run->connection, before, run->error);
    while (status == TALLY_OK && !before->quiet && tally_clock_monotonic_us() < due_us) {
        verify_pause_ms(LOOK_FIRST_MS);
        status = tally_recount_state(run->connection, before, run->error);
    }
    return status;
}

static enum tally_status verify(struct verify_run *run)
{
    const struct tally_verify_options *options = run->options;
    const struct tally_verify_place *from = options->from;
    struct tally_recount_state before;
    enum tally_status status = options->without_totals
                                   ? tally_recount_state(run->connection, &before, run->error)
                                   : read_state_before(run, &before);
    if (status != TALLY_OK)
        return status;
    const bool everything = options->sample == 0 && options->sample_percent <= 0;
    const bool whole = everything && from == NULL && !options->without_totals;
    run->summing = whole;
    run->total = before.users;
    run->result->population = before.users;
    run->last_id = from != NULL ? from->user_id : 0;
    if (!everything)
        status = walk_sample(run);
    else if (from == NULL || !from->keys)
        status = walk_all(run);
    if (status == TALLY_OK)
        status = drain_pending(run, 0);
    if (status == TALLY_OK && everything)
        status = verify_ghosts(run);
    if (status == TALLY_OK && whole)
        return verify_totals(run, &before);
    run->result->totals_reason =
        everything ? "only single users were checked" : "only a sample was checked";
    return status;
}

enum tally_status tally_verify_run(const struct tally_verify_options *options,
                                   struct tally_verify_result *result, struct tally_error *error)
{
    *result = (struct tally_verify_result){0};
    struct verify_run *run = calloc(1, sizeof *run);
    if (run == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "verify");
    *run = (struct verify_run){.options = options, .result = result, .error = error};
    run->backoff = (struct tally_backoff){.first_ms = LOOK_FIRST_MS, .most_ms = LOOK_MOST_MS};
    tally_random_seed_from_system(&run->random);
    /* A chunk is taken in before the bound is looked at. */
    run->pending = calloc(options->pending_most + CHUNK, sizeof *run->pending);
    enum tally_status status = TALLY_OK;
    if (run->pending == NULL)
        status = tally_fail(error, TALLY_NO_MEMORY, "%zu users in flight", options->pending_most);
    if (status == TALLY_OK)
        status = tally_pg_connect(options->pg_dsn, "tallyctl verify", &run->connection, error);
    if (status == TALLY_OK)
        status = tally_verify_model_open(&run->model, options, error);
    if (status == TALLY_OK) {
        result->generation = run->model.generation;
        result->partitions = run->model.partitions;
        status = verify(run);
        tally_verify_model_close(&run->model);
    }
    PQfinish(run->connection);
    free(run->pending);
    free(run);
    return status;
}
