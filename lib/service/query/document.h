/*
 * Document: the JSON of the read API. Pure.
 */
#ifndef TALLY_SERVICE_QUERY_DOCUMENT_H
#define TALLY_SERVICE_QUERY_DOCUMENT_H

#include "core/buffer.h"
#include "view/lookup.h"

/* Appends {"user":{"id","name","email","avatar"},"postCount","commentCount","version"}, and
 * "degraded":true where the user is flagged. */
void tally_query_append_user(struct tally_buffer *out, const struct tally_lookup_user *user);

/* Appends totals, actives, freshness and the partitions. A time that no projector has told is null.
 * `now_ms`: wall clock. */
void tally_query_append_stats(struct tally_buffer *out, const struct tally_lookup_stats *stats,
                              int64_t now_ms);

/* Milliseconds since the projector last held all that Kafka had for a partition, not below 0; -1
 * where that is not known. */
int64_t tally_query_lag_ms(int64_t fresh_at_ms, int64_t now_ms);

#endif
