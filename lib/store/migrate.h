/*
 * Migrate: brings a database's schema forward, one numbered migration after the other, and tells
 * whether a database has the schema this build needs.
 *
 * Migrations come from schema/postgres/NNNN_name.sql, embedded at build time. Each runs in one
 * transaction together with its row in schema_migrations, so that it is there whole or not at all.
 * There is no way back: an applied migration never changes, a mistake is put right by the next one.
 */
#ifndef TALLY_STORE_MIGRATE_H
#define TALLY_STORE_MIGRATE_H

#include "core/status.h"

#include <libpq-fe.h>
#include <stddef.h>
#include <stdint.h>

/* 64 hexadecimal digits of a SHA-256 and a terminator. */
#define TALLY_MIGRATION_CHECKSUM_BYTES 65
#define TALLY_MIGRATION_NAME_BYTES 128
/* Applied migrations beyond this are refused as a database that is newer than any build. */
#define TALLY_MIGRATIONS_MOST 10000

struct tally_migration {
    int version; /* from 1, without gaps */
    const char *name;
    const char *sql;      /* UTF-8, terminated; may hold several statements, but no COMMIT */
    const char *checksum; /* SHA-256 of the file, lower-case hexadecimal */
};

struct tally_migration_set {
    const struct tally_migration *list; /* by version */
    size_t count;
};

/* What this build carries; static. */
const struct tally_migration_set *tally_migrations(void);

/* The version a database must have at least for this build to work with it: that of the last
 * embedded migration. A service is ready when the number that TALLY_SCHEMA_VERSION_SQL returns
 * (one row, one column) is not less. On a database that was never migrated the statement fails with
 * SQLSTATE 42P01 (undefined_table), which means 0. */
int tally_schema_version_needed(void);
#define TALLY_SCHEMA_VERSION_SQL "select coalesce(max(version), 0) from schema_migrations"

/* A row of schema_migrations. */
struct tally_migration_applied {
    int version;
    char name[TALLY_MIGRATION_NAME_BYTES];
    char checksum[TALLY_MIGRATION_CHECKSUM_BYTES];
    char applied_at[40]; /* as PostgreSQL prints it */
    int64_t duration_ms;
};

/* Pure: how many migrations of `set` are applied already, given the `count` rows in order of
 * version. CONFIG, with what to do, where a checksum or name is another than that of `set`, a row
 * is missing in the middle, or the database is newer than `set`. */
enum tally_status tally_migrations_compare(const struct tally_migration_set *set,
                                           const struct tally_migration_applied *applied,
                                           size_t count, size_t *done,
                                           struct tally_error *error) TALLY_MUST_CHECK;
/* Pure: the line (from 1) of a character position (from 1, as PostgreSQL reports it) in UTF-8. */
int tally_migration_line(const char *sql, int position);

/* Reads schema_migrations in order of version; no rows where the table is absent. `*applied` is the
 * caller's, who frees it by free(); NULL where there are none. */
enum tally_status tally_migrations_read(PGconn *connection,
                                        struct tally_migration_applied **applied, size_t *count,
                                        struct tally_error *error) TALLY_MUST_CHECK;

struct tally_migrate_options {
    int wait_ms; /* longest wait for another migrate to end, and for the lock of a table */
    /* After each migration that was applied; may be NULL. */
    void (*on_applied)(void *context, const struct tally_migration *migration, int64_t duration_ms);
    void *context;
};

/* Applies what is missing, under a session advisory lock that makes a second caller wait, then find
 * nothing to do. `*applied` receives how many were applied by this call. OVERLOADED: another
 * migrate held the lock, or a transaction held a table, for longer than `wait_ms`; CONFIG: as
 * tally_migrations_compare(); otherwise the failure of the SQL, with file and line. After a failure
 * all migrations before the failed one stay applied. The connection is the caller's, stays usable
 * and keeps its lock_timeout. */
enum tally_status tally_migrate(PGconn *connection, const struct tally_migration_set *set,
                                const struct tally_migrate_options *options, size_t *applied,
                                struct tally_error *error) TALLY_MUST_CHECK;

#endif
