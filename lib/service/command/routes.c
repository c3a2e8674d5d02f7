#include "core/id.h"
#include "core/trace.h"
#include "service/command/internal.h"
#include "service/command/precondition.h"
#include "service/command/request.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

enum {
    CALLER_LOG_INTERVAL_MS = 1000,
    ANSWER_BYTES = 128,
    LOCATION_BYTES = 48,
};

/* Without authentication everyone is one caller. */
static const char anonymous[] = "anonymous";

/* How a kind of command comes in and goes out. */
struct endpoint {
    const char *parameter;       /* of the path, or NULL */
    size_t parameter_offset;     /* in struct tally_command */
    enum tally_status not_found; /* where the parameter is no id */
    bool takes_key;
    bool takes_if_match;
    int success;
    const char *location; /* before the id; NULL: none */
};

#define AT(member) offsetof(struct tally_command, member)

/* clang-format off */
static const struct endpoint endpoints[TALLY_COMMAND_KIND_COUNT] = {
    [TALLY_COMMAND_CREATE_USER] = {NULL, 0, TALLY_OK, true, false, 201, "/v1/users/"},
    [TALLY_COMMAND_UPDATE_USER] = {"id", AT(user_id), TALLY_USER_NOT_FOUND, false, true, 200, NULL},
    [TALLY_COMMAND_DELETE_USER] = {"id", AT(user_id), TALLY_USER_NOT_FOUND, false, true, 202, NULL},
    [TALLY_COMMAND_CREATE_POST] = {NULL, 0, TALLY_OK, true, false, 201, "/v1/posts/"},
    [TALLY_COMMAND_DELETE_POST] = {"id", AT(target_id), TALLY_POST_NOT_FOUND, false, false, 200, NULL},
    [TALLY_COMMAND_CREATE_COMMENT] = {"postId", AT(target_id), TALLY_POST_NOT_FOUND, true, false, 201, "/v1/comments/"},
    [TALLY_COMMAND_DELETE_COMMENT] = {"id", AT(target_id), TALLY_COMMENT_NOT_FOUND, false, false, 200, NULL},
};
/* clang-format on */

/* A request from its arrival to its answer; lives in the exchange's arena. */
struct pending {
    struct tally_command_service *service;
    struct tally_http_exchange *exchange;
    struct tally_command command;
    struct tally_trace trace;
    char key[TALLY_IDEMPOTENCY_KEY_BYTES];
};

static void log_outcome(struct pending *pending, enum tally_status status, const char *cause)
{
    char trace_id[TALLY_TRACE_ID_BYTES];
    int64_t suppressed = 0;
    bool failed = tally_status_http(status) >= 500;
    /* breaker.opened has said it for all of them. */
    if (status == TALLY_UNAVAILABLE &&
        tally_breaker_refuses(tally_batcher_breaker(pending->service->batcher)))
        return;
    if (failed &&
        !tally_log_allow(&pending->service->outcome_limit, CALLER_LOG_INTERVAL_MS, &suppressed))
        return;
    tally_trace_id(pending->trace.parent, trace_id);
    tally_log(failed ? TALLY_LOG_WARNING : TALLY_LOG_DEBUG, "command.outcome",
              TALLY_TEXT("kind", tally_command_kind_text(pending->command.kind)),
              TALLY_TEXT("outcome", tally_status_slug(status)), TALLY_TEXT("cause", cause),
              TALLY_TEXT("trace_id", trace_id), TALLY_INTEGER("suppressed", suppressed));
}

static void count_outcome(struct pending *pending, enum tally_status status)
{
    struct tally_metric *counter =
        pending->service->metrics.commands[pending->command.kind][status];
    if (counter != NULL)
        tally_metric_add(counter, 1);
}

static void answer_refusal(struct pending *pending, enum tally_status status, const char *detail)
{
    count_outcome(pending, status);
    log_outcome(pending, status, detail);
    if (status == TALLY_KEY_IN_USE)
        tally_http_answer_header(pending->exchange, "Retry-After", "1");
    if (detail != NULL)
        tally_http_answer_problem(pending->exchange, status, "%s", detail);
    else
        tally_http_answer_problem(pending->exchange, status, NULL);
}

static void answer_success(struct pending *pending, const struct tally_command_outcome *outcome)
{
    const struct endpoint *endpoint = &endpoints[pending->command.kind];
    char body[ANSWER_BYTES];
    char tag[TALLY_ID_TEXT_BYTES + 2];
    char location[LOCATION_BYTES];
    int length =
        snprintf(body, sizeof body, "{\"id\":\"%lld\",\"userId\":\"%lld\",\"version\":%lld}",
                 (long long)outcome->id, (long long)outcome->user_id, (long long)outcome->version);
    (void)snprintf(tag, sizeof tag, "\"%lld\"", (long long)outcome->version);
    tally_http_answer_header(pending->exchange, "ETag", tag);
    if (endpoint->location != NULL) {
        (void)snprintf(location, sizeof location, "%s%lld", endpoint->location,
                       (long long)outcome->id);
        tally_http_answer_header(pending->exchange, "Location", location);
    }
    count_outcome(pending, TALLY_OK);
    log_outcome(pending, TALLY_OK, NULL);
    tally_http_answer(pending->exchange, endpoint->success, "application/json", body,
                      (size_t)length);
}

/* What a client can do about it; NULL where the title says all. */
static const char *advice(const struct pending *pending, enum tally_status status)
{
    if (status != TALLY_OUTCOME_UNKNOWN)
        return NULL;
    return pending->command.idempotency_key != NULL
               ? "PostgreSQL did not answer in time. Repeat the request with the same "
                 "Idempotency-Key: it is made once at most, and its answer tells what became of it"
               : "PostgreSQL did not answer in time. The request had no Idempotency-Key, under "
                 "which it could be repeated safely: look whether it was made before repeating it";
}

static void on_outcome(const struct tally_command_outcome *outcome, void *context)
{
    struct pending *pending = context;
    if (outcome->replayed) {
        tally_metric_add(pending->service->metrics.replayed, 1);
        tally_http_answer_header(pending->exchange, "Idempotent-Replayed", "true");
    }
    if (outcome->status == TALLY_OK)
        answer_success(pending, outcome);
    else
        answer_refusal(pending, outcome->status, advice(pending, outcome->status));
}

/* The field where it is given once; NULL where it is absent. */
static enum tally_status single_header(const struct tally_http_exchange *exchange, const char *name,
                                       const char **value, struct tally_error *error)
{
    *value = tally_http_header(exchange, name);
    if (tally_http_header_count(exchange, name) > 1)
        return tally_fail(error, TALLY_INVALID, "%s: must be given once", name);
    return TALLY_OK;
}

static enum tally_status hash_request(struct pending *pending, struct tally_error *error)
{
    const struct tally_http_exchange *exchange = pending->exchange;
    char head[256];
    size_t body_length;
    const char *body = tally_http_body(exchange, &body_length);
    int head_length =
        snprintf(head, sizeof head, "%s %s %lld\n", tally_http_method(exchange),
                 tally_http_route_pattern(exchange), (long long)pending->command.target_id);
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool hashed = digest != NULL && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
                  EVP_DigestUpdate(digest, head, (size_t)head_length) == 1 &&
                  EVP_DigestUpdate(digest, body, body_length) == 1 &&
                  EVP_DigestFinal_ex(digest, pending->command.request_hash, NULL) == 1;
    EVP_MD_CTX_free(digest);
    return hashed ? TALLY_OK : tally_fail(error, TALLY_NO_MEMORY, "request hash");
}

static enum tally_status read_conditions(struct pending *pending, struct tally_error *error)
{
    const struct endpoint *endpoint = &endpoints[pending->command.kind];
    const char *if_match = NULL;
    const char *key = NULL;
    enum tally_status status = single_header(pending->exchange, "If-Match", &if_match, error);
    if (status == TALLY_OK && if_match != NULL)
        status = endpoint->takes_if_match
                     ? tally_if_match_parse(if_match, &pending->command.if_match, error)
                     : tally_fail(error, TALLY_INVALID,
                                  "If-Match: only a user has a version that it can be compared to");
    if (status == TALLY_OK && endpoint->takes_key)
        status = single_header(pending->exchange, "Idempotency-Key", &key, error);
    if (status == TALLY_OK && key != NULL)
        status = tally_idempotency_key_parse(key, pending->key, error);
    if (status == TALLY_OK && key != NULL)
        status = hash_request(pending, error);
    if (status == TALLY_OK && key != NULL) {
        pending->command.caller = anonymous;
        pending->command.idempotency_key = pending->key;
    }
    return status;
}

static enum tally_status read_parameter(struct pending *pending, struct tally_error *error)
{
    const struct endpoint *endpoint = &endpoints[pending->command.kind];
    int64_t id = 0;
    if (endpoint->parameter == NULL)
        return TALLY_OK;
    const char *text = tally_http_path_parameter(pending->exchange, endpoint->parameter);
    if (text == NULL || !tally_id_parse(text, strlen(text), &id))
        return tally_fail(error, endpoint->not_found, "the address holds no id");
    memcpy((char *)&pending->command + endpoint->parameter_offset, &id, sizeof id);
    return TALLY_OK;
}

static enum tally_status read_body(struct pending *pending, struct tally_error *error)
{
    json_t *object = NULL;
    if (tally_bodies[pending->command.kind].count == 0)
        return TALLY_OK;
    enum tally_status status = tally_http_json(pending->exchange, &object, error);
    if (status == TALLY_OK)
        status = tally_request_read(object, tally_http_arena(pending->exchange), &pending->command,
                                    error);
    json_decref(object);
    return status;
}

static void accept_command(struct tally_http_exchange *exchange, void *context,
                           enum tally_command_kind kind)
{
    struct tally_command_service *service = context;
    struct tally_error error = {0};
    struct pending *pending = tally_arena_allocate(tally_http_arena(exchange), sizeof *pending);
    if (pending == NULL) {
        tally_http_answer_problem(exchange, TALLY_NO_MEMORY, NULL);
        return;
    }
    pending->service = service;
    pending->exchange = exchange;
    pending->command.kind = kind;
    tally_trace_start(&pending->trace, tally_http_header(exchange, "traceparent"),
                      &service->random);
    pending->command.traceparent = pending->trace.parent;
    enum tally_status status = read_parameter(pending, &error);
    if (status == TALLY_OK)
        status = read_body(pending, &error);
    if (status == TALLY_OK)
        status = read_conditions(pending, &error);
    if (status == TALLY_OK)
        status =
            tally_batcher_submit(service->batcher, &pending->command, on_outcome, pending, &error);
    if (status != TALLY_OK)
        answer_refusal(pending, status, error.text);
}

/* A handler gets the server's context only, so each kind has its own. */
#define X(name, text)                                                              \
    static void accept_##name(struct tally_http_exchange *exchange, void *context) \
    {                                                                              \
        accept_command(exchange, context, TALLY_COMMAND_##name);                   \
    }
TALLY_COMMAND_LIST(X)
#undef X

#define ROUTE(kind, method_text, path, has_body)        \
    [TALLY_COMMAND_##kind] = {.method = (method_text),  \
                              .pattern = (path),        \
                              .handler = accept_##kind, \
                              .takes_body = (has_body)}

const struct tally_http_route tally_command_routes[TALLY_COMMAND_KIND_COUNT] = {
    ROUTE(CREATE_USER, "POST", "/v1/users", true),
    ROUTE(UPDATE_USER, "PATCH", "/v1/users/{id}", true),
    ROUTE(DELETE_USER, "DELETE", "/v1/users/{id}", false),
    ROUTE(CREATE_POST, "POST", "/v1/posts", true),
    ROUTE(DELETE_POST, "DELETE", "/v1/posts/{id}", false),
    ROUTE(CREATE_COMMENT, "POST", "/v1/posts/{postId}/comments", true),
    ROUTE(DELETE_COMMENT, "DELETE", "/v1/comments/{id}", false),
};

const char *const tally_command_route_labels[TALLY_COMMAND_ROUTES] = {
    [TALLY_COMMAND_CREATE_USER] = "POST /v1/users",
    [TALLY_COMMAND_UPDATE_USER] = "PATCH /v1/users/{id}",
    [TALLY_COMMAND_DELETE_USER] = "DELETE /v1/users/{id}",
    [TALLY_COMMAND_CREATE_POST] = "POST /v1/posts",
    [TALLY_COMMAND_DELETE_POST] = "DELETE /v1/posts/{id}",
    [TALLY_COMMAND_CREATE_COMMENT] = "POST /v1/posts/{postId}/comments",
    [TALLY_COMMAND_DELETE_COMMENT] = "DELETE /v1/comments/{id}",
    [TALLY_COMMAND_KIND_COUNT] = "none",
};

static unsigned route_of(const struct tally_http_exchange *exchange)
{
    const char *pattern = tally_http_route_pattern(exchange);
    for (unsigned route = 0; pattern != NULL && route < TALLY_COMMAND_KIND_COUNT; route++) {
        if (strcmp(tally_command_routes[route].pattern, pattern) == 0 &&
            strcmp(tally_command_routes[route].method, tally_http_method(exchange)) == 0)
            return route;
    }
    return TALLY_COMMAND_KIND_COUNT;
}

void tally_command_observe(const struct tally_http_exchange *exchange, int http_status,
                           int64_t duration_us, void *context)
{
    struct tally_command_service *service = context;
    unsigned route = route_of(exchange);
    int class = http_status / 100 - 2;
    if (class >= 0 && class < TALLY_COMMAND_CLASSES)
        tally_metric_add(service->metrics.requests[route][class], 1);
    tally_histogram_observe(service->metrics.latency[route], (double)duration_us / 1e6);
}
