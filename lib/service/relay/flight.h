/*
 * Flight: which batches of events are on their way to Kafka, and how far the relay's position may
 * move: to the end of the last batch before which everything is acknowledged. Pure.
 */
#ifndef TALLY_SERVICE_RELAY_FLIGHT_H
#define TALLY_SERVICE_RELAY_FLIGHT_H

#include "core/status.h"
#include "store/relay_position.h"

#define TALLY_FLIGHT_BATCHES 64

struct tally_flight_batch {
    struct tally_relay_position after; /* the position once it is acknowledged; owned */
    int64_t unacknowledged;            /* events */
    int64_t oldest_at_us;              /* wall clock of its first event */
};

/* A ring: batches `first` to `first + count - 1`, numbered without end. */
struct tally_flight {
    struct tally_flight_batch batches[TALLY_FLIGHT_BATCHES];
    uint64_t first;
    size_t count;
    int64_t events; /* unacknowledged, over all batches */
    bool failed;    /* an event was refused: nothing behind it may be acknowledged by position */
};

/* Empties it, freeing the positions. A zeroed flight is an empty one. */
void tally_flight_clear(struct tally_flight *flight);
bool tally_flight_full(const struct tally_flight *flight);
/* Adds a batch of `events` >= 0 and takes over `after` (which is emptied); the flight must not be
 * full. Returns the batch's number, the tag of its messages. */
uint64_t tally_flight_depart(struct tally_flight *flight, struct tally_relay_position *after,
                             int64_t events, int64_t oldest_at_us);
/* One event of batch `number` came back. False, and nothing else, where that batch is no longer
 * there. */
bool tally_flight_arrive(struct tally_flight *flight, uint64_t number, bool acknowledged);
/* Takes the finished batches off the front. True where there were any and nothing failed: `after`
 * (emptied first) receives the position of the last of them, for the caller to free. */
bool tally_flight_land(struct tally_flight *flight, struct tally_relay_position *after);
/* Wall clock of the oldest unacknowledged event, or 0. */
int64_t tally_flight_oldest_us(const struct tally_flight *flight);

#endif
