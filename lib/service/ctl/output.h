/*
 * Output: how tallyctl talks: errors, JSON, and a progress line that suits terminals and pipes.
 */
#ifndef TALLY_SERVICE_CTL_OUTPUT_H
#define TALLY_SERVICE_CTL_OUTPUT_H

#include "service/ctl/ctl.h"

#include <jansson.h>

/* The error as a line on standard error; with --json also as `{"error":{"code","text"}}` on
 * standard output. */
void tally_ctl_print_error(const struct tally_ctl *ctl, const struct tally_error *error);
/* The same, and the exit code that belongs to it: TALLY_CTL_FAILED. */
int tally_ctl_fail(const struct tally_ctl *ctl, const struct tally_error *error);
/* `{"code","text"}`; owned by the caller. */
json_t *tally_ctl_error_json(const struct tally_error *error);
/* Prints and releases `value`; NULL (no memory) becomes an error. Returns `code`, or
 * TALLY_CTL_FAILED where nothing could be printed. */
int tally_ctl_print_json(const struct tally_ctl *ctl, json_t *value, int code);

/* Puts `value`, which is taken over, at the end of the list. Without memory the list is released
 * and becomes NULL, as does then what is packed around it: no result rather than a part of one. */
void tally_ctl_json_append(json_t **list, json_t *value);
/* The same for a member of an object. */
void tally_ctl_json_set(json_t **object, const char *name, json_t *value);

/* Progress on standard error: on a terminal one line that is rewritten each second, in a pipe a
 * whole line every 5 s. */
struct tally_progress {
    const char *what; /* "verifying" */
    const char *unit; /* "users" */
    int64_t total;    /* 0: unknown, no ETA is shown */
    int64_t start_us; /* monotonic */
    int64_t next_us;  /* when the next line is due */
    bool terminal;
    bool shown; /* the terminal's line holds something */
};

void tally_progress_start(struct tally_progress *progress, const char *what, const char *unit,
                          int64_t total);
/* Shows `done` of the total, the rate and the time left, and `more` (may be ""), when it is time
 * to. */
void tally_progress_show(struct tally_progress *progress, int64_t done, const char *more);
/* Clears the terminal's line. Any number of times. */
void tally_progress_end(struct tally_progress *progress);

/* "12.3 s", "4 min 05 s", "3.2 days"; for people. */
#define TALLY_DURATION_BYTES 32
void tally_ctl_format_duration(double seconds, char text[TALLY_DURATION_BYTES]);
/* 1234567 as "1,234,567". */
#define TALLY_NUMBER_BYTES 32
const char *tally_ctl_format_number(int64_t value, char text[TALLY_NUMBER_BYTES]);

#endif
