#include "core/clock.h"
#include "core/random.h"
#include "loop/loop.h"
#include "service/ctl/torture_internal.h"

#include <event2/event.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { READERS = 8, PAUSE_US = 10000, TICK_US = 100000, TIMEOUT_MS = 4000, TARGET_BYTES = 96 };

/* What a user was last shown as. */
struct shown {
    int64_t version; /* 0: not yet */
    int64_t posts, comments;
    bool degraded;
};

struct reader {
    struct torture_readers *readers;
    struct tally_http_client *client;
    struct tally_timer *timer;
    int64_t user;
    int64_t wanted;      /* minVersion; 0: none was sent */
    struct shown before; /* when the read was sent: answers of two connections may cross */
};

struct torture_readers {
    pthread_t thread;
    struct event_base *base;
    struct torture_ledger *ledger;
    int64_t *reads;      /* by kind; borrowed */
    struct shown *shown; /* of each account */
    struct reader list[READERS];
    struct tally_random random;
    _Atomic bool stop;
};

static void compare(struct reader *reader, int64_t id, const struct shown *now)
{
    struct torture_ledger *ledger = reader->readers->ledger;
    const struct shown *before = &reader->before;
    struct shown *last = &reader->readers->shown[reader->user];
    if (now->version < reader->wanted)
        torture_violate(ledger, "older", id,
                        "asked for version %" PRId64 ", shown version %" PRId64, reader->wanted,
                        now->version);
    if (now->version < before->version)
        torture_violate(ledger, "back", id,
                        "shown version %" PRId64 " (%" PRId64 " posts, %" PRId64
                        " comments) after version %" PRId64 " (%" PRId64 ", %" PRId64 ")",
                        now->version, now->posts, now->comments, before->version, before->posts,
                        before->comments);
    if (now->version == last->version && !now->degraded && !last->degraded &&
        (now->posts != last->posts || now->comments != last->comments))
        torture_violate(ledger, "unequal", id,
                        "version %" PRId64 " was shown with %" PRId64 " posts and %" PRId64
                        " comments, and with %" PRId64 " and %" PRId64,
                        now->version, last->posts, last->comments, now->posts, now->comments);
    if (now->version >= last->version)
        *last = *now;
}

static enum torture_read judge(struct reader *reader, int http, const json_t *body)
{
    struct torture_ledger *ledger = reader->readers->ledger;
    int64_t id = ledger->accounts[reader->user].id;
    if (http == 503)
        return TORTURE_READ_REFUSED;
    if (http == 404 && reader->wanted == 0) {
        if (reader->before.version > 0)
            torture_violate(ledger, "gone", id, "not found after version %" PRId64 " was shown",
                            reader->before.version);
        return TORTURE_READ_ABSENT;
    }
    const struct shown now = {
        .version = json_integer_value(json_object_get(body, "version")),
        .posts = json_integer_value(json_object_get(body, "postCount")),
        .comments = json_integer_value(json_object_get(body, "commentCount")),
        .degraded = json_is_true(json_object_get(body, "degraded")),
    };
    if (http != 200 || now.version == 0) {
        torture_violate(ledger, "answer", id, "a read was answered by %d", http);
        return TORTURE_READ_UNEXPECTED;
    }
    compare(reader, id, &now);
    return TORTURE_READ_SHOWN;
}

static void on_read(const struct tally_http_client_answer *answer, void *context)
{
    struct reader *reader = context;
    enum torture_read kind = TORTURE_READ_NOTHING;
    if (tally_http_client_status(answer) == TALLY_OK) {
        size_t length = 0;
        const char *text = tally_http_client_body(answer, &length);
        json_t *body = json_loadb(text, length, 0, NULL);
        kind = judge(reader, tally_http_client_http_status(answer), body);
        json_decref(body);
    }
    reader->readers->reads[kind]++;
    tally_timer_set(reader->timer, PAUSE_US);
}

static void on_due(void *context)
{
    struct reader *reader = context;
    struct torture_readers *readers = reader->readers;
    const struct torture_ledger *ledger = readers->ledger;
    reader->user = (int64_t)tally_random_below(&readers->random, (uint64_t)ledger->count);
    reader->before = readers->shown[reader->user];
    reader->wanted = tally_random_unit(&readers->random) < 0.5
                         ? atomic_load(&ledger->accounts[reader->user].version)
                         : 0;
    char target[TARGET_BYTES];
    if (reader->wanted > 0)
        (void)snprintf(target, sizeof target, "/v1/users/%" PRId64 "?minVersion=%" PRId64,
                       ledger->accounts[reader->user].id, reader->wanted);
    else
        (void)snprintf(target, sizeof target, "/v1/users/%" PRId64,
                       ledger->accounts[reader->user].id);
    const struct tally_http_client_request request = {
        .method = "GET",
        .target = target,
        .headers = reader->wanted > 0 ? "Prefer: wait=1\r\n" : NULL,
        .timeout_ms = TIMEOUT_MS,
    };
    struct tally_error error;
    if (tally_http_client_send(reader->client, &request, on_read, reader, &error) != TALLY_OK) {
        readers->reads[TORTURE_READ_NOTHING]++;
        tally_timer_set(reader->timer, PAUSE_US);
    }
}

static void on_tick(evutil_socket_t descriptor, short what, void *context)
{
    (void)descriptor, (void)what;
    struct torture_readers *readers = context;
    if (atomic_load(&readers->stop))
        (void)event_base_loopbreak(readers->base);
}

static void *run(void *context)
{
    struct torture_readers *readers = context;
    struct event *tick = event_new(readers->base, -1, EV_PERSIST, on_tick, readers);
    if (tick == NULL)
        return NULL;
    (void)event_add(tick, &(struct timeval){.tv_usec = TICK_US});
    for (int i = 0; i < READERS; i++)
        tally_timer_set(readers->list[i].timer, PAUSE_US * i / READERS);
    (void)event_base_dispatch(readers->base);
    event_free(tick);
    return NULL;
}

static void release(struct torture_readers **readers)
{
    struct torture_readers *all = *readers;
    for (int i = 0; i < READERS; i++) {
        if (all->list[i].client != NULL)
            tally_http_client_free(&all->list[i].client);
        if (all->list[i].timer != NULL)
            tally_timer_free(&all->list[i].timer);
    }
    if (all->base != NULL)
        event_base_free(all->base);
    free(all->shown);
    free(all);
    *readers = NULL;
}

static enum tally_status prepare(struct torture_readers *readers, const char *address,
                                 struct tally_error *error)
{
    readers->base = tally_loop_new();
    readers->shown = calloc((size_t)readers->ledger->count, sizeof *readers->shown);
    if (readers->base == NULL || readers->shown == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "readers");
    enum tally_status status = TALLY_OK;
    for (int i = 0; status == TALLY_OK && i < READERS; i++) {
        struct reader *reader = &readers->list[i];
        reader->readers = readers;
        status = tally_http_client_new(readers->base, address, 0, &reader->client, error);
        if (status == TALLY_OK)
            status = tally_timer_new(readers->base, on_due, reader, &reader->timer, error);
    }
    return status;
}

enum tally_status torture_readers_start(const struct tally_settings *settings,
                                        struct torture_ledger *ledger, int64_t reads[TORTURE_READS],
                                        struct torture_readers **readers, struct tally_error *error)
{
    *readers = calloc(1, sizeof **readers);
    if (*readers == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "readers");
    (*readers)->ledger = ledger;
    (*readers)->reads = reads;
    tally_random_seed_from_system(&(*readers)->random);
    enum tally_status status = prepare(*readers, settings->query_listen, error);
    if (status == TALLY_OK && pthread_create(&(*readers)->thread, NULL, run, *readers) != 0)
        status = tally_fail(error, TALLY_NO_MEMORY, "the readers' thread");
    if (status != TALLY_OK)
        release(readers);
    return status;
}

void torture_readers_stop(struct torture_readers **readers)
{
    if (*readers == NULL)
        return;
    atomic_store(&(*readers)->stop, true);
    (void)pthread_join((*readers)->thread, NULL);
    release(readers);
}
