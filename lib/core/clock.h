/*
 * Clock: the two times a program needs, and the text form of one of them. Any thread.
 */
#ifndef TALLY_CORE_CLOCK_H
#define TALLY_CORE_CLOCK_H

#include <stdint.h>

/* Microseconds that only ever go forward (CLOCK_MONOTONIC); for durations and deadlines. */
int64_t tally_clock_monotonic_us(void);
/* Microseconds since 1970-01-01T00:00:00Z; may jump. */
int64_t tally_clock_wall_us(void);

/* Waits in the calling thread; a signal ends it early. */
void tally_clock_sleep_ms(int64_t milliseconds);

/* Bytes of "2026-11-22T19:53:31.123456Z" with its terminator, and of "2026-11-22". */
#define TALLY_TIMESTAMP_BYTES 28
#define TALLY_DAY_BYTES 11

/* RFC 3339 in UTC with microseconds. Times outside the years 0001–9999 become the nearest bound. */
void tally_clock_format(int64_t wall_us, char text[TALLY_TIMESTAMP_BYTES]);
/* The UTC day of a time, likewise bounded. */
void tally_clock_format_day(int64_t wall_us, char text[TALLY_DAY_BYTES]);
/* Reads what tally_clock_format() writes ("…Z", with no fraction or one of 1 to 6 digits); -1 where
 * the text is anything else or before 1970. */
int64_t tally_clock_parse(const char *text);

#endif
