#include "http/client.h"
#include "loop/loop.h"
#include "service/ctl/status_probe.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>

enum { SERVICES = 3 };

struct service {
    const char *name;
    const char *address;
    struct tally_http_client *client;
    json_t *components;
};

/* The names of the checks of /readyz that are not fulfilled or have a note, with their reasons. */
static void list_failed(const json_t *readiness, char text[TALLY_PROBE_SUMMARY_BYTES])
{
    size_t index = 0;
    json_t *check = NULL;
    int length = 0;
    text[0] = '\0';
    json_array_foreach(json_object_get(readiness, "checks"), index, check)
    {
        const char *name = json_string_value(json_object_get(check, "name"));
        const char *reason = json_string_value(json_object_get(check, "reason"));
        if (name == NULL || (json_is_true(json_object_get(check, "ok")) && reason == NULL) ||
            length >= TALLY_PROBE_SUMMARY_BYTES)
            continue;
        int written = snprintf(text + length, TALLY_PROBE_SUMMARY_BYTES - (size_t)length,
                               "%s%s%s%s", length > 0 ? "; " : "", name, reason != NULL ? ": " : "",
                               reason != NULL ? reason : "");
        length += written > 0 ? written : 0;
    }
}

static void on_answered(const struct tally_http_client_answer *answer, void *context)
{
    struct service *service = context;
    if (tally_http_client_status(answer) != TALLY_OK) {
        tally_probe_add(service->components, service->name, "down",
                        json_pack("{s:s}", "address", service->address), "%s: %s", service->address,
                        tally_http_client_error(answer));
        return;
    }
    size_t length = 0;
    const char *body = tally_http_client_body(answer, &length);
    json_t *readiness = json_loadb(body, length, 0, NULL);
    bool ready = tally_http_client_http_status(answer) == 200;
    char failed[TALLY_PROBE_SUMMARY_BYTES];
    list_failed(readiness, failed);
    tally_probe_add(service->components, service->name, ready ? "up" : "unhealthy",
                    json_pack("{s:s,s:O?}", "address", service->address, "readiness", readiness),
                    "%s%s%s%s", ready ? "ready" : "not ready", failed[0] != '\0' ? " (" : "",
                    failed, failed[0] != '\0' ? ")" : "");
    json_decref(readiness);
}

static void start(struct event_base *base, struct service *service)
{
    static const struct tally_http_client_request request = {
        .method = "GET", .target = "/readyz?verbose", .timeout_ms = TALLY_PROBE_MS};
    struct tally_error error;
    enum tally_status status =
        tally_http_client_new(base, service->address, 0, &service->client, &error);
    if (status == TALLY_OK)
        status = tally_http_client_send(service->client, &request, on_answered, service, &error);
    if (status != TALLY_OK)
        tally_probe_add(service->components, service->name, "down",
                        json_pack("{s:s}", "address", service->address), "%s", error.text);
}

void tally_probe_services(const struct tally_settings *settings, json_t *components)
{
    struct service services[SERVICES] = {
        {"tally-command", settings->command_admin, NULL, components},
        {"tally-projector", settings->projector_admin, NULL, components},
        {"tally-query", settings->query_admin, NULL, components},
    };
    struct event_base *base = tally_loop_new();
    if (base == NULL) {
        for (size_t i = 0; i < SERVICES; i++)
            tally_probe_add(components, services[i].name, "down", json_object(),
                            "no memory to ask");
        return;
    }
    for (size_t i = 0; i < SERVICES; i++)
        start(base, &services[i]);
    const struct timeval longest = {.tv_sec = TALLY_PROBE_MS / 1000 + 1};
    (void)event_base_loopexit(base, &longest);
    /* Until all are answered; an idle keep-alive connection would hold the loop open otherwise. */
    while (json_array_size(components) < SERVICES && !event_base_got_exit(base))
        (void)event_base_loop(base, EVLOOP_ONCE);
    for (size_t i = 0; i < SERVICES; i++)
        if (services[i].client != NULL)
            tally_http_client_free(&services[i].client);
    event_base_free(base);
}
