#include "redis/async_events.h"

#include <event2/event.h>
#include <hiredis/async.h>
#include <stdlib.h>

struct events {
    struct redisAsyncContext *context;
    struct event *readable;
    struct event *writable;
    struct event *flush; /* never waits for anything: made active by hand */
    bool writing;        /* inside redisAsyncHandleWrite(), before it has called a hook */
    int64_t *flushes;
};

static void on_readable(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor;
    (void)what;
    redisAsyncHandleRead(((struct events *)argument)->context);
}

static void on_writable(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor;
    (void)what;
    struct events *events = argument;
    ++*events->flushes;
    /* Reset by the hooks below and not here: a failed write frees the context and the events. */
    events->writing = true;
    redisAsyncHandleWrite(events->context);
}

/* hiredis calls it for every command, at the end of a write that was not whole, and once to wait
 * for the connection. Only the first of these can be served without waiting for the socket. */
static void add_write(void *argument)
{
    struct events *events = argument;
    if (events->writing || (events->context->c.flags & REDIS_CONNECTED) == 0) {
        events->writing = false;
        event_add(events->writable, NULL);
    } else if (!event_pending(events->writable, EV_WRITE, NULL)) {
        /* Goes to the end of the queue of this turn's active events. */
        event_active(events->flush, EV_WRITE, 0);
    }
}

/* hiredis calls it at the end of a write that was whole. */
static void delete_write(void *argument)
{
    struct events *events = argument;
    events->writing = false;
    event_del(events->writable);
}

static void add_read(void *argument)
{
    struct events *events = argument;
    if (!event_pending(events->readable, EV_READ, NULL))
        event_add(events->readable, NULL);
}

static void delete_read(void *argument)
{
    event_del(((struct events *)argument)->readable);
}

static void free_events(struct events *events)
{
    struct event *all[] = {events->readable, events->writable, events->flush};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i] != NULL)
            event_free(all[i]);
    }
    free(events);
}

static void clean_up(void *argument)
{
    free_events(argument);
}

enum tally_status tally_redis_attach(struct redisAsyncContext *context, struct event_base *base,
                                     int64_t *flushes, struct tally_error *error)
{
    struct events *events = calloc(1, sizeof *events);
    if (events == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "Redis events");
    int descriptor = context->c.fd;
    events->context = context;
    events->flushes = flushes;
    events->readable = event_new(base, descriptor, EV_READ | EV_PERSIST, on_readable, events);
    events->writable = event_new(base, descriptor, EV_WRITE, on_writable, events);
    events->flush = event_new(base, -1, 0, on_writable, events);
    if (events->readable == NULL || events->writable == NULL || events->flush == NULL ||
        event_add(events->readable, NULL) != 0) {
        free_events(events);
        return tally_fail(error, TALLY_NO_MEMORY, "Redis events");
    }
    context->ev.data = events;
    context->ev.addRead = add_read;
    context->ev.delRead = delete_read;
    context->ev.addWrite = add_write;
    context->ev.delWrite = delete_write;
    context->ev.cleanup = clean_up;
    return TALLY_OK;
}
