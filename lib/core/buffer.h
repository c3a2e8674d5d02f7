/*
 * Buffer: a growable run of bytes with an upper bound.
 *
 * Appends do not return a status: the first one that cannot be met (limit or memory) sets `failed`,
 * later ones do nothing, and the owner looks once at the end. A buffer belongs to one thread.
 */
#ifndef TALLY_CORE_BUFFER_H
#define TALLY_CORE_BUFFER_H

#include "core/status.h"

#include <stdint.h>

struct tally_buffer {
    char *data;      /* owned; not terminated, see tally_buffer_text() */
    size_t length;   /* bytes in use */
    size_t capacity; /* bytes allocated */
    size_t limit;    /* bytes it may grow to */
    bool failed;     /* an append did not fit or found no memory */
};

/* Allocates nothing yet. `limit` in bytes, > 0. */
void tally_buffer_init(struct tally_buffer *buffer, size_t limit);
/* Frees the bytes; the buffer may be used again as if newly initialised. */
void tally_buffer_release(struct tally_buffer *buffer);
/* Empties it and clears `failed`, keeping the allocation. */
void tally_buffer_clear(struct tally_buffer *buffer);

void tally_buffer_append(struct tally_buffer *buffer, const void *bytes, size_t length);
void tally_buffer_append_text(struct tally_buffer *buffer, const char *text);
void tally_buffer_append_char(struct tally_buffer *buffer, char byte);
void tally_buffer_append_integer(struct tally_buffer *buffer, int64_t value);
void tally_buffer_format(struct tally_buffer *buffer, const char *format, ...) TALLY_PRINTF(2, 3);
/* Appends `text` as a JSON string with its quotes. Bytes that are not valid UTF-8 become U+FFFD, so
 * that the result is always valid JSON (RFC 8259 section 7). */
void tally_buffer_append_json(struct tally_buffer *buffer, const char *text, size_t length);

/* Makes room for `length` more bytes and returns where they go, or NULL (and `failed` is set). The
 * caller writes there and then adds to `length`. */
char *tally_buffer_reserve(struct tally_buffer *buffer, size_t length);
/* The bytes as a terminated string, valid until the next change; "" where the terminator found no
 * memory (and `failed` is set). */
const char *tally_buffer_text(struct tally_buffer *buffer);

#endif
