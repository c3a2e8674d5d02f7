/*
 * Id: the 63-bit, time-ordered numbers the database hands out (milliseconds since 2024-01-01 in 41
 * bits, shard in 10, sequence in 12), and their decimal text, which is how JSON and Kafka keys
 * carry them. Any thread.
 */
#ifndef TALLY_CORE_ID_H
#define TALLY_CORE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Digits of INT64_MAX and a terminator. */
#define TALLY_ID_TEXT_BYTES 20

/* Reads exactly `length` bytes as a positive id without sign, spaces or leading zero; false where
 * they are anything else. */
bool tally_id_parse(const char *text, size_t length, int64_t *id);
/* Writes the decimal text; returns its length without the terminator. `id` >= 0. */
size_t tally_id_format(int64_t id, char text[TALLY_ID_TEXT_BYTES]);

#endif
