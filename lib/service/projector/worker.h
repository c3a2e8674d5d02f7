/*
 * Worker: the projector's thread and its parts: Kafka in, Redis out, and what to do when either is
 * not as expected. Internal to this folder; everything here runs in the worker's thread.
 */
#ifndef TALLY_SERVICE_PROJECTOR_WORKER_H
#define TALLY_SERVICE_PROJECTOR_WORKER_H

#include "core/log.h"
#include "core/random.h"
#include "service/projector/dead_letters.h"
#include "service/projector/projector.h"
#include "service/projector/report.h"
#include "service/projector/tip.h"

#include <stdatomic.h>

/* Rounds that may be on their way: one that Redis works on, one that is being folded. */
#define TALLY_WORKER_ROUNDS 2

struct tally_flight {
    struct tally_round round;
    bool sent;          /* replies of its calls are still to come */
    int64_t started_us; /* monotonic, of its first record */
};

/* What the worker remembers of a partition beside the model. */
struct tally_watch {
    int64_t fresh_at_ms;      /* wall clock for which all of the log was applied, 0: not known */
    int64_t fresh_written_ms; /* what of it Redis knows */
    int64_t progress_us;      /* monotonic: something was applied, or nothing was to be; 0: it was
                               * another member's */
    int64_t progress_offset;
    int64_t unanswered_us;     /* monotonic: Kafka did not answer for its log; 0: it did */
    int64_t unanswered_tip_ms; /* the tip's last answer then */
    int64_t resumed_us;        /* monotonic: reading went on from its position */
    int64_t doubted_us;        /* monotonic: the log was, last; 0: never */
    int64_t doubted_offset;    /* of the event for which it was */
};

struct tally_worker {
    const struct tally_projector_options *options;
    struct tally_report *report;
    struct tally_report_metrics *metrics;
    atomic_bool *stopping;
    const atomic_bool *verbose; /* a log line for each event */
    struct tally_random random;

    struct tally_consumer *consumer;
    char instance_id[TALLY_SETTING_TEXT_BYTES + 16]; /* of the group's member; "": dynamic, or not
                                                        to join yet */
    struct tally_topology topology;
    struct tally_tip *tip;
    struct tally_dead_letters *letters;
    int64_t topic_missing_us; /* monotonic, since when; 0: it is there */
    bool topology_doubted;    /* another partition count may be why the group rebalanced */
    bool joined;
    int stuck_consumers; /* given up one after the other, while nothing was applied */
    int64_t owned_ms;    /* wall clock of the last change of ownership */
    bool paused;         /* by an operator: nothing is fetched, the group's membership is kept */

    struct tally_redis_url url;
    struct tally_redis *redis; /* NULL: not connected */
    struct tally_apply_encoder encoder;
    struct tally_backoff backoff;
    struct tally_backoff join_backoff;
    int64_t retry_us; /* monotonic: no attempt on Redis or at a resync before */

    struct tally_model *model;
    struct tally_watch *watches; /* owned, one for each partition */
    int64_t last_generation;     /* highest number seen, so that a new one differs */
    int64_t
        position_missing_us; /* monotonic, since when the generation lacks one; 0: it does not */
    bool reassign;           /* the assignment does not match the model */
    struct tally_flight flights[TALLY_WORKER_ROUNDS];
    size_t current; /* the flight to be filled next; the other one is older */
    struct tally_round pulse;
    int64_t pulse_us;   /* monotonic: next heartbeat */
    int64_t server_us;  /* monotonic: next look at what Redis is */
    int64_t summary_us; /* monotonic: next summary line */
    int64_t summary_events;
    struct tally_log_limit anomaly_limit, trouble_limit, letter_limit, lost_limit;
    struct tally_log_repeat redis_losses;

    struct tally_error
        trouble;              /* since something was applied, for the reason of a stall; OK: none */
    struct tally_error fatal; /* OK: none; else the thread ends */
};

/* worker.c */
/* Prepares what needs no server; the fields up to `verbose` are set by the caller. */
enum tally_status tally_worker_open(struct tally_worker *worker,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* Works until it is told to stop or fails; `fatal` says which. */
void tally_worker_run(struct tally_worker *worker);
void tally_worker_close(struct tally_worker *worker);
/* Gives the consumer up and joins the group with another one. */
void tally_worker_replace_consumer(struct tally_worker *worker);

/* Sets the reason to stop; the first one stays. */
void tally_worker_fail(struct tally_worker *worker, const struct tally_error *error);
/* Whether it is told to stop, or has a reason to. */
bool tally_worker_stopping(const struct tally_worker *worker);

/* worker_redis.c: the connection. */
/* Connects where there is no connection and the back-off is over. */
void tally_worker_connect(struct tally_worker *worker);
/* Closes the connection: what is in flight is forgotten, every partition lost. */
void tally_worker_disconnect(struct tally_worker *worker, const struct tally_error *error);
/* Reads whether the projectors are paused, and stops or starts fetching accordingly. No round may
 * be half filled. */
enum tally_status tally_worker_read_pause(struct tally_worker *worker,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* No attempt on Redis or at a resync for a while, for this reason. */
void tally_worker_back_off(struct tally_worker *worker, const struct tally_error *error);

/* worker_resync.c: the way back to a known state. */
/* Reads the positions of lost partitions and starts reading from there. Nothing may be in flight,
 * no round half filled. */
void tally_worker_resync(struct tally_worker *worker);

/* worker_consume.c: fills the current round from Kafka, waiting up to `timeout_ms` for the first
 * record. */
void tally_worker_gather(struct tally_worker *worker, int timeout_ms);

/* While the topic is said to be gone, or another one: whether it is there, gone for good, or has
 * changed. Repeated until Kafka answers. */
void tally_worker_check_topic(struct tally_worker *worker);

/* worker_apply.c */
/* Reads unknown users, folds, writes the dead letters, sends. */
void tally_worker_send(struct tally_worker *worker);
/* Waits for the replies of the older round that is in flight, or of all. */
void tally_worker_collect_oldest(struct tally_worker *worker);
void tally_worker_collect_all(struct tally_worker *worker);
/* Reads the replies of this round's calls, which are the next to come. False where the connection
 * is gone. */
bool tally_worker_collect_round(struct tally_worker *worker, struct tally_round *round);
bool tally_worker_in_flight(const struct tally_worker *worker);

/* worker_pulse.c: twice a second: freshness, lag, stalls, the generation. */
void tally_worker_pulse(struct tally_worker *worker);

#endif
