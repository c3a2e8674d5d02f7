/*
 * The simulated database's inside, which the writers (simulation_postgres.c) and the relay's
 * statements (simulation_sql.c) share.
 */
#ifndef TALLY_CHAOS_SIMULATION_POSTGRES_H
#define TALLY_CHAOS_SIMULATION_POSTGRES_H

#include "simulation.h"

enum {
    EVENTS_MOST = 4096,
    TRANSACTIONS_MOST = 2048,
    OPEN_MOST = 6,
    USERS_OF_TRANSACTION = 4,
    SNAPSHOT_BYTES = 160,
};

enum transaction_state { TRANSACTION_OPEN, TRANSACTION_COMMITTED, TRANSACTION_ABORTED };

struct event_row {
    int64_t seq, xid, version, at_us;
    size_t user;
    enum tally_event_type type;
    char data[96];
};

struct user_row {
    int64_t version;
    int64_t writing; /* version after the open transaction, which holds the row's lock */
    int64_t locker;  /* xid; 0: nobody */
    struct simulated_truth history[SIMULATION_VERSIONS_MOST + 1];
};

struct open_transaction {
    int64_t xid; /* 0: none */
    size_t users[USERS_OF_TRANSACTION];
    size_t user_count;
    int events_left;
};

struct position_row {
    int64_t epoch;
    bool has_snapshot, has_target;
    char snapshot[SNAPSHOT_BYTES], target[SNAPSHOT_BYTES];
    int64_t reached;
    bool paused;
};

/* A connection of a relay. */
struct session {
    const struct simulation_process *process;
    struct session *next;
    bool broken, leads;
    int64_t spoke_us;
};

struct simulated_postgres {
    struct user_row users[SIMULATION_USERS];
    struct event_row events[EVENTS_MOST]; /* in the order of seq */
    size_t event_count;
    int64_t sequence;
    enum transaction_state states[TRANSACTIONS_MOST];
    int64_t next_xid;
    struct open_transaction open[OPEN_MOST];
    struct position_row position, durable;
    struct session *sessions;
    char changed_rows[8]; /* of the last statement, for PQcmdTuples() */
};

void simulated_snapshot_take(char text[SNAPSHOT_BYTES]);

#endif
