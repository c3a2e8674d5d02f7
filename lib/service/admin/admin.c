#include "service/admin/admin.h"

#include "core/clock.h"
#include "http/http.h"

#include <stdlib.h>
#include <string.h>

enum { METRICS_LIMIT_BYTES = 4 << 20, HEALTH_LIMIT_BYTES = 64 << 10 };

struct tally_admin {
    struct tally_http_server *server;
    struct tally_metrics *metrics;
    const struct tally_lifecycle *lifecycle;
    struct tally_health_check checks[TALLY_HEALTH_CHECKS_MOST];
    size_t check_count;
    struct tally_metric *uptime;
    struct tally_metric *ready;
    int64_t started_us;
};

static const char *const phase_texts[] = {
    [TALLY_PHASE_STARTING] = "starting",
    [TALLY_PHASE_READY] = "ready",
    [TALLY_PHASE_DRAINING] = "draining",
};

/* Runs every check and appends it to `out` as JSON; true where the service should get work. */
static bool run_checks(const struct tally_admin *admin, struct tally_buffer *out)
{
    bool ready = tally_lifecycle_phase(admin->lifecycle) == TALLY_PHASE_READY;
    for (size_t i = 0; i < admin->check_count; i++) {
        const struct tally_health_check *check = &admin->checks[i];
        char reason[TALLY_HEALTH_REASON_BYTES] = "";
        bool ok = check->check(check->context, reason);
        ready = ready && (ok || check->informative);
        tally_buffer_format(out, "%s{\"name\":\"%s\",\"ok\":%s", i > 0 ? "," : "", check->name,
                            ok ? "true" : "false");
        if (!ok || reason[0] != '\0') {
            tally_buffer_append_text(out, ",\"reason\":");
            tally_buffer_append_json(out, reason, strlen(reason));
        }
        tally_buffer_append_char(out, '}');
    }
    return ready;
}

static void serve_livez(struct tally_http_exchange *exchange, void *context)
{
    (void)context;
    tally_http_answer(exchange, 200, "application/json", "{\"live\":true}\n", 14);
}

static void serve_readyz(struct tally_http_exchange *exchange, void *context)
{
    const struct tally_admin *admin = context;
    struct tally_buffer checks;
    struct tally_buffer body;
    tally_buffer_init(&checks, HEALTH_LIMIT_BYTES);
    tally_buffer_init(&body, HEALTH_LIMIT_BYTES);
    bool ready = run_checks(admin, &checks);
    tally_buffer_format(&body, "{\"ready\":%s,\"phase\":\"%s\"", ready ? "true" : "false",
                        phase_texts[tally_lifecycle_phase(admin->lifecycle)]);
    if (tally_http_query_parameter(exchange, "verbose") != NULL) {
        tally_buffer_append_text(&body, ",\"checks\":[");
        tally_buffer_append(&body, checks.data, checks.length);
        tally_buffer_append_char(&body, ']');
    }
    tally_buffer_append_text(&body, "}\n");
    if (body.failed || checks.failed)
        tally_http_answer_problem(exchange, TALLY_NO_MEMORY, NULL);
    else
        tally_http_answer(exchange, ready ? 200 : 503, "application/json", body.data, body.length);
    tally_buffer_release(&checks);
    tally_buffer_release(&body);
}

static void serve_metrics(struct tally_http_exchange *exchange, void *context)
{
    const struct tally_admin *admin = context;
    struct tally_buffer body;
    tally_buffer_init(&body, METRICS_LIMIT_BYTES);
    tally_metrics_render(admin->metrics, &body);
    if (body.failed)
        tally_http_answer_problem(exchange, TALLY_NO_MEMORY, NULL);
    else
        tally_http_answer(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", body.data,
                          body.length);
    tally_buffer_release(&body);
}

static const struct tally_http_route routes[] = {
    {.method = "GET", .pattern = "/livez", .handler = serve_livez},
    {.method = "GET", .pattern = "/readyz", .handler = serve_readyz},
    {.method = "GET", .pattern = "/metrics", .handler = serve_metrics},
};

static void refresh_metrics(void *context)
{
    const struct tally_admin *admin = context;
    struct tally_buffer unused;
    tally_buffer_init(&unused, HEALTH_LIMIT_BYTES);
    tally_metric_set(admin->ready, run_checks(admin, &unused) ? 1 : 0);
    tally_buffer_release(&unused);
    tally_metric_set(admin->uptime, (double)(tally_clock_monotonic_us() - admin->started_us) / 1e6);
}

enum tally_status tally_admin_new(struct event_base *base, const char *listen,
                                  struct tally_metrics *metrics,
                                  const struct tally_lifecycle *lifecycle,
                                  const struct tally_health_check *checks, size_t check_count,
                                  struct tally_admin **admin, struct tally_error *error)
{
    if (check_count > TALLY_HEALTH_CHECKS_MOST)
        return tally_fail(error, TALLY_INTERNAL, "more than %d health checks",
                          TALLY_HEALTH_CHECKS_MOST);
    struct tally_admin *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "admin port");
    made->metrics = metrics;
    made->lifecycle = lifecycle;
    made->check_count = check_count;
    made->started_us = tally_clock_monotonic_us();
    if (check_count > 0)
        memcpy(made->checks, checks, check_count * sizeof *checks);
    const struct tally_http_server_options options = {.listen = listen, .max_connections = 64};
    enum tally_status status = tally_http_server_new(
        base, &options, routes, sizeof routes / sizeof routes[0], made, &made->server, error);
    if (status != TALLY_OK) {
        free(made);
        return status;
    }
    made->uptime = tally_metrics_gauge(metrics, "tally_uptime_seconds",
                                       "Seconds since the process started.", "");
    made->ready = tally_metrics_gauge(metrics, "tally_ready", "Whether /readyz answers 200.", "");
    tally_metrics_on_render(metrics, refresh_metrics, made);
    *admin = made;
    return TALLY_OK;
}

void tally_admin_free(struct tally_admin **admin)
{
    if (*admin == NULL)
        return;
    tally_http_server_free(&(*admin)->server);
    free(*admin);
    *admin = NULL;
}
