/*
 * Log: JSON lines on standard error, one line an event, for services only.
 *
 * A line is `{"time":…,"level":…,"service":…,"event":…, fields…}`. Event names are stable, dotted
 * and short ("relay.leading"); what changes from line to line is a field. Lines are written with
 * one write(2) each, so that threads and processes do not mix them. No bodies, no tokens, no
 * e-mails.
 */
#ifndef TALLY_CORE_LOG_H
#define TALLY_CORE_LOG_H

#include "core/status.h"

#include <stdint.h>

#define TALLY_LOG_LEVEL_LIST(X) \
    X(DEBUG, "debug") X(INFO, "info") X(WARNING, "warning") X(ERROR, "error")

enum tally_log_level {
#define X(name, text) TALLY_LOG_##name,
    TALLY_LOG_LEVEL_LIST(X)
#undef X
        TALLY_LOG_LEVEL_COUNT
};

enum tally_log_kind { TALLY_LOG_END, TALLY_LOG_TEXT, TALLY_LOG_INTEGER, TALLY_LOG_REAL };

struct tally_log_field {
    const char *name;
    enum tally_log_kind kind;
    const char *text; /* NULL is written as null */
    int64_t integer;
    double real;
};

#define TALLY_TEXT(name, value)               \
    {                                         \
        (name), TALLY_LOG_TEXT, (value), 0, 0 \
    }
#define TALLY_INTEGER(name, value)                           \
    {                                                        \
        (name), TALLY_LOG_INTEGER, NULL, (int64_t)(value), 0 \
    }
#define TALLY_REAL(name, value)                          \
    {                                                    \
        (name), TALLY_LOG_REAL, NULL, 0, (double)(value) \
    }

/* tally_log(TALLY_LOG_INFO, "relay.leading", TALLY_INTEGER("epoch", epoch)); any thread. */
#define tally_log(level, event, ...)  \
    tally_log_write((level), (event), \
                    (const struct tally_log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}})

/* Before any thread logs. `service` must outlive the process. */
void tally_log_start(const char *service, enum tally_log_level least);
/* Any thread; for the reload of TALLY_LOG_LEVEL. */
void tally_log_set_level(enum tally_log_level least);
/* False where `text` names no level. */
bool tally_log_parse_level(const char *text, enum tally_log_level *level);
void tally_log_write(enum tally_log_level level, const char *event,
                     const struct tally_log_field *fields);
/* One line with the status' slug and the error's text. */
void tally_log_error(enum tally_log_level level, const char *event,
                     const struct tally_error *error);

/* At most one line an interval of something that may repeat quickly; the next line says how many
 * were held back, in the field "suppressed". Zero-initialised, one for each place that logs. */
struct tally_log_limit {
    int64_t next_us; /* monotonic */
    int64_t suppressed;
};

/* True when a line may be written now; `suppressed` receives how many were not since the last. */
bool tally_log_allow(struct tally_log_limit *limit, int64_t interval_ms, int64_t *suppressed);

/* The same for something that goes on failing with a cause: a line where the cause is another than
 * the last one's, but not within a second of it, or where 30 s have gone by. Zero-initialised. */
struct tally_log_repeat {
    int64_t said_us; /* monotonic; 0: never */
    int64_t suppressed;
    char cause[TALLY_ERROR_TEXT_BYTES];
};

bool tally_log_news(struct tally_log_repeat *repeat, const char *cause, int64_t *suppressed);

#endif
