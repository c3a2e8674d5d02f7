#include "http/client_answer.h"

#include <string.h>
#include <strings.h>

enum { MAX_HEAD_BYTES = 65536, KEPT_BODY_BYTES = 65536 };

static struct tally_http_client_answer *answer_of(llhttp_t *parser)
{
    return parser->data;
}

static int on_text(llhttp_t *parser, const char *at, size_t length)
{
    tally_buffer_append(&answer_of(parser)->fields, at, length);
    return 0;
}

static int on_text_complete(llhttp_t *parser)
{
    tally_buffer_append_char(&answer_of(parser)->fields, '\0');
    return answer_of(parser)->fields.failed ? -1 : 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct tally_http_client_answer *answer = answer_of(parser);
    answer->http_status = parser->status_code;
    if (parser->status_code == 101)
        return -1;
    return answer->head_request ? 1 : 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t length)
{
    struct tally_http_client_answer *answer = answer_of(parser);
    struct tally_buffer *body = &answer->body;
    answer->too_large = length >= body->limit - body->length; /* one byte is the terminator's */
    if (answer->too_large)
        return -1;
    tally_buffer_append(body, at, length);
    return body->failed ? -1 : 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct tally_http_client_answer *answer = answer_of(parser);
    if (parser->status_code < 200) { /* interim (RFC 9110 section 15.2): the answer follows */
        tally_buffer_clear(&answer->fields);
        return 0;
    }
    char *end = tally_buffer_reserve(&answer->body, 1);
    if (end == NULL)
        return -1;
    *end = '\0';
    answer->keep_alive = llhttp_should_keep_alive(parser) != 0;
    answer->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_text,
    .on_header_field_complete = on_text_complete,
    .on_header_value = on_text,
    .on_header_value_complete = on_text_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void tally_http_client_answer_init(struct tally_http_client_answer *answer, size_t max_body_bytes)
{
    tally_buffer_init(&answer->fields, MAX_HEAD_BYTES);
    tally_buffer_init(&answer->body, max_body_bytes + 1);
}

void tally_http_client_answer_release(struct tally_http_client_answer *answer)
{
    tally_buffer_release(&answer->fields);
    tally_buffer_release(&answer->body);
}

void tally_http_client_answer_begin(struct tally_http_client_answer *answer, bool head_request)
{
    tally_buffer_clear(&answer->fields);
    if (answer->body.capacity > KEPT_BODY_BYTES)
        tally_buffer_release(&answer->body);
    else
        tally_buffer_clear(&answer->body);
    answer->error.text[0] = '\0';
    answer->http_status = 0;
    answer->complete = false;
    answer->too_large = false;
    answer->keep_alive = false;
    answer->head_request = head_request;
    llhttp_init(&answer->parser, HTTP_RESPONSE, &settings);
    answer->parser.data = answer;
}

enum tally_status tally_http_client_answer_parse(struct tally_http_client_answer *answer,
                                                 const char *bytes, size_t length, size_t *used)
{
    enum llhttp_errno code = llhttp_execute(&answer->parser, bytes, length);
    *used = length;
    if (answer->complete) {
        const char *position = llhttp_get_error_pos(&answer->parser);
        if (code == HPE_PAUSED && position != NULL)
            *used = (size_t)(position - bytes);
        return TALLY_OK;
    }
    if (code == HPE_OK)
        return TALLY_OK;
    if (answer->too_large)
        return tally_fail(&answer->error, TALLY_BODY_TOO_LARGE, "the answer's body is too large");
    if (answer->body.failed)
        return tally_fail(&answer->error, TALLY_NO_MEMORY, "the answer's body");
    return tally_fail(&answer->error, TALLY_PROTOCOL, "the server sent no valid HTTP answer");
}

bool tally_http_client_answer_end(struct tally_http_client_answer *answer)
{
    /* An answer without a length ends with the connection. */
    (void)llhttp_finish(&answer->parser);
    return answer->complete;
}

enum tally_status tally_http_client_status(const struct tally_http_client_answer *answer)
{
    return answer->status;
}

const char *tally_http_client_error(const struct tally_http_client_answer *answer)
{
    return answer->error.text;
}

int tally_http_client_http_status(const struct tally_http_client_answer *answer)
{
    return answer->http_status;
}

const char *tally_http_client_header(const struct tally_http_client_answer *answer,
                                     const char *name)
{
    const char *at = answer->fields.data;
    const char *end = at != NULL ? at + answer->fields.length : NULL;
    /* A broken answer may end within a field. */
    while (answer->status == TALLY_OK && at != NULL && at < end) {
        const char *value = at + strlen(at) + 1;
        if (strcasecmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

const char *tally_http_client_body(const struct tally_http_client_answer *answer, size_t *length)
{
    *length = answer->body.length;
    return answer->status == TALLY_OK && answer->body.data != NULL ? answer->body.data : "";
}
