#include "service/ctl/output.h"

#include "core/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TERMINAL_INTERVAL_US = 1000000, PIPE_INTERVAL_US = 5000000, TEXT_BYTES = 256 };

json_t *tally_ctl_error_json(const struct tally_error *error)
{
    return json_pack("{s:s,s:s}", "code", tally_status_slug(error->status), "text", error->text);
}

void tally_ctl_print_error(const struct tally_ctl *ctl, const struct tally_error *error)
{
    (void)fprintf(stderr, "tallyctl: %s\n", error->text);
    if (ctl->json)
        (void)tally_ctl_print_json(ctl, json_pack("{s:o}", "error", tally_ctl_error_json(error)),
                                   0);
}

int tally_ctl_fail(const struct tally_ctl *ctl, const struct tally_error *error)
{
    tally_ctl_print_error(ctl, error);
    return TALLY_CTL_FAILED;
}

int tally_ctl_print_json(const struct tally_ctl *ctl, json_t *value, int code)
{
    (void)ctl;
    if (value == NULL || json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0) {
        (void)fputs("tallyctl: the result could not be printed as JSON\n", stderr);
        code = TALLY_CTL_FAILED;
    } else {
        (void)putchar('\n');
    }
    json_decref(value);
    return code;
}

void tally_ctl_json_append(json_t **list, json_t *value)
{
    if (json_array_append_new(*list, value) == 0)
        return;
    json_decref(*list);
    *list = NULL;
}

void tally_ctl_json_set(json_t **object, const char *name, json_t *value)
{
    if (json_object_set_new(*object, name, value) == 0)
        return;
    json_decref(*object);
    *object = NULL;
}

void tally_progress_start(struct tally_progress *progress, const char *what, const char *unit,
                          int64_t total)
{
    int64_t now_us = tally_clock_monotonic_us();
    *progress = (struct tally_progress){
        .what = what,
        .unit = unit,
        .total = total,
        .start_us = now_us,
        .terminal = isatty(STDERR_FILENO) == 1,
    };
    progress->next_us = now_us + (progress->terminal ? TERMINAL_INTERVAL_US : PIPE_INTERVAL_US);
}

void tally_progress_show(struct tally_progress *progress, int64_t done, const char *more)
{
    int64_t now_us = tally_clock_monotonic_us();
    if (now_us < progress->next_us)
        return;
    progress->next_us = now_us + (progress->terminal ? TERMINAL_INTERVAL_US : PIPE_INTERVAL_US);
    double elapsed_s = (double)(now_us - progress->start_us) / 1e6;
    double rate = (double)done / elapsed_s;
    char number[TALLY_NUMBER_BYTES], total[TALLY_NUMBER_BYTES], rate_text[TALLY_NUMBER_BYTES];
    char left[TALLY_DURATION_BYTES] = "";
    char of_total[TEXT_BYTES] = "", eta[TEXT_BYTES] = "";
    if (progress->total > 0) {
        (void)snprintf(of_total, sizeof of_total, " of %s (%.0f %%)",
                       tally_ctl_format_number(progress->total, total),
                       100.0 * (double)done / (double)progress->total);
        if (rate > 0 && done <= progress->total) {
            tally_ctl_format_duration((double)(progress->total - done) / rate, left);
            (void)snprintf(eta, sizeof eta, ", %s left", left);
        }
    }
    (void)fprintf(stderr, "%s%s: %s%s %s, %s/s%s%s%s%s", progress->terminal ? "\r\033[K" : "",
                  progress->what, tally_ctl_format_number(done, number), of_total, progress->unit,
                  tally_ctl_format_number((int64_t)rate, rate_text), eta,
                  more[0] != '\0' ? ", " : "", more, progress->terminal ? "" : "\n");
    (void)fflush(stderr);
    progress->shown = progress->terminal;
}

void tally_progress_end(struct tally_progress *progress)
{
    if (progress->shown)
        (void)fputs("\r\033[K", stderr);
    progress->shown = false;
}

void tally_ctl_format_duration(double seconds, char text[TALLY_DURATION_BYTES])
{
    int64_t whole = (int64_t)seconds;
    if (seconds < 1)
        (void)snprintf(text, TALLY_DURATION_BYTES, "%.0f ms", seconds * 1000);
    else if (whole < 60)
        (void)snprintf(text, TALLY_DURATION_BYTES, "%.1f s", seconds);
    else if (whole < 3600)
        (void)snprintf(text, TALLY_DURATION_BYTES, "%" PRId64 " min %02" PRId64 " s", whole / 60,
                       whole % 60);
    else if (whole < INT64_C(48) * 3600)
        (void)snprintf(text, TALLY_DURATION_BYTES, "%" PRId64 " h %02" PRId64 " min", whole / 3600,
                       whole / 60 % 60);
    else
        (void)snprintf(text, TALLY_DURATION_BYTES, "%.1f days", seconds / 86400);
}

const char *tally_ctl_format_number(int64_t value, char text[TALLY_NUMBER_BYTES])
{
    char digits[TALLY_NUMBER_BYTES];
    int length = snprintf(digits, sizeof digits, "%" PRId64, value);
    size_t out = 0;
    for (int i = 0; i < length && out < TALLY_NUMBER_BYTES - 2; i++) {
        int left = length - i;
        if (i > 0 && left % 3 == 0 && digits[i - 1] != '-')
            text[out++] = ',';
        text[out++] = digits[i];
    }
    text[out] = '\0';
    return text;
}
