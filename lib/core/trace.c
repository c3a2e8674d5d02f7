#include "core/trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    VERSION_LENGTH = 3, /* "00-" */
    TRACE_ID_LENGTH = 32,
    SPAN_ID_AT = VERSION_LENGTH + TRACE_ID_LENGTH + 1,
    SPAN_ID_LENGTH = 16,
    FLAGS_AT = SPAN_ID_AT + SPAN_ID_LENGTH + 1,
};

/* Lower-case hex digits, not all of them zero unless `zero_allowed`. */
static bool hex_field(const char *text, size_t length, bool zero_allowed)
{
    bool zero = true;
    for (size_t i = 0; i < length; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (!digit && !(text[i] >= 'a' && text[i] <= 'f'))
            return false;
        zero = zero && text[i] == '0';
    }
    return !zero || zero_allowed;
}

bool tally_trace_valid(const char *text)
{
    return strlen(text) == TALLY_TRACEPARENT_BYTES - 1 &&
           memcmp(text, "00-", VERSION_LENGTH) == 0 &&
           hex_field(text + VERSION_LENGTH, TRACE_ID_LENGTH, false) &&
           text[SPAN_ID_AT - 1] == '-' && hex_field(text + SPAN_ID_AT, SPAN_ID_LENGTH, false) &&
           text[FLAGS_AT - 1] == '-' && hex_field(text + FLAGS_AT, 2, true);
}

void tally_trace_start(struct tally_trace *trace, const char *incoming, struct tally_random *random)
{
    uint64_t span = tally_random_next(random) | 1;
    if (incoming != NULL && tally_trace_valid(incoming)) {
        (void)snprintf(trace->parent, sizeof trace->parent, "%.35s-%016" PRIx64 "-%.2s", incoming,
                       span, incoming + FLAGS_AT);
        return;
    }
    (void)snprintf(trace->parent, sizeof trace->parent,
                   "00-%016" PRIx64 "%016" PRIx64 "-%016" PRIx64 "-01", tally_random_next(random),
                   tally_random_next(random) | 1, span);
}

void tally_trace_id(const char *parent, char id[TALLY_TRACE_ID_BYTES])
{
    id[0] = '\0';
    if (parent == NULL || !tally_trace_valid(parent))
        return;
    memcpy(id, parent + VERSION_LENGTH, TRACE_ID_LENGTH);
    id[TRACE_ID_LENGTH] = '\0';
}
