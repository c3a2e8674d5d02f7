/*
 * Leader: a reader of what the relay publishes (store/relay_position.h) that a test has made
 * leader.
 */
#ifndef TALLY_TESTS_LEADER_H
#define TALLY_TESTS_LEADER_H

#include "database.h"
#include "store/relay_position.h"

/* A machine that does much else meanwhile must not end the leader's session behind a test's back.
 */
#define TEST_LEADER_SILENCE_MS 600000

/* Connects; fails the test otherwise. */
struct tally_relay_reader *test_reader_open(const struct test_database *database,
                                            int64_t batch_events, int silence_ms);
/* Waits until it is elected: the lock of one that has gone is free once the server notices. */
void test_reader_lead(struct tally_relay_reader *reader);
/* Both, with the long silence. */
struct tally_relay_reader *test_leader_open(const struct test_database *database,
                                            int64_t batch_events);

#endif
