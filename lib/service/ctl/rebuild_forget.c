#include "kafka/admin.h"
#include "service/ctl/rebuild_internal.h"

#include <inttypes.h>

enum { KAFKA_MS = 30000 };

/* The new generation's positions, and how many records lie before them. */
static enum tally_status find_cut(struct rebuild *rebuild, int64_t *records,
                                  struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    *records = 0;
    for (int32_t i = 0; i < rebuild->topology.partitions && status == TALLY_OK; i++) {
        struct tally_position position;
        int64_t low = 0, high = 0;
        status = tally_position_read(rebuild->redis, rebuild->number, &i, 1, &position, error);
        if (status == TALLY_OK)
            status = rebuild_watermarks(rebuild, i, &low, &high, error);
        if (status != TALLY_OK)
            return status;
        rebuild->offsets[i] = position.offset;
        *records += position.offset > low ? position.offset - low : 0;
        /* A broker refuses to cut before what it still has. */
        if (position.offset < low)
            rebuild->offsets[i] = low;
    }
    return status;
}

enum tally_status rebuild_forget(struct rebuild *rebuild, struct tally_error *error)
{
    const char *topic = rebuild->settings->topic;
    struct tally_kafka_admin *admin = NULL;
    struct tally_error why = {0};
    int64_t records = 0;
    enum tally_status status = find_cut(rebuild, &records, &why);
    if (status == TALLY_OK)
        status = tally_kafka_admin_new(rebuild->settings->kafka_brokers, &admin, &why);
    if (status == TALLY_OK)
        status = tally_kafka_admin_delete_before(admin, topic, rebuild->offsets,
                                                 rebuild->topology.partitions, KAFKA_MS, &why);
    tally_kafka_admin_free(&admin);
    if (status != TALLY_OK)
        return tally_fail(error, status,
                          "generation %" PRId64 " is live, but %s still holds writes that the "
                          "restore took away: %s; run `tallyctl rebuild --after-restore` again",
                          rebuild->number, topic, why.text);
    rebuild->result->forgotten = records;
    return TALLY_OK;
}
