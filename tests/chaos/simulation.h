/*
 * Simulation: the production code of relay and projector, each process in a fiber of its own, on a
 * simulated PostgreSQL, Kafka, Redis and clock. One seed decides every step; the same seed gives
 * the same run (the idea of FoundationDB's simulation,
 * https://apple.github.io/foundationdb/testing.html).
 *
 * What stands in for a server is linked in place of the adapter of the same name: pg/blocking,
 * kafka/producer, kafka/consumer, redis/connection, the projector's tip and dead letters. Each of
 * their calls is a point at which the scheduler may run, stop or kill any process. One thread.
 */
#ifndef TALLY_CHAOS_SIMULATION_H
#define TALLY_CHAOS_SIMULATION_H

#include "core/metrics.h"
#include "core/random.h"
#include "core/settings.h"
#include "domain/event.h"
#include "view/apply.h"

#include <ucontext.h>

enum {
    SIMULATION_PARTITIONS = 3,
    SIMULATION_USERS = 12,
    SIMULATION_VERSIONS_MOST = 256, /* of one user */
    SIMULATION_PROJECTORS = 3,
    SIMULATION_RELAYS = 2,
    SIMULATION_PROCESSES = SIMULATION_PROJECTORS + SIMULATION_RELAYS,
    SIMULATION_STEPS = 3000, /* with faults, before all has to come to rest */
};

/* Mistakes that can be planted, to see that the checks find them. X(NAME, "name", "what it does")
 */
#define SIMULATION_PLANT_LIST(X)                                                                   \
    X(NONE, "none", "nothing")                                                                     \
    X(FENCE_OFF_BY_ONE, "fence-off-by-one", "the fold takes the version it has for a new one")     \
    X(DUPLICATE_COUNTED, "duplicate-counted", "the fold drops no duplicates")                      \
    X(POSITION_BEFORE_DATA, "position-before-data", "the position is written before the users")    \
    X(ZOMBIE_NOT_FENCED, "zombie-not-fenced", "the apply script does not compare the position")    \
    X(EPOCH_IGNORED, "epoch-ignored", "a projector that begins does not raise the epoch")          \
    X(NO_RESYNC, "no-resync", "a refused projector goes on as if nothing had happened")            \
    X(RELAY_BEFORE_ACK, "relay-before-ack", "the relay's position does not wait for Kafka")        \
    X(LATE_COMMIT_LOST, "late-commit-lost", "the relay reads by sequence number, not by snapshot") \
    X(PARTIAL_APPLY, "partial-apply", "the totals of a call are not written")                      \
    X(REPAIR_NOT_FENCED, "repair-not-fenced", "a repair does not raise the epoch")                 \
    X(SEAL_IGNORED, "seal-ignored", "a projector goes on with a generation that is replaced")

enum simulation_plant {
#define X(name, text, help) PLANT_##name,
    SIMULATION_PLANT_LIST(X)
#undef X
        SIMULATION_PLANT_COUNT
};

struct simulation_process {
    const char *name;
    bool projects; /* a projector; else a relay */
    struct tally_metrics *metrics;
    struct tally_projector *projector; /* NULL: not running */
    struct tally_relay *relay;
    void *(*body)(void *); /* of the thread it would be */
    void *argument;
    ucontext_t context;
    void *stack;  /* owned, used again */
    void *shadow; /* AddressSanitizer's, of the fiber that is left */
    bool running;
    bool killed;        /* its calls have no effect any more: it only unwinds */
    bool ended;         /* its body has returned */
    bool wants_rebuild; /* its body has returned with that advice, and rightly */
    bool woken;         /* the relay was told of a commit */
    int64_t wake_us;
    int64_t stopped_until_us; /* SIGSTOP */
    int64_t start_us;         /* when it is started again */
    bool (*ready)(const void *);
    const void *ready_context;
};

struct simulation_settings {
    uint64_t seed;
    int64_t steps;
    enum simulation_plant plant;
    bool trace;
};

struct simulation_outcome {
    bool failed;
    char reason[400];
    uint64_t hash; /* of all that happened */
    int64_t steps;
    int64_t commits, published, applied, refused, crashes, losses, rebuilds, repairs, switches,
        refills;
};

struct simulated_postgres;
struct simulated_kafka;
struct simulated_redis;
struct simulated_operators;

struct simulation {
    struct simulation_settings settings;
    struct tally_settings services;
    struct tally_random random;
    int64_t now_us;
    bool faults;
    struct simulation_outcome outcome;
    struct simulation_process processes[SIMULATION_PROCESSES];
    struct simulation_process *current;  /* NULL: the scheduler */
    struct simulation_process *starting; /* whose thread is being made */
    ucontext_t scheduler;
    void *scheduler_shadow;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;
    struct simulated_postgres *postgres;
    struct simulated_kafka *kafka;
    struct simulated_redis *redis;
    struct simulated_operators *operators;
};

/* The adapters' signatures have no room for it. NULL while nothing is simulated. */
extern struct simulation *simulation;

/* simulation.c */
void simulation_run(const struct simulation_settings *settings, struct simulation_outcome *outcome);
const char *simulation_plant_text(enum simulation_plant plant);
const char *simulation_plant_help(enum simulation_plant plant);
bool simulation_plant_parse(const char *text, enum simulation_plant *plant);
bool simulation_planted(enum simulation_plant plant);
/* A broken promise; the first one stays, and the run ends with the step. */
void simulation_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Adds to the hash of what happened, and prints it where a trace is wanted. */
void simulation_note(const char *what, int64_t a, int64_t b, int64_t c);
uint64_t simulation_below(uint64_t bound);
/* True once in `n` where faults are on. */
bool simulation_fault(uint64_t n);
struct simulation_process *simulation_process_at(size_t index);
size_t simulation_process_index(const struct simulation_process *process);

/* Kills a process, which is started again later. */
void simulation_crash(struct simulation_process *process);

/* simulation_faults.c: one fault of those that come from outside. */
void simulation_disturb(void);

/* simulation_fiber.c */
void simulation_fiber_resume(struct simulation_process *process);
void simulation_fiber_release(struct simulation_process *process);
bool simulation_fiber_runnable(const struct simulation_process *process);
/* Lets others run for at least `us`, or until `ready` holds, which may be NULL. Returns at once in
 * a killed process. */
void simulation_wait(int64_t us, bool (*ready)(const void *), const void *context);
/* Whether the process that asks has been killed. */
bool simulation_killed(void);

/* simulation_postgres.c: the write model, its sessions, and what is true. */
struct simulated_truth { /* a user after one of its versions */
    int64_t posts, comments;
    int64_t profile; /* version of the event that set the profile */
    bool deleted;
};
void simulated_postgres_open(void);
void simulated_postgres_close(void);
void simulated_postgres_step(void);
void simulated_postgres_crash(void);
/* Publishes again what lies some way back, as `tallyctl refill` lets the relay do. */
void simulated_postgres_refill(void);
void simulated_postgres_pause(bool paused);
void simulated_postgres_break_sessions(const struct simulation_process *process);
/* Ends the transactions that are open. */
void simulated_postgres_settle(void);
/* Whether every committed event is before the saved position. */
bool simulated_postgres_published(void);
/* Every event that the saved position covers must be in Kafka. */
void simulated_postgres_check_position(void);
int64_t simulated_user_id(size_t user);
size_t simulated_user_of(int64_t id);
/* Of committed transactions. */
int64_t simulated_user_version(size_t user);
const struct simulated_truth *simulated_user_truth(size_t user, int64_t version);

/* simulation_snapshot.c: pg_snapshot's text form. */
bool simulated_snapshot_visible(const char *snapshot, int64_t xid);
int64_t simulated_snapshot_xmin(const char *snapshot);

/* simulation_kafka.c: the broker; simulation_producer.c and simulation_consumer.c: its clients. */
struct simulated_message {
    int64_t user_id, version;
    char key[24], value[96];
    size_t key_length, value_length;
    bool tombstone;
    struct tally_header headers[TALLY_EVENT_HEADER_COUNT];
    char texts[TALLY_EVENT_HEADER_COUNT][64];
    size_t header_count;
    int32_t partition;
    int64_t at_ms; /* of the broker */
    uintptr_t tag;
    enum { MESSAGE_QUEUED, MESSAGE_LOGGED, MESSAGE_ACKNOWLEDGED, MESSAGE_FAILED } state;
};
void simulated_kafka_open(void);
void simulated_kafka_close(void);
void simulated_kafka_outage(int64_t us);
bool simulated_kafka_away(void);
void simulated_kafka_append(const struct simulated_message *message);
int64_t simulated_log_end(int32_t partition);
const struct simulated_message *simulated_log_at(int32_t partition, int64_t offset);
/* Highest version of a user that is in the log, and in its first `end` messages. */
int64_t simulated_log_version(size_t user);
int64_t simulated_log_version_before(size_t user, int32_t partition, int64_t end);
void simulated_producers_step(void);
void simulated_producers_orphan(const struct simulation_process *process);
bool simulated_producers_idle(void);
void simulated_producers_close(void);
void simulated_group_rebalance(void);
/* Rebalances where a partition has no owner that lives. */
void simulated_group_repair(void);
void simulated_group_leave(const struct simulation_process *process);
void simulated_group_reset(void);

/* simulation_redis.c: the server's keys and commands; simulation_connection.c: its clients. */
struct simulated_argument {
    const char *text;
    size_t length;
};
void simulated_redis_open(void);
void simulated_redis_close(void);
void simulated_redis_save(void);
/* Goes back to what was saved last. */
void simulated_redis_restore(void);
/* The same, and no connection breaks that need not. */
void simulated_redis_rewind(void);
/* Whether the live generation lacks a position since it began, so that only a rebuild mends it. */
bool simulated_redis_incomplete(void);
/* The same of a moment ago: several projectors may say it at once, and the first is answered. */
bool simulated_redis_was_incomplete(void);
void simulated_redis_flush(void);
/* Another writer, as repair is one. */
void simulated_redis_raise_epoch(void);
/* `*half`, false at first, is for a planted mistake: where it is true after the call, that has done
 * one half of the command and returned NULL, and is to be called again for the other. */
redisReply *simulated_redis_execute(const struct simulated_argument *arguments, size_t count,
                                    bool *half);
/* Compares a partition of the live generation with its log up to the stored position. */
void simulated_redis_check(int32_t partition);
/* Whether every position is at the end of its log. */
bool simulated_redis_current(void);
void simulated_connections_open(void);
void simulated_connections_close(void);
void simulated_connections_step(void);
void simulated_connections_break(const struct simulation_process *process);
void simulated_connections_refuse(int64_t us);

/* simulation_operators.c */
void simulated_operators_open(void);
void simulated_operators_close(void);
void simulated_operators_step(void);
/* A tool does not go on over a connection that Redis' restart has broken. */
void simulated_operators_break(void);
/* Ends the pauses, now and in what Redis may go back to. */
void simulated_operators_settle(void);
void simulated_operators_pause(void);
void simulated_operators_repair(void);
void simulated_operators_change(void);
/* Partitions change hands; and once users were read that another one has written since, Redis goes
 * back to before that, and no connection breaks: whoever read them stands where Redis stands. */
void simulated_operators_rewind(void);
/* Of every call that writes or reads users. */
void simulated_operators_watch(const struct simulation_process *process, bool writes);

/* simulation_many.c */
struct simulation_range {
    uint64_t first, last;
    int64_t steps;
    enum simulation_plant plant;
    bool stop_at_failure;
};
/* Runs them and prints progress on a terminal; returns how many failed, `*failed` the first. */
uint64_t simulation_many(const struct simulation_range *range, bool quiet, uint64_t *failed,
                         struct simulation_outcome *outcome);

#endif
