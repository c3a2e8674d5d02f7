/*
 * HTTP client: one keep-alive connection on a libevent base, one request in flight at a time; for
 * tallyctl and tests.
 *
 * A client belongs to the thread that runs its base. It connects when a request needs it, and again
 * after the server closed the connection; it never repeats a request by itself.
 */
#ifndef TALLY_HTTP_CLIENT_H
#define TALLY_HTTP_CLIENT_H

#include "core/status.h"

#include <stdint.h>

struct event_base;
struct tally_http_client;
struct tally_http_client_answer;

struct tally_http_client_request {
    const char *method; /* "GET", "POST", … */
    const char *target; /* path and query, already encoded: "/v1/users?ids=1,2" */
    const char *headers; /* whole lines "Name: value\r\n…", or NULL; Host and Content-Length are the
                            client's */
    const void *body;    /* or NULL */
    size_t body_length;
    int timeout_ms; /* from the call to the end of the answer; 0: 30000 */
};

/* Comes exactly once for every request that was started, from the loop. The answer is borrowed
 * until the call returns, starts the next request or frees the client, all of which it may do. */
typedef void tally_http_client_answered(const struct tally_http_client_answer *answer,
                                        void *context);

/* `address` is "host:port", resolved here once (it may block on DNS). `max_body_bytes` bounds an
 * answer's body, 0: 16 MiB. CONFIG, UNAVAILABLE (unknown host) or NO_MEMORY. */
enum tally_status tally_http_client_new(struct event_base *base, const char *address,
                                        size_t max_body_bytes, struct tally_http_client **out,
                                        struct tally_error *error) TALLY_MUST_CHECK;
/* A request in flight never calls back. */
void tally_http_client_free(struct tally_http_client **client);

/* Copies what it needs. A failed start never calls back: INVALID where one is in flight already,
 * NO_MEMORY. Connection failures come through the callback. */
enum tally_status tally_http_client_send(struct tally_http_client *client,
                                         const struct tally_http_client_request *request,
                                         tally_http_client_answered *answered, void *context,
                                         struct tally_error *error) TALLY_MUST_CHECK;

/* OK where an answer came, of whatever HTTP status. Else: UNAVAILABLE (could not connect),
 * REQUEST_TIMEOUT, IO (the connection broke: the request may have been carried out), PROTOCOL,
 * BODY_TOO_LARGE, NO_MEMORY. */
enum tally_status tally_http_client_status(const struct tally_http_client_answer *answer);
/* Says what went wrong; "" where nothing did. */
const char *tally_http_client_error(const struct tally_http_client_answer *answer);
/* 200–599; 0 where none came. */
int tally_http_client_http_status(const struct tally_http_client_answer *answer);
/* The first field of this name (any case), or NULL. */
const char *tally_http_client_header(const struct tally_http_client_answer *answer,
                                     const char *name);
/* Terminated, never NULL. */
const char *tally_http_client_body(const struct tally_http_client_answer *answer, size_t *length);

#endif
