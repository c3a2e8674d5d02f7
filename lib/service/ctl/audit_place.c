#include "service/ctl/audit_place.h"

#include "view/keys.h"

#include <stdio.h>
#include <stdlib.h>

enum { NUMBERS = 10 };

enum tally_status tally_audit_place_load(struct tally_redis *redis, int64_t generation,
                                         struct tally_audit_place *place, struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES];
    redisReply *reply = NULL;
    int64_t keys_phase = 0;
    int64_t *const numbers[NUMBERS] = {
        &keys_phase,           &place->walk.user_id, &place->started_at_ms, &place->completed_at_ms,
        &place->last_sweep_ms, &place->checked,      &place->keys,          &place->differing,
        &place->repaired,      &place->unconfirmed,
    };
    *place = (struct tally_audit_place){0};
    tally_view_audit_key(key, generation);
    enum tally_status status = tally_redis_call(
        redis, &reply, error,
        "HMGET %s in_keys user started_at_ms completed_at_ms sweep_ms checked keys "
        "differing repaired unconfirmed cursor",
        key);
    if (status != TALLY_OK)
        return status;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != NUMBERS + 1)
        status = tally_fail(error, TALLY_PROTOCOL, "%s is no place of an audit", key);
    for (size_t i = 0; status == TALLY_OK && i < NUMBERS; i++) {
        if (reply->element[i]->str != NULL)
            *numbers[i] = strtoll(reply->element[i]->str, NULL, 10);
    }
    if (status == TALLY_OK) {
        const redisReply *cursor = reply->element[NUMBERS];
        place->walk.keys = keys_phase != 0;
        (void)snprintf(place->walk.cursor, sizeof place->walk.cursor, "%s",
                       cursor->str != NULL ? cursor->str : "");
    }
    freeReplyObject(reply);
    return status;
}

enum tally_status tally_audit_place_save(struct tally_redis *redis, int64_t generation,
                                         const struct tally_audit_place *place,
                                         struct tally_error *error)
{
    char key[TALLY_VIEW_KEY_BYTES];
    redisReply *reply = NULL;
    tally_view_audit_key(key, generation);
    enum tally_status status = tally_redis_call(
        redis, &reply, error,
        "HSET %s in_keys %d user %lld cursor %s started_at_ms %lld completed_at_ms %lld"
        " sweep_ms %lld checked %lld keys %lld differing %lld repaired %lld"
        " unconfirmed %lld",
        key, place->walk.keys ? 1 : 0, (long long)place->walk.user_id,
        place->walk.cursor[0] != '\0' ? place->walk.cursor : "0", (long long)place->started_at_ms,
        (long long)place->completed_at_ms, (long long)place->last_sweep_ms,
        (long long)place->checked, (long long)place->keys, (long long)place->differing,
        (long long)place->repaired, (long long)place->unconfirmed);
    if (status == TALLY_OK)
        freeReplyObject(reply);
    return status;
}
