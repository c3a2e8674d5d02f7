/*
 * Command service: the write API of tally-command, from the request to the batch and back.
 *
 *     POST   /v1/users                    create a user
 *     PATCH  /v1/users/{id}               change one; If-Match
 *     DELETE /v1/users/{id}               erase one; If-Match
 *     POST   /v1/posts                    create a post
 *     DELETE /v1/posts/{id}               remove it with its comments
 *     POST   /v1/posts/{postId}/comments  create a comment
 *     DELETE /v1/comments/{id}            remove it
 *
 * POST takes an Idempotency-Key. A repeated request is the same one where method, route, the id in
 * the path and the bytes of the body are the same (SHA-256 over them).
 *
 * All functions are for the loop's thread.
 */
#ifndef TALLY_SERVICE_COMMAND_COMMAND_H
#define TALLY_SERVICE_COMMAND_COMMAND_H

#include "core/metrics.h"
#include "core/settings.h"

struct event_base;
struct tally_command_service;

struct tally_command_service_options {
    const struct tally_settings *settings; /* borrowed */
    struct event_base *base;
    struct tally_metrics *metrics;
    void (*on_committed)(void *context); /* events were written; may be NULL */
    void (*on_drained)(void *context);   /* every request and command has its answer */
    void *context;
};

/* Checks the settings, listens and connects. CONFIG: an address or DSN that cannot be used, or
 * authentication off on an address that is not loopback; IO: the port is taken; NO_MEMORY. */
enum tally_status tally_command_service_new(const struct tally_command_service_options *options,
                                            struct tally_command_service **service,
                                            struct tally_error *error) TALLY_MUST_CHECK;
/* The port that was bound. */
uint16_t tally_command_service_port(const struct tally_command_service *service);
/* Stops listening, answers what is in flight, closes; `on_drained` comes once. */
void tally_command_service_drain(struct tally_command_service *service);
/* Closes at once. Not from inside a callback. */
void tally_command_service_free(struct tally_command_service **service);

/* Checks for the admin port; `reason` has TALLY_HEALTH_REASON_BYTES. */
bool tally_command_check_postgresql(void *service, char reason[256]);
bool tally_command_check_schema(void *service, char reason[256]);

#endif
