#include "view/pause.h"

#include "view/keys.h"

#include <stdio.h>
#include <stdlib.h>

enum tally_status tally_view_pause_read(struct tally_redis *redis, struct tally_view_pause *pause,
                                        struct tally_error *error)
{
    redisReply *reply = NULL;
    *pause = (struct tally_view_pause){0};
    enum tally_status status =
        tally_redis_call(redis, &reply, error, "HMGET " TALLY_VIEW_PAUSE_KEY " at_ms reason");
    if (status != TALLY_OK)
        return status;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
        status = tally_fail(error, TALLY_PROTOCOL, TALLY_VIEW_PAUSE_KEY " is no pause");
    else if (reply->element[0]->type == REDIS_REPLY_STRING) {
        pause->paused = true;
        pause->at_ms = strtoll(reply->element[0]->str, NULL, 10);
        if (reply->element[1]->type == REDIS_REPLY_STRING)
            (void)snprintf(pause->reason, sizeof pause->reason, "%s", reply->element[1]->str);
    }
    freeReplyObject(reply);
    return status;
}

enum tally_status tally_view_pause_set(struct tally_redis *redis, int64_t at_ms, const char *reason,
                                       struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_call(
        redis, &reply, error, "HSETNX " TALLY_VIEW_PAUSE_KEY " at_ms %lld", (long long)at_ms);
    if (status != TALLY_OK)
        return status;
    freeReplyObject(reply);
    status =
        tally_redis_call(redis, &reply, error, "HSET " TALLY_VIEW_PAUSE_KEY " reason %s", reason);
    if (status == TALLY_OK)
        freeReplyObject(reply);
    return status;
}

enum tally_status tally_view_pause_clear(struct tally_redis *redis, struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_call(redis, &reply, error, "DEL " TALLY_VIEW_PAUSE_KEY);
    if (status == TALLY_OK)
        freeReplyObject(reply);
    return status;
}
