/*
 * Status: the one result type of every function that can fail, and its text for people.
 *
 * A function that can fail returns `enum tally_status` and, where a cause is worth saying, fills
 * the caller's `struct tally_error`. Libraries return errors; only services log them.
 */
#ifndef TALLY_CORE_STATUS_H
#define TALLY_CORE_STATUS_H

#include <stdbool.h>
#include <stddef.h>

#define TALLY_MUST_CHECK __attribute__((warn_unused_result))
#define TALLY_PRINTF(format_index, first_argument) \
    __attribute__((format(printf, format_index, first_argument)))

/* X(name, slug, HTTP status, retryable, title). The slug is the problem type in HTTP answers
 * (`urn:tally:problem:<slug>`), a label in metrics and the code in logs; the order is stored in
 * idempotency_keys.outcome, so new rows go at the end. */
#define TALLY_STATUS_LIST(X)                                                                       \
    X(OK, "ok", 200, false, "Success")                                                             \
    X(INVALID, "invalid-request", 400, false, "The request is not valid")                          \
    X(NOT_FOUND, "not-found", 404, false, "There is nothing at this address")                      \
    X(USER_NOT_FOUND, "user-not-found", 404, false, "There is no such user")                       \
    X(POST_NOT_FOUND, "post-not-found", 404, false, "There is no such post")                       \
    X(COMMENT_NOT_FOUND, "comment-not-found", 404, false, "There is no such comment")              \
    X(EMAIL_TAKEN, "email-taken", 409, false, "Another user has this e-mail address")              \
    X(VERSION_MISMATCH, "version-mismatch", 412, false, "The user's version is not the one given") \
    X(KEY_IN_USE, "idempotency-key-in-use", 409, true,                                             \
      "A request with this Idempotency-Key is still running")                                      \
    X(KEY_REUSED, "idempotency-key-reused", 422, false,                                            \
      "This Idempotency-Key was used with another request")                                        \
    X(METHOD_NOT_ALLOWED, "method-not-allowed", 405, false, "The method is not allowed here")      \
    X(REQUEST_TIMEOUT, "request-timeout", 408, true, "The request did not arrive in time")         \
    X(BODY_TOO_LARGE, "body-too-large", 413, false, "The body is too large")                       \
    X(UNSUPPORTED_MEDIA, "unsupported-media-type", 415, false,                                     \
      "The body must be application/json")                                                         \
    X(EXPECTATION_FAILED, "expectation-failed", 417, false, "The expectation cannot be met")       \
    X(HEAD_TOO_LARGE, "head-too-large", 431, false, "The request line and headers are too large")  \
    X(INTERNAL, "internal-error", 500, false, "Something went wrong inside the service")           \
    X(UNKNOWN_VERSION, "http-version-not-supported", 505, false,                                   \
      "Only HTTP/1.0 and 1.1 are served")                                                          \
    X(OVERLOADED, "overloaded", 503, true, "The service has too much to do")                       \
    X(UNAVAILABLE, "unavailable", 503, true, "A server this service needs does not answer")        \
    X(OUTCOME_UNKNOWN, "outcome-unknown", 503, true, "The write may or may not have been made")    \
    X(READ_MODEL_BEHIND, "read-model-behind", 503, true,                                           \
      "The read model is not at this version yet")                                                 \
    X(READ_MODEL_INCOMPLETE, "read-model-incomplete", 503, true, "The read model is being built")  \
    X(STOPPING, "stopping", 503, true, "The service is stopping")                                  \
    X(NO_MEMORY, "out-of-memory", 503, true, "The service is out of memory")                       \
    X(IO, "input-output", 500, true, "A connection or a file failed")                              \
    X(PROTOCOL, "protocol", 500, false, "A server answered what it should not")                    \
    X(FENCED, "fenced", 500, true, "Another writer has moved the position")                        \
    X(CONFIG, "configuration", 500, false, "The configuration is not valid")                       \
    X(UNAUTHENTICATED, "unauthenticated", 401, false, "A valid bearer token is needed")            \
    X(USER_UNREADABLE, "user-unreadable", 503, true,                                               \
      "This user's events could not be read; the user waits for repair")

enum tally_status {
#define X(name, slug, http, retryable, title) TALLY_##name,
    TALLY_STATUS_LIST(X)
#undef X
        TALLY_STATUS_COUNT
};

/* Room for one sentence of cause; longer text is cut. */
#define TALLY_ERROR_TEXT_BYTES 256

struct tally_error {
    enum tally_status status;
    char text[TALLY_ERROR_TEXT_BYTES]; /* always terminated */
};

/* All four take any value, also one out of range (answered as INTERNAL), from any thread. */
const char *tally_status_slug(enum tally_status status);
const char *tally_status_title(enum tally_status status);
int tally_status_http(enum tally_status status);
bool tally_status_retryable(enum tally_status status);

/* Fills `error` (which may be NULL) and returns `status`, so that a failing function can end with
 * `return tally_fail(error, TALLY_IO, "connect: %s", strerror(errno));`. */
enum tally_status tally_fail(struct tally_error *error, enum tally_status status,
                             const char *format, ...) TALLY_PRINTF(3, 4);

#endif
