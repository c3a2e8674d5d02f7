/*
 * Admin: what tools ask a Kafka cluster: topics, their configuration and offsets, a group's
 * members.
 *
 * Every call blocks, at most as long as its timeout. A client belongs to one thread.
 */
#ifndef TALLY_KAFKA_ADMIN_H
#define TALLY_KAFKA_ADMIN_H

#include "core/status.h"

#include <stdint.h>

struct tally_kafka_admin;

#define TALLY_KAFKA_NAME_BYTES 256
#define TALLY_KAFKA_PARTITIONS_MOST 1024
#define TALLY_KAFKA_MEMBERS_MOST 256

/* Connects to nothing yet. CONFIG: `brokers` cannot be read. */
enum tally_status tally_kafka_admin_new(const char *brokers, struct tally_kafka_admin **admin,
                                        struct tally_error *error) TALLY_MUST_CHECK;
void tally_kafka_admin_free(struct tally_kafka_admin **admin);

/* `*brokers` receives how many brokers the cluster has, `*partitions` how many partitions `topic`
 * has: 0 where there is no such topic. UNAVAILABLE: no broker answers. */
enum tally_status tally_kafka_admin_topic(struct tally_kafka_admin *admin, const char *topic,
                                          int timeout_ms, int *brokers, int32_t *partitions,
                                          struct tally_error *error) TALLY_MUST_CHECK;

struct tally_kafka_topic_config {
    const char *name;
    const char *value;
};

struct tally_kafka_new_topic {
    const char *name;
    int32_t partitions;
    int replication;
    const struct tally_kafka_topic_config *configs;
    size_t config_count;
};

/* Returns once the brokers tell of the new topic. `*existed` is true where it is there already; it
 * is then left as it is. CONFIG: the broker refuses the request, and says why; UNAVAILABLE: no
 * broker answers, or knows the topic in time. */
enum tally_status tally_kafka_admin_create(struct tally_kafka_admin *admin,
                                           const struct tally_kafka_new_topic *topic,
                                           int timeout_ms, bool *existed,
                                           struct tally_error *error) TALLY_MUST_CHECK;

/* One call of `each` for every entry of the topic's configuration. */
enum tally_status tally_kafka_admin_configs(
    struct tally_kafka_admin *admin, const char *topic, int timeout_ms,
    void (*each)(void *context, const char *name, const char *value), void *context,
    struct tally_error *error) TALLY_MUST_CHECK;

/* First kept offset, and the next one to be written. */
enum tally_status tally_kafka_admin_watermarks(struct tally_kafka_admin *admin, const char *topic,
                                               int32_t partition, int timeout_ms, int64_t *low,
                                               int64_t *high,
                                               struct tally_error *error) TALLY_MUST_CHECK;

/* Removes what each of the topic's `partitions` holds before its offset; an offset that is not
 * above the first kept one removes nothing. CONFIG: the broker refuses, and says why; some
 * partitions may have been cut all the same. */
enum tally_status tally_kafka_admin_delete_before(struct tally_kafka_admin *admin,
                                                  const char *topic, const int64_t *offsets,
                                                  int32_t partitions, int timeout_ms,
                                                  struct tally_error *error) TALLY_MUST_CHECK;

struct tally_kafka_member {
    char client_id[TALLY_KAFKA_NAME_BYTES];
    char instance_id[TALLY_KAFKA_NAME_BYTES]; /* "" where membership is dynamic */
    char host[TALLY_KAFKA_NAME_BYTES];
    int32_t partitions; /* assigned to it */
};

struct tally_kafka_group {
    char state[32]; /* "Stable", "Empty", "PreparingRebalance", … */
    size_t member_count;
    struct tally_kafka_member members[TALLY_KAFKA_MEMBERS_MOST];
};

/* A group nobody ever used is "Dead" with no members. `group` is large: allocate it. */
enum tally_status tally_kafka_admin_group(struct tally_kafka_admin *admin, const char *name,
                                          int timeout_ms, struct tally_kafka_group *group,
                                          struct tally_error *error) TALLY_MUST_CHECK;

#endif
