/*
 * Record: a user's whole hash as arguments of the scripts that write one. Pure.
 */
#ifndef TALLY_VIEW_RECORD_H
#define TALLY_VIEW_RECORD_H

#include "view/apply.h"

/* Puts how many arguments follow, then the names and values; returns how many were put, the first
 * included. Without TALLY_APPLY_PROFILE among the user's parts, name, email and avatar are left
 * out. What does not fit marks the buffer as failed. */
size_t tally_record_put(struct tally_buffer *out, const struct tally_apply_user *user);
/* A number as one argument; > INT64_MIN. */
void tally_record_put_number(struct tally_buffer *out, int64_t number);

#endif
