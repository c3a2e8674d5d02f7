/*
 * Command: writes Redis commands in the form of the protocol (RESP2 arrays of bulk strings,
 * https://redis.io/docs/reference/protocol-spec/) into a buffer, without a format string on the
 * hot path. Pure.
 */
#ifndef TALLY_REDIS_COMMAND_H
#define TALLY_REDIS_COMMAND_H

#include "core/buffer.h"

/* Begins a command of `arguments` parts, its name among them; that many tally_redis_part() follow.
 * What does not fit marks the buffer as failed. */
void tally_redis_command(struct tally_buffer *out, size_t arguments);
void tally_redis_part(struct tally_buffer *out, const char *bytes, size_t length);
void tally_redis_part_text(struct tally_buffer *out, const char *text);

#endif
