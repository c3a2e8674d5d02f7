/*
 * Array: a one-dimensional PostgreSQL array in binary format, built element by element, as a
 * statement's parameter (array_recv() in src/backend/utils/adt/arrayfuncs.c).
 *
 * Like a buffer, an array fails once and stays failed; the owner looks at the end. One thread.
 */
#ifndef TALLY_PG_ARRAY_H
#define TALLY_PG_ARRAY_H

#include "core/buffer.h"

#include <libpq-fe.h>

#define TALLY_PG_ARRAY_LIST(X) \
    X(INT2, 21)                \
    X(INT8, 20)                \
    X(TEXT, 25)                \
    X(BYTEA, 17)

enum tally_pg_array_type {
#define X(name, element) TALLY_PG_ARRAY_##name,
    TALLY_PG_ARRAY_LIST(X)
#undef X
        TALLY_PG_ARRAY_TYPE_COUNT
};

struct tally_pg_array {
    enum tally_pg_array_type type;
    struct tally_buffer bytes;
    int32_t count;
    bool has_null;
};

/* Allocates nothing yet; `limit` in bytes for the whole array. */
void tally_pg_array_init(struct tally_pg_array *array, enum tally_pg_array_type type, size_t limit);
void tally_pg_array_release(struct tally_pg_array *array);
/* Empties it, keeping the allocation. */
void tally_pg_array_clear(struct tally_pg_array *array);

void tally_pg_array_append_null(struct tally_pg_array *array);
/* For INT2 and INT8; a number that does not fit makes the array fail. */
void tally_pg_array_append_integer(struct tally_pg_array *array, int64_t value);
/* For TEXT and BYTEA; NULL appends SQL NULL. */
void tally_pg_array_append_bytes(struct tally_pg_array *array, const void *bytes, size_t length);
void tally_pg_array_append_text(struct tally_pg_array *array, const char *text);

/* Ends the building: the array as parameter value, valid until it is cleared or released; NULL
 * where it failed. `length` receives its bytes. */
const char *tally_pg_array_value(struct tally_pg_array *array, int *length);

#endif
