/*
 * Breaker: decides whether a server is asked at all, so that callers of one that does not answer
 * are refused at once instead of queueing (https://martinfowler.com/bliki/CircuitBreaker.html).
 * Pure: the clock, and what is seen of the server, are arguments.
 *
 *     closed ──nothing heard for the patience, or no connection to be had──► open
 *     open ◄──► half-open   refused as in open; an attempt to connect, or a probe, is under way
 *     open, half-open ──connected, and something was heard since it opened──► closed
 *
 * Silence is not slowness. A statement may wait for a lock, the disk or its turn for seconds on a
 * server that is well. So whoever keeps a breaker asks something trivial beside it (a probe), and
 * what opens the breaker is that nothing at all is heard, the probe included, while an answer is
 * due. Over a slow link even the probe is late; then the patience grows to twice the probe's last
 * round trip, as TCP's retransmission timer does (RFC 6298), so that a slow server is served slowly
 * instead of being refused and taken back with every answer.
 *
 * The pauses between attempts belong to the connections, which back off with jitter.
 */
#ifndef TALLY_CORE_BREAKER_H
#define TALLY_CORE_BREAKER_H

#include "core/status.h"

#include <stdint.h>

/* X(name, text); the numbers are the values of the metric tally_breaker_state. */
#define TALLY_BREAKER_STATE_LIST(X) X(CLOSED, "closed") X(HALF_OPEN, "half-open") X(OPEN, "open")

enum tally_breaker_state {
#define X(name, text) TALLY_BREAKER_##name,
    TALLY_BREAKER_STATE_LIST(X)
#undef X
};

/* Read its fields; change it by the functions alone. */
struct tally_breaker {
    enum tally_breaker_state state;
    int64_t opened;            /* times it has opened */
    int64_t opened_us;         /* when it did last */
    struct tally_error cause;  /* why; status OK while it is closed */
    int64_t patience_us;       /* the silence that opens it now */
    int64_t patience_least_us; /* … while probes come back quickly */
    int64_t patience_most_us;
};

/* What is seen of a server at one moment. Times are monotonic. */
struct tally_breaker_sight {
    bool connected;                    /* there is a connection that takes questions */
    bool trying;                       /* a connection is being made, or a probe is under way */
    int64_t asked_us;                  /* the oldest question without an answer; INT64_MAX: none */
    int64_t heard_us;                  /* the last bytes from the server; 0: never any */
    const struct tally_error *failure; /* why the last attempt to connect failed; OK: it did not */
};

/* Starts closed. 0 < `patience_ms` <= `patience_most_ms`. */
void tally_breaker_init(struct tally_breaker *breaker, int64_t patience_ms,
                        int64_t patience_most_ms);
/* Moves the state to what `sight` says. True where it opened or closed, for the log; a move between
 * open and half-open is none. */
bool tally_breaker_look(struct tally_breaker *breaker, const struct tally_breaker_sight *sight,
                        int64_t now_us);
/* A probe came back after `round_trip_us`. */
void tally_breaker_measured(struct tally_breaker *breaker, int64_t round_trip_us);
/* Whether callers are to be refused. */
bool tally_breaker_refuses(const struct tally_breaker *breaker);

#endif
