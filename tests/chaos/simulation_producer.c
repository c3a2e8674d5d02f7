/* kafka/producer.h: messages wait in the client, reach the log in order, and are acknowledged later
 * or never; what a dead client had sent may still arrive. */
#include "simulation.h"

#include "core/id.h"
#include "kafka/producer.h"

#include <stdlib.h>
#include <string.h>

enum { QUEUE_MOST = 512 };

struct tally_producer {
    const struct simulation_process *process; /* NULL: it is gone, and this is still on the wire */
    struct tally_producer *next;
    tally_producer_delivered *on_delivered;
    void *context;
    int64_t queue_messages;
    bool fatal;
    struct simulated_message *queue; /* owned */
    size_t count;
};

static struct tally_producer *producers; /* of the simulation that runs */

enum tally_status tally_producer_new(const struct tally_producer_options *options,
                                     struct tally_producer **producer, struct tally_error *error)
{
    struct tally_producer *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "producer");
    made->process = simulation->current;
    made->on_delivered = options->on_delivered;
    made->context = options->context;
    made->queue_messages = options->queue_messages;
    made->queue = calloc(QUEUE_MOST, sizeof *made->queue);
    if (made->queue == NULL)
        abort();
    made->next = producers;
    producers = made;
    *producer = made;
    return TALLY_OK;
}

static void remove_producer(struct tally_producer *gone)
{
    struct tally_producer **link = &producers;
    while (*link != gone)
        link = &(*link)->next;
    *link = gone->next;
    free(gone->queue);
    free(gone);
}

/* Leaves on the wire what was sent: some first part of what is not in the log. */
static void orphan(const struct tally_producer *from)
{
    struct tally_producer *wire = calloc(1, sizeof *wire);
    if (wire == NULL)
        abort();
    wire->queue = calloc(QUEUE_MOST, sizeof *wire->queue);
    if (wire->queue == NULL)
        abort();
    const size_t most = simulation_below(from->count + 1);
    for (size_t i = 0; i < most; i++) {
        if (from->queue[i].state == MESSAGE_QUEUED)
            wire->queue[wire->count++] = from->queue[i];
    }
    wire->next = producers;
    producers = wire;
    if (wire->count == 0)
        remove_producer(wire);
}

void simulated_producers_orphan(const struct simulation_process *process)
{
    for (struct tally_producer *producer = producers; producer != NULL; producer = producer->next) {
        if (producer->process != process)
            continue;
        orphan(producer);
        producer->count = 0;
        return;
    }
}

void tally_producer_free(struct tally_producer **producer)
{
    struct tally_producer *gone = *producer;
    if (gone == NULL)
        return;
    tally_producer_purge(gone);
    (void)tally_producer_poll(gone, 0);
    remove_producer(gone);
    *producer = NULL;
}

enum tally_status tally_producer_partitions(struct tally_producer *producer, int timeout_ms,
                                            int32_t *partitions, struct tally_error *error)
{
    (void)producer, (void)timeout_ms;
    simulation_wait((int64_t)simulation_below(2000), NULL, NULL);
    if (simulation_killed() || simulated_kafka_away())
        return tally_fail(error, TALLY_UNAVAILABLE, "the simulated broker does not answer");
    *partitions = SIMULATION_PARTITIONS;
    return TALLY_OK;
}

enum tally_status tally_producer_send(struct tally_producer *producer,
                                      const struct tally_producer_message *message,
                                      struct tally_error *error)
{
    if (simulation_fault(8))
        simulation_wait((int64_t)simulation_below(1000), NULL, NULL);
    if (simulation_killed())
        return tally_fail(error, TALLY_IO, "the simulated process is dead");
    if (producer->fatal)
        return tally_fail(error, TALLY_IO, "the simulated producer lost its sequence");
    if (producer->count >= QUEUE_MOST || (int64_t)producer->count >= producer->queue_messages)
        return tally_fail(error, TALLY_OVERLOADED, "the simulated queue is full");
    struct simulated_message *copy = &producer->queue[producer->count++];
    *copy = (struct simulated_message){
        .partition = message->partition,
        .tag = message->tag,
        .key_length = message->key_length,
        .value_length = message->value_length,
        .tombstone = message->value == NULL,
        .header_count = message->header_count,
    };
    memcpy(copy->key, message->key, message->key_length);
    if (message->value != NULL)
        memcpy(copy->value, message->value, message->value_length);
    for (size_t i = 0; i < message->header_count; i++) {
        const struct tally_producer_header *header = &message->headers[i];
        copy->headers[i] = (struct tally_header){header->name, NULL, header->length};
        memcpy(copy->texts[i], header->value, header->length);
        if (strcmp(header->name, "ce_sequence") == 0 &&
            !tally_id_parse(header->value, header->length, &copy->version))
            simulation_fail("an event without a version");
    }
    if (!tally_id_parse(message->key, message->key_length, &copy->user_id))
        simulation_fail("an event whose key is no user");
    return TALLY_OK;
}

static bool has_reports(const void *context)
{
    const struct tally_producer *producer = context;
    for (size_t i = 0; i < producer->count; i++) {
        if (producer->queue[i].state >= MESSAGE_ACKNOWLEDGED)
            return true;
    }
    return producer->fatal;
}

int tally_producer_poll(struct tally_producer *producer, int timeout_ms)
{
    simulation_wait(timeout_ms * INT64_C(1000), has_reports, producer);
    size_t kept = 0;
    int served = 0;
    for (size_t i = 0; i < producer->count; i++) {
        const struct simulated_message message = producer->queue[i];
        if (message.state < MESSAGE_ACKNOWLEDGED) {
            producer->queue[kept++] = message;
            continue;
        }
        served++;
        producer->on_delivered(producer->context, message.tag,
                               message.state == MESSAGE_ACKNOWLEDGED ? TALLY_OK : TALLY_IO,
                               "simulated");
    }
    producer->count = kept;
    return served;
}

void tally_producer_notify(struct tally_producer *producer, int event_descriptor)
{
    (void)producer, (void)event_descriptor;
}

/* Some of what is purged is on its way already. */
void tally_producer_purge(struct tally_producer *producer)
{
    if (!simulation_killed())
        orphan(producer);
    for (size_t i = 0; i < producer->count; i++) {
        if (producer->queue[i].state < MESSAGE_ACKNOWLEDGED)
            producer->queue[i].state = MESSAGE_FAILED;
    }
}

int tally_producer_outstanding(struct tally_producer *producer)
{
    return (int)producer->count;
}

bool tally_producer_fatal(struct tally_producer *producer, struct tally_error *error)
{
    if (producer->fatal)
        (void)tally_fail(error, TALLY_IO, "the simulated producer lost its sequence");
    return producer->fatal;
}

/* Brings a run of messages of one partition into the log: those that nothing of the partition
 * precedes. */
static void transmit(struct tally_producer *producer)
{
    size_t first = 0;
    while (first < producer->count && producer->queue[first].state != MESSAGE_QUEUED)
        first++;
    if (first == producer->count)
        return;
    const int32_t chosen = (int32_t)simulation_below(SIMULATION_PARTITIONS);
    size_t most = 1 + simulation_below(8);
    for (size_t i = first; i < producer->count && most > 0; i++) {
        struct simulated_message *message = &producer->queue[i];
        if (message->partition != chosen || message->state != MESSAGE_QUEUED)
            continue;
        message->state = MESSAGE_LOGGED;
        simulated_kafka_append(message);
        most--;
    }
}

/* Lets some acknowledgements arrive; the others are lost, and repeated until one comes. */
static void acknowledge(struct tally_producer *producer)
{
    for (size_t i = 0; i < producer->count; i++) {
        if (producer->queue[i].state == MESSAGE_LOGGED && simulation_below(4) != 0)
            producer->queue[i].state = MESSAGE_ACKNOWLEDGED;
    }
}

/* An error that idempotence cannot get past: what is under way fails, also some that the log has.
 */
static void break_producer(struct tally_producer *producer)
{
    simulation_note("producer.fatal", 0, 0, 0);
    producer->fatal = true;
    for (size_t i = 0; i < producer->count; i++) {
        if (producer->queue[i].state < MESSAGE_ACKNOWLEDGED)
            producer->queue[i].state = MESSAGE_FAILED;
    }
}

static void remove_finished_orphans(void)
{
    struct tally_producer *producer = producers;
    while (producer != NULL) {
        struct tally_producer *next = producer->next;
        bool waiting = producer->process != NULL;
        for (size_t i = 0; i < producer->count; i++)
            waiting = waiting || producer->queue[i].state == MESSAGE_QUEUED;
        if (!waiting)
            remove_producer(producer);
        producer = next;
    }
}

void simulated_producers_step(void)
{
    size_t count = 0;
    if (simulated_kafka_away())
        return;
    remove_finished_orphans();
    for (struct tally_producer *producer = producers; producer != NULL; producer = producer->next)
        count++;
    if (count == 0)
        return;
    size_t chosen = simulation_below(count);
    struct tally_producer *producer = producers;
    while (chosen-- > 0)
        producer = producer->next;
    /* librdkafka's threads stop with the process. */
    if (producer->process != NULL && simulation->now_us < producer->process->stopped_until_us)
        return;
    if (producer->process != NULL && producer->count > 0 && simulation_fault(300))
        break_producer(producer);
    else if (simulation_below(2) == 0)
        transmit(producer);
    else
        acknowledge(producer);
}

bool simulated_producers_idle(void)
{
    remove_finished_orphans();
    for (const struct tally_producer *producer = producers; producer != NULL;
         producer = producer->next) {
        for (size_t i = 0; i < producer->count; i++) {
            if (producer->queue[i].state < MESSAGE_ACKNOWLEDGED)
                return false;
        }
    }
    return true;
}

void simulated_producers_close(void)
{
    while (producers != NULL)
        remove_producer(producers);
}
