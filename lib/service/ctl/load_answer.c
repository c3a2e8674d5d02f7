/* What requests of the load were answered. */
#include "service/ctl/load_internal.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char problem_prefix[] = "urn:tally:problem:";

void load_answer_name(const struct tally_http_client_answer *answer, char name[LOAD_NAME_BYTES])
{
    enum tally_status status = tally_http_client_status(answer);
    if (status != TALLY_OK) {
        (void)snprintf(name, LOAD_NAME_BYTES, "%s", tally_status_slug(status));
        return;
    }
    (void)snprintf(name, LOAD_NAME_BYTES, "http-%d", tally_http_client_http_status(answer));
    size_t length = 0;
    const char *text = tally_http_client_body(answer, &length);
    json_t *body = json_loadb(text, length, 0, NULL);
    const char *type = json_string_value(json_object_get(body, "type"));
    if (type != NULL && strncmp(type, problem_prefix, sizeof problem_prefix - 1) == 0)
        (void)snprintf(name, LOAD_NAME_BYTES, "%s", type + sizeof problem_prefix - 1);
    json_decref(body);
}

bool load_answer_may_change(const struct tally_http_client_answer *answer, const char *name)
{
    switch (tally_http_client_status(answer)) {
    case TALLY_OK:
        break;
    case TALLY_UNAVAILABLE:
    case TALLY_REQUEST_TIMEOUT:
    case TALLY_IO:
        return true;
    default:
        return false;
    }
    int http = tally_http_client_http_status(answer);
    return http == 503 || http == 429 || http == 502 || http == 504 ||
           strcmp(name, tally_status_slug(TALLY_KEY_IN_USE)) == 0;
}

void load_answer_forget(struct load_answer *answer)
{
    answer->http = 0;
    answer->replayed = false;
    tally_buffer_clear(&answer->body);
}

void load_answer_keep(struct load_answer *kept, const struct tally_http_client_answer *answer)
{
    size_t length = 0;
    const char *body = tally_http_client_body(answer, &length);
    load_answer_forget(kept);
    if (tally_http_client_status(answer) == TALLY_OK)
        kept->http = tally_http_client_http_status(answer);
    kept->replayed = tally_http_client_header(answer, "Idempotent-Replayed") != NULL;
    tally_buffer_append(&kept->body, body, length);
}

static bool success(const struct load_answer *answer)
{
    return answer->http >= 200 && answer->http < 300;
}

bool load_answers_differ(const struct load_answer *one, const struct load_answer *other)
{
    if (one->http == 0 || other->http == 0)
        return false; /* one of them does not say what became of the command */
    if (one->http != other->http)
        return true;
    if (!success(one) || one->body.failed || other->body.failed)
        return false;
    if (!one->replayed && !other->replayed)
        return true; /* each says that it made the effect */
    return one->body.length != other->body.length ||
           (one->body.length > 0 &&
            memcmp(one->body.data, other->body.data, one->body.length) != 0);
}
