#include "core/clock.h"
#include "kafka/admin.h"
#include "pg/blocking.h"
#include "service/ctl/status_probe.h"
#include "store/closed_letters.h"

#include <inttypes.h>

enum { ASK_MS = TALLY_PROBE_MS / 2 };

/* Letters that are kept less those that are closed. Offsets are letters one to one: the topic is
 * neither compacted nor written in transactions. */
static enum tally_status count(const struct tally_settings *settings, PGconn *connection,
                               struct tally_kafka_admin *admin, int64_t *kept, int64_t *open,
                               struct tally_error *error)
{
    int brokers = 0;
    int32_t partitions = 0;
    enum tally_status status =
        tally_kafka_admin_topic(admin, settings->dlq_topic, ASK_MS, &brokers, &partitions, error);
    if (status == TALLY_OK && partitions == 0)
        status =
            tally_fail(error, TALLY_NOT_FOUND, "there is no topic %s: run `tallyctl topics create`",
                       settings->dlq_topic);
    for (int32_t i = 0; status == TALLY_OK && i < partitions; i++) {
        int64_t low = 0, high = 0, closed = 0;
        status =
            tally_kafka_admin_watermarks(admin, settings->dlq_topic, i, ASK_MS, &low, &high, error);
        if (status == TALLY_OK)
            status = tally_closed_letters_count(connection, settings->dlq_topic, i, low, high,
                                                &closed, error);
        *kept += high - low;
        *open += closed < high - low ? high - low - closed : 0;
    }
    return status;
}

void tally_probe_letters(const struct tally_settings *settings, json_t *components)
{
    struct tally_error error;
    struct tally_kafka_admin *admin = NULL;
    PGconn *connection = NULL;
    int64_t kept = 0, open = 0;
    enum tally_status status =
        tally_pg_connect(settings->pg_dsn, "tallyctl status", &connection, &error);
    if (status == TALLY_OK)
        status = tally_kafka_admin_new(settings->kafka_brokers, &admin, &error);
    if (status == TALLY_OK)
        status = count(settings, connection, admin, &kept, &open, &error);
    tally_kafka_admin_free(&admin);
    PQfinish(connection);
    if (status != TALLY_OK)
        tally_probe_add(components, "dead-letters",
                        status == TALLY_UNAVAILABLE ? "down" : "unhealthy", NULL, "not known: %s",
                        error.text);
    else
        tally_probe_add(components, "dead-letters", open == 0 ? "up" : "unhealthy",
                        json_pack("{s:I,s:I}", "open", (json_int_t)open, "kept", (json_int_t)kept),
                        "%" PRId64 " open of %" PRId64 " kept%s", open, kept,
                        open > 0 ? "; see `tallyctl dlq list`" : "");
}
