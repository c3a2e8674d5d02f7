/* Every call that these make of malloc, the system and the libraries fails once. */
#include "core/config.h"
#include "core/metrics.h"
#include "domain/event.h"
#include "domain/fold.h"
#include "faults.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(faults, .timeout = 300);

enum { RUNS_MOST = 2000 };

static char path[] = "/tmp/tally-config-XXXXXX";

static void make_file(void)
{
    static const char text[] = "# comment\n\nTALLY_TOPIC=file\nTALLY_DRAIN_MS=1000\n";
    const int descriptor = mkstemp(path);
    cr_assert_geq(descriptor, 0);
    cr_assert_eq(write(descriptor, text, strlen(text)), (ssize_t)strlen(text));
    close(descriptor);
}

static void remove_file(void)
{
    unlink(path);
}

static enum tally_status load_config(struct tally_error *error)
{
    static struct tally_config config;
    size_t held = 0;
    char *argv[] = {"tally-command", "--config", path, "--log-level=debug", NULL};
    struct tally_buffer reference;
    enum tally_status status =
        tally_config_parse(&config, TALLY_PROGRAM_COMMAND, "", 4, argv, error);
    if (status == TALLY_OK)
        status = tally_config_reload(&config, &held, error);
    tally_buffer_init(&reference, 1 << 20);
    tally_config_reference(&reference);
    if (status == TALLY_OK && tally_buffer_text(&reference) == NULL)
        status = tally_fail(error, TALLY_NO_MEMORY, "the reference");
    tally_buffer_release(&reference);
    return status;
}

Test(faults, configuration_is_read_or_refused, .init = make_file, .fini = remove_file)
{
    cr_expect_gt(faults_each(load_config, FAULTS_OF_THIS_THREAD, RUNS_MOST), 2);
}

static enum tally_status render_metrics(struct tally_error *error)
{
    struct tally_buffer text;
    enum tally_status status = TALLY_OK;
    struct tally_metrics *metrics = tally_metrics_new();
    if (metrics == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "metrics");
    struct tally_metric *counter =
        tally_metrics_counter(metrics, "tally_things_total", "Things.", "kind=\"a\"");
    struct tally_metric *gauge = tally_metrics_gauge(metrics, "tally_now", "Now.", "");
    tally_metric_add(counter, 1);
    tally_metric_set(gauge, 1);
    tally_buffer_init(&text, 1 << 20);
    tally_metrics_render(metrics, &text);
    if (tally_buffer_text(&text) == NULL)
        status = tally_fail(error, TALLY_NO_MEMORY, "metrics");
    tally_buffer_release(&text);
    tally_metrics_free(&metrics);
    return status;
}

Test(faults, metrics_are_rendered_or_not)
{
    cr_expect_gt(faults_each(render_metrics, FAULTS_OF_THIS_THREAD, RUNS_MOST), 2);
}

static enum tally_status fold_message(struct tally_error *error)
{
    static const char value[] = "{\"name\":\"Ada\",\"email\":\"a@b.c\",\"avatar\":\"x.png\"}";
    const struct tally_event sent = {.type = TALLY_EVENT_USER_CREATED,
                                     .user_id = 7,
                                     .version = 1,
                                     .timeline = 1,
                                     .at_us = 1795348800000000,
                                     .value = value,
                                     .value_length = strlen(value)};
    struct tally_event_headers headers;
    struct tally_event event;
    struct tally_profile profile = {0};
    struct tally_user_state state = {0};
    struct tally_fold_effect effect;
    tally_event_encode_headers(&headers, &sent, "/tally/test", NULL);
    enum tally_status status = tally_event_decode(&event, "7", 1, value, strlen(value),
                                                  headers.list, headers.count, error);
    if (status == TALLY_OK)
        status = tally_profile_parse(&profile, event.value, event.value_length, error);
    if (status != TALLY_OK)
        return status;
    cr_expect_str_eq(profile.name, "Ada");
    tally_profile_clear(&profile);
    cr_expect_eq(tally_fold(&state, &event, &effect), TALLY_FOLD_APPLIED);
    return TALLY_OK;
}

Test(faults, an_event_is_folded_or_refused)
{
    cr_expect_gt(faults_each(fold_message, FAULTS_OF_THIS_THREAD, RUNS_MOST), 2);
}
