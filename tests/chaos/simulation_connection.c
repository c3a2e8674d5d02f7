/* redis/connection.h: what a client sends is executed later, in its order and between that of
 * others; what a dead client had sent may still be executed. */
#include "simulation.h"

#include "core/buffer.h"
#include "redis/connection.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS_MOST = 512, REPLIES_MOST = 512, BUFFER_BYTES = 1 << 20 };

struct tally_redis {
    const struct simulation_process *process; /* NULL: it is closed, and this still on the wire */
    struct tally_redis *next;
    bool broken; /* the server does not execute what is on the wire */
    bool cut;    /* the client cannot use it any more */
    bool half;   /* of the planted mistake: the first half of a command is done */
    int64_t timeout_ms;
    struct tally_buffer appended; /* not sent */
    struct tally_buffer sent;     /* not executed, from `done` on */
    size_t done;
    redisReply *replies[REPLIES_MOST]; /* a ring */
    size_t first_reply, reply_count;
};

static struct tally_redis *connections;
static int64_t refused_until_us;

static enum tally_status lost(struct tally_redis *redis, struct tally_error *error)
{
    redis->cut = true;
    return tally_fail(error, TALLY_UNAVAILABLE, "the simulated connection is lost");
}

enum tally_status tally_redis_open(const struct tally_redis_url *url, int64_t timeout_ms,
                                   struct tally_redis **redis, struct tally_error *error)
{
    (void)url;
    simulation_wait((int64_t)simulation_below(2000), NULL, NULL);
    if (simulation_killed() || simulation->now_us < refused_until_us)
        return tally_fail(error, TALLY_UNAVAILABLE, "the simulated server refuses");
    struct tally_redis *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "connection");
    made->process = simulation->current;
    made->timeout_ms = timeout_ms;
    tally_buffer_init(&made->appended, BUFFER_BYTES);
    tally_buffer_init(&made->sent, BUFFER_BYTES);
    made->next = connections;
    connections = made;
    *redis = made;
    return TALLY_OK;
}

static void remove_connection(struct tally_redis *gone)
{
    struct tally_redis **link = &connections;
    while (*link != gone)
        link = &(*link)->next;
    *link = gone->next;
    for (size_t i = 0; i < gone->reply_count; i++)
        freeReplyObject(gone->replies[(gone->first_reply + i) % REPLIES_MOST]);
    tally_buffer_release(&gone->appended);
    tally_buffer_release(&gone->sent);
    free(gone);
}

void tally_redis_close(struct tally_redis **redis)
{
    if (*redis == NULL)
        return;
    (*redis)->process = NULL;
    if ((*redis)->broken || (*redis)->done == (*redis)->sent.length)
        remove_connection(*redis);
    *redis = NULL;
}

bool tally_redis_broken(const struct tally_redis *redis)
{
    return redis->broken || redis->cut;
}

static enum tally_status append_format(struct tally_redis *redis, const char *format,
                                       va_list arguments, struct tally_error *error)
{
    char *command = NULL;
    const int length = redisvFormatCommand(&command, format, arguments);
    if (length < 0)
        abort();
    enum tally_status status = tally_redis_append_raw(redis, command, (size_t)length, error);
    free(command);
    return status;
}

enum tally_status tally_redis_append(struct tally_redis *redis, struct tally_error *error,
                                     const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    enum tally_status status = append_format(redis, format, arguments, error);
    va_end(arguments);
    return status;
}

enum tally_status tally_redis_append_raw(struct tally_redis *redis, const char *bytes,
                                         size_t length, struct tally_error *error)
{
    (void)error;
    tally_buffer_append(&redis->appended, bytes, length);
    if (redis->appended.failed)
        abort();
    return TALLY_OK;
}

/* Length of the first command of `text`, a RESP array; fills its arguments. */
static size_t parse(const char *text, struct simulated_argument *arguments, size_t *count)
{
    char *at = NULL;
    *count = (size_t)strtoll(text + 1, &at, 10);
    if (text[0] != '*' || *count > ARGUMENTS_MOST)
        abort();
    at += 2;
    for (size_t i = 0; i < *count; i++) {
        const size_t length = (size_t)strtoll(at + 1, &at, 10);
        arguments[i] = (struct simulated_argument){at + 2, length};
        at += 2 + length + 2;
    }
    return (size_t)(at - text);
}

enum tally_status tally_redis_flush(struct tally_redis *redis, struct tally_error *error)
{
    struct simulated_argument arguments[ARGUMENTS_MOST];
    size_t sent = 0;
    if (simulation_killed() || tally_redis_broken(redis))
        return lost(redis, error);
    if (redis->appended.length == 0)
        return TALLY_OK;
    /* The connection may break in the middle; Redis executes the commands that came whole. */
    const bool breaks = simulation_fault(100);
    const char *text = tally_buffer_text(&redis->appended);
    while (sent < redis->appended.length && !(breaks && simulation_below(2) == 0)) {
        size_t count = 0;
        sent += parse(text + sent, arguments, &count);
    }
    tally_buffer_append(&redis->sent, text, sent);
    if (tally_buffer_text(&redis->sent) == NULL)
        abort();
    tally_buffer_clear(&redis->appended);
    return breaks ? lost(redis, error) : TALLY_OK;
}

static bool answered(const void *context)
{
    const struct tally_redis *redis = context;
    return redis->broken || redis->reply_count > 0;
}

enum tally_status tally_redis_receive(struct tally_redis *redis, redisReply **reply,
                                      struct tally_error *error)
{
    enum tally_status status = tally_redis_flush(redis, error);
    if (status != TALLY_OK)
        return status;
    if (redis->reply_count == 0 || simulation_fault(4))
        simulation_wait(redis->timeout_ms * 1000, answered, redis);
    if (simulation_killed() || redis->broken || redis->reply_count == 0)
        return lost(redis, error);
    *reply = redis->replies[redis->first_reply];
    redis->first_reply = (redis->first_reply + 1) % REPLIES_MOST;
    redis->reply_count--;
    return TALLY_OK;
}

enum tally_status tally_redis_call(struct tally_redis *redis, redisReply **reply,
                                   struct tally_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    enum tally_status status = append_format(redis, format, arguments, error);
    va_end(arguments);
    return status == TALLY_OK ? tally_redis_receive(redis, reply, error) : status;
}

enum tally_status tally_redis_check_server(struct tally_redis *redis, struct tally_error *error)
{
    return tally_redis_broken(redis) ? lost(redis, error) : TALLY_OK;
}

bool tally_redis_error_passes(const char *text)
{
    (void)text; /* the simulated server answers no errors */
    return false;
}

void simulated_connections_open(void)
{
    connections = NULL;
    refused_until_us = 0;
}

void simulated_connections_close(void)
{
    while (connections != NULL)
        remove_connection(connections);
}

static void show(const struct simulated_argument *arguments, size_t count)
{
    printf("%38s", "");
    for (size_t i = 0; i < count && i < 12; i++)
        printf(" %.*s", (int)(arguments[i].length < 80 ? arguments[i].length : 3),
               arguments[i].text);
    printf("\n");
}

static bool is_call(const struct simulated_argument *argument, const char *name)
{
    return strlen(name) == argument->length && memcmp(argument->text, name, argument->length) == 0;
}

/* Executes the next command of one client. */
static void execute(struct tally_redis *redis)
{
    struct simulated_argument arguments[ARGUMENTS_MOST];
    size_t count = 0;
    const size_t length = parse(redis->sent.data + redis->done, arguments, &count);
    simulation_note("redis.execute",
                    redis->process != NULL ? (int64_t)simulation_process_index(redis->process) : -1,
                    (int64_t)count, 0);
    if (simulation->settings.trace)
        show(arguments, count);
    redisReply *reply = simulated_redis_execute(arguments, count, &redis->half);
    if (redis->half)
        return;
    redis->done += length;
    if (is_call(&arguments[0], "EVALSHA") || (is_call(&arguments[0], "HMGET") && count > 4))
        simulated_operators_watch(redis->process, is_call(&arguments[0], "EVALSHA"));
    if (redis->process == NULL) {
        freeReplyObject(reply);
        if (redis->done == redis->sent.length)
            remove_connection(redis);
        return;
    }
    if (redis->done == redis->sent.length) {
        tally_buffer_clear(&redis->sent);
        redis->done = 0;
    }
    if (redis->reply_count == REPLIES_MOST)
        abort();
    redis->replies[(redis->first_reply + redis->reply_count++) % REPLIES_MOST] = reply;
}

void simulated_connections_step(void)
{
    struct tally_redis *waiting[64];
    size_t count = 0;
    for (struct tally_redis *redis = connections; redis != NULL && count < 64;
         redis = redis->next) {
        if (!redis->broken && redis->done < redis->sent.length)
            waiting[count++] = redis;
    }
    if (count > 0)
        execute(waiting[simulation_below(count)]);
}

void simulated_connections_break(const struct simulation_process *process)
{
    struct tally_redis *redis = connections;
    while (redis != NULL) {
        struct tally_redis *next = redis->next;
        if (process == NULL || redis->process == process) {
            redis->broken = true;
            if (redis->process == NULL)
                remove_connection(redis);
        }
        redis = next;
    }
}

void simulated_connections_refuse(int64_t us)
{
    simulation_note("redis.away", us, 0, 0);
    refused_until_us = simulation->now_us + us;
    simulated_connections_break(NULL);
}
