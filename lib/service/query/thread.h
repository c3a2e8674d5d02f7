/*
 * Thread: one event loop of the read API with its HTTP server and its lookups.
 *
 * Made and freed in the main thread; in between, everything but the atomics belongs to the thread
 * itself.
 */
#ifndef TALLY_SERVICE_QUERY_THREAD_H
#define TALLY_SERVICE_QUERY_THREAD_H

#include "core/buffer.h"
#include "core/random.h"
#include "core/settings.h"
#include "http/http.h"
#include "loop/loop.h"
#include "service/query/metrics.h"
#include "view/lookup.h"

#include <pthread.h>
#include <stdatomic.h>

/* What the threads share. Constant but for the atomics. */
struct tally_query_shared {
    struct tally_query_metrics metrics;
    struct tally_wakeup *thread_done; /* of the main thread */
    atomic_bool log_requests;
    atomic_size_t done; /* threads that have ended */
    int64_t drain_ms;
};

/* What the main thread asks of it. */
enum tally_query_order { TALLY_QUERY_RUN, TALLY_QUERY_DRAIN, TALLY_QUERY_STOP };

struct tally_query_thread {
    struct tally_query_shared *shared;
    size_t number; /* from 0; its label in metrics and logs */
    struct tally_query_thread_metrics gauges;
    struct event_base *base;
    struct tally_http_server *server;
    struct tally_lookup *lookup;
    struct tally_wakeup *wakeup;
    struct tally_timer *tick;
    struct tally_buffer scratch; /* the body being written */
    struct tally_random random;
    struct tally_lookup_health published;
    bool draining;
    bool accepting;
    int64_t opened_us; /* monotonic */
    pthread_t id;
    bool started;

    atomic_int order;
    atomic_bool connected;
    atomic_bool complete;
    _Atomic int64_t turned_us; /* monotonic; when the loop last ticked */
};

/* Listens and starts connecting to Redis; `thread` is zeroed, with `shared` and `gauges` set. */
enum tally_status tally_query_thread_open(struct tally_query_thread *thread,
                                          const struct tally_settings *settings,
                                          struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_query_thread_start(struct tally_query_thread *thread,
                                           struct tally_error *error) TALLY_MUST_CHECK;
void tally_query_thread_order(struct tally_query_thread *thread, enum tally_query_order order);
/* Stops and joins the thread where it was started, then frees what it had. */
void tally_query_thread_close(struct tally_query_thread *thread);

/*
 * Handlers; their context is the thread (users.c, stats.c).
 */
tally_http_handler tally_query_serve_user;
tally_http_handler tally_query_serve_users;
tally_http_handler tally_query_serve_stats;

/* Answers a failure, which nobody may keep. */
void tally_query_answer_problem(struct tally_http_exchange *exchange, enum tally_status status,
                                const char *detail);
/* Answers 200 with what thread->scratch holds. */
void tally_query_answer_scratch(struct tally_query_thread *thread,
                                struct tally_http_exchange *exchange);
/* Sets Cache-Control, and Tally-Lag-Ms where the time is known. */
void tally_query_answer_freshness(struct tally_http_exchange *exchange, int64_t fresh_at_ms);

#endif
