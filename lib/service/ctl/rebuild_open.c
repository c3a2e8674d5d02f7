#include "service/ctl/drop.h"
#include "service/ctl/rebuild_internal.h"
#include "service/projector/partition.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { KAFKA_MS = 10000, NOTE_BYTES = 512 };

void rebuild_note(const struct rebuild *rebuild, const char *format, ...)
{
    char text[NOTE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): va_start is above */
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (rebuild->options != NULL && rebuild->options->on_note != NULL)
        rebuild->options->on_note(rebuild->options->context, text);
}

void rebuild_show(const struct rebuild *rebuild, const struct tally_rebuild_progress *progress)
{
    if (rebuild->options != NULL && rebuild->options->on_progress != NULL)
        rebuild->options->on_progress(rebuild->options->context, progress);
}

enum tally_status rebuild_watermarks(struct rebuild *rebuild, int32_t partition, int64_t *low,
                                     int64_t *high, struct tally_error *error)
{
    return tally_consumer_watermarks(rebuild->probe, partition, KAFKA_MS, low, high, error);
}

enum tally_status rebuild_fits(struct rebuild *rebuild, int64_t number,
                               struct tally_position *positions, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    for (int32_t i = 0; i < rebuild->topology.partitions && status == TALLY_OK; i++) {
        struct tally_position position;
        struct tally_log log = {.cluster = rebuild->topology.cluster,
                                .partitions = rebuild->topology.partitions};
        status = tally_position_read(rebuild->redis, number, &i, 1, &position, error);
        if (status == TALLY_OK && !position.present)
            status =
                tally_fail(error, TALLY_READ_MODEL_INCOMPLETE,
                           "generation %" PRId64 " has no position of partition %d", number, i);
        if (status == TALLY_OK)
            status = rebuild_watermarks(rebuild, i, &log.low, &log.high, error);
        if (status == TALLY_OK)
            status = tally_position_check(&position, i, &log, error);
        if (positions != NULL)
            positions[i] = position;
    }
    return status;
}

static enum tally_status find_live(struct rebuild *rebuild, struct tally_error *error)
{
    struct rebuild_live *live = &rebuild->live;
    enum tally_status status = tally_generation_read(rebuild->redis, &live->number, error);
    if (status != TALLY_OK || live->number == 0)
        return status;
    struct tally_position first;
    const int32_t zero = 0;
    status = tally_position_read(rebuild->redis, live->number, &zero, 1, &first, error);
    if (status != TALLY_OK)
        return status;
    live->partitions = first.present ? first.partitions : 0;
    struct tally_error why = {0};
    status = rebuild_fits(rebuild, live->number, NULL, &why);
    live->comparable = status == TALLY_OK;
    if (status == TALLY_OK || status == TALLY_CONFIG || status == TALLY_READ_MODEL_INCOMPLETE)
        return TALLY_OK;
    return tally_fail(error, status, "%s", why.text);
}

static enum tally_status open_servers(struct rebuild *rebuild, struct tally_error *error)
{
    const struct tally_settings *settings = rebuild->settings;
    const struct tally_consumer_options options = {
        .brokers = settings->kafka_brokers,
        .topic = settings->topic,
        .group = settings->consumer_group,
        .instance_id = "",
        .on_log = tally_follow_kafka_log,
    };
    enum tally_status status = tally_redis_open_text(
        settings->redis_url, settings->redis_timeout_ms, &rebuild->redis, error);
    if (status == TALLY_OK)
        status = tally_redis_check_server(rebuild->redis, error);
    if (status == TALLY_OK)
        status = tally_consumer_new(&options, &rebuild->probe, error);
    if (status == TALLY_OK)
        status = tally_consumer_topology(rebuild->probe, KAFKA_MS, &rebuild->topology, error);
    return status;
}

enum tally_status rebuild_open(struct rebuild *rebuild, struct tally_error *error)
{
    enum tally_status status = open_servers(rebuild, error);
    if (status == TALLY_OK)
        status = tally_ctl_lease_take(rebuild->settings, &rebuild->lease, error);
    if (status == TALLY_OK)
        status = find_live(rebuild, error);
    if (status != TALLY_OK)
        return status;
    const size_t most = (size_t)(rebuild->live.partitions > rebuild->topology.partitions
                                     ? rebuild->live.partitions
                                     : rebuild->topology.partitions);
    if (most == 0)
        return tally_fail(error, TALLY_CONFIG, "the topic has no partitions");
    rebuild->changes = calloc(most, sizeof *rebuild->changes);
    rebuild->stands = calloc(most, sizeof *rebuild->stands);
    rebuild->replaced = calloc(most, sizeof *rebuild->replaced);
    rebuild->offsets = calloc(most, sizeof *rebuild->offsets);
    rebuild->marks = calloc(most, sizeof *rebuild->marks);
    if (rebuild->changes == NULL || rebuild->stands == NULL || rebuild->replaced == NULL ||
        rebuild->offsets == NULL || rebuild->marks == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "state of %zu partitions", most);
    return TALLY_OK;
}

void rebuild_close(struct rebuild *rebuild)
{
    tally_follower_free(&rebuild->follower);
    tally_consumer_close(&rebuild->probe);
    tally_ctl_lease_release(&rebuild->lease);
    tally_redis_close(&rebuild->redis);
    free(rebuild->changes);
    free(rebuild->stands);
    free(rebuild->replaced);
    free(rebuild->offsets);
    free(rebuild->marks);
}

static void on_dropping(void *context, int64_t removed)
{
    rebuild_show(context, &(struct tally_rebuild_progress){
                              .what = "dropping", .unit = "keys", .done = removed, .more = ""});
}

enum tally_status rebuild_drop(struct rebuild *rebuild, int64_t number, struct tally_error *error)
{
    const struct tally_drop drop = {.lease = rebuild->lease,
                                    .redis = rebuild->redis,
                                    .generation = number,
                                    .on_progress = on_dropping,
                                    .context = rebuild};
    int64_t removed = 0;
    enum tally_status status = tally_drop_run(&drop, &removed, error);
    rebuild->result->dropped += removed;
    return status;
}
