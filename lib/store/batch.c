#include "store/batch.h"

#include "pg/session.h"

#include <string.h>

/* Columns in the order of apply_commands() in schema/postgres/0003_commands.sql. */
#define COLUMN_LIST(X)     \
    X(OP, INT2)            \
    X(USER_ID, INT8)       \
    X(TARGET_ID, INT8)     \
    X(IF_MATCH, INT8)      \
    X(NAME, TEXT)          \
    X(EMAIL, TEXT)         \
    X(AVATAR, TEXT)        \
    X(TITLE, TEXT)         \
    X(BODY, TEXT)          \
    X(CALLER, TEXT)        \
    X(KEY, TEXT)           \
    X(REQUEST_HASH, BYTEA) \
    X(TRACEPARENT, TEXT)

enum column {
#define X(name, type) COLUMN_##name,
    COLUMN_LIST(X)
#undef X
        COLUMN_COUNT
};
_Static_assert(COLUMN_COUNT == TALLY_BATCH_COLUMNS, "one array for each parameter");

static const enum tally_pg_array_type column_types[] = {
#define X(name, type) [COLUMN_##name] = TALLY_PG_ARRAY_##type,
    COLUMN_LIST(X)
#undef X
};

const struct tally_pg_statement tally_batch_statement = {
    .sql = "SELECT ord, outcome, replayed, id, user_of, version FROM apply_commands($1::int2[],"
           " $2::int8[], $3::int8[], $4::int8[], $5::text[], $6::text[], $7::text[], $8::text[],"
           " $9::text[], $10::text[], $11::text[], $12::bytea[], $13::text[])",
    .parameter_count = TALLY_BATCH_COLUMNS,
};

void tally_batch_parameters_init(struct tally_batch_parameters *parameters, size_t bytes)
{
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        tally_pg_array_init(&parameters->columns[i], column_types[i], bytes);
        parameters->formats[i] = 1;
    }
}

void tally_batch_parameters_release(struct tally_batch_parameters *parameters)
{
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        tally_pg_array_release(&parameters->columns[i]);
}

static void append_id(struct tally_pg_array *array, int64_t id)
{
    if (id != 0)
        tally_pg_array_append_integer(array, id);
    else
        tally_pg_array_append_null(array);
}

static void append_command(struct tally_pg_array *columns, const struct tally_command *command)
{
    const char *key = command->idempotency_key;
    tally_pg_array_append_integer(&columns[COLUMN_OP], (int64_t)command->kind);
    append_id(&columns[COLUMN_USER_ID], command->user_id);
    append_id(&columns[COLUMN_TARGET_ID], command->target_id);
    append_id(&columns[COLUMN_IF_MATCH], command->if_match);
    tally_pg_array_append_text(&columns[COLUMN_NAME], command->name);
    tally_pg_array_append_text(&columns[COLUMN_EMAIL], command->email);
    tally_pg_array_append_text(&columns[COLUMN_AVATAR], command->avatar);
    tally_pg_array_append_text(&columns[COLUMN_TITLE], command->title);
    tally_pg_array_append_text(&columns[COLUMN_BODY], command->body);
    tally_pg_array_append_text(&columns[COLUMN_CALLER], command->caller);
    tally_pg_array_append_text(&columns[COLUMN_KEY], key);
    tally_pg_array_append_bytes(&columns[COLUMN_REQUEST_HASH],
                                key != NULL ? command->request_hash : NULL,
                                sizeof command->request_hash);
    tally_pg_array_append_text(&columns[COLUMN_TRACEPARENT], command->traceparent);
}

enum tally_status tally_batch_parameters_fill(struct tally_batch_parameters *parameters,
                                              struct tally_queued *const *commands, size_t count,
                                              struct tally_error *error)
{
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        tally_pg_array_clear(&parameters->columns[i]);
    for (size_t i = 0; i < count; i++)
        append_command(parameters->columns, commands[i]->command);
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        parameters->values[i] =
            tally_pg_array_value(&parameters->columns[i], &parameters->lengths[i]);
        if (parameters->values[i] == NULL)
            return tally_fail(error, TALLY_NO_MEMORY, "batch of %zu commands", count);
    }
    return TALLY_OK;
}

/* Columns of a row, all in binary format. */
enum field { FIELD_ORD, FIELD_OUTCOME, FIELD_REPLAYED, FIELD_ID, FIELD_USER_ID, FIELD_VERSION };

/* A big-endian integer of any width; 0 for SQL NULL. */
static int64_t integer_at(const PGresult *rows, int row, enum field field)
{
    if (PQgetisnull(rows, row, (int)field))
        return 0;
    const unsigned char *bytes = (const unsigned char *)PQgetvalue(rows, row, (int)field);
    int length = PQgetlength(rows, row, (int)field);
    uint64_t value = 0;
    for (int i = 0; i < length; i++)
        value = value << 8 | bytes[i];
    return (int64_t)value;
}

enum tally_status tally_batch_read(const PGresult *rows, size_t count,
                                   struct tally_command_outcome *outcomes,
                                   struct tally_error *error)
{
    if ((size_t)PQntuples(rows) != count || PQnfields(rows) != FIELD_VERSION + 1)
        return tally_fail(error, TALLY_PROTOCOL, "%d outcomes for %zu commands", PQntuples(rows),
                          count);
    for (size_t i = 0; i < count; i++)
        outcomes[i].status = TALLY_STATUS_COUNT;
    for (int row = 0; row < (int)count; row++) {
        int64_t ord = integer_at(rows, row, FIELD_ORD);
        int64_t status = integer_at(rows, row, FIELD_OUTCOME);
        if (ord < 1 || ord > (int64_t)count || status < 0 || status >= TALLY_STATUS_COUNT ||
            outcomes[ord - 1].status != TALLY_STATUS_COUNT)
            return tally_fail(error, TALLY_PROTOCOL, "an outcome that belongs to no command");
        bool found = status == TALLY_OK;
        outcomes[ord - 1] = (struct tally_command_outcome){
            .status = (enum tally_status)status,
            .replayed = integer_at(rows, row, FIELD_REPLAYED) != 0,
            .id = found ? integer_at(rows, row, FIELD_ID) : 0,
            .user_id = found ? integer_at(rows, row, FIELD_USER_ID) : 0,
            .version = found ? integer_at(rows, row, FIELD_VERSION) : 0,
        };
    }
    return TALLY_OK;
}

enum tally_status tally_batch_refusal(const PGresult *failed)
{
    const char *sqlstate = PQresultErrorField(failed, PG_DIAG_SQLSTATE);
    const char *constraint = PQresultErrorField(failed, PG_DIAG_CONSTRAINT_NAME);
    if (sqlstate != NULL && strcmp(sqlstate, "23505") == 0 && constraint != NULL &&
        strcmp(constraint, "users_email") == 0)
        return TALLY_EMAIL_TAKEN;
    return tally_pg_classify(sqlstate) == TALLY_UNAVAILABLE ? TALLY_UNAVAILABLE : TALLY_INTERNAL;
}
