#include "service/relay/flight.h"

static struct tally_flight_batch *batch_at(struct tally_flight *flight, uint64_t number)
{
    return &flight->batches[number % TALLY_FLIGHT_BATCHES];
}

void tally_flight_clear(struct tally_flight *flight)
{
    for (uint64_t number = flight->first; number < flight->first + flight->count; number++)
        tally_relay_position_clear(&batch_at(flight, number)->after);
    /* Numbers go on, so that what still comes back of the old batches finds none of the new. */
    flight->first += flight->count;
    flight->count = 0;
    flight->events = 0;
    flight->failed = false;
}

bool tally_flight_full(const struct tally_flight *flight)
{
    return flight->count == TALLY_FLIGHT_BATCHES;
}

uint64_t tally_flight_depart(struct tally_flight *flight, struct tally_relay_position *after,
                             int64_t events, int64_t oldest_at_us)
{
    uint64_t number = flight->first + flight->count++;
    *batch_at(flight, number) = (struct tally_flight_batch){
        .after = *after, .unacknowledged = events, .oldest_at_us = oldest_at_us};
    *after = (struct tally_relay_position){0};
    flight->events += events;
    return number;
}

bool tally_flight_arrive(struct tally_flight *flight, uint64_t number, bool acknowledged)
{
    if (number < flight->first || number >= flight->first + flight->count)
        return false;
    batch_at(flight, number)->unacknowledged--;
    flight->events--;
    if (!acknowledged)
        flight->failed = true;
    return true;
}

bool tally_flight_land(struct tally_flight *flight, struct tally_relay_position *after)
{
    bool landed = false;
    while (!flight->failed && flight->count > 0 &&
           batch_at(flight, flight->first)->unacknowledged == 0) {
        tally_relay_position_clear(after);
        *after = batch_at(flight, flight->first)->after;
        batch_at(flight, flight->first)->after = (struct tally_relay_position){0};
        flight->first++;
        flight->count--;
        landed = true;
    }
    return landed;
}

int64_t tally_flight_oldest_us(const struct tally_flight *flight)
{
    for (uint64_t number = flight->first; number < flight->first + flight->count; number++) {
        const struct tally_flight_batch *batch = &flight->batches[number % TALLY_FLIGHT_BATCHES];
        if (batch->unacknowledged > 0)
            return batch->oldest_at_us;
    }
    return 0;
}
