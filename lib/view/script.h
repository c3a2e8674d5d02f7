/*
 * Script: the Lua scripts of schema/redis/, built into the program, and their way into a server.
 */
#ifndef TALLY_VIEW_SCRIPT_H
#define TALLY_VIEW_SCRIPT_H

#include "redis/connection.h"

/* Hex digits of a SHA-1 and a terminator. */
#define TALLY_SCRIPT_SHA_BYTES 41

/* The texts, terminated, for the life of the program. */
extern const char tally_script_apply[];
extern const char tally_script_change_position[];
extern const char tally_script_copy_active[];
extern const char tally_script_claim_position[];
extern const char tally_script_create_position[];
extern const char tally_script_remove_position[];
extern const char tally_script_fill[];
extern const char tally_script_repair[];
extern const char tally_script_switch_generation[];
extern const char tally_script_with_lease[];

/* SCRIPT LOAD: the server keeps the script until it restarts or SCRIPT FLUSH, and `sha` names it in
 * EVALSHA. No replies may be outstanding. */
enum tally_status tally_script_load(struct tally_redis *redis, const char *script,
                                    char sha[TALLY_SCRIPT_SHA_BYTES],
                                    struct tally_error *error) TALLY_MUST_CHECK;

#endif
