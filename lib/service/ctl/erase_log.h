/*
 * Erase log: what Kafka still holds of an erased user, and when that is gone at the latest. A
 * record cannot be taken out of a log; it goes with its segment.
 */
#ifndef TALLY_SERVICE_CTL_ERASE_LOG_H
#define TALLY_SERVICE_CTL_ERASE_LOG_H

#include "core/settings.h"
#include "core/status.h"

#include <libpq-fe.h>
#include <stdint.h>

/* The settings of a topic that decide when its records go. */
struct tally_erase_topic {
    int32_t partitions; /* 0: there is no such topic */
    char policy[32];    /* cleanup.policy */
    int64_t retention_ms;
    int64_t segment_ms;
    int64_t delete_delay_ms;
    int64_t compaction_lag_ms; /* max.compaction.lag.ms */
};

struct tally_erase_log {
    struct tally_erase_topic events;
    struct tally_erase_topic letters;
    int64_t low;  /* first kept offset of the user's partition; -1: not known */
    int64_t high; /* its end */
    /* Dead letters. */
    int64_t count;          /* of the user, with a value */
    int64_t written_at_ms;  /* the newest of them */
    int64_t nameless;       /* whose key names no user */
    int64_t nameless_at_ms; /* the newest of them */
    int64_t letters_unread; /* offsets that were not looked at */
};

/* Takes one entry of a topic's configuration. Pure. */
void tally_erase_topic_take(struct tally_erase_topic *topic, const char *name, const char *value);
/* When a record written at `written_at_ms` (1970) is gone from the disk at the latest: the segment
 * takes records for segment.ms, is kept for retention.ms after its newest one, is looked at every 5
 * minutes and removed after file.delete.delay.ms. -1: never. Pure. */
int64_t tally_erase_topic_expiry_ms(const struct tally_erase_topic *topic, int64_t written_at_ms);
/* Compaction takes older events of a user away and leaves the newer ones, so that a read model
 * built from the log would have a gap for each user. Pure. */
bool tally_erase_topic_compacts(const struct tally_erase_topic *topic);

/* Fills the topics and the offsets of the user's partition. */
enum tally_status tally_erase_log_read(const struct tally_settings *settings, int64_t user_id,
                                       struct tally_erase_log *log,
                                       struct tally_error *error) TALLY_MUST_CHECK;
/* Counts the user's dead letters, and scrubs what operators wrote about them. */
enum tally_status tally_erase_letters(const struct tally_settings *settings, PGconn *connection,
                                      int64_t user_id, struct tally_erase_log *log,
                                      struct tally_error *error) TALLY_MUST_CHECK;

#endif
