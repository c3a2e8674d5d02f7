/* Which Redis it is, and since when it is this one. */
#include "core/clock.h"
#include "redis/command.h"
#include "redis/connection.h"
#include "view/lookup_internal.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

void tally_lookup_server_take(struct server *server, const char *info, int64_t now_ms)
{
    char run_id[sizeof server->run_id] = "";
    char time_us[24] = "";
    char uptime_s[24] = "";
    const bool whole = tally_redis_info_value(info, "run_id", run_id, sizeof run_id) &&
                       tally_redis_info_value(info, "server_time_usec", time_us, sizeof time_us) &&
                       tally_redis_info_value(info, "uptime_in_seconds", uptime_s, sizeof uptime_s);
    const bool other = !whole || strcmp(server->run_id, run_id) != 0;
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
    server->known = true;
}

static void on_info(enum tally_status status, const struct redisReply *reply, void *argument)
{
    struct tally_lookup *lookup = argument;
    if (status != TALLY_OK)
        return; /* the connection is gone; the next one asks again */
    tally_lookup_server_take(&lookup->server, reply->type == REDIS_REPLY_STRING ? reply->str : "",
                             tally_clock_wall_us() / 1000);
}

void tally_lookup_server_ask(struct tally_lookup *lookup)
{
    lookup->server.known = false;
    tally_buffer_clear(&lookup->command);
    tally_redis_command(&lookup->command, 2);
    tally_redis_part_text(&lookup->command, "INFO");
    tally_redis_part_text(&lookup->command, "server");
    const int64_t deadline_us =
        tally_clock_monotonic_us() + lookup->options.timeout_ms * INT64_C(1000);
    enum tally_status status = tally_lookup_send(lookup, deadline_us, on_info, lookup, NULL);
    (void)status; /* without memory: asked again at the next tick */
}
