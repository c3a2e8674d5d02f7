/*
 * Explain: gathers what PostgreSQL, Kafka and the read model hold of one user's events.
 *
 * The read model is read first and PostgreSQL after it, so that an event on its way never looks
 * like a difference (as in verify.h). Blocking.
 */
#ifndef TALLY_SERVICE_CTL_EXPLAIN_H
#define TALLY_SERVICE_CTL_EXPLAIN_H

#include "core/settings.h"
#include "redis/connection.h"
#include "service/ctl/explain_judge.h"

/* Offsets of one event that are kept for showing; all copies are counted. */
#define TALLY_EXPLAIN_COPIES 4

struct tally_explain_place {
    int64_t offsets[TALLY_EXPLAIN_COPIES];
    int64_t copies; /* records of this event that were found */
};

struct tally_explain {
    int64_t user_id;
    /* The read model. */
    int64_t generation;       /* 0: there is none */
    int32_t model_partitions; /* 0: its positions are lost */
    int32_t partition;
    int64_t position; /* next offset to be applied; -1: not known */
    struct tally_user_state shown;
    /* PostgreSQL. */
    struct tally_history history;
    /* Kafka; all 0 where it was not asked. */
    struct tally_explain_place *places; /* owned, parallel to history.events; NULL: not asked */
    int64_t scan_from, scan_to;         /* the partition's offsets at the start */
    int64_t scan_reached;
    int64_t others; /* records of the user that are none of the listed events */
    char kafka_trouble[TALLY_ERROR_TEXT_BYTES]; /* "": none */
    struct tally_explain_verdict verdict;
};

/* The servers, opened once for any number of users. */
struct tally_explainer {
    const struct tally_settings *settings;
    PGconn *connection;
    struct tally_redis *redis;
};

enum tally_status tally_explainer_open(struct tally_explainer *explainer,
                                       const struct tally_settings *settings,
                                       struct tally_error *error) TALLY_MUST_CHECK;
void tally_explainer_close(struct tally_explainer *explainer);

/* Fills everything but the places in Kafka. `list_most` events are listed. The caller releases. */
enum tally_status tally_explain_read(struct tally_explainer *explainer, int64_t user_id,
                                     size_t list_most, struct tally_explain *explain,
                                     struct tally_error *error) TALLY_MUST_CHECK;
/* Looks for the listed events in the user's partition, at most `timeout_ms`; a failure is told in
 * kafka_trouble. `on_progress` gets offsets read and to be read. */
void tally_explain_locate(struct tally_explainer *explainer, struct tally_explain *explain,
                          int64_t timeout_ms,
                          void (*on_progress)(void *context, int64_t done, int64_t total),
                          void *context);
void tally_explain_release(struct tally_explain *explain);

#endif
