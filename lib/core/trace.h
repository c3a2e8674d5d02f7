/*
 * Trace: the W3C traceparent (https://www.w3.org/TR/trace-context/) that follows a request through
 * the event to the projector's log.
 */
#ifndef TALLY_CORE_TRACE_H
#define TALLY_CORE_TRACE_H

#include "core/random.h"

#include <stdbool.h>
#include <stddef.h>

/* "00-<32 hex>-<16 hex>-<2 hex>" and a terminator. */
#define TALLY_TRACEPARENT_BYTES 56
#define TALLY_TRACE_ID_BYTES 33

struct tally_trace {
    char parent[TALLY_TRACEPARENT_BYTES];
};

/* Takes over the trace id and flags of a valid version-00 `incoming` (may be NULL) with a new span
 * id; starts a new trace with flags 01 (sampled) otherwise. */
void tally_trace_start(struct tally_trace *trace, const char *incoming,
                       struct tally_random *random);
/* Whether `text` is a valid traceparent of version 00 with non-zero ids. */
bool tally_trace_valid(const char *text);
/* The 32 hex digits of the trace id of a valid traceparent; "" for anything else. */
void tally_trace_id(const char *parent, char id[TALLY_TRACE_ID_BYTES]);

#endif
