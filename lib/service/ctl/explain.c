#include "service/ctl/explain.h"

#include "core/id.h"
#include "domain/partitioner.h"
#include "kafka/admin.h"
#include "kafka/scan.h"
#include "pg/blocking.h"
#include "view/position.h"

#include <stdlib.h>
#include <string.h>

enum { ASK_MS = 5000, STATE_BYTES = 1024, PROGRESS_EVERY = 4096 };

enum tally_status tally_explainer_open(struct tally_explainer *explainer,
                                       const struct tally_settings *settings,
                                       struct tally_error *error)
{
    *explainer = (struct tally_explainer){.settings = settings};
    enum tally_status status =
        tally_pg_connect(settings->pg_dsn, "tallyctl explain", &explainer->connection, error);
    if (status == TALLY_OK)
        status = tally_redis_open_text(settings->redis_url, settings->redis_timeout_ms,
                                       &explainer->redis, error);
    if (status != TALLY_OK)
        tally_explainer_close(explainer);
    return status;
}

void tally_explainer_close(struct tally_explainer *explainer)
{
    PQfinish(explainer->connection);
    if (explainer->redis != NULL)
        tally_redis_close(&explainer->redis);
    *explainer = (struct tally_explainer){0};
}

static enum tally_status read_state(struct tally_redis *redis, struct tally_explain *explain,
                                    struct tally_error *error)
{
    struct tally_buffer command;
    redisReply *reply = NULL;
    tally_buffer_init(&command, STATE_BYTES);
    tally_user_append_read(&command, explain->generation, explain->partition, explain->user_id);
    enum tally_status status =
        command.failed ? tally_fail(error, TALLY_NO_MEMORY, "user")
                       : tally_redis_append_raw(redis, command.data, command.length, error);
    if (status == TALLY_OK)
        status = tally_redis_receive(redis, &reply, error);
    if (status == TALLY_OK)
        status = tally_user_read_reply(reply, &explain->shown, error);
    if (reply != NULL)
        freeReplyObject(reply);
    tally_buffer_release(&command);
    return status;
}

/* The user's partition depends on the count that the generation was built with, which every
 * position holds. */
static enum tally_status read_model(struct tally_redis *redis, struct tally_explain *explain,
                                    struct tally_error *error)
{
    struct tally_position position = {0};
    int32_t partition = 0;
    enum tally_status status = tally_generation_read(redis, &explain->generation, error);
    if (status != TALLY_OK || explain->generation == 0)
        return status;
    status = tally_position_read(redis, explain->generation, &partition, 1, &position, error);
    if (status != TALLY_OK || !position.present || position.partitions <= 0)
        return status;
    explain->model_partitions = position.partitions;
    explain->partition = tally_partition_of(explain->user_id, position.partitions);
    status =
        tally_position_read(redis, explain->generation, &explain->partition, 1, &position, error);
    if (status == TALLY_OK && position.present)
        explain->position = position.offset;
    return status == TALLY_OK ? read_state(redis, explain, error) : status;
}

enum tally_status tally_explain_read(struct tally_explainer *explainer, int64_t user_id,
                                     size_t list_most, struct tally_explain *explain,
                                     struct tally_error *error)
{
    *explain = (struct tally_explain){.user_id = user_id, .position = -1};
    enum tally_status status = read_model(explainer->redis, explain, error);
    if (status == TALLY_OK)
        status = tally_history_read(explainer->connection, user_id, explain->shown.version,
                                    list_most, &explain->history, error);
    if (status == TALLY_OK)
        tally_explain_judge(user_id, &explain->history, &explain->shown, &explain->verdict);
    return status;
}

void tally_explain_release(struct tally_explain *explain)
{
    tally_history_release(&explain->history);
    free(explain->places);
    explain->places = NULL;
}

/* What the scan of a partition needs to know. */
struct search {
    struct tally_explain *explain;
    char key[TALLY_ID_TEXT_BYTES];
    size_t key_length;
    void (*on_progress)(void *context, int64_t done, int64_t total);
    void *context;
};

/* The index of the event with this version, or -1. */
static int64_t find_event(const struct tally_history *history, int64_t version)
{
    size_t low = 0, high = history->event_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (history->events[middle].version < version)
            low = middle + 1;
        else
            high = middle;
    }
    return low < history->event_count && history->events[low].version == version ? (int64_t)low
                                                                                 : -1;
}

static bool on_record(void *context, const struct tally_record *record, int64_t timestamp_ms)
{
    (void)timestamp_ms;
    struct search *search = context;
    struct tally_explain *explain = search->explain;
    if (record->offset % PROGRESS_EVERY == 0)
        search->on_progress(search->context, record->offset - explain->scan_from,
                            explain->scan_to - explain->scan_from);
    if (record->key == NULL || record->key_length != search->key_length ||
        memcmp(record->key, search->key, search->key_length) != 0)
        return true;
    char text[TALLY_ID_TEXT_BYTES];
    int64_t version = 0;
    tally_record_header_text(record, "ce_sequence", text, sizeof text);
    const int64_t index =
        tally_id_parse(text, strlen(text), &version) ? find_event(&explain->history, version) : -1;
    if (index < 0) {
        explain->others++;
        return true;
    }
    struct tally_explain_place *place = &explain->places[index];
    if (place->copies < TALLY_EXPLAIN_COPIES)
        place->offsets[place->copies] = record->offset;
    place->copies++;
    return true;
}

/* The user's partition in the topic and its offsets. */
static enum tally_status find_log(const struct tally_settings *settings,
                                  struct tally_explain *explain, int32_t *partition,
                                  struct tally_error *error)
{
    struct tally_kafka_admin *admin = NULL;
    int brokers = 0;
    int32_t partitions = 0;
    enum tally_status status = tally_kafka_admin_new(settings->kafka_brokers, &admin, error);
    if (status == TALLY_OK)
        status =
            tally_kafka_admin_topic(admin, settings->topic, ASK_MS, &brokers, &partitions, error);
    if (status == TALLY_OK && partitions == 0)
        status = tally_fail(error, TALLY_NOT_FOUND, "there is no topic %s", settings->topic);
    if (status == TALLY_OK) {
        *partition = tally_partition_of(explain->user_id, partitions);
        status = tally_kafka_admin_watermarks(admin, settings->topic, *partition, ASK_MS,
                                              &explain->scan_from, &explain->scan_to, error);
    }
    tally_kafka_admin_free(&admin);
    return status;
}

void tally_explain_locate(struct tally_explainer *explainer, struct tally_explain *explain,
                          int64_t timeout_ms,
                          void (*on_progress)(void *context, int64_t done, int64_t total),
                          void *context)
{
    struct search search = {.explain = explain, .on_progress = on_progress, .context = context};
    struct tally_scan scan = {
        .brokers = explainer->settings->kafka_brokers,
        .topic = explainer->settings->topic,
        .timeout_ms = timeout_ms,
        .on_record = on_record,
        .context = &search,
    };
    struct tally_error error = {0};
    search.key_length = tally_id_format(explain->user_id, search.key);
    explain->places = calloc(explain->history.event_count + 1, sizeof *explain->places);
    enum tally_status status = explain->places != NULL
                                   ? find_log(explainer->settings, explain, &scan.partition, &error)
                                   : tally_fail(&error, TALLY_NO_MEMORY, "places");
    scan.from = explain->scan_reached = explain->scan_from;
    scan.to = explain->scan_to;
    if (status == TALLY_OK && explain->model_partitions == 0)
        explain->partition = scan.partition;
    if (status == TALLY_OK && explain->partition != scan.partition)
        status = tally_fail(&error, TALLY_CONFIG,
                            "the read model was built from another partition count than the topic "
                            "has; the offsets shown would not be its own");
    if (status == TALLY_OK)
        status = tally_scan_run(&scan, &explain->scan_reached, &error);
    if (status != TALLY_OK)
        memcpy(explain->kafka_trouble, error.text, sizeof error.text);
}
