/*
 * Precondition: reading If-Match and Idempotency-Key. Pure.
 */
#ifndef TALLY_SERVICE_COMMAND_PRECONDITION_H
#define TALLY_SERVICE_COMMAND_PRECONDITION_H

#include "core/status.h"

#include <stdint.h>

/* Reads an If-Match field (RFC 9110 section 13.1.1) of one strong entity tag, `"17"`, or `*` (0,
 * any version). INVALID for weak tags, which never match strongly, for lists, since a user has one
 * version, and for anything else. */
enum tally_status tally_if_match_parse(const char *text, int64_t *version,
                                       struct tally_error *error) TALLY_MUST_CHECK;

/* 255 characters and a terminator. */
#define TALLY_IDEMPOTENCY_KEY_BYTES 256

/* Reads an Idempotency-Key field (draft-ietf-httpapi-idempotency-key-header): 1 to 255 printable
 * ASCII characters, as they are or as a structured-field string (RFC 8941 section 3.3.3), whose
 * quotes are not part of the key. INVALID otherwise. */
enum tally_status tally_idempotency_key_parse(const char *text,
                                              char key[TALLY_IDEMPOTENCY_KEY_BYTES],
                                              struct tally_error *error) TALLY_MUST_CHECK;

#endif
