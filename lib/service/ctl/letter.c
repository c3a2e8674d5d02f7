#include "service/ctl/letter.h"

#include "core/id.h"
#include "kafka/admin.h"

#include <stdlib.h>
#include <string.h>

enum { ASK_MS = 5000, NUMBER_BYTES = 24 };

/* A decimal number of 0 or more, or -1. */
static int64_t read_number(const char *text)
{
    int64_t number = 0;
    if (strcmp(text, "0") == 0)
        return 0;
    return tally_id_parse(text, strlen(text), &number) ? number : -1;
}

static int64_t header_number(const struct tally_record *record, const char *name)
{
    char text[NUMBER_BYTES];
    tally_record_header_text(record, name, text, sizeof text);
    return read_number(text);
}

void tally_letter_read(const struct tally_record *record, int64_t timestamp_ms,
                       struct tally_letter *letter)
{
    *letter = (struct tally_letter){
        .place = {record->partition, record->offset, timestamp_ms},
        .record = record,
        .source_offset = header_number(record, "tally_source_offset"),
    };
    const int64_t partition = header_number(record, "tally_source_partition");
    const int64_t version = header_number(record, "ce_sequence");
    letter->source_partition = partition <= INT32_MAX ? (int32_t)partition : -1;
    letter->version = version > 0 ? version : 0;
    if (record->key == NULL || !tally_id_parse(record->key, record->key_length, &letter->user_id))
        letter->user_id = 0;
    tally_record_header_text(record, "ce_type", letter->type, sizeof letter->type);
    tally_record_header_text(record, "tally_reason", letter->reason, sizeof letter->reason);
    tally_record_header_text(record, "tally_source_topic", letter->source_topic,
                             sizeof letter->source_topic);
}

bool tally_letter_place_parse(const char *text, int32_t *partition, int64_t *offset)
{
    char first[NUMBER_BYTES];
    const char *colon = strchr(text, ':');
    const size_t length = colon != NULL ? (size_t)(colon - text) : 0;
    int64_t number = 0;
    if (colon != NULL) {
        if (length >= sizeof first)
            return false;
        memcpy(first, text, length);
        first[length] = '\0';
        number = read_number(first);
    }
    *offset = read_number(colon != NULL ? colon + 1 : text);
    *partition = (int32_t)number;
    return number >= 0 && number < TALLY_KAFKA_PARTITIONS_MOST && *offset >= 0;
}

static bool on_record(void *context, const struct tally_record *record, int64_t timestamp_ms)
{
    const struct tally_letter_walk *walk = context;
    struct tally_letter letter;
    tally_letter_read(record, timestamp_ms, &letter);
    return walk->on_letter(walk->context, &letter);
}

static enum tally_status walk_partition(const struct tally_letter_walk *walk, int32_t partition,
                                        int64_t low, int64_t high, int64_t *left,
                                        struct tally_error *error)
{
    struct tally_letter_walk copy = *walk;
    struct tally_scan scan = {
        .brokers = walk->settings->kafka_brokers,
        .topic = walk->settings->dlq_topic,
        .partition = partition,
        .from = low,
        .to = high,
        .timeout_ms = walk->timeout_ms,
        .on_record = on_record,
        .context = &copy,
    };
    if (walk->up_to_one) {
        if (walk->offset < low || walk->offset >= high)
            return TALLY_OK;
        scan.to = walk->offset + 1;
    }
    int64_t reached = 0;
    enum tally_status status = tally_scan_run(&scan, &reached, error);
    if (status == TALLY_OK)
        *left += scan.to - reached;
    return status;
}

enum tally_status tally_letter_walk(const struct tally_letter_walk *walk, int64_t *left,
                                    struct tally_error *error)
{
    const struct tally_settings *settings = walk->settings;
    struct tally_kafka_admin *admin = NULL;
    int brokers = 0;
    int32_t partitions = 0;
    const int ask_ms = walk->timeout_ms < ASK_MS ? (int)walk->timeout_ms : ASK_MS;
    *left = 0;
    enum tally_status status = tally_kafka_admin_new(settings->kafka_brokers, &admin, error);
    if (status == TALLY_OK)
        status = tally_kafka_admin_topic(admin, settings->dlq_topic, ask_ms, &brokers, &partitions,
                                         error);
    if (status == TALLY_OK && partitions == 0)
        status = tally_fail(error, TALLY_NOT_FOUND,
                            "there is no topic %s; `tallyctl topics create` makes it",
                            settings->dlq_topic);
    for (int32_t i = 0; status == TALLY_OK && i < partitions; i++) {
        int64_t low = 0, high = 0;
        if (walk->up_to_one && i != walk->partition)
            continue;
        status =
            tally_kafka_admin_watermarks(admin, settings->dlq_topic, i, ask_ms, &low, &high, error);
        if (status == TALLY_OK)
            status = walk_partition(walk, i, low, high, left, error);
    }
    tally_kafka_admin_free(&admin);
    return status;
}
