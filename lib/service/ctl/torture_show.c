#include "core/clock.h"
#include "service/ctl/output.h"
#include "service/ctl/torture_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { LINE_BYTES = 400, INTERVAL_US = 1000000 };

double torture_seconds(const struct torture_ledger *ledger)
{
    return (double)(tally_clock_monotonic_us() - ledger->start_us) / 1e6;
}

void torture_show_init(struct torture_show *show, struct torture_ledger *ledger, bool quiet)
{
    *show = (struct torture_show){
        .ledger = ledger, .quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1};
}

void torture_tell(struct torture_show *show, const char *format, ...)
{
    if (show->quiet)
        return;
    char text[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    torture_show_end(show);
    (void)fprintf(stderr, "%8.1f s  %s\n", torture_seconds(show->ledger), text);
}

void torture_show(struct torture_show *show, int64_t end_us, const char *what)
{
    int64_t now_us = tally_clock_monotonic_us();
    if (!show->terminal || show->quiet || now_us < show->next_us)
        return;
    show->next_us = now_us + INTERVAL_US;
    char left[TALLY_DURATION_BYTES + 8] = "", duration[TALLY_DURATION_BYTES];
    char number[TALLY_NUMBER_BYTES];
    if (end_us > now_us) {
        tally_ctl_format_duration((double)(end_us - now_us) / 1e6, duration);
        (void)snprintf(left, sizeof left, ", %s left", duration);
    }
    (void)fprintf(stderr, "\r\033[K%8.1f s  %s: %s writes acknowledged, %" PRId64 " violations%s",
                  torture_seconds(show->ledger), what,
                  tally_ctl_format_number(atomic_load(&show->ledger->acknowledged), number),
                  torture_ledger_violations(show->ledger), left);
    (void)fflush(stderr);
    show->shown = true;
}

void torture_show_end(struct torture_show *show)
{
    if (show->shown)
        (void)fputs("\r\033[K", stderr);
    show->shown = false;
}
