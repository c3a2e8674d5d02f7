#include "service/ctl/rebuild_internal.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    KEYS_TELLING = 1000, /* with fewer, what Redis holds tells nothing of a user's size */
    USER_BYTES = 300,    /* a key with its hash, then */
    VALUE_BYTES = 32,
};

static int64_t info_number(const redisReply *info, const char *name)
{
    char value[VALUE_BYTES];
    if (info->type != REDIS_REPLY_STRING ||
        !tally_redis_info_value(info->str, name, value, sizeof value))
        return 0;
    return strtoll(value, NULL, 10);
}

/* What one more user takes: a user of a generation that is there already is as large. */
static enum tally_status measure(struct rebuild *rebuild, int64_t used, int64_t *user_bytes,
                                 struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = tally_redis_call(rebuild->redis, &reply, error, "DBSIZE");
    if (status != TALLY_OK)
        return status;
    *user_bytes = reply->type == REDIS_REPLY_INTEGER && reply->integer >= KEYS_TELLING
                      ? used / reply->integer
                      : USER_BYTES;
    freeReplyObject(reply);
    return TALLY_OK;
}

enum tally_status rebuild_check_room(struct rebuild *rebuild, int64_t users,
                                     struct tally_error *error)
{
    redisReply *info = NULL;
    enum tally_status status = tally_redis_call(rebuild->redis, &info, error, "INFO memory");
    if (status != TALLY_OK)
        return status;
    const int64_t used = info_number(info, "used_memory"), most = info_number(info, "maxmemory");
    int64_t user_bytes = 0;
    freeReplyObject(info);
    if (most == 0)
        return TALLY_OK;
    status = measure(rebuild, used, &user_bytes, error);
    const int64_t need = users * user_bytes;
    /* An estimate refuses nothing: what does not fit in the end is kept, and can be continued. */
    if (status == TALLY_OK && need > most - used)
        rebuild_note(rebuild,
                     "Redis holds %" PRId64 " MiB of maxmemory %" PRId64 " MiB, and %" PRId64
                     " users more take about %" PRId64
                     " MiB: they may not fit. Raise maxmemory, or drop a generation that is not "
                     "needed (`tallyctl generations`)",
                     used >> 20, most >> 20, users, need >> 20);
    return status;
}
