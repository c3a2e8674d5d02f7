#include "core/clock.h"
#include "service/ctl/verify_internal.h"

#include <string.h>

enum { CHUNK = TALLY_RECOUNT_MOST };

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

enum tally_status verify_first_look(struct verify_run *run, const struct tally_recount_rows *rows)
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
        /* The last version there will be: it is waited for as long as any other. */
        if (user->deleted && pending->wanted < user->version) {
            pending->wanted = user->version;
            pending->due_us = tally_clock_monotonic_us() + run->options->grace_ms * 1000;
        }
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
        struct verify_pending pending = run->pending[first + i];
        bool overdue = !settled[i] && now_us >= pending.due_us;
        if (overdue) {
            struct tally_verify_found found;
            tally_verify_model_user(&run->model, i, &found);
            overdue = !tally_verify_extend(&found, &pending.wanted);
            if (overdue) {
                tally_verify_overdue(pending.id, pending.wanted, &found, &run->differences);
                settle_different(run);
            } else {
                pending.due_us = now_us + run->options->grace_ms * 1000;
            }
        }
        if (!settled[i] && !overdue)
            run->pending[kept++] = pending;
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

enum tally_status verify_look_again(struct verify_run *run)
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
