/*
 * Dead letters: a topic for the records that cannot be applied, each with its key, value and
 * headers as they were and the headers tally_reason, tally_source_topic, tally_source_partition and
 * tally_source_offset. A record may come twice where the projector dies between the two writes.
 */
#ifndef TALLY_SERVICE_PROJECTOR_DEAD_LETTERS_H
#define TALLY_SERVICE_PROJECTOR_DEAD_LETTERS_H

#include "service/projector/round.h"

#include <stdatomic.h>

struct tally_dead_letters;

struct tally_dead_letter_options {
    const char *brokers;
    const char *topic;           /* of the dead letters */
    const char *source_topic;    /* that the records come from */
    const atomic_bool *stopping; /* makes a write's wait short; NULL: none does */
};

/* Connects when the first letter is written. */
enum tally_status tally_dead_letters_new(const struct tally_dead_letter_options *options,
                                         struct tally_dead_letters **letters,
                                         struct tally_error *error) TALLY_MUST_CHECK;
void tally_dead_letters_free(struct tally_dead_letters **letters);

/* Writes all poison of a round and waits until Kafka has acknowledged it, at most `timeout_ms`,
 * and little more than a second once `stopping` is set. Anything but TALLY_OK means that some may
 * be missing. */
enum tally_status tally_dead_letters_write(struct tally_dead_letters *letters,
                                           const struct tally_round *round, int64_t timeout_ms,
                                           struct tally_error *error) TALLY_MUST_CHECK;

#endif
