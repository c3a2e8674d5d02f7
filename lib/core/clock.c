#include "core/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const int64_t US_PER_SECOND = 1000000;
static const int64_t FIRST_SECOND = -62135596800; /* 0001-01-01T00:00:00Z */
static const int64_t LAST_SECOND = 253402300799;  /* 9999-12-31T23:59:59Z */

static int64_t now_us(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * US_PER_SECOND + now.tv_nsec / 1000;
}

int64_t tally_clock_monotonic_us(void)
{
    return now_us(CLOCK_MONOTONIC);
}

int64_t tally_clock_wall_us(void)
{
    return now_us(CLOCK_REALTIME);
}

/* Splits a time into calendar fields and the microseconds of its second. */
static int broken_down(int64_t wall_us, struct tm *fields)
{
    int64_t seconds = wall_us / US_PER_SECOND;
    int64_t rest = wall_us % US_PER_SECOND;
    if (rest < 0) {
        rest += US_PER_SECOND;
        seconds--;
    }
    if (seconds < FIRST_SECOND)
        seconds = FIRST_SECOND;
    if (seconds > LAST_SECOND)
        seconds = LAST_SECOND;
    time_t time = (time_t)seconds;
    (void)gmtime_r(&time, fields);
    return (int)rest;
}

void tally_clock_sleep_ms(int64_t milliseconds)
{
    const struct timespec pause = {.tv_sec = milliseconds / 1000,
                                   .tv_nsec = milliseconds % 1000 * 1000000};
    (void)nanosleep(&pause, NULL);
}

void tally_clock_format(int64_t wall_us, char text[TALLY_TIMESTAMP_BYTES])
{
    struct tm fields;
    int fraction = broken_down(wall_us, &fields);
    /* The modulo tells the compiler what broken_down() ensures: that each field fits its width. */
    (void)snprintf(text, TALLY_TIMESTAMP_BYTES, "%04u-%02u-%02uT%02u:%02u:%02u.%06uZ",
                   (unsigned)(fields.tm_year + 1900) % 10000, (unsigned)(fields.tm_mon + 1) % 100,
                   (unsigned)fields.tm_mday % 100, (unsigned)fields.tm_hour % 100,
                   (unsigned)fields.tm_min % 100, (unsigned)fields.tm_sec % 100,
                   (unsigned)fraction % 1000000);
}

void tally_clock_format_day(int64_t wall_us, char text[TALLY_DAY_BYTES])
{
    char whole[TALLY_TIMESTAMP_BYTES];
    tally_clock_format(wall_us, whole);
    memcpy(text, whole, TALLY_DAY_BYTES - 1);
    text[TALLY_DAY_BYTES - 1] = '\0';
}

int64_t tally_clock_parse(const char *text)
{
    struct tm fields = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &fields);
    if (rest == NULL)
        return -1;
    int64_t fraction = 0;
    if (*rest == '.') {
        int64_t unit = US_PER_SECOND / 10;
        const char *digit = rest + 1;
        for (; *digit >= '0' && *digit <= '9' && unit > 0; digit++, unit /= 10)
            fraction += (*digit - '0') * unit;
        if (digit == rest + 1)
            return -1;
        rest = digit;
    }
    if (strcmp(rest, "Z") != 0)
        return -1;
    time_t seconds = timegm(&fields);
    return seconds < 0 ? -1 : (int64_t)seconds * US_PER_SECOND + fraction;
}
