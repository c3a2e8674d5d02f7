#include "leader.h"

#include "core/clock.h"

#include <criterion/criterion.h>
#include <unistd.h>

static const int64_t PATIENCE_US = 120LL * 1000 * 1000;

struct tally_relay_reader *test_reader_open(const struct test_database *database,
                                            int64_t batch_events, int silence_ms)
{
    struct tally_relay_reader *reader = NULL;
    struct tally_error error = {0};
    cr_assert_eq(tally_relay_reader_open(database->dsn, batch_events, silence_ms, &reader, &error),
                 TALLY_OK, "%s", error.text);
    return reader;
}

void test_reader_lead(struct tally_relay_reader *reader)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_US;
    struct tally_error error = {0};
    bool leading = false;
    bool started_over = false;
    while (!leading) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "it is not elected");
        cr_assert_eq(tally_relay_reader_lead(reader, &leading, &started_over, &error), TALLY_OK,
                     "%s", error.text);
        if (!leading)
            usleep(10000);
    }
}

struct tally_relay_reader *test_leader_open(const struct test_database *database,
                                            int64_t batch_events)
{
    struct tally_relay_reader *reader =
        test_reader_open(database, batch_events, TEST_LEADER_SILENCE_MS);
    test_reader_lead(reader);
    return reader;
}
