#include "store/migrate.h"

#include <string.h>

int tally_schema_version_needed(void)
{
    const struct tally_migration_set *set = tally_migrations();
    return set->count == 0 ? 0 : set->list[set->count - 1].version;
}

enum tally_status tally_migrations_compare(const struct tally_migration_set *set,
                                           const struct tally_migration_applied *applied,
                                           size_t count, size_t *done, struct tally_error *error)
{
    for (size_t i = 0; i < count; i++) {
        const struct tally_migration_applied *row = &applied[i];
        if (row->version != (int)i + 1)
            return tally_fail(error, TALLY_CONFIG,
                              "schema_migrations has no row for version %d but one for %d: the "
                              "table was edited; restore it from a backup",
                              (int)i + 1, row->version);
        if (i >= set->count)
            return tally_fail(error, TALLY_CONFIG,
                              "the database is at schema version %d, this tallyctl knows versions "
                              "up to %zu: use the tallyctl of the newer release",
                              applied[count - 1].version, set->count);
        const struct tally_migration *known = &set->list[i];
        if (strcmp(row->checksum, known->checksum) != 0)
            return tally_fail(error, TALLY_CONFIG,
                              "migration %04d_%s was applied with another text (%.12s…, here "
                              "%.12s…): put the file back as it was, changes go into a new "
                              "migration",
                              known->version, known->name, row->checksum, known->checksum);
        if (strcmp(row->name, known->name) != 0)
            return tally_fail(error, TALLY_CONFIG,
                              "migration %04d is named %s in the database and %s here: put the "
                              "file's name back",
                              known->version, row->name, known->name);
    }
    *done = count;
    return TALLY_OK;
}

int tally_migration_line(const char *sql, int position)
{
    int line = 1;
    for (int character = 1; *sql != '\0' && character < position; sql++) {
        if (*sql == '\n')
            line++;
        bool ends_character = ((unsigned char)sql[1] & 0xC0) != 0x80;
        character += ends_character;
    }
    return line;
}
