#include "core/arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 4096 };

struct tally_arena_block {
    struct tally_arena_block *next;
    size_t size; /* bytes in `bytes` */
    size_t used;
    alignas(max_align_t) char bytes[];
};

void tally_arena_init(struct tally_arena *arena, size_t limit)
{
    *arena = (struct tally_arena){.limit = limit};
}

void tally_arena_release(struct tally_arena *arena)
{
    while (arena->blocks != NULL) {
        struct tally_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    arena->used = 0;
}

void tally_arena_reset(struct tally_arena *arena)
{
    struct tally_arena_block *kept = arena->blocks;
    if (kept == NULL)
        return;
    arena->blocks = kept->next;
    tally_arena_release(arena);
    kept->next = NULL;
    kept->used = 0;
    arena->blocks = kept;
    arena->used = kept->size;
}

void *tally_arena_allocate(struct tally_arena *arena, size_t size)
{
    const size_t mask = alignof(max_align_t) - 1;
    if (size > arena->limit)
        return NULL;
    size = (size + mask) & ~mask;
    struct tally_arena_block *block = arena->blocks;
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > BLOCK_BYTES ? size : BLOCK_BYTES;
        if (room > arena->limit - arena->used)
            room = size;
        if (room > arena->limit - arena->used)
            return NULL;
        block = malloc(sizeof *block + room);
        if (block == NULL)
            return NULL;
        *block = (struct tally_arena_block){.next = arena->blocks, .size = room};
        arena->blocks = block;
        arena->used += room;
    }
    void *memory = block->bytes + block->used;
    block->used += size;
    memset(memory, 0, size);
    return memory;
}

char *tally_arena_copy(struct tally_arena *arena, const char *text, size_t length)
{
    char *copy = tally_arena_allocate(arena, length + 1);
    if (copy != NULL && length > 0)
        memcpy(copy, text, length);
    return copy;
}
