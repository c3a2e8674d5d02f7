/*
 * Projector fixture: a Redis and a topic of a test's own, events for it, and projectors in the
 * test's process. Kafka is that of TALLY_KAFKA_BROKERS.
 *
 * Every wait is for a condition and bounded; what does not come fails the test.
 */
#ifndef TALLY_TEST_PROJECTOR_FIXTURE_H
#define TALLY_TEST_PROJECTOR_FIXTURE_H

#include "core/metrics.h"
#include "domain/fold.h"
#include "kafka/producer.h"
#include "redis_server.h"
#include "service/projector/projector.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdatomic.h>

enum { FIXTURE_PARTITIONS = 4 };

/* A projector under test. */
struct projector {
    struct tally_settings settings;
    struct tally_metrics *metrics;
    struct tally_projector *handle;
    atomic_bool ended;
};

struct fixture {
    /* Set before fixture_open() where the brokers of TALLY_KAFKA_BROKERS are of a mock cluster. */
    rd_kafka_mock_cluster_t *cluster;
    int32_t partitions; /* that the topic has, and events go by; 0: FIXTURE_PARTITIONS */
    struct redis_server server;
    struct tally_redis *redis; /* the test's own connection */
    char topic[64], dead_topic[64], group[64];
    char left_topic[64]; /* before fixture_recreate_topic() */
    struct tally_producer *producer;
    int64_t undelivered;
};

/* What `partitions` says. */
int32_t fixture_partitions(const struct fixture *fixture);

void fixture_open(struct fixture *fixture);
void fixture_close(struct fixture *fixture);

/* Goes on with another, empty topic of as many partitions, for whoever starts from now on: as where
 * the topic was deleted and made anew. */
void fixture_recreate_topic(struct fixture *fixture);
/* Gives the topic more partitions; from now on events go by them. */
void fixture_widen_topic(struct fixture *fixture, int32_t partitions);
/* Makes the topic of the dead letters, after a test that did without has named another one. */
void fixture_create_dead_topic(struct fixture *fixture);

/* Starts a projector with default settings. */
void projector_start(struct fixture *fixture, struct projector *projector);
/* Stops it as SIGTERM does. */
void projector_stop(struct projector *projector);
/* Waits until it has ended by itself; returns why. */
enum tally_status projector_await_end(struct projector *projector, struct tally_error *error);
/* The value of a metric as it would be printed, `name` with its labels. */
double projector_metric(struct projector *projector, const char *name);
void projector_await_metric(struct projector *projector, const char *name, double least);

/* Sends one event and returns when Kafka has it. */
void fixture_send(struct fixture *fixture, const struct tally_event *event);
/* Events `first` to `last` of a user's history: the first is user.created, then post.created and
 * comment.created in turn. */
void fixture_send_history(struct fixture *fixture, int64_t user_id, int64_t first, int64_t last);
/* A message as it is, into the partition of that user. */
void fixture_send_raw(struct fixture *fixture, int64_t user_id,
                      const struct tally_producer_message *message);

/* Waits until the read model stands at the end of every partition. */
void fixture_await_applied(struct fixture *fixture);
/* Waits until a user's version is this one. */
void fixture_await_version(struct fixture *fixture, int64_t user_id, int64_t version);
int64_t fixture_generation(struct fixture *fixture);
/* The user's fields "v posts comments deleted flagged", "-" for what is not there. */
const char *fixture_user(struct fixture *fixture, int64_t user_id);
/* "users posts comments", summed up over the partitions. */
const char *fixture_totals(struct fixture *fixture);
/* What fixture_user() must say after this much of fixture_send_history(). */
const char *fixture_history(int64_t last);

#endif
