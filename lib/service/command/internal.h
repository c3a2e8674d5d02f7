/*
 * What command.c (life), routes.c (requests) of the command service share.
 */
#ifndef TALLY_SERVICE_COMMAND_INTERNAL_H
#define TALLY_SERVICE_COMMAND_INTERNAL_H

#include "core/log.h"
#include "core/random.h"
#include "http/http.h"
#include "service/command/command.h"
#include "service/command/metrics.h"
#include "store/batcher.h"
#include "store/janitor.h"

struct tally_command_service {
    struct tally_command_service_options options;
    struct tally_command_metrics metrics;
    struct tally_random random; /* of trace ids */
    struct tally_http_server *server;
    struct tally_batcher *batcher;
    struct tally_janitor *janitor;
    struct tally_log_repeat failures;
    struct tally_log_limit outcome_limit;
};

/* The table given to the HTTP layer, whose context is the service, and its labels for metrics. */
extern const struct tally_http_route tally_command_routes[TALLY_COMMAND_KIND_COUNT];
extern const char *const tally_command_route_labels[TALLY_COMMAND_ROUTES];
/* The HTTP layer's observer; context is the service. */
tally_http_observer tally_command_observe;

#endif
