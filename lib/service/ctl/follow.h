/*
 * Follow: a thread that applies the log to a generation that is not live yet, with the projector's
 * own engine (round, chunk, fold, apply), on a consumer that belongs to no group.
 */
#ifndef TALLY_SERVICE_CTL_FOLLOW_H
#define TALLY_SERVICE_CTL_FOLLOW_H

#include "core/settings.h"
#include "kafka/consumer.h"

struct tally_follower;

struct tally_follow_options {
    const struct tally_settings *settings; /* borrowed */
    int64_t generation;
    const struct tally_topology *topology; /* borrowed */
    const int64_t *epochs;                 /* expected of each partition; borrowed for the call */
    /* Undecodable records below these offsets are in the dead letters already; borrowed for the
     * call. */
    const int64_t *letters_from;
    bool from_beginning; /* the log is all that the generation is built from */
};

/* Starts from the stored positions. CONFIG: they do not fit the log. */
enum tally_status tally_follower_start(const struct tally_follow_options *options,
                                       struct tally_follower **follower,
                                       struct tally_error *error) TALLY_MUST_CHECK;
/* Finishes what is in flight and waits for the thread. Returns why it had ended before; OK: it had
 * not. */
enum tally_status tally_follower_stop(struct tally_follower *follower,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* Stops and frees. */
void tally_follower_free(struct tally_follower **follower);

/* Offset up to which everything of a partition is applied. Any thread. */
int64_t tally_follower_applied(const struct tally_follower *follower, int32_t partition);
/* Records taken so far. Any thread. */
int64_t tally_follower_events(const struct tally_follower *follower);
/* OK while the thread works, else why it has ended. Any thread. */
enum tally_status tally_follower_check(struct tally_follower *follower,
                                       struct tally_error *error) TALLY_MUST_CHECK;

/* CONFIG: the topic has another partition count by now than when the generation was begun. */
enum tally_status tally_follow_check_partitions(struct tally_consumer *consumer,
                                                const struct tally_topology *begun,
                                                struct tally_error *error) TALLY_MUST_CHECK;

/* What librdkafka says, to standard error: it goes on trying, and the operator should know what it
 * waits for. */
void tally_follow_kafka_log(int level, const char *text);

#endif
