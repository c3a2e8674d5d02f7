#include "core/clock.h"
#include "service/ctl/output.h"
#include "service/ctl/status_probe.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Longest wait for all probes together. */
enum { ALL_MS = 5000 };

static const struct {
    tally_probe *run;
    const char *components[3]; /* what is down where the probe does not come back */
} probes[] = {
    {tally_probe_postgres, {"postgresql", "relay", NULL}},
    {tally_probe_kafka, {"kafka", "projector", NULL}},
    {tally_probe_redis, {"redis", NULL, NULL}},
    {tally_probe_letters, {"dead-letters", NULL, NULL}},
    {tally_probe_services, {"tally-command", "tally-projector", "tally-query"}},
};
enum { PROBES = sizeof probes / sizeof probes[0] };

/* Not freed where the probe does not come back in time: its thread still writes here. */
struct task {
    pthread_t thread;
    tally_probe *run;
    struct tally_settings settings;
    json_t *components;
};

static const struct argp argp = {
    .doc = "Shows how each server and service is: schema, backlog and lag in events and seconds, "
           "positions, readiness. What is down is shown as down, with the cause. Exits with 1 "
           "where anything is not well. Takes 5 seconds at most." TALLY_CTL_EXIT_DOC,
};

void tally_probe_add(json_t *components, const char *component, const char *state, json_t *details,
                     const char *format, ...)
{
    char summary[TALLY_PROBE_SUMMARY_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(summary, sizeof summary, format, arguments);
    va_end(arguments);
    json_t *object =
        json_pack("{s:s,s:s,s:s}", "component", component, "state", state, "summary", summary);
    if (json_object_update(object, details) == 0)
        (void)json_array_append(components, object);
    json_decref(details);
    json_decref(object);
}

static void *run_task(void *context)
{
    struct task *task = context;
    task->run(&task->settings, task->components);
    return NULL;
}

static struct task *start(const struct tally_settings *settings, tally_probe *run)
{
    struct task *task = calloc(1, sizeof *task);
    if (task == NULL)
        return NULL;
    task->run = run;
    task->settings = *settings;
    task->components = json_array();
    if (pthread_create(&task->thread, NULL, run_task, task) != 0) {
        json_decref(task->components);
        free(task);
        return NULL;
    }
    return task;
}

/* Moves what the task found to `all`. */
static void collect(struct task *task, size_t probe, const struct timespec *due, json_t *all)
{
    if (task != NULL && pthread_timedjoin_np(task->thread, NULL, due) == 0) {
        (void)json_array_extend(all, task->components);
        json_decref(task->components);
        free(task);
        return;
    }
    for (size_t i = 0; i < 3 && probes[probe].components[i] != NULL; i++)
        tally_probe_add(all, probes[probe].components[i], "down", json_object(),
                        "no answer within %d s", ALL_MS / 1000);
}

static void print_partitions(const json_t *partitions)
{
    size_t index = 0;
    json_t *row = NULL;
    if (json_array_size(partitions) > 0)
        (void)printf("    %9s %12s %12s %8s %12s %8s %12s\n", "partition", "low", "high", "epoch",
                     "offset", "lag", "fresh ago");
    json_array_foreach(partitions, index, row)
    {
        char fresh[TALLY_DURATION_BYTES] = "-";
        if (json_is_real(json_object_get(row, "freshSecondsAgo")))
            tally_ctl_format_duration(json_real_value(json_object_get(row, "freshSecondsAgo")),
                                      fresh);
        (void)printf("    %9lld %12lld %12lld %8lld %12lld %8lld %12s\n",
                     (long long)json_integer_value(json_object_get(row, "partition")),
                     (long long)json_integer_value(json_object_get(row, "low")),
                     (long long)json_integer_value(json_object_get(row, "high")),
                     (long long)json_integer_value(json_object_get(row, "epoch")),
                     (long long)json_integer_value(json_object_get(row, "offset")),
                     (long long)json_integer_value(json_object_get(row, "lagEvents")), fresh);
    }
}

static void print_components(const json_t *all)
{
    size_t index = 0;
    json_t *component = NULL;
    json_array_foreach(all, index, component)
    {
        (void)printf("%-16s %-10s %s\n", json_string_value(json_object_get(component, "component")),
                     json_string_value(json_object_get(component, "state")),
                     json_string_value(json_object_get(component, "summary")));
        json_t *partitions = json_object_get(component, "partitions");
        if (json_is_array(partitions))
            print_partitions(partitions);
    }
}

const json_t *tally_status_component(const json_t *components, const char *name)
{
    size_t index = 0;
    json_t *component = NULL;
    json_array_foreach(components, index, component)
    {
        const char *found = json_string_value(json_object_get(component, "component"));
        if (found != NULL && strcmp(found, name) == 0)
            return component;
    }
    return NULL;
}

bool tally_status_all_up(const json_t *all)
{
    size_t index = 0;
    json_t *component = NULL;
    json_array_foreach(all, index, component)
    {
        const char *state = json_string_value(json_object_get(component, "state"));
        /* Paused is what somebody asked for. */
        if (state == NULL || (strcmp(state, "up") != 0 && strcmp(state, "paused") != 0))
            return false;
    }
    /* One for which memory ran out is not there. */
    for (size_t i = 0; i < PROBES; i++)
        for (size_t k = 0; k < 3 && probes[i].components[k] != NULL; k++)
            if (tally_status_component(all, probes[i].components[k]) == NULL)
                return false;
    return true;
}

json_t *tally_status_collect(const struct tally_settings *settings)
{
    struct task *tasks[PROBES];
    struct timespec due;
    (void)clock_gettime(CLOCK_REALTIME, &due);
    due.tv_sec += ALL_MS / 1000;
    for (size_t i = 0; i < PROBES; i++)
        tasks[i] = start(settings, probes[i].run);
    json_t *all = json_array();
    for (size_t i = 0; i < PROBES; i++)
        collect(tasks[i], i, &due, all);
    return all;
}

int tally_ctl_status(struct tally_ctl *ctl, int argc, char **argv)
{
    int code = tally_ctl_parse(ctl, &argp, NULL, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    json_t *all = tally_status_collect(&ctl->config.settings);
    bool healthy = tally_status_all_up(all);
    code = healthy ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    if (ctl->json)
        return tally_ctl_print_json(
            ctl, json_pack("{s:b,s:o}", "healthy", healthy, "components", all), code);
    print_components(all);
    json_decref(all);
    return code;
}
