#include "store/closed_letters.h"

#include "pg/blocking.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { NUMBER_BYTES = 24 };
enum column { PARTITION, OFFSET, WRITTEN_AT, ACTION, REASON, CLOSED_AT };

static const char read_sql[] =
    "select partition, record_offset, written_at_ms, action, reason,"
    " to_char(closed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    " from closed_dead_letters where topic = $1 order by partition, record_offset";

/* A row of a letter that lay at this offset in an earlier topic is not this letter's. */
static const char add_sql[] =
    "insert into closed_dead_letters as c (topic, partition, record_offset, written_at_ms, action,"
    " reason) values ($1, $2::integer, $3::bigint, $4::bigint, $5, $6)"
    " on conflict (topic, partition, record_offset) do update set"
    " written_at_ms = excluded.written_at_ms, action = excluded.action, reason = excluded.reason,"
    " closed_at = excluded.closed_at where c.written_at_ms <> excluded.written_at_ms";

static int64_t number(const PGresult *rows, int row, int column)
{
    return strtoll(PQgetvalue(rows, row, column), NULL, 10);
}

enum tally_status tally_closed_letters_read(PGconn *connection, const char *topic,
                                            struct tally_closed_letters *letters,
                                            struct tally_error *error)
{
    const char *const values[] = {topic};
    *letters = (struct tally_closed_letters){0};
    enum tally_status status =
        tally_pg_exec(connection, read_sql, 1, values, PGRES_TUPLES_OK, &letters->rows, error);
    if (status == TALLY_OK)
        letters->count = PQntuples(letters->rows);
    return status;
}

void tally_closed_letters_clear(struct tally_closed_letters *letters)
{
    PQclear(letters->rows);
    *letters = (struct tally_closed_letters){0};
}

bool tally_closed_letters_find(const struct tally_closed_letters *letters,
                               const struct tally_letter_place *place,
                               struct tally_closed_letter *found)
{
    int low = 0, high = letters->count;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        const int64_t partition = number(letters->rows, middle, PARTITION);
        const int64_t offset = number(letters->rows, middle, OFFSET);
        if (partition < place->partition ||
            (partition == place->partition && offset < place->offset))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == letters->count || number(letters->rows, low, PARTITION) != place->partition ||
        number(letters->rows, low, OFFSET) != place->offset ||
        number(letters->rows, low, WRITTEN_AT) != place->written_at_ms)
        return false;
    *found = (struct tally_closed_letter){
        .place = *place,
        .action = PQgetvalue(letters->rows, low, ACTION),
        .reason = PQgetvalue(letters->rows, low, REASON),
        .closed_at = PQgetvalue(letters->rows, low, CLOSED_AT),
    };
    return true;
}

enum tally_status tally_closed_letters_add(PGconn *connection, const char *topic,
                                           const struct tally_letter_place *place,
                                           const char *action, const char *reason,
                                           struct tally_error *error)
{
    char partition[NUMBER_BYTES], offset[NUMBER_BYTES], written_at[NUMBER_BYTES];
    (void)snprintf(partition, sizeof partition, "%" PRId32, place->partition);
    (void)snprintf(offset, sizeof offset, "%" PRId64, place->offset);
    (void)snprintf(written_at, sizeof written_at, "%" PRId64, place->written_at_ms);
    const char *const values[] = {topic, partition, offset, written_at, action, reason};
    return tally_pg_exec(connection, add_sql, 6, values, PGRES_COMMAND_OK, NULL, error);
}
