/*
 * The client's side of an answer: from bytes to status, fields and body. No socket.
 */
#ifndef TALLY_HTTP_CLIENT_ANSWER_H
#define TALLY_HTTP_CLIENT_ANSWER_H

#include "core/buffer.h"
#include "http/client.h"

#include <llhttp.h>

struct tally_http_client_answer {
    enum tally_status status;
    int http_status;
    bool keep_alive;
    bool complete;
    bool too_large;
    bool head_request;          /* its answer has no body, whatever its headers say */
    struct tally_buffer fields; /* "name\0value\0" for each */
    struct tally_buffer body;
    struct tally_error error;
    llhttp_t parser;
};

void tally_http_client_answer_init(struct tally_http_client_answer *answer, size_t max_body_bytes);
void tally_http_client_answer_release(struct tally_http_client_answer *answer);
/* Before the answer to a request; forgets the one before. */
void tally_http_client_answer_begin(struct tally_http_client_answer *answer, bool head_request);
/* Takes bytes; `*used` of them belong to the answer, all until it is `complete`. PROTOCOL,
 * BODY_TOO_LARGE or NO_MEMORY, with a text in `error`. */
enum tally_status tally_http_client_answer_parse(struct tally_http_client_answer *answer,
                                                 const char *bytes, size_t length,
                                                 size_t *used) TALLY_MUST_CHECK;
/* The connection has ended; true where that was the end of the answer. */
bool tally_http_client_answer_end(struct tally_http_client_answer *answer);

#endif
