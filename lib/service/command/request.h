/*
 * Request: the bodies of the write API as tables of fields, and their check. Pure.
 */
#ifndef TALLY_SERVICE_COMMAND_REQUEST_H
#define TALLY_SERVICE_COMMAND_REQUEST_H

#include "core/arena.h"
#include "store/command.h"

#include <jansson.h>

enum tally_field_form {
    TALLY_FIELD_LINE,  /* text without control characters */
    TALLY_FIELD_TEXT,  /* text, which may hold line breaks and tabs */
    TALLY_FIELD_EMAIL, /* a line of the shape local@domain without blanks */
    TALLY_FIELD_ID,    /* an id, as a string */
};

struct tally_field {
    const char *name;
    enum tally_field_form form;
    bool required;
    bool nullable;      /* null means: none */
    size_t least, most; /* characters, not bytes */
    size_t offset;      /* in struct tally_command: of a const char *, for an ID of an int64_t */
};

struct tally_body {
    const struct tally_field *fields;
    size_t count;
    /* Each field may be left out, but one must be there; a null then means "remove it", which
     * struct tally_command writes as "". */
    bool partial;
};

/* By kind; count 0 where the request has no body. */
extern const struct tally_body tally_bodies[TALLY_COMMAND_KIND_COUNT];

/* Checks `object` against the body of command->kind and fills the command's fields; their texts are
 * copied into `arena`. INVALID names the field: unknown, missing, of the wrong type, length or
 * form; NO_MEMORY. */
enum tally_status tally_request_read(const json_t *object, struct tally_arena *arena,
                                     struct tally_command *command,
                                     struct tally_error *error) TALLY_MUST_CHECK;

#endif
