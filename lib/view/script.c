#include "view/script.h"

#include <string.h>

enum tally_status tally_script_load(struct tally_redis *redis, const char *script,
                                    char sha[TALLY_SCRIPT_SHA_BYTES], struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_call(redis, &reply, error, "SCRIPT LOAD %s", script);
    if (status != TALLY_OK)
        return status;
    bool valid = reply->type == REDIS_REPLY_STRING && reply->len == TALLY_SCRIPT_SHA_BYTES - 1;
    if (valid)
        memcpy(sha, reply->str, TALLY_SCRIPT_SHA_BYTES);
    freeReplyObject(reply);
    return valid ? TALLY_OK : tally_fail(error, TALLY_PROTOCOL, "redis: SCRIPT LOAD gave no SHA-1");
}
