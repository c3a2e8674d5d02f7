#include "redis/connection.h"
#include "service/ctl/status_probe.h"
#include "view/position.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_BYTES = 64 };

struct server {
    char role[VALUE_BYTES], policy[VALUE_BYTES], memory[VALUE_BYTES];
    int64_t generation;
};

static enum tally_status look(struct tally_redis *redis, struct server *server,
                              struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_call(redis, &reply, error, "INFO");
    if (status != TALLY_OK)
        return status;
    if (reply->type != REDIS_REPLY_STRING)
        status = tally_fail(error, TALLY_PROTOCOL, "Redis answered INFO with no text");
    if (status == TALLY_OK) {
        (void)tally_redis_info_value(reply->str, "role", server->role, VALUE_BYTES);
        (void)tally_redis_info_value(reply->str, "maxmemory_policy", server->policy, VALUE_BYTES);
        (void)tally_redis_info_value(reply->str, "used_memory", server->memory, VALUE_BYTES);
        status = tally_generation_read(redis, &server->generation, error);
    }
    freeReplyObject(reply);
    return status;
}

void tally_probe_redis(const struct tally_settings *settings, json_t *components)
{
    struct tally_redis *redis = NULL;
    struct server server = {.generation = 0};
    struct tally_error error;
    enum tally_status status =
        tally_redis_open_text(settings->redis_url, settings->redis_timeout_ms, &redis, &error);
    bool connected = status == TALLY_OK;
    if (connected)
        status = look(redis, &server, &error);
    if (redis != NULL)
        tally_redis_close(&redis);
    if (status != TALLY_OK) {
        tally_probe_add(components, "redis", connected ? "unhealthy" : "down", json_object(), "%s",
                        error.text);
        return;
    }
    const char *trouble = strcmp(server.role, "master") != 0 ? "; it is no master"
                          : strcmp(server.policy, "noeviction") != 0
                              ? "; it may drop counts: set maxmemory-policy noeviction"
                          : server.generation == 0 ? "; there is no read model yet"
                                                   : "";
    int64_t memory = strtoll(server.memory, NULL, 10);
    tally_probe_add(components, "redis", trouble[0] == '\0' ? "up" : "unhealthy",
                    json_pack("{s:s,s:s,s:I,s:I}", "role", server.role, "maxmemoryPolicy",
                              server.policy, "usedMemoryBytes", (json_int_t)memory, "generation",
                              (json_int_t)server.generation),
                    "%s, %s, %.1f MiB used, generation %" PRId64 "%s", server.role, server.policy,
                    (double)memory / (1 << 20), server.generation, trouble);
}
