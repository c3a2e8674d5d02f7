#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>

struct status_row {
    const char *slug;
    const char *title;
    int http;
    bool retryable;
};

static const struct status_row rows[TALLY_STATUS_COUNT] = {
#define X(name, slug, http, retryable, title) [TALLY_##name] = {slug, title, http, retryable},
    TALLY_STATUS_LIST(X)
#undef X
};

static const struct status_row *row_of(enum tally_status status)
{
    unsigned index = (unsigned)status;
    return &rows[index < TALLY_STATUS_COUNT ? index : TALLY_INTERNAL];
}

const char *tally_status_slug(enum tally_status status)
{
    return row_of(status)->slug;
}

const char *tally_status_title(enum tally_status status)
{
    return row_of(status)->title;
}

int tally_status_http(enum tally_status status)
{
    return row_of(status)->http;
}

bool tally_status_retryable(enum tally_status status)
{
    return row_of(status)->retryable;
}

enum tally_status tally_fail(struct tally_error *error, enum tally_status status,
                             const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        error->status = status;
        (void)vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
    }
    return status;
}
