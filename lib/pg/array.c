#include "pg/array.h"

#include <arpa/inet.h>
#include <endian.h>
#include <limits.h>
#include <string.h>

/* Dimensions, whether there are NULLs, element type, then length and lower bound of the dimension:
 * five big-endian 32-bit numbers. */
enum { HEADER_BYTES = 20 };

static const Oid element_types[] = {
#define X(name, element) [TALLY_PG_ARRAY_##name] = (element),
    TALLY_PG_ARRAY_LIST(X)
#undef X
};

void tally_pg_array_init(struct tally_pg_array *array, enum tally_pg_array_type type, size_t limit)
{
    *array = (struct tally_pg_array){.type = type};
    tally_buffer_init(&array->bytes, limit < INT_MAX ? limit : INT_MAX);
}

void tally_pg_array_release(struct tally_pg_array *array)
{
    tally_buffer_release(&array->bytes);
    array->count = 0;
    array->has_null = false;
}

void tally_pg_array_clear(struct tally_pg_array *array)
{
    tally_buffer_clear(&array->bytes);
    array->count = 0;
    array->has_null = false;
}

static void append_element(struct tally_pg_array *array, const void *bytes, int32_t length)
{
    if (array->count == 0) {
        static const char header[HEADER_BYTES];
        tally_buffer_append(&array->bytes, header, sizeof header);
    }
    uint32_t prefix = htonl((uint32_t)length);
    tally_buffer_append(&array->bytes, &prefix, sizeof prefix);
    if (length > 0)
        tally_buffer_append(&array->bytes, bytes, (size_t)length);
    array->count++;
}

void tally_pg_array_append_null(struct tally_pg_array *array)
{
    array->has_null = true;
    append_element(array, NULL, -1);
}

void tally_pg_array_append_integer(struct tally_pg_array *array, int64_t value)
{
    if (array->type == TALLY_PG_ARRAY_INT8) {
        uint64_t big = htobe64((uint64_t)value);
        append_element(array, &big, sizeof big);
    } else if (array->type == TALLY_PG_ARRAY_INT2 && value >= INT16_MIN && value <= INT16_MAX) {
        uint16_t big = htons((uint16_t)value);
        append_element(array, &big, sizeof big);
    } else {
        array->bytes.failed = true;
    }
}

void tally_pg_array_append_bytes(struct tally_pg_array *array, const void *bytes, size_t length)
{
    if (bytes == NULL)
        tally_pg_array_append_null(array);
    else if (length > INT_MAX ||
             (array->type != TALLY_PG_ARRAY_TEXT && array->type != TALLY_PG_ARRAY_BYTEA))
        array->bytes.failed = true;
    else
        append_element(array, bytes, (int32_t)length);
}

void tally_pg_array_append_text(struct tally_pg_array *array, const char *text)
{
    tally_pg_array_append_bytes(array, text, text != NULL ? strlen(text) : 0);
}

const char *tally_pg_array_value(struct tally_pg_array *array, int *length)
{
    /* An empty array has no dimension and so no dimension's length and bound. */
    uint32_t header[] = {
        htonl(array->count > 0),
        htonl(array->has_null),
        htonl(element_types[array->type]),
        htonl((uint32_t)array->count),
        htonl(1),
    };
    _Static_assert(sizeof header == HEADER_BYTES, "five numbers");
    if (array->count == 0 && array->bytes.length == 0)
        tally_buffer_append(&array->bytes, header, 3 * sizeof header[0]);
    else if (!array->bytes.failed)
        memcpy(array->bytes.data, header, sizeof header);
    *length = (int)array->bytes.length;
    return array->bytes.failed ? NULL : array->bytes.data;
}
