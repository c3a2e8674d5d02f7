/*
 * HTTP server: HTTP/1.1 on a libevent base, strict in what it accepts and bounded in what it keeps.
 *
 * A server belongs to the thread that runs its event base, and so does everything reached through
 * it; services that want several threads make one server each, with `reuse_port`. Requests that are
 * not clearly one request are refused, not repaired (RFC 9112 section 11): one problem+json answer,
 * `Connection: close`, and the connection is closed once the client had time to read it.
 *
 * What the layer answers by itself: 400 malformed, 404 and 405 (with Allow) from the route table,
 * 204 with Allow to OPTIONS, HEAD through the GET route, 408 deadlines, 413 body, 415 media type,
 * 417 expectations, 431 head, 503 too many connections, 505 versions.
 * Request targets: origin-form; absolute-form where its authority equals Host; `*` for OPTIONS.
 * Chunk extensions are ignored up to 1 KiB a request, trailer fields are refused, Upgrade is
 * ignored.
 */
#ifndef TALLY_HTTP_HTTP_H
#define TALLY_HTTP_HTTP_H

#include "core/arena.h"
#include "core/status.h"

#include <jansson.h>
#include <stdint.h>

struct event_base;
struct tally_http_exchange; /* one request and its answer; owned by the layer */
struct tally_http_server;

/* Called once for each request, when its body is whole. It must answer exactly once, at once or
 * later, from the loop's thread; answering twice aborts the process. `context` is the server's. */
typedef void tally_http_handler(struct tally_http_exchange *exchange, void *context);

struct tally_http_route {
    const char *method;  /* GET (serves HEAD too), POST, PUT, PATCH or DELETE */
    const char *pattern; /* "/v1/users/{id}": whole segments are literal or a {parameter} */
    tally_http_handler *handler;
    bool takes_body;        /* where false, a request with a body gets 400 */
    const char *media_type; /* of the body; NULL: application/json. Others get 415 */
    size_t body_bytes;      /* bound of this route's bodies; 0: the server's */
};

/* Told of every answer, also the layer's own, before it is written; for metrics and access logs.
 * tally_http_route_pattern() is NULL where no route was found, tally_http_method() "-" where the
 * request line could not be read. `duration_us` counts from the request's first byte. */
typedef void tally_http_observer(const struct tally_http_exchange *exchange, int http_status,
                                 int64_t duration_us, void *context);

/* Zero means the default in brackets. */
struct tally_http_server_options {
    const char *listen;  /* "127.0.0.1:8080", "[::1]:0"; port 0 takes a free one */
    bool reuse_port;     /* SO_REUSEPORT: several servers share the address */
    int backlog;         /* connections waiting for accept [1024] */
    int accept_after_ms; /* they wait so long, or until tally_http_server_accept() [not at all] */
    size_t max_connections; /* [10000]; those beyond it get 503 or wait in the backlog */
    size_t head_bytes;      /* request line and headers, at most 65536 [16384] → 431 */
    size_t body_bytes;      /* [65536] → 413 */
    size_t answer_bytes;    /* one answer with its head [16 MiB]; a larger one becomes a 500 */
    size_t arena_bytes;     /* what handlers may take from tally_http_arena() [1 MiB] */
    int head_timeout_ms;    /* from the first byte of a request to the end of its head [10000] */
    int body_timeout_ms;    /* from the end of the head to the end of the body [30000] */
    int idle_timeout_ms;    /* without a request [60000] */
    int write_timeout_ms;   /* for a client to take an answer [30000] */
    int linger_timeout_ms;  /* from the last answer to the close [2000] */
    tally_http_observer *on_done; /* or NULL */
    void *observer_context;
};

/*
 * Server.
 */

/* Listens at once; accepting starts with the loop. `routes` and the strings in it are borrowed and
 * must outlive the server. CONFIG: an address that cannot be read; INVALID: a route; IO: the
 * address cannot be bound; NO_MEMORY. */
enum tally_status tally_http_server_new(struct event_base *base,
                                        const struct tally_http_server_options *options,
                                        const struct tally_http_route *routes, size_t route_count,
                                        void *context, struct tally_http_server **out,
                                        struct tally_error *error) TALLY_MUST_CHECK;
/* Accepts from now on, where `accept_after_ms` is not over yet. Any number of times. */
void tally_http_server_accept(struct tally_http_server *server);
/* The port that was bound, in host order. */
uint16_t tally_http_server_port(const struct tally_http_server *server);
size_t tally_http_server_connections(const struct tally_http_server *server);

/* Stops: takes what already waits in the backlog, closes the listener, answers what is in flight
 * with `Connection: close`. An idle connection gets one second, or half the deadline, for a request
 * that may be on its way. After `deadline_ms` the rest is cut. `done` comes once, from
 * the loop, never from inside this call. A second drain aborts the process. */
typedef void tally_http_drained(void *context);
void tally_http_server_drain(struct tally_http_server *server, int deadline_ms,
                             tally_http_drained *done, void *context);

/* Closes everything at once; a drain that is under way does not call back any more. Unanswered
 * exchanges are freed with it: nobody may answer them afterwards. Not from inside a handler or
 * observer; the drained callback may. NULL inside is fine. */
void tally_http_server_free(struct tally_http_server **server);

/*
 * The request. Strings are terminated and stay valid until the exchange is answered.
 */

const char *tally_http_method(const struct tally_http_exchange *exchange); /* "GET", "HEAD", … */
const char *tally_http_route_pattern(const struct tally_http_exchange *exchange);
/* A segment, percent-decoded valid UTF-8 without NUL; NULL where the pattern has no such name. */
const char *tally_http_path_parameter(const struct tally_http_exchange *exchange, const char *name);
/* Decoded as above, '+' is a space; NULL where it is absent, "" where it has no value. A request
 * that gives one name twice, or more than 32 names, gets 400 from the layer. */
const char *tally_http_query_parameter(const struct tally_http_exchange *exchange,
                                       const char *name);
/* The first field of this name (any case), without the blanks round it; NULL where absent. Bytes
 * above 0x7f are as the client sent them. */
const char *tally_http_header(const struct tally_http_exchange *exchange, const char *name);
/* How many fields have this name; for those that must not be repeated. */
size_t tally_http_header_count(const struct tally_http_exchange *exchange, const char *name);
/* Never NULL; terminated, but may hold NULs. */
const char *tally_http_body(const struct tally_http_exchange *exchange, size_t *length);
/* The body as a JSON object, a new reference for the caller. INVALID: not JSON, not an object,
 * nested deeper than 64, a repeated member, invalid UTF-8, NUL, or anything after it. */
enum tally_status tally_http_json(const struct tally_http_exchange *exchange, json_t **out,
                                  struct tally_error *error) TALLY_MUST_CHECK;
/* tally_clock_monotonic_us() when the request's first byte was read. */
int64_t tally_http_received_us(const struct tally_http_exchange *exchange);
/* Memory that lives until the exchange ends; bounded by `arena_bytes`. */
struct tally_arena *tally_http_arena(struct tally_http_exchange *exchange);

/*
 * The answer. Date, Content-Length and Connection are the layer's.
 */

/* Any number of times before the answer, copied. A name or value that would break the answer apart
 * (CR, LF, NUL, no token), or more than 8 KiB of them, turns the answer into a 500. */
void tally_http_answer_header(struct tally_http_exchange *exchange, const char *name,
                              const char *value);
/* `http_status` 200–599. The body is copied; none is sent with 204, 304 and to HEAD. `content_type`
 * may be NULL. The exchange must not be touched afterwards. Where there is no memory for the
 * answer, the connection is closed. */
void tally_http_answer(struct tally_http_exchange *exchange, int http_status,
                       const char *content_type, const void *body, size_t length);
/* RFC 9457 problem+json with type urn:tally:problem:<slug>; `detail` is a printf format or NULL.
 * Retryable 503s carry `Retry-After: 1` unless the handler set one. */
void tally_http_answer_problem(struct tally_http_exchange *exchange, enum tally_status status,
                               const char *detail, ...) TALLY_PRINTF(3, 4);

#endif
