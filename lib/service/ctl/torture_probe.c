#include "core/clock.h"
#include "core/id.h"
#include "core/random.h"
#include "loop/loop.h"
#include "service/ctl/torture_internal.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ATTEMPT_MS = 3000, PAUSE_MS = 50, OPEN_S = 10, TEXT_BYTES = 256 };

static void on_answered(const struct tally_http_client_answer *answer, void *context)
{
    struct torture_asker *asker = context;
    asker->answered = true;
    asker->status = tally_http_client_status(answer);
    asker->http = tally_http_client_http_status(answer);
    size_t length = 0;
    const char *text = tally_http_client_body(answer, &length);
    asker->body = json_loadb(text, length, 0, NULL);
}

enum tally_status torture_asker_open(struct torture_asker *asker, const char *address,
                                     struct tally_error *error)
{
    *asker = (struct torture_asker){.base = tally_loop_new()};
    if (asker->base == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "an event loop");
    return tally_http_client_new(asker->base, address, 0, &asker->client, error);
}

void torture_asker_close(struct torture_asker *asker)
{
    if (asker->client != NULL)
        tally_http_client_free(&asker->client);
    if (asker->base != NULL)
        event_base_free(asker->base);
    json_decref(asker->body);
    *asker = (struct torture_asker){0};
}

void torture_ask(struct torture_asker *asker, const struct tally_http_client_request *request)
{
    struct tally_error error;
    json_decref(asker->body);
    asker->body = NULL;
    asker->answered = false;
    asker->http = 0;
    asker->status = tally_http_client_send(asker->client, request, on_answered, asker, &error);
    /* The client's own deadline ends it; an idle connection would hold a dispatched loop. */
    while (asker->status == TALLY_OK && !asker->answered)
        if (event_base_loop(asker->base, EVLOOP_ONCE) != 0)
            asker->status = TALLY_INTERNAL;
}

static void rest(void)
{
    const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};
    (void)nanosleep(&pause, NULL);
}

static bool later(int64_t due_us, const _Atomic int *stop)
{
    return tally_clock_monotonic_us() < due_us && (stop == NULL || atomic_load(stop) == 0);
}

static struct torture_account *account_of(const struct torture_probe *probe)
{
    return &probe->ledger->accounts[probe->ledger->count - 1];
}

/* POSTs until the outcome is known. False: it is not, or is no success (a violation then). */
static bool post(struct torture_probe *probe, const char *target, const char *key, const char *body,
                 int64_t due_us, const _Atomic int *stop)
{
    char headers[TEXT_BYTES];
    (void)snprintf(headers, sizeof headers,
                   "Content-Type: application/json\r\nIdempotency-Key: %s\r\n", key);
    const struct tally_http_client_request request = {
        .method = "POST",
        .target = target,
        .headers = headers,
        .body = body,
        .body_length = strlen(body),
        .timeout_ms = ATTEMPT_MS,
    };
    do {
        torture_ask(&probe->write, &request);
        int http = probe->write.status == TALLY_OK ? probe->write.http : 0;
        if (http == 201)
            return true;
        if (http != 0 && http != 409 && http != 429 && http < 502) {
            torture_violate(probe->ledger, "answer", account_of(probe)->id,
                            "a write was answered by %d", http);
            return false;
        }
        rest();
    } while (later(due_us, stop));
    return false;
}

enum tally_status torture_probe_open(struct torture_probe *probe,
                                     const struct tally_settings *settings,
                                     struct torture_ledger *ledger, struct tally_error *error)
{
    *probe = (struct torture_probe){.ledger = ledger};
    struct tally_random random;
    tally_random_seed_from_system(&random);
    probe->nonce = tally_random_next(&random);
    enum tally_status status = torture_asker_open(&probe->write, settings->command_listen, error);
    if (status == TALLY_OK)
        status = torture_asker_open(&probe->read, settings->query_listen, error);
    if (status != TALLY_OK)
        return status;
    char key[TEXT_BYTES], body[TEXT_BYTES];
    (void)snprintf(key, sizeof key, "torture-user-%016" PRIx64, probe->nonce);
    (void)snprintf(body, sizeof body,
                   "{\"name\":\"Torture probe\",\"email\":\"torture-%016" PRIx64 "@example.test\"}",
                   probe->nonce);
    int64_t due_us = tally_clock_monotonic_us() + OPEN_S * INT64_C(1000000);
    const char *id = NULL;
    if (post(probe, "/v1/users", key, body, due_us, NULL))
        id = json_string_value(json_object_get(probe->write.body, "id"));
    struct torture_account *account = account_of(probe);
    if (id == NULL || !tally_id_parse(id, strlen(id), &account->id))
        return tally_fail(error, TALLY_UNAVAILABLE, "no user could be made at %s",
                          settings->command_listen);
    atomic_store(&account->version, 1);
    return TALLY_OK;
}

void torture_probe_close(struct torture_probe *probe)
{
    torture_asker_close(&probe->write);
    torture_asker_close(&probe->read);
}

static bool write_once(struct torture_probe *probe, int64_t due_us, const _Atomic int *stop)
{
    char key[TEXT_BYTES], body[TEXT_BYTES];
    if (!probe->open)
        probe->number++;
    probe->open = true;
    (void)snprintf(key, sizeof key, "torture-%016" PRIx64 "-%" PRId64, probe->nonce, probe->number);
    (void)snprintf(body, sizeof body,
                   "{\"authorId\":\"%" PRId64 "\",\"body\":\"Probe %" PRId64 "\"}",
                   account_of(probe)->id, probe->number);
    if (!post(probe, "/v1/posts", key, body, due_us, stop))
        return false;
    probe->open = false;
    torture_ledger_acknowledge(probe->ledger, probe->ledger->count - 1, TALLY_LOAD_POST,
                               json_integer_value(json_object_get(probe->write.body, "version")));
    return true;
}

bool torture_probe_recovered(struct torture_probe *probe, int64_t due_us, const _Atomic int *stop)
{
    if (!write_once(probe, due_us, stop))
        return false;
    struct torture_account *account = account_of(probe);
    char target[TEXT_BYTES];
    int64_t version = atomic_load(&account->version);
    (void)snprintf(target, sizeof target, "/v1/users/%" PRId64 "?minVersion=%" PRId64, account->id,
                   version);
    const struct tally_http_client_request request = {
        .method = "GET",
        .target = target,
        .headers = "Prefer: wait=1\r\n",
        .timeout_ms = ATTEMPT_MS,
    };
    do {
        torture_ask(&probe->read, &request);
        if (probe->read.status == TALLY_OK && probe->read.http == 200) {
            int64_t shown = json_integer_value(json_object_get(probe->read.body, "version"));
            int64_t posts = json_integer_value(json_object_get(probe->read.body, "postCount"));
            if (shown < version || posts != account->posts)
                torture_violate(probe->ledger, "older", account->id,
                                "asked for version %" PRId64 " with %" PRId64
                                " posts, shown version %" PRId64 " with %" PRId64,
                                version, account->posts, shown, posts);
            return true;
        }
        rest();
    } while (later(due_us, stop));
    return false;
}

void torture_probe_settle(struct torture_probe *probe, int64_t due_us)
{
    if (probe->open && !write_once(probe, due_us, NULL)) {
        torture_ledger_doubt(probe->ledger, probe->ledger->count - 1, TALLY_LOAD_POST);
        probe->open = false;
    }
}
