/*
 * Process: what the services have in common from main() to exit: settings, event loop,
 * metrics, life cycle, admin port, reload.
 *
 * Exit codes: 0 told to stop, and drained; 1 it could not start, could not go on, or its drain was
 * cut off; 78 (EX_CONFIG) the configuration is not valid; 64 (EX_USAGE) a wrong flag. The last log
 * line says which and why.
 */
#ifndef TALLY_SERVICE_PROCESS_H
#define TALLY_SERVICE_PROCESS_H

#include "core/config.h"
#include "core/log.h"
#include "core/metrics.h"
#include "loop/loop.h"
#include "service/admin/admin.h"

struct tally_process {
    struct tally_config config;
    struct event_base *base;
    struct tally_metrics *metrics;
    struct tally_lifecycle *lifecycle;
    struct tally_admin *admin;
    struct tally_error failure; /* why it cannot go on; OK: it can */
};

/* A service as main() describes it. All hooks are called from the main thread with `service`. */
struct tally_process_service {
    enum tally_program program;
    const char *name; /* "tally-query" */
    const char *doc;  /* the line of --help */
    /* Builds the service, on process->base and with process->config.settings, both of which outlive
     * it, and opens the admin port by tally_process_admin(). What it built before a failure is left
     * to `release`. */
    enum tally_status (*start)(void *service, struct tally_process *process,
                               struct tally_error *error);
    /* Finish what is in flight, then call tally_process_drained(). */
    void (*drain)(void *service);
    /* Whether work goes on, for systemd's watchdog; NULL: the loop turning is enough. */
    bool (*alive)(void *service);
    /* The log level is now this one. May be NULL. */
    void (*log_level)(void *service, enum tally_log_level level);
    /* The loop has ended; end threads and free. Not called where the drain was cut off, since it
     * could wait for a server that does not answer. */
    void (*release)(void *service);
};

/* Runs the service until SIGTERM, SIGINT or tally_process_fail(); returns the exit code. */
int tally_process_run(const struct tally_process_service *description, void *service, int argc,
                      char **argv);

/* The same for a program that has read its settings and the flags of its own already; they are
 * copied. */
int tally_process_run_with(const struct tally_process_service *description, void *service,
                           const struct tally_config *config);

/* For `start`: opens the admin port with these checks. */
enum tally_status tally_process_admin(struct tally_process *process,
                                      const struct tally_health_check *checks, size_t count,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* The drain is done. */
void tally_process_drained(struct tally_process *process);
/* The service cannot go on: drains as SIGTERM does, and ends with exit code 1. Only the first
 * reason counts. */
void tally_process_fail(struct tally_process *process, const struct tally_error *error);

#endif
