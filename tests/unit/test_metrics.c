#include "core/log.h"
#include "core/metrics.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

Test(metrics, are_printed_in_the_prometheus_text_format)
{
    struct tally_metrics *metrics = tally_metrics_new();
    const double bounds[] = {0.001, 0.01};
    struct tally_metric *ok =
        tally_metrics_counter(metrics, "tally_x_total", "Things.", "kind=\"a\"");
    struct tally_metric *no =
        tally_metrics_counter(metrics, "tally_x_total", "Things.", "kind=\"b\"");
    struct tally_histogram *times =
        tally_metrics_histogram(metrics, "tally_t_seconds", "Times.", "", bounds, 2);
    tally_metric_add(ok, 3);
    tally_metric_set(no, 0.5);
    tally_histogram_observe(times, 0.001);
    tally_histogram_observe(times, 0.002);
    tally_histogram_observe(times, 7);
    struct tally_buffer out;
    tally_buffer_init(&out, 65536);
    tally_metrics_render(metrics, &out);
    cr_assert_str_eq(tally_buffer_text(&out), "# HELP tally_x_total Things.\n"
                                              "# TYPE tally_x_total counter\n"
                                              "tally_x_total{kind=\"a\"} 3\n"
                                              "tally_x_total{kind=\"b\"} 0.5\n"
                                              "# HELP tally_t_seconds Times.\n"
                                              "# TYPE tally_t_seconds histogram\n"
                                              "tally_t_seconds_bucket{le=\"0.001\"} 1\n"
                                              "tally_t_seconds_bucket{le=\"0.01\"} 2\n"
                                              "tally_t_seconds_bucket{le=\"+Inf\"} 3\n"
                                              "tally_t_seconds_sum 7.003\n"
                                              "tally_t_seconds_count 3\n");
    tally_buffer_release(&out);
    tally_metrics_free(&metrics);
    cr_assert_null(metrics);
}

Test(metrics, registering_too_many_gives_a_metric_that_is_counted_nowhere)
{
    struct tally_metrics *metrics = tally_metrics_new();
    for (int i = 0; i < TALLY_METRICS_MOST + 10; i++)
        tally_metric_add(tally_metrics_counter(metrics, "tally_many_total", "Many.", ""), 1);
    struct tally_buffer out;
    tally_buffer_init(&out, 1 << 20);
    tally_metrics_render(metrics, &out);
    cr_assert_not(out.failed);
    tally_buffer_release(&out);
    tally_metrics_free(&metrics);
}

/* Runs `write_lines` with standard error in a pipe and returns what came out. */
static void captured(void (*write_lines)(void), char *text, size_t bytes)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    int before = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    write_lines();
    dup2(before, STDERR_FILENO);
    close(ends[1]);
    close(before);
    ssize_t length = read(ends[0], text, bytes - 1);
    text[length > 0 ? length : 0] = '\0';
    close(ends[0]);
}

static void write_one(void)
{
    tally_log_start("tally-test", TALLY_LOG_INFO);
    tally_log(TALLY_LOG_DEBUG, "not.shown");
    tally_log(TALLY_LOG_WARNING, "some.event", TALLY_TEXT("text", "a\"\n\xff"),
              TALLY_TEXT("none", NULL), TALLY_INTEGER("number", -5), TALLY_REAL("ratio", 0.5));
}

Test(log, a_line_is_one_json_object_whatever_its_fields_hold)
{
    char text[4096];
    captured(write_one, text, sizeof text);
    cr_assert_eq(strchr(text, '\n'), text + strlen(text) - 1, "one line: %s", text);
    json_t *line = json_loads(text, 0, NULL);
    cr_assert_not_null(line, "%s", text);
    cr_assert_str_eq(json_string_value(json_object_get(line, "event")), "some.event");
    cr_assert_str_eq(json_string_value(json_object_get(line, "level")), "warning");
    cr_assert_str_eq(json_string_value(json_object_get(line, "service")), "tally-test");
    cr_assert_str_eq(json_string_value(json_object_get(line, "text")), "a\"\n\xEF\xBF\xBD");
    cr_assert(json_is_null(json_object_get(line, "none")));
    cr_assert_eq(json_integer_value(json_object_get(line, "number")), -5);
    json_decref(line);
}

static void write_too_long(void)
{
    static char field[20000];
    memset(field, 'x', sizeof field - 1);
    tally_log(TALLY_LOG_ERROR, "long", TALLY_TEXT("text", field));
}

Test(log, a_line_that_does_not_fit_still_leaves_a_trace)
{
    char text[4096];
    captured(write_too_long, text, sizeof text);
    cr_assert_not_null(strstr(text, "log.line_lost"), "%s", text);
}

Test(log, a_repeating_line_is_held_back_and_counted)
{
    struct tally_log_limit limit = {0};
    int64_t suppressed = -1;
    cr_assert(tally_log_allow(&limit, 3600000, &suppressed));
    cr_assert_eq(suppressed, 0);
    cr_assert_not(tally_log_allow(&limit, 3600000, &suppressed));
    cr_assert_not(tally_log_allow(&limit, 3600000, &suppressed));
    limit.next_us = 0;
    cr_assert(tally_log_allow(&limit, 3600000, &suppressed));
    cr_assert_eq(suppressed, 2);
}
