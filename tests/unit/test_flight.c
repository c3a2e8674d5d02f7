#include "service/relay/flight.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct tally_relay_position position(const char *base)
{
    return (struct tally_relay_position){.base = strdup(base)};
}

static uint64_t depart(struct tally_flight *flight, const char *base, int64_t events)
{
    struct tally_relay_position after = position(base);
    uint64_t number = tally_flight_depart(flight, &after, events, 1000);
    cr_assert_null(after.base, "the flight owns the position now");
    return number;
}

Test(flight, the_position_waits_for_every_event_of_the_batch)
{
    struct tally_flight flight = {0};
    struct tally_relay_position after = {0};
    uint64_t number = depart(&flight, "one", 2);
    tally_flight_arrive(&flight, number, true);
    cr_assert_not(tally_flight_land(&flight, &after));
    tally_flight_arrive(&flight, number, true);
    cr_assert(tally_flight_land(&flight, &after));
    cr_assert_str_eq(after.base, "one");
    cr_assert_not(tally_flight_land(&flight, &after));
    tally_relay_position_clear(&after);
}

Test(flight, a_later_batch_never_moves_the_position_over_an_earlier_one)
{
    struct tally_flight flight = {0};
    struct tally_relay_position after = {0};
    uint64_t first = depart(&flight, "one", 1);
    uint64_t second = depart(&flight, "two", 1);
    tally_flight_arrive(&flight, second, true);
    cr_assert_not(tally_flight_land(&flight, &after));
    tally_flight_arrive(&flight, first, true);
    cr_assert(tally_flight_land(&flight, &after));
    cr_assert_str_eq(after.base, "two");
    cr_assert_eq(flight.events, 0);
    tally_relay_position_clear(&after);
}

Test(flight, nothing_lands_once_an_event_was_refused)
{
    struct tally_flight flight = {0};
    struct tally_relay_position after = {0};
    uint64_t first = depart(&flight, "one", 1);
    uint64_t second = depart(&flight, "two", 1);
    tally_flight_arrive(&flight, first, false);
    tally_flight_arrive(&flight, second, true);
    cr_assert_not(tally_flight_land(&flight, &after));
    tally_flight_clear(&flight);
}

Test(flight, acknowledgements_of_a_cleared_flight_count_for_nobody)
{
    struct tally_flight flight = {0};
    struct tally_relay_position after = {0};
    uint64_t old = depart(&flight, "old", 1);
    tally_flight_clear(&flight);
    uint64_t fresh = depart(&flight, "fresh", 1);
    cr_assert_neq(old, fresh);
    tally_flight_arrive(&flight, old, true);
    tally_flight_arrive(&flight, old, false);
    cr_assert_not(tally_flight_land(&flight, &after));
    tally_flight_arrive(&flight, fresh, true);
    cr_assert(tally_flight_land(&flight, &after));
    cr_assert_str_eq(after.base, "fresh");
    tally_relay_position_clear(&after);
}

Test(flight, holds_a_bounded_number_of_batches_in_a_ring)
{
    struct tally_flight flight = {0};
    struct tally_relay_position after = {0};
    for (int round = 0; round < 3; round++) {
        uint64_t last = 0;
        while (!tally_flight_full(&flight)) {
            last = depart(&flight, "batch", 1);
            if (flight.count > 1)
                tally_flight_arrive(&flight, last, true);
        }
        cr_assert_eq(flight.count, TALLY_FLIGHT_BATCHES);
        cr_assert_eq(tally_flight_oldest_us(&flight), 1000);
        tally_flight_arrive(&flight, flight.first, true);
        cr_assert(tally_flight_land(&flight, &after));
        cr_assert_eq(flight.count, 0);
        cr_assert_eq(tally_flight_oldest_us(&flight), 0);
    }
    tally_relay_position_clear(&after);
}
