/* The broker: a log for each partition, and what else of Kafka the projector asks. */
#include "simulation.h"

#include "domain/partitioner.h"
#include "service/projector/dead_letters.h"
#include "service/projector/tip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct log {
    struct simulated_message **messages; /* owned */
    int64_t count, capacity;
};

struct simulated_kafka {
    struct log logs[SIMULATION_PARTITIONS];
    int64_t versions[SIMULATION_USERS]; /* highest that is in the log */
    int64_t away_until_us;
};

static int64_t wall_ms(void)
{
    return INT64_C(1795348800000) + simulation->now_us / 1000;
}

void simulated_kafka_open(void)
{
    simulation->kafka = calloc(1, sizeof *simulation->kafka);
    if (simulation->kafka == NULL)
        abort();
    simulated_group_reset();
}

void simulated_kafka_close(void)
{
    for (int i = 0; i < SIMULATION_PARTITIONS; i++) {
        struct log *log = &simulation->kafka->logs[i];
        for (int64_t offset = 0; offset < log->count; offset++)
            free(log->messages[offset]);
        free(log->messages);
    }
    simulated_producers_close();
    free(simulation->kafka);
    simulation->kafka = NULL;
}

void simulated_kafka_outage(int64_t us)
{
    simulation_note("kafka.away", us, 0, 0);
    simulation->kafka->away_until_us = simulation->now_us + us;
}

bool simulated_kafka_away(void)
{
    return simulation->now_us < simulation->kafka->away_until_us;
}

void simulated_kafka_append(const struct simulated_message *message)
{
    struct log *log = &simulation->kafka->logs[message->partition];
    const size_t user = simulated_user_of(message->user_id);
    if (log->count == log->capacity) {
        log->capacity = log->capacity > 0 ? 2 * log->capacity : 64;
        log->messages = realloc(log->messages, (size_t)log->capacity * sizeof(void *));
        if (log->messages == NULL)
            abort();
    }
    struct simulated_message *copy = malloc(sizeof *copy);
    if (copy == NULL)
        abort();
    *copy = *message;
    copy->at_ms = wall_ms();
    for (size_t i = 0; i < copy->header_count; i++)
        copy->headers[i].value = copy->texts[i];
    log->messages[log->count++] = copy;
    simulation_note("kafka.append", message->partition, message->user_id, message->version);
    simulation->outcome.published++;
    int64_t *highest = &simulation->kafka->versions[user];
    if (message->version > simulated_user_version(user))
        simulation_fail("version %" PRId64 " of user %" PRId64 " is in Kafka and not committed",
                        message->version, message->user_id);
    if (message->version > *highest + 1)
        simulation_fail("version %" PRId64 " of user %" PRId64
                        " is in Kafka before version %" PRId64,
                        message->version, message->user_id, *highest + 1);
    if (message->version > *highest)
        *highest = message->version;
}

int64_t simulated_log_end(int32_t partition)
{
    return simulation->kafka->logs[partition].count;
}

const struct simulated_message *simulated_log_at(int32_t partition, int64_t offset)
{
    return simulation->kafka->logs[partition].messages[offset];
}

int64_t simulated_log_version(size_t user)
{
    return simulation->kafka->versions[user];
}

int64_t simulated_log_version_before(size_t user, int32_t partition, int64_t end)
{
    const struct log *log = &simulation->kafka->logs[partition];
    const int64_t id = simulated_user_id(user);
    int64_t highest = 0;
    for (int64_t offset = 0; offset < end && offset < log->count; offset++) {
        if (log->messages[offset]->user_id == id && log->messages[offset]->version > highest)
            highest = log->messages[offset]->version;
    }
    return highest;
}

/* service/projector/tip.h: the thread has always just asked, unless the broker is away. */
struct tally_tip {
    struct tally_tip_end last[SIMULATION_PARTITIONS];
};

enum tally_status tally_tip_start(const struct tally_consumer_options *options, int32_t partitions,
                                  struct tally_tip **tip, struct tally_error *error)
{
    (void)options;
    *tip = calloc(1, sizeof **tip);
    if (*tip == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "tip");
    for (int32_t i = 0; i < partitions; i++)
        (*tip)->last[i].high = -1;
    return TALLY_OK;
}

void tally_tip_stop(struct tally_tip **tip)
{
    free(*tip);
    *tip = NULL;
}

enum tally_status tally_tip_ask(struct tally_tip *tip, int32_t partition, int timeout_ms,
                                int64_t *low, int64_t *high, struct tally_error *error)
{
    (void)tip, (void)timeout_ms;
    simulation_wait((int64_t)simulation_below(2000), NULL, NULL);
    if (simulation_killed() || simulated_kafka_away())
        return tally_fail(error, TALLY_UNAVAILABLE, "the simulated broker does not answer");
    *low = 0;
    *high = simulated_log_end(partition);
    return TALLY_OK;
}

enum tally_status tally_tip_peek(struct tally_tip *tip, const struct tally_consumer_start *starts,
                                 size_t count, int timeout_ms, int64_t *timestamps_ms,
                                 struct tally_error *error)
{
    (void)tip, (void)timeout_ms;
    if (count == 0)
        return TALLY_OK;
    simulation_wait((int64_t)simulation_below(2000), NULL, NULL);
    if (simulation_killed() || simulated_kafka_away() || simulation_fault(64))
        return tally_fail(error, TALLY_UNAVAILABLE, "the simulated broker does not answer");
    for (size_t i = 0; i < count; i++)
        timestamps_ms[i] = simulated_log_at(starts[i].partition, starts[i].offset)->at_ms;
    return TALLY_OK;
}

void tally_tip_watch(struct tally_tip *tip, int32_t partition, bool watched)
{
    (void)tip, (void)partition, (void)watched;
}

struct tally_tip_end tally_tip_read(struct tally_tip *tip, int32_t partition)
{
    if (!simulated_kafka_away() && simulation_below(2) == 0)
        tip->last[partition] = (struct tally_tip_end){simulated_log_end(partition), wall_ms()};
    return tip->last[partition];
}

/* service/projector/dead_letters.h: nothing in the log is poison, so none may come. */
enum tally_status tally_dead_letters_new(const struct tally_dead_letter_options *options,
                                         struct tally_dead_letters **letters,
                                         struct tally_error *error)
{
    (void)options, (void)error;
    *letters = NULL;
    return TALLY_OK;
}

void tally_dead_letters_free(struct tally_dead_letters **letters)
{
    *letters = NULL;
}

enum tally_status tally_dead_letters_write(struct tally_dead_letters *letters,
                                           const struct tally_round *round, int64_t timeout_ms,
                                           struct tally_error *error)
{
    (void)letters, (void)timeout_ms, (void)error;
    for (size_t i = 0; i < round->count; i++) {
        const struct tally_round_item *item = &round->items[i];
        if (item->poison != NULL)
            simulation_fail("offset %" PRId64 " of partition %d is taken for poison: %s",
                            item->record.offset, item->record.partition, item->poison);
    }
    if (simulation_fault(200))
        return tally_fail(error, TALLY_UNAVAILABLE, "the simulated dead letters are away");
    return TALLY_OK;
}
