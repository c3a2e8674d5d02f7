/*
 * Migrate hint: what to tell an operator whose database does not exist yet.
 */
#ifndef TALLY_STORE_MIGRATE_HINT_H
#define TALLY_STORE_MIGRATE_HINT_H

#include <stdbool.h>
#include <stddef.h>

/* Asks the server that `dsn` names whether its database exists. True where the server answers and
 * there is none: `hint` then holds a sentence with the command that makes it. Blocks up to 10 s. */
bool tally_migrate_hint(const char *dsn, char *hint, size_t hint_bytes);

#endif
