#include "query_fixture.h"

#include "core/clock.h"
#include "domain/partitioner.h"
#include "port.h"
#include "view/keys.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void pause_briefly(void)
{
    usleep(2000);
}

void fixture_open(struct fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    redis_server_start(&fixture->server, "noeviction");
    (void)snprintf(fixture->redis_url, sizeof fixture->redis_url, "%s", fixture->server.url);
    fixture->redis = redisConnect("127.0.0.1", fixture->server.port);
    cr_assert(fixture->redis != NULL && fixture->redis->err == 0);
    fixture->base = tally_loop_new();
    cr_assert_not_null(fixture->base);
}

void fixture_close(struct fixture *fixture)
{
    kill(fixture->server.process, SIGCONT);
    tally_query_free(&fixture->query);
    tally_metrics_free(&fixture->metrics);
    event_base_free(fixture->base);
    redisFree(fixture->redis);
    redis_server_stop(&fixture->server);
}

long long fixture_redis(struct fixture *fixture, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(fixture->redis, format, arguments);
    va_end(arguments);
    cr_assert_not_null(reply, "%s: %s", format, fixture->redis->errstr);
    cr_assert_neq(reply->type, REDIS_REPLY_ERROR, "%s: %s", format, reply->str);
    long long integer = reply->integer;
    freeReplyObject(reply);
    return integer;
}

static void set_fields(struct fixture *fixture, const char *key, const char *fields)
{
    char command[4096];
    (void)snprintf(command, sizeof command, "HSET %s %s", key, fields);
    fixture_redis(fixture, command);
}

void fixture_set_position(struct fixture *fixture, int64_t generation, int32_t partition,
                          const char *fields)
{
    char key[TALLY_VIEW_KEY_BYTES];
    tally_view_position_key(key, generation, partition);
    set_fields(fixture, key, fields);
}

void fixture_set_user(struct fixture *fixture, int64_t generation, int64_t user_id,
                      const char *fields)
{
    char key[TALLY_VIEW_KEY_BYTES];
    tally_view_user_key(key, generation, fixture_partition(user_id), user_id);
    set_fields(fixture, key, fields);
}

void fixture_make_generation(struct fixture *fixture, int64_t generation)
{
    char fields[256];
    long long now_ms = (long long)(tally_clock_wall_us() / 1000);
    /* Fresh whenever the Redis was started: nobody writes it again as a projector would. */
    long long fresh_ms = now_ms + 3600 * 1000;
    (void)snprintf(fields, sizeof fields,
                   "epoch 1 offset 100 until 100 cluster test partitions %d event_at_ms %lld "
                   "fresh_at_ms %lld",
                   FIXTURE_PARTITIONS, now_ms, fresh_ms);
    for (int32_t i = 0; i < FIXTURE_PARTITIONS; i++)
        fixture_set_position(fixture, generation, i, fields);
    fixture_redis(fixture, "SET " TALLY_VIEW_GENERATION_KEY " %lld", (long long)generation);
}

int32_t fixture_partition(int64_t user_id)
{
    return tally_partition_of(user_id, FIXTURE_PARTITIONS);
}

int64_t fixture_user_in(int32_t partition, int64_t from)
{
    while (fixture_partition(from) != partition)
        from++;
    return from;
}

int64_t fixture_user_outside(int32_t partition, int64_t from)
{
    while (fixture_partition(from) == partition)
        from++;
    return from;
}

static void on_drained(void *context)
{
    ((struct fixture *)context)->drained = true;
}

void fixture_serve(struct fixture *fixture, int64_t redis_timeout_ms)
{
    struct tally_settings *settings = &fixture->settings;
    (void)snprintf(settings->redis_url, sizeof settings->redis_url, "%s", fixture->redis_url);
    (void)snprintf(settings->auth, sizeof settings->auth, "off");
    (void)snprintf(settings->log_level, sizeof settings->log_level, "info");
    settings->query_threads = 1;
    settings->query_waiters_most = 16;
    settings->http_connections_most = 256;
    settings->redis_timeout_ms = redis_timeout_ms > 0 ? redis_timeout_ms : 2000;
    settings->breaker_ms = 750;
    settings->drain_ms = 5000;
    fixture->metrics = tally_metrics_new();
    const struct tally_query_options options = {settings, fixture->base, fixture->metrics,
                                                on_drained, fixture};
    struct tally_error error = {0};
    const int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    enum tally_status status;
    /* IO: somebody else has the port. */
    do {
        (void)snprintf(settings->query_listen, sizeof settings->query_listen, "127.0.0.1:%d",
                       test_port_choose());
        status = tally_query_new(&options, &fixture->query, &error);
    } while (status == TALLY_IO && tally_clock_monotonic_us() < give_up_us);
    cr_assert_eq(status, TALLY_OK, "%s", error.text);
    char reason[256];
    while (!tally_query_check_redis(fixture->query, reason)) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s", reason);
        pause_briefly();
    }
}

void fixture_await_complete(struct fixture *fixture, bool complete)
{
    int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    char reason[256] = "complete";
    while (tally_query_check_read_model(fixture->query, reason) != complete) {
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s", reason);
        pause_briefly();
    }
}

double fixture_metric(struct fixture *fixture, const char *sample)
{
    struct tally_buffer out;
    tally_buffer_init(&out, 1 << 20);
    tally_metrics_render(fixture->metrics, &out);
    const char *found = strstr(tally_buffer_text(&out), sample);
    cr_assert_not_null(found, "there is no %s", sample);
    double value = strtod(found + strlen(sample), NULL);
    tally_buffer_release(&out);
    return value;
}

static void keep(char *target, size_t size, const struct tally_http_client_answer *answer,
                 const char *name)
{
    const char *value = tally_http_client_header(answer, name);
    (void)snprintf(target, size, "%s", value != NULL ? value : "");
}

static void on_answered(const struct tally_http_client_answer *answer, void *context)
{
    struct request *request = context;
    struct answer *kept = &request->answer;
    size_t length = 0;
    kept->status = tally_http_client_http_status(answer);
    (void)snprintf(kept->body, sizeof kept->body, "%s", tally_http_client_body(answer, &length));
    keep(kept->etag, sizeof kept->etag, answer, "ETag");
    keep(kept->cache_control, sizeof kept->cache_control, answer, "Cache-Control");
    keep(kept->lag, sizeof kept->lag, answer, "Tally-Lag-Ms");
    keep(kept->retry_after, sizeof kept->retry_after, answer, "Retry-After");
    keep(kept->applied, sizeof kept->applied, answer, "Preference-Applied");
    keep(kept->allow, sizeof kept->allow, answer, "Allow");
    request->done = true;
}

void fixture_send(struct fixture *fixture, struct request *request, const char *method,
                  const char *target, const char *headers)
{
    struct tally_error error = {0};
    memset(request, 0, sizeof *request);
    cr_assert_eq(tally_http_client_new(fixture->base, fixture->settings.query_listen, 0,
                                       &request->client, &error),
                 TALLY_OK, "%s", error.text);
    const struct tally_http_client_request sent = {.method = method,
                                                   .target = target,
                                                   .headers = headers,
                                                   .timeout_ms = FIXTURE_PATIENCE_US / 1000};
    cr_assert_eq(tally_http_client_send(request->client, &sent, on_answered, request, &error),
                 TALLY_OK, "%s", error.text);
}

struct answer fixture_receive(struct fixture *fixture, struct request *request)
{
    while (!request->done)
        event_base_loop(fixture->base, EVLOOP_ONCE);
    tally_http_client_free(&request->client);
    return request->answer;
}

struct answer fixture_get_with(struct fixture *fixture, const char *method, const char *target,
                               const char *headers)
{
    struct request request;
    fixture_send(fixture, &request, method, target, headers);
    return fixture_receive(fixture, &request);
}

struct answer fixture_get(struct fixture *fixture, const char *target)
{
    return fixture_get_with(fixture, "GET", target, NULL);
}

struct answer fixture_await_status(struct fixture *fixture, const char *target, int status)
{
    int64_t give_up_us = tally_clock_monotonic_us() + FIXTURE_PATIENCE_US;
    while (true) {
        struct answer answer = fixture_get(fixture, target);
        if (answer.status == status)
            return answer;
        cr_assert(tally_clock_monotonic_us() < give_up_us, "%s stays %d: %s", target, answer.status,
                  answer.body);
        pause_briefly();
    }
}
