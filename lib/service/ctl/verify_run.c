#include "core/clock.h"
#include "pg/blocking.h"
#include "service/ctl/verify_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = TALLY_RECOUNT_MOST,
    LOOK_FIRST_MS = 20, /* an event is usually through in a few milliseconds */
    LOOK_MOST_MS = 1000,
    QUIET_GRACE_MS = 500,
};

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

static enum tally_status drain_pending(struct verify_run *run, size_t down_to)
{
    enum tally_status status = TALLY_OK;
    while (status == TALLY_OK && run->pending_count > down_to) {
        /* It grows while nothing is settled. */
        tally_clock_sleep_ms(tally_backoff_next_ms(&run->backoff, &run->random));
        status = verify_look_again(run);
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
        return verify_look_again(run);
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
            status = verify_first_look(run, &rows);
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
        status = verify_first_look(run, &rows);
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
        tally_clock_sleep_ms(LOOK_FIRST_MS);
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
