#include "redis/connection.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct tally_redis {
    redisContext *context;
    bool broken;
};

/* Error replies that say something of the server, not of the command. */
static const char *const unavailable_prefixes[] = {"LOADING ", "READONLY ", "MASTERDOWN "};

static struct timeval to_timeval(int64_t timeout_ms)
{
    return (struct timeval){.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
}

/* Marks the connection as broken and says why. A read that times out comes as EAGAIN. */
static enum tally_status fail_transport(struct tally_redis *redis, const char *what,
                                        struct tally_error *error)
{
    redis->broken = true;
    const redisContext *context = redis->context;
    if (context->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK))
        return tally_fail(error, TALLY_UNAVAILABLE, "redis %s:%d: %s: no answer in time",
                          context->tcp.host, context->tcp.port, what);
    return tally_fail(error, TALLY_UNAVAILABLE, "redis %s:%d: %s: %s", context->tcp.host,
                      context->tcp.port, what, context->errstr);
}

/* AUTH and SELECT as far as the URL asks for them. */
static enum tally_status introduce(struct tally_redis *redis, const struct tally_redis_url *url,
                                   struct tally_error *error)
{
    redisReply *reply = NULL;
    enum tally_status status = TALLY_OK;
    if (url->user[0] != '\0')
        status = tally_redis_call(redis, &reply, error, "AUTH %s %s", url->user, url->password);
    else if (url->password[0] != '\0')
        status = tally_redis_call(redis, &reply, error, "AUTH %s", url->password);
    if (reply != NULL)
        freeReplyObject(reply);
    reply = NULL;
    if (status == TALLY_OK && url->database != 0)
        status = tally_redis_call(redis, &reply, error, "SELECT %d", url->database);
    if (reply != NULL)
        freeReplyObject(reply);
    /* What the server refuses here, the URL has wrong. */
    if (status == TALLY_PROTOCOL) {
        status = TALLY_CONFIG;
        error->status = status;
    }
    return status;
}

enum tally_status tally_redis_open(const struct tally_redis_url *url, int64_t timeout_ms,
                                   struct tally_redis **redis, struct tally_error *error)
{
    struct tally_error own;
    if (error == NULL)
        error = &own;
    struct tally_redis *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "redis connection");
    made->context = redisConnectWithTimeout(url->host, url->port, to_timeval(timeout_ms));
    if (made->context == NULL) {
        free(made);
        return tally_fail(error, TALLY_NO_MEMORY, "redis connection");
    }
    enum tally_status status = TALLY_OK;
    if (made->context->err != 0)
        status = tally_fail(error, TALLY_UNAVAILABLE, "redis %s:%d: connect: %s", url->host,
                            url->port, made->context->errstr);
    else if (redisSetTimeout(made->context, to_timeval(timeout_ms)) != REDIS_OK)
        status = fail_transport(made, "set timeout", error);
    else
        status = introduce(made, url, error);
    if (status != TALLY_OK) {
        tally_redis_close(&made);
        return status;
    }
    *redis = made;
    return TALLY_OK;
}

enum tally_status tally_redis_open_text(const char *url, int64_t timeout_ms,
                                        struct tally_redis **redis, struct tally_error *error)
{
    struct tally_redis_url parsed;
    enum tally_status status = tally_redis_url_parse(url, &parsed, error);
    return status == TALLY_OK ? tally_redis_open(&parsed, timeout_ms, redis, error) : status;
}

void tally_redis_close(struct tally_redis **redis)
{
    if (*redis == NULL)
        return;
    redisFree((*redis)->context);
    free(*redis);
    *redis = NULL;
}

bool tally_redis_broken(const struct tally_redis *redis)
{
    return redis->broken;
}

static enum tally_status append_arguments(struct tally_redis *redis, const char *format,
                                          va_list arguments, struct tally_error *error)
{
    if (redisvAppendCommand(redis->context, format, arguments) != REDIS_OK) {
        redis->broken = true;
        return tally_fail(error, TALLY_NO_MEMORY, "redis command: %s", redis->context->errstr);
    }
    return TALLY_OK;
}

enum tally_status tally_redis_append(struct tally_redis *redis, struct tally_error *error,
                                     const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    enum tally_status status = append_arguments(redis, format, arguments, error);
    va_end(arguments);
    return status;
}

enum tally_status tally_redis_append_raw(struct tally_redis *redis, const char *bytes,
                                         size_t length, struct tally_error *error)
{
    if (redisAppendFormattedCommand(redis->context, bytes, length) != REDIS_OK) {
        redis->broken = true;
        return tally_fail(error, TALLY_NO_MEMORY, "redis command: %s", redis->context->errstr);
    }
    return TALLY_OK;
}

enum tally_status tally_redis_flush(struct tally_redis *redis, struct tally_error *error)
{
    int done = 0;
    while (!done) {
        if (redisBufferWrite(redis->context, &done) != REDIS_OK)
            return fail_transport(redis, "write", error);
    }
    return TALLY_OK;
}

enum tally_status tally_redis_receive(struct tally_redis *redis, redisReply **reply,
                                      struct tally_error *error)
{
    void *received = NULL;
    errno = 0;
    if (redisGetReply(redis->context, &received) != REDIS_OK || received == NULL)
        return fail_transport(redis, "read", error);
    redisReply *answer = received;
    if (answer->type == REDIS_REPLY_ERROR) {
        for (size_t i = 0; i < sizeof unavailable_prefixes / sizeof unavailable_prefixes[0]; i++) {
            if (strncmp(answer->str, unavailable_prefixes[i], strlen(unavailable_prefixes[i])) != 0)
                continue;
            enum tally_status status =
                tally_fail(error, TALLY_UNAVAILABLE, "redis %s:%d: %s", redis->context->tcp.host,
                           redis->context->tcp.port, answer->str);
            redis->broken = true;
            freeReplyObject(answer);
            return status;
        }
    }
    *reply = answer;
    return TALLY_OK;
}

enum tally_status tally_redis_call(struct tally_redis *redis, redisReply **reply,
                                   struct tally_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    enum tally_status status = append_arguments(redis, format, arguments, error);
    va_end(arguments);
    redisReply *answer = NULL;
    if (status == TALLY_OK)
        status = tally_redis_receive(redis, &answer, error);
    if (status != TALLY_OK || answer == NULL)
        return status;
    if (answer->type == REDIS_REPLY_ERROR) {
        status = tally_fail(
            error, tally_redis_error_passes(answer->str) ? TALLY_UNAVAILABLE : TALLY_PROTOCOL,
            "redis: %s", answer->str);
        freeReplyObject(answer);
        return status;
    }
    *reply = answer;
    return TALLY_OK;
}

bool tally_redis_info_value(const char *info, const char *name, char *value, size_t bytes)
{
    size_t length = strlen(name);
    for (const char *line = info; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) != 0 || line[length] != ':')
            continue;
        size_t value_length = strcspn(line + length + 1, "\r\n");
        if (value_length >= bytes)
            return false;
        memcpy(value, line + length + 1, value_length);
        value[value_length] = '\0';
        return true;
    }
    return false;
}

enum tally_status tally_redis_check_server(struct tally_redis *redis, struct tally_error *error)
{
    redisReply *reply = NULL;
    char policy[64] = "";
    char role[32] = "";
    enum tally_status status = tally_redis_call(redis, &reply, error, "INFO");
    if (status != TALLY_OK)
        return status;
    bool read = reply->str != NULL &&
                tally_redis_info_value(reply->str, "maxmemory_policy", policy, sizeof policy) &&
                tally_redis_info_value(reply->str, "role", role, sizeof role);
    freeReplyObject(reply);
    if (!read)
        return tally_fail(error, TALLY_PROTOCOL, "redis: INFO names no maxmemory_policy or role");
    if (strcmp(role, "master") != 0)
        return tally_fail(error, TALLY_UNAVAILABLE, "redis: the server is a %s and takes no writes",
                          role);
    if (strcmp(policy, "noeviction") != 0)
        return tally_fail(error, TALLY_CONFIG,
                          "redis: maxmemory-policy is %s, which would drop counts when memory is "
                          "short; set `maxmemory-policy noeviction`",
                          policy);
    return TALLY_OK;
}

bool tally_redis_error_passes(const char *text)
{
    static const char *const passing[] = {"NOSCRIPT",    "OOM",      "BUSY ",      "MISCONF",
                                          "LOADING",     "READONLY", "MASTERDOWN", "NOREPLICAS",
                                          "CLUSTERDOWN", "TRYAGAIN"};
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++) {
        if (strncmp(text, passing[i], strlen(passing[i])) == 0)
            return true;
    }
    return false;
}
