/*
 * What the files of this folder share about servers, connections and exchanges; nobody else
 * includes it. A server owns its connections; a connection owns the one exchange it may have at a
 * time.
 */
#ifndef TALLY_HTTP_INTERNAL_H
#define TALLY_HTTP_INTERNAL_H

#include "core/buffer.h"
#include "http/http.h"
#include "http/router.h"
#include "http/strict.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <llhttp.h>
#include <time.h>

enum {
    TALLY_HTTP_MAX_FIELDS = 100,
    TALLY_HTTP_DATE_BYTES = 30,
    /* Answers to pipelined requests gather up to this before they are written. */
    TALLY_HTTP_GATHER_BYTES = 65536,
    /* Room for body bytes behind the head. */
    TALLY_HTTP_BODY_READ_BYTES = 16384,
};

/* X(name, reads): the states of a connection; `reads`: it wants bytes from the client. */
#define TALLY_HTTP_STATES(X)                                                                      \
    X(READING_HEAD, true) /* idle while no byte of a request is there */                          \
    X(READING_BODY, true) /* the head is accepted */                                              \
    X(HANDLING, false)    /* the request is with its handler */                                   \
    X(WRITING, false)     /* answers wait for the client to take them */                          \
    X(LINGERING, true)    /* the last answer is out; reads and forgets until the client closes */ \
    X(CLOSED, false)      /* no socket any more; freed when no answer is due */

enum tally_http_state {
#define X(name, reads) TALLY_HTTP_##name,
    TALLY_HTTP_STATES(X)
#undef X
};

/* Offsets into the head, since its buffer may move while the body is read. */
struct tally_http_span {
    uint32_t offset;
    uint32_t length;
};

struct tally_http_field {
    struct tally_http_span name;
    struct tally_http_span value; /* terminated in place once the head is accepted */
};

struct tally_http_request {
    const struct tally_http_method *method; /* NULL until known */
    int minor;
    bool keep_alive;
    bool chunked;
    bool expects_continue;
    uint64_t content_length;
    struct tally_http_span target;
    struct tally_http_target parsed; /* segments and query of the target */
    size_t field_count;
    bool too_many_fields;
    bool complete; /* llhttp has seen the end of the message */
    struct tally_http_field fields[TALLY_HTTP_MAX_FIELDS];
};

struct tally_http_exchange {
    struct tally_http_connection *connection;
    struct tally_http_request request;
    const struct tally_http_compiled_route *route; /* NULL until found */
    struct tally_arena arena;
    struct tally_buffer body;
    struct tally_buffer headers; /* of the answer, as lines */
    bool retry_after;            /* the handler has set one */
    bool called;                 /* the handler has the request */
    bool answered;
    int64_t received_us;
};

/* Bytes from the client: the head from 0, then what is not used yet. */
struct tally_http_input {
    char *data;
    size_t length;
    size_t capacity;
    size_t head_length; /* 0 while the head is not complete */
};

struct tally_http_connection {
    struct tally_http_connection *prev, *next; /* in the list of the server it is in */
    struct tally_http_server *server;
    int fd;
    enum tally_http_state state;
    struct event read_event;
    struct event write_event;
    bool reading;         /* read_event is added */
    bool writing;         /* write_event is added */
    bool advancing;       /* the state machine is on the stack */
    bool close_after;     /* no request after this one */
    bool peer_finished;   /* the client sends no more */
    bool refused;         /* beyond max_connections: gets 503 */
    uint64_t requests;    /* begun on this connection */
    size_t lingered;      /* bytes read and forgotten */
    int64_t deadline_us;  /* of the state; 0: none */
    int64_t write_due_us; /* for the output that waits; 0: none waits */
    llhttp_t parser;
    struct tally_http_head_scan head_scan;
    struct tally_http_chunk_scan chunk_scan;
    struct tally_http_input input;
    struct tally_buffer output;
    size_t output_sent;
    struct tally_http_exchange exchange;
};

struct tally_http_server {
    struct event_base *base;
    struct tally_http_server_options options;
    struct tally_http_router *router;
    void *context;
    int fd; /* -1 once closed */
    uint16_t port;
    struct event accept_event;
    struct event accept_retry; /* after EMFILE and the like */
    struct event sweep;        /* looks at all deadlines */
    struct event reap;         /* frees closed connections at the end of a turn, ends a drain */
    struct tally_http_connection *open;
    struct tally_http_connection *closed; /* to be freed, or an answer is due */
    size_t open_count;
    size_t pending_count; /* closed connections whose answer is due */
    bool accept_paused;   /* for want of room; a close resumes */
    bool draining;
    int64_t drain_deadline_us;
    tally_http_drained *drained;
    void *drained_context;
    time_t date_second;
    char date[TALLY_HTTP_DATE_BYTES];
};

/* server.c */
const char *tally_http_date(struct tally_http_server *server);
/* Moves a connection that has just closed to the list that is reaped. */
void tally_http_server_closed(struct tally_http_server *server,
                              struct tally_http_connection *connection);
/* The answer of a closed connection has come. */
void tally_http_server_settled(struct tally_http_server *server);

/* connection.c */
/* Takes `fd`, also where it fails and answers NULL. */
struct tally_http_connection *tally_http_connection_new(struct tally_http_server *server, int fd,
                                                        bool refused);
void tally_http_connection_free(struct tally_http_connection *connection);
void tally_http_connection_close(struct tally_http_connection *connection);
/* Runs the state machine until it has to wait; does nothing where it is running already. */
void tally_http_connection_advance(struct tally_http_connection *connection);
void tally_http_connection_expire(struct tally_http_connection *connection, int64_t now_us);
/* Part of a drain: answers what is there; an idle connection stays a little for a last request. */
void tally_http_connection_drain(struct tally_http_connection *connection, int64_t now_us);

/* transfer.c */
bool tally_http_wants_bytes(enum tally_http_state state);
void tally_http_set_reading(struct tally_http_connection *connection, bool on);
bool tally_http_output_waits(const struct tally_http_connection *connection);
/* Sends what waits. False where some of it still does, or the connection closed. */
bool tally_http_flush(struct tally_http_connection *connection);
bool tally_http_grow_input(struct tally_http_input *input, size_t capacity);
/* Makes room and reads once. False where there is nothing to look at. */
bool tally_http_receive(struct tally_http_connection *connection);

/* parser.c */
/* llhttp over the complete head; fills the request's fields and target. */
enum tally_status tally_http_parse_head(struct tally_http_connection *connection,
                                        const char **why) TALLY_MUST_CHECK;
/* Takes body bytes from the input; a whole body is terminated and the request `complete`. */
enum tally_status tally_http_parse_body(struct tally_http_connection *connection,
                                        const char **why) TALLY_MUST_CHECK;

/* request.c */
/* Parses and judges a complete head; OK, or what to answer and why. Where it says
 * METHOD_NOT_ALLOWED or EXPECTATION_FAILED the head is sound; `*options` is set where OPTIONS is to
 * be answered. */
enum tally_status tally_http_request_accept(struct tally_http_connection *connection, bool *options,
                                            const char **why) TALLY_MUST_CHECK;

/* exchange.c */
void tally_http_exchange_begin(struct tally_http_exchange *exchange, int64_t received_us);
/* Gives back what a request took; what the next one can use stays. */
void tally_http_exchange_end(struct tally_http_exchange *exchange);

#endif
