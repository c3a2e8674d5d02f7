#include "core/clock.h"
#include "service/ctl/verify_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = TALLY_RECOUNT_MOST,
    SCAN_MOST = 65536, /* keys of one SCAN step: COUNT is a hint, but rehashing bounds it */
    TOTALS_GRACE_MS = 5000,
    TOTALS_PAUSE_MS = 100,
};

static void tell_keys(struct verify_run *run, const int64_t *ids, size_t count, const char *field,
                      const char *why)
{
    for (size_t i = 0; i < count; i++) {
        struct tally_verify_difference difference = {.user_id = ids[i], .field = field};
        (void)snprintf(difference.expected, sizeof difference.expected, "(none)");
        (void)snprintf(difference.found, sizeof difference.found, "%s", why);
        verify_tell(run, &difference);
    }
}

/* A user's row is never removed, and is there before anything of the user can be in Redis: a key
 * without a row is no event on its way. */
static enum tally_status find_ghosts(struct verify_run *run, int64_t *ids, int64_t *misplaced)
{
    const struct tally_verify_place *from = run->options->from;
    char cursor[TALLY_VERIFY_CURSOR_BYTES] = "0";
    if (from != NULL && from->keys && from->cursor[0] != '\0')
        memcpy(cursor, from->cursor, sizeof cursor);
    enum tally_status status = TALLY_OK;
    do {
        size_t count = 0, misplaced_count = 0;
        status = tally_verify_model_scan(&run->model, cursor, ids, SCAN_MOST, &count, misplaced,
                                         &misplaced_count, run->error);
        run->result->keys += (int64_t)(count + misplaced_count);
        tell_keys(run, misplaced, misplaced_count, "misplaced",
                  "key in a partition that is not the user's");
        for (size_t done = 0; status == TALLY_OK && done < count;) {
            size_t step = count - done < CHUNK ? count - done : CHUNK, absent = 0;
            status = tally_recount_absent(run->connection, ids + done, step, &absent, run->error);
            tell_keys(run, ids + done, absent, "ghost", "key of a user that does not exist");
            done += step;
        }
        verify_progress(run);
        if (status == TALLY_OK && strcmp(cursor, "0") != 0)
            status = verify_step(run, count + misplaced_count, cursor);
    } while (status == TALLY_OK && strcmp(cursor, "0") != 0);
    return status;
}

enum tally_status verify_ghosts(struct verify_run *run)
{
    int64_t *ids = calloc(2 * (size_t)SCAN_MOST, sizeof *ids);
    if (ids == NULL)
        return tally_fail(run->error, TALLY_NO_MEMORY, "the list of keys");
    enum tally_status status = find_ghosts(run, ids, ids + SCAN_MOST);
    free(ids);
    return status;
}

static void tell_total(struct verify_run *run, const char *field, int64_t expected, int64_t found)
{
    if (expected == found)
        return;
    struct tally_verify_difference difference = {.field = field};
    (void)snprintf(difference.expected, sizeof difference.expected, "%" PRId64, expected);
    (void)snprintf(difference.found, sizeof difference.found, "%" PRId64, found);
    verify_tell(run, &difference);
}

static bool totals_equal(const struct verify_run *run, const struct tally_verify_totals *totals)
{
    const struct tally_verify_result *result = run->result;
    return totals->users == result->users && totals->posts == result->posts &&
           totals->comments == result->comments;
}

/* Totals have no version, so that two of them can be compared only while nothing changes: where
 * every event numbered before the walk was committed before it, and none was numbered since, what
 * the walk added up is the truth. The read model may still be on its way there. */
enum tally_status verify_totals(struct verify_run *run, const struct tally_recount_state *before)
{
    const int64_t due_us = tally_clock_monotonic_us() + (int64_t)TOTALS_GRACE_MS * 1000;
    for (;;) {
        struct tally_verify_totals totals;
        struct tally_recount_state now;
        enum tally_status status = tally_verify_model_totals(&run->model, &totals, run->error);
        if (status == TALLY_OK)
            status = tally_recount_state(run->connection, &now, run->error);
        if (status != TALLY_OK)
            return status;
        run->result->totals_reason =
            now.last_event != before->last_event ? "writes went on meanwhile"
            : !before->quiet                     ? "a transaction was open at the start"
            : before->sweeping || now.sweeping   ? "deletions are being finished"
                                                 : NULL;
        if (run->result->totals_reason != NULL)
            return TALLY_OK;
        run->result->totals_compared = true;
        if (totals_equal(run, &totals))
            return TALLY_OK;
        if (tally_clock_monotonic_us() >= due_us) {
            tell_total(run, "total users", run->result->users, totals.users);
            tell_total(run, "total posts", run->result->posts, totals.posts);
            tell_total(run, "total comments", run->result->comments, totals.comments);
            return TALLY_OK;
        }
        tally_clock_sleep_ms(TOTALS_PAUSE_MS);
    }
}
