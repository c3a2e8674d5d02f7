/*
 * Relay control: what an operator does to the relay from outside, by way of relay_position: pausing
 * it, and sending it back to publish kept events again. Blocking; any process.
 */
#ifndef TALLY_STORE_RELAY_CONTROL_H
#define TALLY_STORE_RELAY_CONTROL_H

#include "core/status.h"
#include "store/relay_position.h"

#include <libpq-fe.h>
#include <stdint.h>

struct tally_relay_view {
    int64_t epoch;
    struct tally_relay_orders orders;
    bool whole;          /* everything visible at the position's snapshot is published */
    int64_t reached_seq; /* while it is not: the last one sent on the way, 0: none yet */
    int64_t leader_pid;  /* backend of the relay that leads; 0: nobody does */
    int64_t partitions;  /* that events go by; 0: no relay has said */
};

enum tally_status tally_relay_view_read(PGconn *connection, struct tally_relay_view *view,
                                        struct tally_error *error) TALLY_MUST_CHECK;

/* `reason` at most TALLY_PAUSE_REASON_MOST bytes. Pausing one that is paused changes the reason. */
enum tally_status tally_relay_pause(PGconn *connection, const char *reason,
                                    struct tally_error *error) TALLY_MUST_CHECK;
enum tally_status tally_relay_resume(PGconn *connection,
                                     struct tally_error *error) TALLY_MUST_CHECK;

struct tally_relay_refill {
    int64_t events;    /* that will be published */
    int64_t first_seq; /* of them; 0: none */
    int64_t last_seq;
};

/* What a refill of the events of the last `hours` (0: of all that are kept) would publish. */
enum tally_status tally_relay_refill_plan(PGconn *connection, int64_t hours,
                                          struct tally_relay_refill *refill,
                                          struct tally_error *error) TALLY_MUST_CHECK;
/* Moves the position back, so that the relay publishes those again and what is not published yet,
 * in their order. The epoch is raised: the running relay's next save is refused, and it reads the
 * position anew within a second. `refill` receives what there is by then. */
enum tally_status tally_relay_refill(PGconn *connection, int64_t hours,
                                     struct tally_relay_refill *refill,
                                     struct tally_error *error) TALLY_MUST_CHECK;

#endif
