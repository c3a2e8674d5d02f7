/*
 * Query fixture: a redis-server and a read API of a test's own.
 *
 * Every wait is for a condition and bounded; what does not come fails the test.
 */
#ifndef TALLY_TEST_QUERY_FIXTURE_H
#define TALLY_TEST_QUERY_FIXTURE_H

#include "core/metrics.h"
#include "core/settings.h"
#include "http/client.h"
#include "loop/loop.h"
#include "redis_server.h"
#include "service/query/query.h"

#include <hiredis/hiredis.h>

enum { FIXTURE_PARTITIONS = 4, FIXTURE_GENERATION = 1700000000 };

struct fixture {
    struct redis_server server;
    char redis_url[64];  /* for the service */
    redisContext *redis; /* the test's own connection */

    struct event_base *base;
    struct tally_settings settings;
    struct tally_metrics *metrics;
    struct tally_query *query;
    bool drained;
};

/* Starts redis-server on a free port; nothing is stored in it. */
void fixture_open(struct fixture *fixture);
void fixture_close(struct fixture *fixture);

/* One command of the test's own; an error reply fails the test. Returns the integer of the reply.
 */
long long fixture_redis(struct fixture *fixture, const char *format, ...);

/* A generation whose positions are all complete at offset 100, and makes it live. */
void fixture_make_generation(struct fixture *fixture, int64_t generation);
/* HSETs fields ("v 1 posts 2 …") of a user, of a partition's position. */
void fixture_set_user(struct fixture *fixture, int64_t generation, int64_t user_id,
                      const char *fields);
void fixture_set_position(struct fixture *fixture, int64_t generation, int32_t partition,
                          const char *fields);
int32_t fixture_partition(int64_t user_id);
/* The next user at or above `from` that lives in that partition, or in any but that. */
int64_t fixture_user_in(int32_t partition, int64_t from);
int64_t fixture_user_outside(int32_t partition, int64_t from);

/* Starts the read API with one thread and, unless zero, this Redis timeout, and waits until it is
 * ready to answer. */
void fixture_serve(struct fixture *fixture, int64_t redis_timeout_ms);
/* Waits until the read model is complete for the service, or until it is not. */
void fixture_await_complete(struct fixture *fixture, bool complete);
/* The value that /metrics would show for `sample`, such as `tally_query_waiters{thread="0"}`. */
double fixture_metric(struct fixture *fixture, const char *sample);

struct answer {
    int status; /* 0: none came */
    char body[8192];
    char etag[64], cache_control[128], lag[32], retry_after[16], applied[32], allow[64];
};
/* A request whose answer comes later; at most one at a time for each. */
struct request {
    struct tally_http_client *client;
    struct answer answer;
    bool done;
};
/* `headers`: whole lines, or NULL. */
void fixture_send(struct fixture *fixture, struct request *request, const char *method,
                  const char *target, const char *headers);
struct answer fixture_receive(struct fixture *fixture, struct request *request);
struct answer fixture_get(struct fixture *fixture, const char *target);
struct answer fixture_get_with(struct fixture *fixture, const char *method, const char *target,
                               const char *headers);
/* Repeats a GET until it has this status. */
struct answer fixture_await_status(struct fixture *fixture, const char *target, int status);

#define FIXTURE_PATIENCE_US INT64_C(120000000)

#endif
