#include "core/clock.h"
#include "view/lookup_internal.h"

#define HASH_NONFATAL_OOM 1
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

enum {
    FIRST_PAUSE_US = 1000,
    LONGEST_PAUSE_US = 20000,
    /* With many users waited for, each is read less often, so that all of them together ask Redis
     * for no more than a read each 50 µs. */
    PAUSE_PER_GROUP_US = 50,
};

struct waiter {
    int64_t version;
    int64_t deadline_us;
    tally_lookup_answered *answered;
    void *context;
    struct waiter *prev, *next;
};

/* All who wait for one user. */
struct wait_group {
    struct tally_lookup *lookup;
    int64_t user_id;
    struct waiter *waiters; /* empty only while a read is under way that nobody wants any more */
    struct tally_timer *timer;
    bool reading;
    int64_t pause_us;
    int64_t read_at_us; /* the next read, where none is under way */
    UT_hash_handle hh;
};

static void group_free_if_idle(struct wait_group *group)
{
    if (group->reading || group->waiters != NULL)
        return;
    HASH_DEL(group->lookup->groups, group);
    group->lookup->group_count--;
    tally_timer_free(&group->timer);
    free(group);
}

/* Sets the timer for whatever comes first: the next read or a deadline. */
static void group_arm(struct wait_group *group)
{
    int64_t next_us = INT64_MAX;
    if (!group->reading)
        next_us = group->read_at_us;
    const struct waiter *each;
    DL_FOREACH (group->waiters, each) {
        if (each->deadline_us < next_us)
            next_us = each->deadline_us;
    }
    if (group->waiters == NULL || next_us == INT64_MAX) {
        tally_timer_cancel(group->timer);
        return;
    }
    int64_t delay_us = next_us - tally_clock_monotonic_us();
    tally_timer_set(group->timer, delay_us > 0 ? delay_us : 0);
}

/* Moves the waiters that `status` and `version` (where it is known) or the time `now_us` end to a
 * list of their own: calling back may start other waits for the same user. */
static struct waiter *take_ended(struct wait_group *group, bool all, int64_t version,
                                 int64_t now_us)
{
    struct waiter *ended = NULL;
    for (struct waiter *each = group->waiters, *next; each != NULL && group->waiters != NULL;
         each = next) {
        next = each->next;
        if (!all && each->version > version && each->deadline_us > now_us)
            continue;
        DL_DELETE(group->waiters, each);
        DL_APPEND(ended, each);
        group->lookup->waiters--;
    }
    return ended;
}

static void call_back(struct waiter *ended, enum tally_status status,
                      const struct tally_lookup_user *user)
{
    for (struct waiter *next; ended != NULL; ended = next) {
        next = ended->next;
        bool behind = user != NULL && user->version < ended->version;
        ended->answered(behind ? TALLY_READ_MODEL_BEHIND : status, behind ? NULL : user,
                        ended->context);
        free(ended);
    }
}

static void on_read(enum tally_status status, const struct tally_lookup_user *user, void *argument)
{
    struct wait_group *group = argument;
    group->reading = false;
    int64_t now_us = tally_clock_monotonic_us();
    struct waiter *ended =
        take_ended(group, user == NULL, user != NULL ? user->version : 0, now_us);
    int64_t least_us = (int64_t)group->lookup->group_count * PAUSE_PER_GROUP_US;
    group->read_at_us = now_us + (group->pause_us > least_us ? group->pause_us : least_us);
    group->pause_us *= 2;
    if (group->pause_us > LONGEST_PAUSE_US)
        group->pause_us = LONGEST_PAUSE_US;
    group_arm(group);
    group_free_if_idle(group);
    call_back(ended, status, user);
}

static enum tally_status group_read(struct wait_group *group, struct tally_error *error)
{
    enum tally_status status =
        tally_lookup_read(group->lookup, group->user_id, on_read, group, error);
    group->reading = status == TALLY_OK;
    return status;
}

static void on_timer(void *argument)
{
    struct wait_group *group = argument;
    int64_t now_us = tally_clock_monotonic_us();
    struct waiter *late = take_ended(group, false, 0, now_us);
    struct waiter *failed = NULL;
    enum tally_status status = TALLY_OK;
    if (group->waiters != NULL && !group->reading && group->read_at_us <= now_us) {
        status = group_read(group, NULL);
        if (status != TALLY_OK)
            failed = take_ended(group, true, 0, now_us);
    }
    group_arm(group);
    group_free_if_idle(group);
    call_back(late, TALLY_READ_MODEL_BEHIND, NULL);
    call_back(failed, status, NULL);
}

/* The group of a user, made where there is none; NULL where there is no memory. */
static struct wait_group *group_of(struct tally_lookup *lookup, int64_t user_id)
{
    struct wait_group *group = NULL;
    HASH_FIND(hh, lookup->groups, &user_id, sizeof user_id, group);
    if (group != NULL)
        return group;
    group = calloc(1, sizeof *group);
    if (group == NULL)
        return NULL;
    group->lookup = lookup;
    group->user_id = user_id;
    if (tally_timer_new(lookup->base, on_timer, group, &group->timer, NULL) != TALLY_OK) {
        free(group);
        return NULL;
    }
    HASH_ADD(hh, lookup->groups, user_id, sizeof group->user_id, group);
    if (group->hh.tbl == NULL) {
        tally_timer_free(&group->timer);
        free(group);
        return NULL;
    }
    lookup->group_count++;
    return group;
}

enum tally_status tally_lookup_wait(struct tally_lookup *lookup, int64_t user_id, int64_t version,
                                    int64_t deadline_us, tally_lookup_answered *answered,
                                    void *context, struct tally_error *error)
{
    if (lookup->waiters >= lookup->options.waiters_most)
        return tally_fail(error, TALLY_OVERLOADED, "%zu requests wait for a version",
                          lookup->waiters);
    struct waiter *waiter = calloc(1, sizeof *waiter);
    struct wait_group *group = waiter != NULL ? group_of(lookup, user_id) : NULL;
    if (group == NULL) {
        free(waiter);
        return tally_fail(error, TALLY_NO_MEMORY, "waiter");
    }
    group->pause_us = FIRST_PAUSE_US;
    enum tally_status status = group->reading ? TALLY_OK : group_read(group, error);
    if (status != TALLY_OK) {
        free(waiter);
        group_free_if_idle(group);
        return status;
    }
    waiter->version = version;
    waiter->deadline_us = deadline_us;
    waiter->answered = answered;
    waiter->context = context;
    DL_APPEND(group->waiters, waiter);
    lookup->waiters++;
    group_arm(group);
    return TALLY_OK;
}

void tally_lookup_waits_release(struct tally_lookup *lookup, enum tally_status status)
{
    struct wait_group *group;
    struct wait_group *next;
    HASH_ITER (hh, lookup->groups, group, next) {
        struct waiter *ended = take_ended(group, true, 0, 0);
        group_arm(group);
        group_free_if_idle(group);
        call_back(ended, status, NULL);
    }
}

void tally_lookup_end_waits(struct tally_lookup *lookup)
{
    tally_lookup_waits_release(lookup, TALLY_STOPPING);
}
