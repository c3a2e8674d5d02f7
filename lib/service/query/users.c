#include "core/clock.h"
#include "core/id.h"
#include "service/query/document.h"
#include "service/query/parse.h"
#include "service/query/thread.h"

#include <stdio.h>
#include <string.h>

/*
 * GET /v1/users/{id}
 */

struct user_request {
    struct tally_query_thread *thread;
    struct tally_http_exchange *exchange;
    int64_t version; /* minVersion; 0: any */
    int wait_seconds;
};

/* Repair corrects a user without a new version, so that a tag made of the version would hide it: an
 * answer that says "degraded", or was corrected at its version, carries no ETag and is never a 304.
 */
static void answer_user(const struct user_request *request, const struct tally_lookup_user *user)
{
    struct tally_http_exchange *exchange = request->exchange;
    tally_query_answer_freshness(exchange, user->fresh_at_ms);
    if (!user->degraded && !user->corrected) {
        char tag[TALLY_ID_TEXT_BYTES + 2];
        tag[0] = '"';
        size_t length = tally_id_format(user->version, tag + 1);
        memcpy(tag + 1 + length, "\"", 2);
        tally_http_answer_header(exchange, "ETag", tag);
        if (tally_query_none_match(tally_http_header(exchange, "If-None-Match"), user->version)) {
            tally_http_answer(exchange, 304, NULL, NULL, 0);
            return;
        }
    }
    struct tally_buffer *scratch = &request->thread->scratch;
    tally_buffer_clear(scratch);
    tally_query_append_user(scratch, user);
    tally_query_answer_scratch(request->thread, exchange);
}

static void on_user(enum tally_status status, const struct tally_lookup_user *user, void *context)
{
    const struct user_request *request = context;
    if (request->wait_seconds > 0) {
        char applied[16];
        (void)snprintf(applied, sizeof applied, "wait=%d", request->wait_seconds);
        tally_http_answer_header(request->exchange, "Preference-Applied", applied);
    }
    /* Also for a user that is absent: the write that gave the version may be on its way. */
    if (user != NULL && user->version < request->version)
        status = TALLY_READ_MODEL_BEHIND;
    if (status == TALLY_OK && user != NULL)
        answer_user(request, user);
    else
        tally_query_answer_problem(request->exchange, status, NULL);
}

/* INVALID with the reason in `error` where the request asks for nothing sensible. Parameters that
 * are not listed in the API are ignored: the HTTP layer cannot list them. */
static enum tally_status read_request(struct user_request *request, int64_t *id,
                                      struct tally_error *error)
{
    struct tally_http_exchange *exchange = request->exchange;
    const char *text = tally_http_path_parameter(exchange, "id");
    if (text == NULL || !tally_id_parse(text, strlen(text), id))
        return tally_fail(error, TALLY_INVALID, "the user id must be a positive decimal number");
    const char *version = tally_http_query_parameter(exchange, "minVersion");
    if (version == NULL)
        return TALLY_OK;
    if (!tally_id_parse(version, strlen(version), &request->version))
        return tally_fail(error, TALLY_INVALID, "minVersion must be a positive decimal number");
    request->wait_seconds = tally_query_parse_wait(tally_http_header(exchange, "Prefer"));
    return TALLY_OK;
}

void tally_query_serve_user(struct tally_http_exchange *exchange, void *context)
{
    struct tally_query_thread *thread = context;
    struct user_request *request =
        tally_arena_allocate(tally_http_arena(exchange), sizeof *request);
    if (request == NULL) {
        tally_query_answer_problem(exchange, TALLY_NO_MEMORY, NULL);
        return;
    }
    request->thread = thread;
    request->exchange = exchange;
    int64_t id = 0;
    struct tally_error error = {0};
    enum tally_status status = read_request(request, &id, &error);
    if (status != TALLY_OK) {
        tally_query_answer_problem(exchange, status, error.text);
        return;
    }
    if (request->wait_seconds > 0)
        status = tally_lookup_wait(thread->lookup, id, request->version,
                                   tally_http_received_us(exchange) +
                                       (int64_t)request->wait_seconds * 1000000,
                                   on_user, request, &error);
    else
        status = tally_lookup_read(thread->lookup, id, on_user, request, &error);
    if (status != TALLY_OK)
        tally_query_answer_problem(exchange, status, NULL);
}

/*
 * GET /v1/users?ids=
 */

struct users_request {
    struct tally_query_thread *thread;
    struct tally_http_exchange *exchange;
    enum tally_status status; /* the first failure */
    size_t outstanding;
    int64_t stalest_ms; /* fresh_at_ms of the stalest partition; 0: one is not known */
    bool any;           /* stalest_ms is set */
    size_t count;
    struct users_item {
        struct users_request *request;
        int64_t id;
        const char *document; /* in the arena; NULL: there is no such user */
        size_t length;
        bool unreadable; /* there is one, and nothing to show of it */
    } items[];
};

/* A list of the users without a document. */
static void append_ids(struct tally_buffer *out, const struct users_request *request,
                       bool unreadable)
{
    const char *comma = "";
    for (size_t i = 0; i < request->count; i++) {
        const struct users_item *item = &request->items[i];
        if (item->document != NULL || item->unreadable != unreadable)
            continue;
        tally_buffer_format(out, "%s\"%lld\"", comma, (long long)item->id);
        comma = ",";
    }
}

static void append_documents(struct tally_buffer *out, const struct users_request *request)
{
    bool unreadable = false;
    const char *comma = "";
    tally_buffer_append_text(out, "{\"users\":[");
    for (size_t i = 0; i < request->count; i++) {
        unreadable = unreadable || request->items[i].unreadable;
        if (request->items[i].document == NULL)
            continue;
        tally_buffer_append_text(out, comma);
        tally_buffer_append(out, request->items[i].document, request->items[i].length);
        comma = ",";
    }
    tally_buffer_append_text(out, "],\"missing\":[");
    append_ids(out, request, false);
    if (unreadable) {
        tally_buffer_append_text(out, "],\"unreadable\":[");
        append_ids(out, request, true);
    }
    tally_buffer_append_text(out, "]}");
}

static void answer_users(struct users_request *request)
{
    if (request->status != TALLY_OK) {
        tally_query_answer_problem(request->exchange, request->status, NULL);
        return;
    }
    struct tally_buffer *scratch = &request->thread->scratch;
    tally_buffer_clear(scratch);
    append_documents(scratch, request);
    tally_query_answer_freshness(request->exchange, request->stalest_ms);
    tally_query_answer_scratch(request->thread, request->exchange);
}

static enum tally_status keep_document(struct users_item *item,
                                       const struct tally_lookup_user *user)
{
    struct users_request *request = item->request;
    struct tally_buffer *scratch = &request->thread->scratch;
    tally_buffer_clear(scratch);
    tally_query_append_user(scratch, user);
    if (scratch->failed)
        return TALLY_NO_MEMORY;
    item->length = scratch->length;
    item->document =
        tally_arena_copy(tally_http_arena(request->exchange), scratch->data, scratch->length);
    return item->document != NULL ? TALLY_OK : TALLY_NO_MEMORY;
}

static void on_item(enum tally_status status, const struct tally_lookup_user *user, void *context)
{
    struct users_item *item = context;
    struct users_request *request = item->request;
    if (user != NULL && (!request->any || user->fresh_at_ms < request->stalest_ms)) {
        request->any = true;
        request->stalest_ms = user->fresh_at_ms;
    }
    if (status == TALLY_OK && user != NULL)
        status = keep_document(item, user);
    else if (status == TALLY_USER_NOT_FOUND)
        status = TALLY_OK;
    item->unreadable = status == TALLY_USER_UNREADABLE;
    if (item->unreadable)
        status = TALLY_OK;
    if (status != TALLY_OK && request->status == TALLY_OK)
        request->status = status;
    if (--request->outstanding == 0)
        answer_users(request);
}

void tally_query_serve_users(struct tally_http_exchange *exchange, void *context)
{
    struct tally_query_thread *thread = context;
    int64_t ids[TALLY_QUERY_IDS_MOST];
    size_t count = 0;
    struct tally_error error = {0};
    const char *text = tally_http_query_parameter(exchange, "ids");
    enum tally_status status =
        text != NULL ? tally_query_parse_ids(text, ids, &count, &error)
                     : tally_fail(&error, TALLY_INVALID, "ids is missing: ids=1,2 names the users");
    if (status != TALLY_OK) {
        tally_query_answer_problem(exchange, status, error.text);
        return;
    }
    struct users_request *request = tally_arena_allocate(
        tally_http_arena(exchange), sizeof *request + count * sizeof request->items[0]);
    if (request == NULL) {
        tally_query_answer_problem(exchange, TALLY_NO_MEMORY, NULL);
        return;
    }
    request->thread = thread;
    request->exchange = exchange;
    request->count = count;
    for (size_t i = 0; i < count && request->status == TALLY_OK; i++) {
        request->items[i].request = request;
        request->items[i].id = ids[i];
        request->status =
            tally_lookup_read(thread->lookup, ids[i], on_item, &request->items[i], &error);
        request->outstanding += request->status == TALLY_OK;
    }
    /* Those that were started call back, and the last of them answers. */
    if (request->outstanding == 0)
        answer_users(request);
}
