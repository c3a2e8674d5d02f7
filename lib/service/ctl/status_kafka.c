#include "core/clock.h"
#include "kafka/admin.h"
#include "redis/connection.h"
#include "service/ctl/output.h"
#include "service/ctl/status_probe.h"
#include "view/keys.h"
#include "view/pause.h"
#include "view/position.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAG_LONG_S = 30 };

/* What is known of one partition. */
struct partition {
    int64_t low, high;     /* of the topic */
    bool present;          /* the read model has a position; else the rest is 0 */
    int64_t epoch, offset; /* of the position */
    int64_t fresh_at_ms;   /* 0: not known */
};

struct projector {
    struct partition *partitions; /* owned */
    int32_t count;
    int brokers;
    int64_t generation;              /* 0: there is none */
    struct tally_kafka_group *group; /* owned; NULL where it could not be asked for */
    struct tally_view_pause pause;
    struct tally_error redis_error; /* why the positions are not known, or OK */
};

static int remaining_ms(int64_t due_us)
{
    int64_t left_ms = (due_us - tally_clock_monotonic_us()) / 1000;
    return left_ms < 1 ? 1 : (int)left_ms;
}

static enum tally_status read_topic(struct tally_kafka_admin *admin, const char *topic,
                                    int64_t due_us, struct projector *projector,
                                    struct tally_error *error)
{
    enum tally_status status = tally_kafka_admin_topic(
        admin, topic, remaining_ms(due_us), &projector->brokers, &projector->count, error);
    if (status != TALLY_OK)
        return status;
    if (projector->count == 0)
        return tally_fail(error, TALLY_NOT_FOUND,
                          "there is no topic %s: run `tallyctl topics create`", topic);
    projector->partitions = calloc((size_t)projector->count, sizeof *projector->partitions);
    if (projector->partitions == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "%d partitions", projector->count);
    for (int32_t i = 0; status == TALLY_OK && i < projector->count; i++)
        status = tally_kafka_admin_watermarks(admin, topic, i, remaining_ms(due_us),
                                              &projector->partitions[i].low,
                                              &projector->partitions[i].high, error);
    return status;
}

static void read_group(struct tally_kafka_admin *admin, const char *name, int64_t due_us,
                       struct projector *projector)
{
    struct tally_error ignored; /* lag and positions tell more than the group's state */
    projector->group = calloc(1, sizeof *projector->group);
    if (projector->group == NULL)
        return;
    if (tally_kafka_admin_group(admin, name, remaining_ms(due_us), projector->group, &ignored) !=
        TALLY_OK)
        (void)snprintf(projector->group->state, sizeof projector->group->state, "Unknown");
}

static int64_t element_number(const redisReply *reply, size_t index)
{
    const redisReply *element = reply->element[index];
    return element->type == REDIS_REPLY_STRING ? strtoll(element->str, NULL, 10) : 0;
}

static enum tally_status read_position(struct tally_redis *redis, int64_t generation, int32_t index,
                                       struct partition *partition, struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES];
    tally_view_position_key(key, generation, index);
    redisReply *reply = NULL;
    enum tally_status status =
        tally_redis_call(redis, &reply, error,
                         "HMGET %s " TALLY_VIEW_POSITION_EPOCH " " TALLY_VIEW_POSITION_OFFSET
                         " " TALLY_VIEW_POSITION_FRESH_AT,
                         key);
    if (status != TALLY_OK)
        return status;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
        reply->element[0]->type == REDIS_REPLY_STRING) {
        partition->present = true;
        partition->epoch = element_number(reply, 0);
        partition->offset = element_number(reply, 1);
        partition->fresh_at_ms = element_number(reply, 2);
    }
    freeReplyObject(reply);
    return TALLY_OK;
}

static void read_positions(const struct tally_settings *settings, struct projector *projector)
{
    struct tally_error *error = &projector->redis_error;
    struct tally_redis *redis = NULL;
    enum tally_status status =
        tally_redis_open_text(settings->redis_url, settings->redis_timeout_ms, &redis, error);
    if (status == TALLY_OK)
        status = tally_generation_read(redis, &projector->generation, error);
    if (status == TALLY_OK)
        status = tally_view_pause_read(redis, &projector->pause, error);
    if (status == TALLY_OK && projector->generation == 0)
        status = tally_fail(error, TALLY_READ_MODEL_INCOMPLETE,
                            "there is no read model yet (is a tally-projector running?)");
    for (int32_t i = 0; status == TALLY_OK && i < projector->count; i++)
        status = read_position(redis, projector->generation, i, &projector->partitions[i], error);
    error->status = status;
    if (redis != NULL)
        tally_redis_close(&redis);
}

/* -1: not known. */
static double fresh_seconds_ago(const struct partition *partition)
{
    double age = (double)(tally_clock_wall_us() - partition->fresh_at_ms * 1000) / 1e6;
    if (partition->fresh_at_ms == 0)
        return -1;
    return age < 0 ? 0 : age;
}

static int64_t lag_events(const struct partition *partition)
{
    int64_t from = partition->offset > partition->low ? partition->offset : partition->low;
    return !partition->present || partition->high < from ? 0 : partition->high - from;
}

/* Of a duration that is negative where it is not known. */
static json_t *seconds_json(double seconds)
{
    return seconds < 0 ? json_null() : json_real(seconds);
}

/* Of two partitions that lag: the longer one, and not known where either is not. */
static double longer(double left_s, double right_s)
{
    if (left_s < 0 || right_s < 0)
        return -1;
    return left_s > right_s ? left_s : right_s;
}

/* A list of the partitions, and their sums; `*lag_s` is -1 where it is not known. */
static json_t *describe_partitions(const struct projector *projector, int64_t *lag, double *lag_s,
                                   int32_t *lost)
{
    json_t *list = json_array();
    for (int32_t i = 0; i < projector->count; i++) {
        const struct partition *partition = &projector->partitions[i];
        int64_t behind = lag_events(partition);
        double age_s = fresh_seconds_ago(partition);
        *lag += behind;
        if (behind > 0)
            *lag_s = longer(*lag_s, age_s);
        *lost += !partition->present;
        json_t *row = json_pack("{s:i,s:I,s:I}", "partition", (int)i, "low",
                                (json_int_t)partition->low, "high", (json_int_t)partition->high);
        if (partition->present) {
            tally_ctl_json_set(&row, "epoch", json_integer(partition->epoch));
            tally_ctl_json_set(&row, "offset", json_integer(partition->offset));
            tally_ctl_json_set(&row, "lagEvents", json_integer(behind));
            tally_ctl_json_set(&row, "freshSecondsAgo", seconds_json(age_s));
        }
        tally_ctl_json_append(&list, row);
    }
    return list;
}

static void add_projector(json_t *components, const struct tally_settings *settings,
                          const struct projector *projector)
{
    const struct tally_kafka_group *group = projector->group;
    const char *group_state = group != NULL ? group->state : "Unknown";
    size_t members = group != NULL ? group->member_count : 0;
    int64_t lag = 0;
    double lag_s = 0;
    int32_t lost = 0;
    json_t *partitions = describe_partitions(projector, &lag, &lag_s, &lost);
    json_t *details =
        json_pack("{s:o,s:I,s:s,s:s,s:I,s:I,s:o}", "partitions", partitions, "generation",
                  (json_int_t)projector->generation, "group", settings->consumer_group,
                  "groupState", group_state, "members", (json_int_t)members, "lagEvents",
                  (json_int_t)lag, "lagSeconds", seconds_json(lag_s));
    if (projector->redis_error.status != TALLY_OK) {
        tally_probe_add(components, "projector", "unhealthy", details,
                        "positions are not known: %s", projector->redis_error.text);
        return;
    }
    const struct tally_view_pause *pause = &projector->pause;
    char pause_text[TALLY_PROBE_SUMMARY_BYTES] = "", since[TALLY_TIMESTAMP_BYTES];
    tally_clock_format(pause->at_ms * 1000, since);
    if (pause->paused)
        (void)snprintf(pause_text, sizeof pause_text, "paused since %s%s%.100s; ", since,
                       pause->reason[0] != '\0' ? ": " : "", pause->reason);
    tally_ctl_json_set(&details, "paused",
                       pause->paused
                           ? json_pack("{s:s,s:s}", "since", since, "reason", pause->reason)
                           : json_null());
    bool late = lag > 0 && lag_s > LAG_LONG_S;
    char events[TALLY_NUMBER_BYTES], age[TALLY_DURATION_BYTES] = "for how long is not known";
    char lost_text[64] = "";
    if (lag_s >= 0)
        tally_ctl_format_duration(lag_s, age);
    if (lost > 0)
        (void)snprintf(lost_text, sizeof lost_text, ", %d partitions have no position", lost);
    tally_probe_add(components, "projector",
                    lost > 0 || members == 0 ? "unhealthy"
                    : pause->paused          ? "paused"
                    : late                   ? "unhealthy"
                                             : "up",
                    details,
                    "%s%s events behind (%s), group %s with %zu member%s, generation %" PRId64 "%s",
                    pause_text, tally_ctl_format_number(lag, events), age, group_state, members,
                    members == 1 ? "" : "s", projector->generation, lost_text);
}

void tally_probe_kafka(const struct tally_settings *settings, json_t *components)
{
    const int64_t due_us = tally_clock_monotonic_us() + (int64_t)TALLY_PROBE_MS * 1000;
    struct projector projector = {.redis_error = {.status = TALLY_OK}};
    struct tally_error error;
    struct tally_kafka_admin *admin = NULL;
    enum tally_status status = tally_kafka_admin_new(settings->kafka_brokers, &admin, &error);
    if (status == TALLY_OK)
        status = read_topic(admin, settings->topic, due_us, &projector, &error);
    if (status == TALLY_OK) {
        tally_probe_add(components, "kafka", "up",
                        json_pack("{s:i,s:s,s:i}", "brokers", projector.brokers, "topic",
                                  settings->topic, "partitions", (int)projector.count),
                        "%d broker%s, topic %s with %d partitions", projector.brokers,
                        projector.brokers == 1 ? "" : "s", settings->topic, projector.count);
        read_group(admin, settings->consumer_group, due_us, &projector);
        read_positions(settings, &projector);
        add_projector(components, settings, &projector);
    } else {
        bool answered = status == TALLY_NOT_FOUND;
        tally_probe_add(components, "kafka", answered ? "unhealthy" : "down", json_object(), "%s",
                        error.text);
        tally_probe_add(components, "projector", "down", json_object(),
                        "lag is not known without the topic's offsets");
    }
    tally_kafka_admin_free(&admin);
    free(projector.partitions);
    free(projector.group);
}
