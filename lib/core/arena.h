/*
 * Arena: memory that is given out piece by piece and taken back all at once; one for each request.
 *
 * Bounded: an allocation that would take the arena over its limit fails as if memory had run out.
 * An arena belongs to one thread.
 */
#ifndef TALLY_CORE_ARENA_H
#define TALLY_CORE_ARENA_H

#include "core/status.h"

struct tally_arena_block;

struct tally_arena {
    struct tally_arena_block *blocks; /* newest first */
    size_t used;                      /* bytes taken from the system */
    size_t limit;                     /* bytes it may take */
};

void tally_arena_init(struct tally_arena *arena, size_t limit);
/* Frees everything; the arena may be used again. */
void tally_arena_release(struct tally_arena *arena);
/* Takes back everything given out but keeps one block, so that the next request need not ask the
 * system for memory. */
void tally_arena_reset(struct tally_arena *arena);

/* `size` bytes, zeroed, aligned for any type, valid until the next release or reset; NULL where
 * there is no memory or the limit is reached. */
void *tally_arena_allocate(struct tally_arena *arena, size_t size) TALLY_MUST_CHECK;
/* A terminated copy of `length` bytes of `text`; NULL as above. */
char *tally_arena_copy(struct tally_arena *arena, const char *text, size_t length) TALLY_MUST_CHECK;

#endif
