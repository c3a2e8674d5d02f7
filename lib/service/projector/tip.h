/*
 * Tip: a thread that asks Kafka twice a second where each owned partition ends.
 *
 * Only an answer of the broker proves that nothing is missing: silence may also mean that the
 * broker is away. It has a Kafka client of its own, so that a slow answer never holds the records
 * up.
 */
#ifndef TALLY_SERVICE_PROJECTOR_TIP_H
#define TALLY_SERVICE_PROJECTOR_TIP_H

#include "kafka/consumer.h"

struct tally_tip;

struct tally_tip_end {
    int64_t high;        /* next offset to be written; -1: not known */
    int64_t asked_at_ms; /* wall clock before the question, so that `high` holds for that time */
};

/* Starts the thread. `partitions` > 0. */
enum tally_status tally_tip_start(const struct tally_consumer_options *options, int32_t partitions,
                                  struct tally_tip **tip,
                                  struct tally_error *error) TALLY_MUST_CHECK;
/* Waits for the question in flight (at most a second) and frees. */
void tally_tip_stop(struct tally_tip **tip);

/* Asks for one partition's watermarks now, waiting at most `timeout_ms`: on a client that fetches
 * nothing, and so does not keep the question behind a fetch that waits. Any thread. */
enum tally_status tally_tip_ask(struct tally_tip *tip, int32_t partition, int timeout_ms,
                                int64_t *low, int64_t *high,
                                struct tally_error *error) TALLY_MUST_CHECK;
/* As tally_consumer_peek(), on the same client. From one thread. */
enum tally_status tally_tip_peek(struct tally_tip *tip, const struct tally_consumer_start *starts,
                                 size_t count, int timeout_ms, int64_t *timestamps_ms,
                                 struct tally_error *error) TALLY_MUST_CHECK;
/* Which partitions to ask for. Any thread. */
void tally_tip_watch(struct tally_tip *tip, int32_t partition, bool watched);
/* The last answer. Any thread. */
struct tally_tip_end tally_tip_read(struct tally_tip *tip, int32_t partition);

#endif
