/* Which Redis it is, and since when it is this one. */
#include "core/clock.h"
#include "redis/command.h"
#include "redis/connection.h"
#include "view/lookup_internal.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Redis keeps the id of the data that it had as a replica, and where it went its own way; both are
 * cleared when it makes room for its first replica, which is no news. False where it was none. */
static bool read_promotion(const char *info, char promotion[PROMOTION_BYTES])
{
    char id[41] = "";
    char offset[24] = "";
    if (!tally_redis_info_value(info, "master_replid2", id, sizeof id) ||
        !tally_redis_info_value(info, "second_repl_offset", offset, sizeof offset) ||
        strcmp(offset, "-1") == 0)
        return false;
    (void)snprintf(promotion, PROMOTION_BYTES, "%s %s", id, offset);
    return true;
}

bool tally_lookup_server_take(struct server *server, const char *info, int64_t now_ms)
{
    char role[16] = "";
    char run_id[sizeof server->run_id] = "";
    char promotion[PROMOTION_BYTES] = "";
    char time_us[24] = "";
    char uptime_s[24] = "";
    if (tally_redis_info_value(info, "role", role, sizeof role) && strcmp(role, "slave") == 0)
        return false;
    const bool whole = tally_redis_info_value(info, "run_id", run_id, sizeof run_id) &&
                       tally_redis_info_value(info, "server_time_usec", time_us, sizeof time_us) &&
                       tally_redis_info_value(info, "uptime_in_seconds", uptime_s, sizeof uptime_s);
    if (!whole && server->known)
        return true;
    const bool promoted =
        read_promotion(info, promotion) && strcmp(server->promotion, promotion) != 0;
    const bool other = !whole || promoted || strcmp(server->run_id, run_id) != 0;
    int64_t since_ms = now_ms;
    /* Whole seconds, rounded down: it began no later than this. */
    if (whole)
        since_ms = strtoll(time_us, NULL, 10) / 1000 - strtoll(uptime_s, NULL, 10) * 1000;
    /* One that is not the last one may have been running for long, and lack what that one had. */
    if (other && server->run_id[0] != '\0' && since_ms < now_ms)
        since_ms = now_ms;
    if ((other || !server->known) && since_ms > server->fresh_from_ms)
        server->fresh_from_ms = since_ms;
    memcpy(server->run_id, run_id, sizeof run_id);
    if (promoted)
        memcpy(server->promotion, promotion, sizeof promotion);
    server->known = true;
    return true;
}

static void on_info(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct tally_lookup *lookup = argument;
    if (status != TALLY_OK)
        return; /* the connection is gone; the next one asks again */
    /* The address may lead to another one by now; and what this one has may be replaced any moment.
     */
    if (!tally_lookup_server_take(&lookup->server,
                                  reply->type == REDIS_REPLY_STRING ? reply->str : "",
                                  tally_clock_wall_us() / 1000))
        tally_redis_async_drop(lookup->redis, "the server is a replica");
}

void tally_lookup_server_ask(struct tally_lookup *lookup)
{
    tally_buffer_clear(&lookup->command);
    tally_redis_command(&lookup->command, 1);
    tally_redis_part_text(&lookup->command, "INFO");
    const int64_t deadline_us =
        tally_clock_monotonic_us() + lookup->options.timeout_ms * INT64_C(1000);
    enum tally_status status = tally_lookup_send(lookup, deadline_us, on_info, lookup, NULL);
    (void)status; /* without memory: asked again at the next tick */
}
