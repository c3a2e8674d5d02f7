#include "core/log.h"

#include "core/buffer.h"
#include "core/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { LINE_LIMIT_BYTES = 8192 };

static const char *const level_texts[TALLY_LOG_LEVEL_COUNT] = {
#define X(name, text) [TALLY_LOG_##name] = (text),
    TALLY_LOG_LEVEL_LIST(X)
#undef X
};

/* The one process-wide state of core: whoever can log must not need a handle for it. */
static const char *log_service = "tally";
static atomic_int log_least = TALLY_LOG_INFO;

void tally_log_start(const char *service, enum tally_log_level least)
{
    log_service = service;
    tally_log_set_level(least);
}

void tally_log_set_level(enum tally_log_level least)
{
    atomic_store_explicit(&log_least, (int)least, memory_order_relaxed);
}

bool tally_log_parse_level(const char *text, enum tally_log_level *level)
{
    for (int i = 0; i < TALLY_LOG_LEVEL_COUNT; i++) {
        if (strcasecmp(text, level_texts[i]) == 0) {
            *level = (enum tally_log_level)i;
            return true;
        }
    }
    return false;
}

static void append_field(struct tally_buffer *line, const struct tally_log_field *field)
{
    tally_buffer_append_char(line, ',');
    tally_buffer_append_json(line, field->name, strlen(field->name));
    tally_buffer_append_char(line, ':');
    if (field->kind == TALLY_LOG_INTEGER)
        tally_buffer_append_integer(line, field->integer);
    else if (field->kind == TALLY_LOG_REAL)
        tally_buffer_format(line, "%.6g", field->real);
    else if (field->text != NULL)
        tally_buffer_append_json(line, field->text, strlen(field->text));
    else
        tally_buffer_append_text(line, "null");
}

void tally_log_write(enum tally_log_level level, const char *event,
                     const struct tally_log_field *fields)
{
    if ((int)level < atomic_load_explicit(&log_least, memory_order_relaxed))
        return;
    char now[TALLY_TIMESTAMP_BYTES];
    tally_clock_format(tally_clock_wall_us(), now);
    struct tally_buffer line;
    tally_buffer_init(&line, LINE_LIMIT_BYTES);
    tally_buffer_format(&line,
                        "{\"time\":\"%s\",\"level\":\"%s\",\"service\":\"%s\",\"event\":\"%s\"",
                        now, level_texts[level], log_service, event);
    for (; fields->kind != TALLY_LOG_END; fields++)
        append_field(&line, fields);
    tally_buffer_append_text(&line, "}\n");
    const char *bytes = line.data;
    size_t length = line.length;
    /* A line that is too long or finds no memory must still say that something happened. */
    static const char lost[] = "{\"level\":\"error\",\"event\":\"log.line_lost\"}\n";
    if (line.failed) {
        bytes = lost;
        length = sizeof lost - 1;
    }
    /* There is nowhere to report a failed write of the log to. */
    ssize_t written = write(STDERR_FILENO, bytes, length);
    (void)written;
    tally_buffer_release(&line);
}

void tally_log_error(enum tally_log_level level, const char *event, const struct tally_error *error)
{
    tally_log(level, event, TALLY_TEXT("code", tally_status_slug(error->status)),
              TALLY_TEXT("cause", error->text));
}

bool tally_log_allow(struct tally_log_limit *limit, int64_t interval_ms, int64_t *suppressed)
{
    int64_t now_us = tally_clock_monotonic_us();
    if (now_us < limit->next_us) {
        limit->suppressed++;
        return false;
    }
    *suppressed = limit->suppressed;
    limit->suppressed = 0;
    limit->next_us = now_us + interval_ms * 1000;
    return true;
}

bool tally_log_news(struct tally_log_repeat *repeat, const char *cause, int64_t *suppressed)
{
    const int64_t other_us = 1000000;
    const int64_t same_us = 30000000;
    const int64_t now_us = tally_clock_monotonic_us();
    const bool same = strncmp(repeat->cause, cause, sizeof repeat->cause - 1) == 0;
    if (repeat->said_us != 0 && now_us - repeat->said_us < (same ? same_us : other_us)) {
        repeat->suppressed++;
        return false;
    }
    *suppressed = repeat->suppressed;
    *repeat = (struct tally_log_repeat){.said_us = now_us};
    (void)snprintf(repeat->cause, sizeof repeat->cause, "%s", cause);
    return true;
}
