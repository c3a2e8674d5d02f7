/* kafka/consumer.h: members of a group that learn of a rebalance when they next poll. */
#include "simulation.h"

#include "kafka/consumer.h"

#include <stdlib.h>
#include <string.h>

struct tally_consumer {
    size_t member;
    bool joined;
    int64_t ownership; /* number of the rebalance that it knows */
    int32_t owned[SIMULATION_PARTITIONS];
    size_t owned_count;
    struct {
        bool assigned;
        int64_t next;
    } partitions[SIMULATION_PARTITIONS];
    struct tally_record_header headers[TALLY_EVENT_HEADER_COUNT]; /* of the last record */
};

static struct {
    struct tally_consumer *members[SIMULATION_PROCESSES]; /* NULL: not in the group */
    size_t owners[SIMULATION_PARTITIONS];
    int64_t rebalances;
} group;

void simulated_group_reset(void)
{
    memset(&group, 0, sizeof group);
}

void simulated_group_rebalance(void)
{
    size_t able[SIMULATION_PROCESSES];
    size_t count = 0;
    for (size_t i = 0; i < SIMULATION_PROCESSES; i++) {
        /* One that has stopped is taken for dead. */
        if (group.members[i] != NULL &&
            simulation_process_at(i)->stopped_until_us <= simulation->now_us)
            able[count++] = i;
    }
    group.rebalances++;
    for (int i = 0; i < SIMULATION_PARTITIONS; i++)
        group.owners[i] = count > 0 ? able[simulation_below(count)] : SIMULATION_PROCESSES;
    simulation_note("group.rebalance", group.rebalances, (int64_t)count, 0);
}

void simulated_group_repair(void)
{
    bool orphaned = false;
    for (int i = 0; i < SIMULATION_PARTITIONS; i++)
        orphaned = orphaned || group.owners[i] == SIMULATION_PROCESSES ||
                   group.members[group.owners[i]] == NULL;
    if (orphaned)
        simulated_group_rebalance();
}

void simulated_group_leave(const struct simulation_process *process)
{
    group.members[simulation_process_index(process)] = NULL;
}

enum tally_status tally_consumer_new(const struct tally_consumer_options *options,
                                     struct tally_consumer **consumer, struct tally_error *error)
{
    (void)options;
    struct tally_consumer *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "consumer");
    made->member = simulation_process_index(simulation->current != NULL ? simulation->current
                                                                        : simulation->starting);
    *consumer = made;
    return TALLY_OK;
}

enum tally_status tally_consumer_join(struct tally_consumer *consumer, struct tally_error *error)
{
    if (simulation_killed())
        return tally_fail(error, TALLY_IO, "the simulated process is dead");
    consumer->joined = true;
    group.members[consumer->member] = consumer;
    simulated_group_rebalance();
    return TALLY_OK;
}

void tally_consumer_close(struct tally_consumer **consumer)
{
    if (*consumer != NULL && group.members[(*consumer)->member] == *consumer)
        group.members[(*consumer)->member] = NULL;
    free(*consumer);
    *consumer = NULL;
}

void tally_consumer_abandon(struct tally_consumer **consumer)
{
    tally_consumer_close(consumer);
}

enum tally_status tally_consumer_topology(struct tally_consumer *consumer, int timeout_ms,
                                          struct tally_topology *topology,
                                          struct tally_error *error)
{
    (void)consumer, (void)timeout_ms;
    simulation_wait((int64_t)simulation_below(2000), NULL, NULL);
    if (simulation_killed() || simulated_kafka_away())
        return tally_fail(error, TALLY_UNAVAILABLE, "the simulated broker does not answer");
    *topology =
        (struct tally_topology){.cluster = "simulated", .partitions = SIMULATION_PARTITIONS};
    return TALLY_OK;
}

static void deliver(struct tally_consumer *consumer, int32_t partition,
                    struct tally_consumer_event *event)
{
    int64_t offset = consumer->partitions[partition].next++;
    /* What was fetched before the last assignment may be polled after it. */
    if (offset > 0 && simulation_fault(64)) {
        offset = (int64_t)simulation_below((uint64_t)offset);
        consumer->partitions[partition].next--;
    }
    const struct simulated_message *message = simulated_log_at(partition, offset);
    for (size_t i = 0; i < message->header_count; i++)
        consumer->headers[i] = (struct tally_record_header){
            message->headers[i].name, message->headers[i].value, message->headers[i].length};
    event->kind = TALLY_CONSUMED_RECORD;
    event->record = (struct tally_record){
        .partition = partition,
        .offset = offset,
        .key = message->key,
        .key_length = message->key_length,
        .value = message->tombstone ? NULL : message->value,
        .value_length = message->tombstone ? 0 : message->value_length,
        .timestamp_ms = message->at_ms,
        .headers = consumer->headers,
        .header_count = message->header_count,
    };
}

static bool has_news(const void *context)
{
    const struct tally_consumer *consumer = context;
    if (consumer->joined && consumer->ownership != group.rebalances)
        return true;
    for (int i = 0; i < SIMULATION_PARTITIONS && !simulated_kafka_away(); i++) {
        if (consumer->partitions[i].assigned && consumer->partitions[i].next < simulated_log_end(i))
            return true;
    }
    return false;
}

static void tell_ownership(struct tally_consumer *consumer, struct tally_consumer_event *event)
{
    consumer->ownership = group.rebalances;
    consumer->owned_count = 0;
    memset(consumer->partitions, 0, sizeof consumer->partitions);
    for (int32_t i = 0; i < SIMULATION_PARTITIONS; i++) {
        if (group.owners[i] == consumer->member)
            consumer->owned[consumer->owned_count++] = i;
    }
    event->kind = TALLY_CONSUMED_OWNERSHIP;
}

void tally_consumer_poll(struct tally_consumer *consumer, int timeout_ms,
                         struct tally_consumer_event *event)
{
    *event = (struct tally_consumer_event){.kind = TALLY_CONSUMED_NOTHING};
    if (timeout_ms > 0)
        simulation_wait(timeout_ms * INT64_C(1000), has_news, consumer);
    else if (simulation_fault(4))
        simulation_wait(0, NULL, NULL);
    if (simulation_killed())
        return;
    if (consumer->joined && consumer->ownership != group.rebalances) {
        tell_ownership(consumer, event);
        return;
    }
    if (simulated_kafka_away() || simulation_fault(32))
        return;
    if (simulation_fault(5000)) {
        (void)tally_fail(&event->error, TALLY_IO, "the simulated consumer is fenced");
        event->kind = TALLY_CONSUMED_FATAL;
        return;
    }
    const int32_t begin = (int32_t)simulation_below(SIMULATION_PARTITIONS);
    for (int32_t i = 0; i < SIMULATION_PARTITIONS; i++) {
        const int32_t partition = (begin + i) % SIMULATION_PARTITIONS;
        if (!consumer->partitions[partition].assigned)
            continue;
        if (consumer->partitions[partition].next < simulated_log_end(partition)) {
            deliver(consumer, partition, event);
            return;
        }
    }
}

const int32_t *tally_consumer_owned(const struct tally_consumer *consumer, size_t *count)
{
    *count = consumer->owned_count;
    return consumer->owned;
}

enum tally_status tally_consumer_assign(struct tally_consumer *consumer,
                                        const struct tally_consumer_start *starts, size_t count,
                                        struct tally_error *error)
{
    (void)error;
    memset(consumer->partitions, 0, sizeof consumer->partitions);
    for (size_t i = 0; i < count; i++) {
        consumer->partitions[starts[i].partition].assigned = true;
        consumer->partitions[starts[i].partition].next = starts[i].offset;
        if (starts[i].offset > simulated_log_end(starts[i].partition))
            simulation_fail("a projector reads from beyond the log");
    }
    return TALLY_OK;
}

void tally_consumer_store(struct tally_consumer *consumer, int32_t partition, int64_t next)
{
    (void)consumer, (void)partition, (void)next;
}

/* Records are made by hand: nothing of them is owned. */
size_t tally_record_headers(const struct tally_record *record, struct tally_record_header *headers,
                            size_t most)
{
    const size_t given = record->header_count < most ? record->header_count : most;
    memcpy(headers, record->headers, given * sizeof *headers);
    return given;
}

void tally_record_forget_headers(struct tally_record *record)
{
    (void)record;
}

void tally_record_release(struct tally_record *record)
{
    record->handle = NULL;
}
