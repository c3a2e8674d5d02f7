/*
 * Parse: what a read request asks for in its query, Prefer and If-None-Match. Pure.
 */
#ifndef TALLY_SERVICE_QUERY_PARSE_H
#define TALLY_SERVICE_QUERY_PARSE_H

#include "core/status.h"

#include <stdint.h>

/* Users one request may ask for. */
#define TALLY_QUERY_IDS_MOST 100
/* Longest wait that is granted; a longer one is cut to it. */
#define TALLY_QUERY_WAIT_MOST_SECONDS 10

/* Reads "a,b,…" into `ids`, each once, in the order of their first mention. INVALID: an id that is
 * none, no id, or more than TALLY_QUERY_IDS_MOST of them, repeated ones included. */
enum tally_status tally_query_parse_ids(const char *text, int64_t ids[TALLY_QUERY_IDS_MOST],
                                        size_t *count, struct tally_error *error) TALLY_MUST_CHECK;

/* Seconds of the preference `wait` in a Prefer field (RFC 7240 sections 2 and 4.3), cut to
 * TALLY_QUERY_WAIT_MOST_SECONDS; 0 where the field is NULL, has no such preference, or its value is
 * no number: a preference that cannot be honoured is ignored. Of several, the first counts. */
int tally_query_parse_wait(const char *prefer);

/* Whether an If-None-Match field (RFC 9110 section 13.1.2) matches the entity tag "<version>" by
 * weak comparison: then the answer is 304. False where the field is NULL or is no list of tags. */
bool tally_query_none_match(const char *field, int64_t version);

#endif
