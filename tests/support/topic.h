/*
 * Topic: Kafka topics of one integration test.
 */
#ifndef TALLY_TESTS_TOPIC_H
#define TALLY_TESTS_TOPIC_H

#include <stdint.h>

/* $TALLY_KAFKA_BROKERS; fails the test where it is not set. */
const char *test_brokers(void);
/* Makes a topic that is not there yet, of one replica; fails the test otherwise. */
void test_topic_create(const char *name, int32_t partitions);
/* The same with an option of Kafka's topic configuration. */
void test_topic_create_with(const char *name, int32_t partitions, const char *option,
                            const char *value);
/* Gives a topic more partitions: `partitions` in all. */
void test_topic_widen(const char *name, int32_t partitions);
/* A broker that keeps every test's topics gets slower with each. One that cannot be deleted is said
 * in the test's log and fails nothing. */
void test_topic_delete(const char *name);

#endif
