#include "core/clock.h"
#include "pg/blocking.h"
#include "service/ctl/rebuild_internal.h"
#include "store/relay_control.h"

#include <inttypes.h>
#include <unistd.h>

enum { LOOK_US = 100000, PATIENCE_US = 30 * 1000 * 1000 };

static enum tally_status await_count(struct rebuild *rebuild, PGconn *connection,
                                     struct tally_error *error)
{
    const int32_t wanted = rebuild->topology.partitions;
    const int64_t due_us = tally_clock_monotonic_us() + PATIENCE_US;
    for (bool noted = false;; noted = true) {
        struct tally_relay_view view;
        enum tally_status status = tally_relay_view_read(connection, &view, error);
        if (status != TALLY_OK || view.leader_pid == 0 || view.partitions == wanted)
            return status;
        if (tally_clock_monotonic_us() >= due_us && view.partitions == 0)
            return tally_fail(
                error, TALLY_UNAVAILABLE,
                "the relay that leads has not said by how many partitions it goes: it "
                "is still starting, or of an older tally-command, which is to be "
                "replaced first");
        if (tally_clock_monotonic_us() >= due_us)
            return tally_fail(error, TALLY_UNAVAILABLE,
                              "the relay goes by %" PRId64 " partitions, and the topic has %" PRId32
                              ": `tallyctl status` and the log of tally-command say what keeps it "
                              "from following",
                              view.partitions, wanted);
        if (!noted)
            rebuild_note(rebuild,
                         "waiting until the relay goes by the topic's %" PRId32 " partitions",
                         wanted);
        usleep(LOOK_US);
        status = tally_ctl_lease_check(rebuild->lease, error);
        if (status != TALLY_OK)
            return status;
    }
}

/* What is published by an old count after the topic's ends were read would lie in partitions where
 * the new read model does not look for it. A relay that is about to lead asks Kafka first. What one
 * that has just lost the lead has still on its way are repeats, or is sent again by the next one.
 */
enum tally_status rebuild_await_relay(struct rebuild *rebuild, struct tally_error *error)
{
    PGconn *connection = NULL;
    enum tally_status status =
        tally_pg_connect(rebuild->settings->pg_dsn, "tallyctl rebuild", &connection, error);
    if (status == TALLY_OK)
        status = await_count(rebuild, connection, error);
    PQfinish(connection);
    return status;
}
