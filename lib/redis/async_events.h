/*
 * Async events: hooks a hiredis context into a libevent base.
 *
 * hiredis' own adapter (hiredis/adapters/libevent.h) waits for the socket to be writable before
 * each write: two epoll_ctl calls and a turn of the loop more for every batch. Here a write is due
 * at the end of the turn that queued it, behind whatever else the turn had to do, and the socket is
 * only waited for while it connects or takes no more bytes.
 */
#ifndef TALLY_REDIS_ASYNC_EVENTS_H
#define TALLY_REDIS_ASYNC_EVENTS_H

#include "core/status.h"

#include <stdint.h>

struct event_base;
struct redisAsyncContext;

/* Attaches to a fresh context, which owns the events from then on. `*flushes` counts the writes and
 * must outlive the context. */
enum tally_status tally_redis_attach(struct redisAsyncContext *context, struct event_base *base,
                                     int64_t *flushes, struct tally_error *error) TALLY_MUST_CHECK;

#endif
