#include "simulation_postgres.h"

#include "domain/partitioner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t FIRST_ID = 4096;

void simulated_postgres_open(void)
{
    struct simulated_postgres *made = calloc(1, sizeof *made);
    if (made == NULL)
        abort();
    made->next_xid = 3;
    simulation->postgres = made;
}

void simulated_postgres_close(void)
{
    free(simulation->postgres);
    simulation->postgres = NULL;
}

int64_t simulated_user_id(size_t user)
{
    return FIRST_ID + 7 * (int64_t)user;
}

size_t simulated_user_of(int64_t id)
{
    const int64_t user = (id - FIRST_ID) / 7;
    if (id < FIRST_ID || user >= SIMULATION_USERS || simulated_user_id((size_t)user) != id) {
        simulation_fail("user %" PRId64 " was never written", id);
        return 0;
    }
    return (size_t)user;
}

int64_t simulated_user_version(size_t user)
{
    return simulation->postgres->users[user].version;
}

const struct simulated_truth *simulated_user_truth(size_t user, int64_t version)
{
    return &simulation->postgres->users[user].history[version];
}

void simulated_snapshot_take(char text[SNAPSHOT_BYTES])
{
    const struct simulated_postgres *postgres = simulation->postgres;
    int64_t running[OPEN_MOST];
    size_t count = 0;
    for (size_t i = 0; i < OPEN_MOST; i++) {
        if (postgres->open[i].xid == 0)
            continue;
        size_t at = count++;
        for (; at > 0 && running[at - 1] > postgres->open[i].xid; at--)
            running[at] = running[at - 1];
        running[at] = postgres->open[i].xid;
    }
    int length = snprintf(text, SNAPSHOT_BYTES, "%" PRId64 ":%" PRId64 ":",
                          count > 0 ? running[0] : postgres->next_xid, postgres->next_xid);
    for (size_t i = 0; i < count; i++)
        length += snprintf(text + length, SNAPSHOT_BYTES - (size_t)length, "%s%" PRId64,
                           i > 0 ? "," : "", running[i]);
}

/* The rows' locks are taken in the order of ids and held to the end, as the write model does. */
static void begin(struct open_transaction *transaction)
{
    struct simulated_postgres *postgres = simulation->postgres;
    const size_t wanted = 1 + simulation_below(USERS_OF_TRANSACTION);
    *transaction = (struct open_transaction){0};
    for (size_t tries = 0; tries < 2 * wanted && transaction->user_count < wanted; tries++) {
        const size_t user = simulation_below(SIMULATION_USERS);
        struct user_row *row = &postgres->users[user];
        if (row->locker != 0 || row->version + 16 > SIMULATION_VERSIONS_MOST ||
            row->history[row->version].deleted)
            continue;
        row->locker = postgres->next_xid;
        row->writing = row->version;
        transaction->users[transaction->user_count++] = user;
    }
    if (transaction->user_count == 0)
        return;
    transaction->xid = postgres->next_xid++;
    transaction->events_left = (int)(transaction->user_count + simulation_below(4));
    postgres->states[transaction->xid] = TRANSACTION_OPEN;
    simulation_note("pg.begin", transaction->xid, (int64_t)transaction->user_count, 0);
}

static enum tally_event_type choose_type(const struct simulated_truth *before, int64_t version)
{
    if (version == 1)
        return TALLY_EVENT_USER_CREATED;
    const uint64_t dice = simulation_below(100);
    if (dice < 2)
        return TALLY_EVENT_USER_DELETED;
    if (dice < 12)
        return TALLY_EVENT_USER_UPDATED;
    if (dice < 30 && before->posts > 0)
        return TALLY_EVENT_POST_DELETED;
    if (dice < 45 && before->comments > 0)
        return TALLY_EVENT_COMMENT_DELETED;
    return dice < 70 ? TALLY_EVENT_POST_CREATED : TALLY_EVENT_COMMENT_CREATED;
}

/* What is true after an event: written out here, so that it owes nothing to the fold. */
static struct simulated_truth truth_after(const struct simulated_truth *before,
                                          enum tally_event_type type, int64_t version)
{
    struct simulated_truth after = *before;
    switch (type) {
    case TALLY_EVENT_USER_CREATED:
    case TALLY_EVENT_USER_UPDATED:
        after.profile = version;
        break;
    case TALLY_EVENT_USER_DELETED:
        return (struct simulated_truth){.deleted = true};
    case TALLY_EVENT_POST_CREATED:
        after.posts++;
        break;
    case TALLY_EVENT_POST_DELETED:
        after.posts--;
        break;
    case TALLY_EVENT_COMMENT_CREATED:
        after.comments++;
        break;
    default:
        after.comments--;
        break;
    }
    return after;
}

static void insert_event(struct open_transaction *transaction)
{
    struct simulated_postgres *postgres = simulation->postgres;
    const size_t user = transaction->users[simulation_below(transaction->user_count)];
    struct user_row *row = &postgres->users[user];
    const struct simulated_truth *before = &row->history[row->writing];
    transaction->events_left--;
    if (before->deleted)
        return;
    const int64_t version = ++row->writing;
    struct event_row *event = &postgres->events[postgres->event_count++];
    *event = (struct event_row){
        .seq = ++postgres->sequence,
        .xid = transaction->xid,
        .version = version,
        .at_us = INT64_C(1795348800000000) + simulation->now_us,
        .user = user,
        .type = choose_type(before, version),
    };
    row->history[version] = truth_after(before, event->type, version);
    if (event->type == TALLY_EVENT_USER_CREATED || event->type == TALLY_EVENT_USER_UPDATED)
        (void)snprintf(event->data, sizeof event->data,
                       "{\"name\":\"n%" PRId64 "\",\"email\":\"e\",\"avatar\":null}", version);
    else
        (void)snprintf(event->data, sizeof event->data, "{\"postId\":\"1\"}");
}

static void end(struct open_transaction *transaction, bool commit)
{
    struct simulated_postgres *postgres = simulation->postgres;
    for (size_t i = 0; i < transaction->user_count; i++) {
        struct user_row *row = &postgres->users[transaction->users[i]];
        row->locker = 0;
        if (commit)
            row->version = row->writing;
    }
    postgres->states[transaction->xid] = commit ? TRANSACTION_COMMITTED : TRANSACTION_ABORTED;
    simulation_note(commit ? "pg.commit" : "pg.rollback", transaction->xid, 0, 0);
    if (commit) {
        simulation->outcome.commits++;
        postgres->durable = postgres->position; /* its flush takes what came before along */
        for (size_t i = 0; i < SIMULATION_PROCESSES; i++)
            simulation_process_at(i)->woken = true;
    }
    transaction->xid = 0;
}

static void end_silent_leaders(void)
{
    for (struct session *session = simulation->postgres->sessions; session != NULL;
         session = session->next) {
        if (!session->leads || simulation->now_us - session->spoke_us <= 3000000)
            continue;
        session->broken = true;
        session->leads = false;
        simulation_note("pg.leader_silent", 0, 0, 0);
    }
}

void simulated_postgres_step(void)
{
    struct simulated_postgres *postgres = simulation->postgres;
    end_silent_leaders();
    if (!simulation->faults)
        return;
    struct open_transaction *transaction = &postgres->open[simulation_below(OPEN_MOST)];
    if (transaction->xid == 0) {
        if (postgres->event_count + 64 < EVENTS_MOST && postgres->next_xid < TRANSACTIONS_MOST)
            begin(transaction);
    } else if (transaction->events_left > 0) {
        insert_event(transaction);
    } else {
        /* One in six lingers at each look: it commits long after those that began later. */
        if (simulation_below(6) != 0)
            end(transaction, simulation_below(8) != 0);
    }
}

void simulated_postgres_settle(void)
{
    for (size_t i = 0; i < OPEN_MOST; i++) {
        if (simulation->postgres->open[i].xid != 0)
            end(&simulation->postgres->open[i], simulation_below(2) != 0);
    }
}

void simulated_postgres_pause(bool paused)
{
    simulation->postgres->position.paused = paused;
    simulation->postgres->durable.paused = paused;
}

static void break_session(struct session *session)
{
    session->broken = true;
    session->leads = false;
}

void simulated_postgres_break_sessions(const struct simulation_process *process)
{
    for (struct session *session = simulation->postgres->sessions; session != NULL;
         session = session->next) {
        if (process == NULL || session->process == process)
            break_session(session);
    }
}

void simulated_postgres_crash(void)
{
    struct simulated_postgres *postgres = simulation->postgres;
    simulation_note("pg.crash", 0, 0, 0);
    simulated_postgres_break_sessions(NULL);
    for (size_t i = 0; i < OPEN_MOST; i++) {
        if (postgres->open[i].xid != 0)
            end(&postgres->open[i], false);
    }
    if (simulation_below(2) == 0)
        postgres->position = postgres->durable;
    else
        postgres->durable = postgres->position;
}

static bool covered(const struct position_row *position, const struct event_row *event)
{
    if (!position->has_snapshot)
        return false;
    return simulated_snapshot_visible(position->snapshot, event->xid) ||
           (position->has_target && event->seq <= position->reached &&
            simulated_snapshot_visible(position->target, event->xid));
}

void simulated_postgres_check_position(void)
{
    const struct simulated_postgres *postgres = simulation->postgres;
    for (size_t i = 0; i < postgres->event_count; i++) {
        const struct event_row *event = &postgres->events[i];
        if (postgres->states[event->xid] == TRANSACTION_COMMITTED &&
            covered(&postgres->position, event) &&
            simulated_log_version(event->user) < event->version)
            simulation_fail("the relay's position covers seq %" PRId64 " (user %" PRId64
                            " version %" PRId64 "), which is not in Kafka",
                            event->seq, simulated_user_id(event->user), event->version);
    }
}

bool simulated_postgres_published(void)
{
    const struct simulated_postgres *postgres = simulation->postgres;
    for (size_t i = 0; i < postgres->event_count; i++) {
        const struct event_row *event = &postgres->events[i];
        if (postgres->states[event->xid] == TRANSACTION_COMMITTED &&
            !covered(&postgres->position, event))
            return false;
    }
    return true;
}

/* As store/relay_control.h does it: all from some event on that is published, and whatever is not.
 */
void simulated_postgres_refill(void)
{
    struct simulated_postgres *postgres = simulation->postgres;
    struct position_row *row = &postgres->position;
    const size_t back = simulation_below(64);
    int64_t first = 0;
    for (size_t i = 0; i < postgres->event_count && first == 0; i++) {
        const struct event_row *event = &postgres->events[i];
        if (postgres->states[event->xid] == TRANSACTION_COMMITTED &&
            (i + back >= postgres->event_count || !covered(row, event)))
            first = event->seq;
    }
    if (first == 0)
        return;
    row->epoch++;
    row->has_snapshot = true;
    row->has_target = true;
    (void)snprintf(row->snapshot, sizeof row->snapshot, "1:1:");
    simulated_snapshot_take(row->target);
    row->reached = first - 1;
    postgres->durable = *row;
    simulation->outcome.refills++;
    simulation_note("refill", row->epoch, first, 0);
    simulated_postgres_check_position();
}
