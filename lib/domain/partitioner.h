/*
 * Partitioner: which partition of the topic a user's events go to, as Java clients compute it
 * (Kafka's org.apache.kafka.common.utils.Utils.murmur2 over the key's bytes, sign bit cleared,
 * modulo the partition count), so that a producer in any language agrees. Pure.
 */
#ifndef TALLY_DOMAIN_PARTITIONER_H
#define TALLY_DOMAIN_PARTITIONER_H

#include <stddef.h>
#include <stdint.h>

int32_t tally_murmur2(const void *bytes, size_t length);
/* The partition of a user among `partitions` > 0; the key is the id's decimal text. */
int32_t tally_partition_of(int64_t user_id, int32_t partitions);

#endif
