/*
 * Admin: the operations port of each service: /livez, /readyz and /metrics.
 *
 * /livez says only that the loop turns. /readyz is 200 while the service takes work and every check
 * holds, else 503; with `?verbose` it lists the checks:
 *   {"ready":false,"phase":"ready","checks":[{"name":"postgresql","ok":false,"reason":"…"}]}
 */
#ifndef TALLY_SERVICE_ADMIN_H
#define TALLY_SERVICE_ADMIN_H

#include "core/metrics.h"
#include "loop/loop.h"

#define TALLY_HEALTH_REASON_BYTES 256
#define TALLY_HEALTH_CHECKS_MOST 8

struct tally_health_check {
    const char *name; /* of the dependency or of the work: "redis", "progress" */
    /* In the loop's thread, must not block. Where it returns false it has written what is wrong and
     * since when into `reason`; where it returns true it may have written what is worth knowing. */
    bool (*check)(void *context, char reason[TALLY_HEALTH_REASON_BYTES]);
    void *context;
    bool informative; /* listed, but the service takes work without it */
};

struct tally_admin;

/* Listens on `listen`; metrics and lifecycle are borrowed, the checks copied (at most
 * TALLY_HEALTH_CHECKS_MOST). Loop's thread. */
enum tally_status tally_admin_new(struct event_base *base, const char *listen,
                                  struct tally_metrics *metrics,
                                  const struct tally_lifecycle *lifecycle,
                                  const struct tally_health_check *checks, size_t check_count,
                                  struct tally_admin **admin,
                                  struct tally_error *error) TALLY_MUST_CHECK;
void tally_admin_free(struct tally_admin **admin);

#endif
