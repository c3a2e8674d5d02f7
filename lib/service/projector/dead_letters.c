#include "service/projector/dead_letters.h"

#include "service/projector/report.h"

#include "core/clock.h"
#include "kafka/producer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_MESSAGES = 100000,
    HEADERS_MOST = 32,
    OWN_HEADERS = 4,
    QUESTION_MS = 500,
    STOPPING_US = 1000 * 1000
};

struct tally_dead_letters {
    struct tally_dead_letter_options options;
    struct tally_producer *producer; /* NULL: none yet, or the last one failed */
    size_t failed;                   /* letters of this write that Kafka did not take */
    char reason[128];                /* of the last of them */
    int64_t began_us, deadline_us;   /* monotonic, of this write */
};

static void on_delivered(void *context, uintptr_t tag, enum tally_status status, const char *reason)
{
    (void)tag;
    struct tally_dead_letters *letters = context;
    if (status == TALLY_OK)
        return;
    letters->failed++;
    (void)snprintf(letters->reason, sizeof letters->reason, "%s", reason);
}

enum tally_status tally_dead_letters_new(const struct tally_dead_letter_options *options,
                                         struct tally_dead_letters **letters,
                                         struct tally_error *error)
{
    struct tally_dead_letters *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "dead letters");
    made->options = *options;
    *letters = made;
    return TALLY_OK;
}

void tally_dead_letters_free(struct tally_dead_letters **letters)
{
    if (*letters == NULL)
        return;
    tally_producer_free(&(*letters)->producer);
    free(*letters);
    *letters = NULL;
}

static enum tally_status open_producer(struct tally_dead_letters *letters,
                                       struct tally_error *error)
{
    if (letters->producer != NULL)
        return TALLY_OK;
    const struct tally_producer_options options = {
        .brokers = letters->options.brokers,
        .topic = letters->options.topic,
        .compression = "none",
        .queue_messages = QUEUE_MESSAGES,
        .on_delivered = on_delivered,
        .context = letters,
        .on_log = tally_projector_kafka_log,
        .client_id = "tally-projector",
    };
    return tally_producer_new(&options, &letters->producer, error);
}

static enum tally_status send_letter(struct tally_dead_letters *letters,
                                     const struct tally_round_item *item, int32_t partitions,
                                     struct tally_error *error)
{
    struct tally_record_header original[HEADERS_MOST];
    struct tally_producer_header headers[HEADERS_MOST + OWN_HEADERS];
    const struct tally_record *record = &item->record;
    char partition[16];
    char offset[24];
    (void)snprintf(partition, sizeof partition, "%" PRId32, record->partition);
    (void)snprintf(offset, sizeof offset, "%" PRId64, record->offset);
    size_t count = tally_record_headers(record, original, HEADERS_MOST);
    for (size_t i = 0; i < count; i++)
        headers[i] =
            (struct tally_producer_header){original[i].name, original[i].value, original[i].length};
    const struct {
        const char *name;
        const char *value;
    } own[OWN_HEADERS] = {
        {"tally_reason", item->poison},
        {"tally_source_topic", letters->options.source_topic},
        {"tally_source_partition", partition},
        {"tally_source_offset", offset},
    };
    for (size_t i = 0; i < OWN_HEADERS; i++)
        headers[count++] =
            (struct tally_producer_header){own[i].name, own[i].value, strlen(own[i].value)};
    const struct tally_producer_message message = {
        .partition = record->partition % partitions,
        .key = record->key,
        .key_length = record->key_length,
        .value = record->value,
        .value_length = record->value_length,
        .headers = headers,
        .header_count = count,
    };
    return tally_producer_send(letters->producer, &message, error);
}

/* Whether the waiting is over. */
static bool is_over(const struct tally_dead_letters *letters)
{
    const int64_t now_us = tally_clock_monotonic_us();
    return now_us >= letters->deadline_us ||
           (letters->options.stopping != NULL && now_us >= letters->began_us + STOPPING_US &&
            atomic_load_explicit(letters->options.stopping, memory_order_relaxed));
}

static enum tally_status ask_partitions(struct tally_dead_letters *letters, int32_t *partitions,
                                        struct tally_error *error)
{
    for (;;) {
        const enum tally_status status =
            tally_producer_partitions(letters->producer, QUESTION_MS, partitions, error);
        if (status != TALLY_UNAVAILABLE || is_over(letters))
            return status;
        (void)tally_producer_poll(letters->producer, 100);
    }
}

static enum tally_status send_all(struct tally_dead_letters *letters,
                                  const struct tally_round *round, int32_t partitions,
                                  struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (size_t i = 0; i < round->count && status == TALLY_OK; i++) {
        if (round->items[i].outcome != TALLY_OUTCOME_POISON)
            continue;
        status = send_letter(letters, &round->items[i], partitions, error);
        while (status == TALLY_OVERLOADED && !is_over(letters)) {
            (void)tally_producer_poll(letters->producer, 10);
            status = send_letter(letters, &round->items[i], partitions, error);
        }
    }
    while (status == TALLY_OK && tally_producer_outstanding(letters->producer) > 0 &&
           !is_over(letters))
        (void)tally_producer_poll(letters->producer, 10);
    if (status == TALLY_OK && tally_producer_outstanding(letters->producer) > 0)
        status = tally_fail(error, TALLY_UNAVAILABLE, "Kafka has not acknowledged in time");
    if (status == TALLY_OK && letters->failed > 0)
        status = tally_fail(error, TALLY_IO, "%s", letters->reason);
    return status;
}

enum tally_status tally_dead_letters_write(struct tally_dead_letters *letters,
                                           const struct tally_round *round, int64_t timeout_ms,
                                           struct tally_error *error)
{
    size_t count = 0;
    for (size_t i = 0; i < round->count; i++)
        count += round->items[i].outcome == TALLY_OUTCOME_POISON;
    if (count == 0)
        return TALLY_OK;
    letters->began_us = tally_clock_monotonic_us();
    letters->deadline_us = letters->began_us + timeout_ms * 1000;
    int32_t partitions = 0;
    letters->failed = 0;
    enum tally_status status = open_producer(letters, error);
    if (status == TALLY_OK)
        status = ask_partitions(letters, &partitions, error);
    if (status == TALLY_OK)
        status = send_all(letters, round, partitions, error);
    /* What is still queued would come on top of the next attempt. */
    if (status != TALLY_OK)
        tally_producer_free(&letters->producer);
    return status;
}
