#include "service/ctl/erase_log.h"

#include "domain/partitioner.h"
#include "kafka/admin.h"
#include "service/ctl/letter.h"
#include "store/erasure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ASK_MS = 5000, LETTERS_MS = 20000, CHECK_MS = 5 * 60 * 1000 };

void tally_erase_topic_take(struct tally_erase_topic *topic, const char *name, const char *value)
{
    const struct {
        const char *name;
        int64_t *target;
    } numbers[] = {
        {"retention.ms", &topic->retention_ms},
        {"segment.ms", &topic->segment_ms},
        {"file.delete.delay.ms", &topic->delete_delay_ms},
        {"max.compaction.lag.ms", &topic->compaction_lag_ms},
    };
    if (strcmp(name, "cleanup.policy") == 0)
        (void)snprintf(topic->policy, sizeof topic->policy, "%s", value);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(name, numbers[i].name) == 0)
            *numbers[i].target = strtoll(value, NULL, 10);
}

/* -1 where the sum would not fit. */
static int64_t add_ms(int64_t sum_ms, int64_t more_ms)
{
    return sum_ms < 0 || more_ms < 0 || more_ms > INT64_MAX - sum_ms ? -1 : sum_ms + more_ms;
}

int64_t tally_erase_topic_expiry_ms(const struct tally_erase_topic *topic, int64_t written_at_ms)
{
    int64_t at_ms = -1;
    if (strstr(topic->policy, "delete") != NULL) {
        at_ms = add_ms(written_at_ms, topic->segment_ms);
        at_ms = add_ms(at_ms, topic->retention_ms);
    } else if (tally_erase_topic_compacts(topic)) {
        at_ms = add_ms(written_at_ms, topic->compaction_lag_ms);
    }
    at_ms = add_ms(at_ms, CHECK_MS);
    return add_ms(at_ms, topic->delete_delay_ms);
}

bool tally_erase_topic_compacts(const struct tally_erase_topic *topic)
{
    return strstr(topic->policy, "compact") != NULL;
}

static void take(void *context, const char *name, const char *value)
{
    tally_erase_topic_take(context, name, value);
}

static enum tally_status read_topic(struct tally_kafka_admin *admin, const char *name,
                                    struct tally_erase_topic *topic, struct tally_error *error)
{
    int brokers = 0;
    *topic = (struct tally_erase_topic){.retention_ms = -1, .compaction_lag_ms = -1};
    enum tally_status status =
        tally_kafka_admin_topic(admin, name, ASK_MS, &brokers, &topic->partitions, error);
    if (status == TALLY_OK && topic->partitions > 0)
        status = tally_kafka_admin_configs(admin, name, ASK_MS, take, topic, error);
    return status;
}

enum tally_status tally_erase_log_read(const struct tally_settings *settings, int64_t user_id,
                                       struct tally_erase_log *log, struct tally_error *error)
{
    struct tally_kafka_admin *admin = NULL;
    log->low = -1;
    log->high = -1;
    enum tally_status status = tally_kafka_admin_new(settings->kafka_brokers, &admin, error);
    if (status == TALLY_OK)
        status = read_topic(admin, settings->topic, &log->events, error);
    if (status == TALLY_OK)
        status = read_topic(admin, settings->dlq_topic, &log->letters, error);
    if (status == TALLY_OK && log->events.partitions > 0)
        status = tally_kafka_admin_watermarks(admin, settings->topic,
                                              tally_partition_of(user_id, log->events.partitions),
                                              ASK_MS, &log->low, &log->high, error);
    tally_kafka_admin_free(&admin);
    return status;
}

/* --- dead letters ------------------------------------------------------------------------------
 */

struct walk {
    const struct tally_settings *settings;
    PGconn *connection;
    int64_t user_id;
    struct tally_erase_log *log;
    enum tally_status status;
    struct tally_error *error;
};

static int64_t later(int64_t left, int64_t right)
{
    return left > right ? left : right;
}

static bool on_letter(void *context, const struct tally_letter *letter)
{
    struct walk *walk = context;
    const struct tally_letter_place *place = &letter->place;
    if (letter->user_id == 0) {
        walk->log->nameless++;
        walk->log->nameless_at_ms = later(walk->log->nameless_at_ms, place->written_at_ms);
    }
    if (letter->user_id != walk->user_id)
        return true;
    walk->log->count++;
    walk->log->written_at_ms = later(walk->log->written_at_ms, place->written_at_ms);
    walk->status =
        tally_erasure_scrub_letter(walk->connection, walk->user_id, walk->settings->dlq_topic,
                                   place->partition, place->offset, walk->error);
    return walk->status == TALLY_OK;
}

enum tally_status tally_erase_letters(const struct tally_settings *settings, PGconn *connection,
                                      int64_t user_id, struct tally_erase_log *log,
                                      struct tally_error *error)
{
    struct walk walk = {.settings = settings,
                        .connection = connection,
                        .user_id = user_id,
                        .log = log,
                        .error = error};
    const struct tally_letter_walk letters = {
        .settings = settings, .timeout_ms = LETTERS_MS, .on_letter = on_letter, .context = &walk};
    log->count = 0;
    log->nameless = 0;
    enum tally_status status = tally_letter_walk(&letters, &log->letters_unread, error);
    if (status == TALLY_NOT_FOUND) /* no topic, no letters */
        return TALLY_OK;
    return walk.status != TALLY_OK ? walk.status : status;
}
