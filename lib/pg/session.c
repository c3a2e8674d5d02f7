#include "pg/session.h"

#include "pg/connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_texts[] = {
#define X(name, text) [TALLY_PG_##name] = (text),
    TALLY_PG_STATE_LIST(X)
#undef X
};

const char *tally_pg_state_text(enum tally_pg_state state)
{
    return state < TALLY_PG_STATE_COUNT ? state_texts[state] : "unknown";
}

void tally_pg_drop_notice(void *context, const PGresult *result)
{
    (void)context;
    (void)result;
}

static bool has_option(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *option = options; option->keyword != NULL; option++) {
        if (strcmp(option->keyword, keyword) == 0)
            return option->val != NULL;
    }
    return false;
}

/* A later keyword beats an earlier one in libpq, and "dbname" expands where it stands; so the
 * defaults come first and the DSN last. */
enum tally_status tally_pg_parameters_fill(struct tally_pg_parameters *parameters, const char *dsn,
                                           const char *application_name, struct tally_error *error)
{
    static const char *const defaults[][2] = {
        {"client_encoding", "UTF8"},   {"connect_timeout", "5"},     {"keepalives", "1"},
        {"keepalives_idle", "5"},      {"keepalives_interval", "5"}, {"keepalives_count", "2"},
        {"tcp_user_timeout", "15000"},
    };
    enum { DEFAULTS = sizeof defaults / sizeof defaults[0] };
    _Static_assert(DEFAULTS + 3 <= TALLY_PG_PARAMETERS, "room for the terminator");

    char *reason = NULL;
    PQconninfoOption *options = PQconninfoParse(dsn, &reason);
    if (options == NULL) {
        PQfreemem(reason); /* it may repeat a part of the DSN, and that a password */
        return tally_fail(error, TALLY_CONFIG, "the PostgreSQL DSN cannot be read");
    }
    size_t count = 0;
    for (size_t i = 0; i < DEFAULTS; i++) {
        if (has_option(options, defaults[i][0]))
            continue;
        parameters->keywords[count] = defaults[i][0];
        parameters->values[count++] = defaults[i][1];
    }
    if (!has_option(options, "application_name")) {
        parameters->keywords[count] = "application_name";
        parameters->values[count++] = application_name;
    }
    PQconninfoFree(options);
    parameters->keywords[count] = "dbname";
    parameters->values[count++] = dsn;
    parameters->keywords[count] = NULL;
    parameters->values[count] = NULL;
    return TALLY_OK;
}

size_t tally_pg_setup_sql(int64_t statement_timeout_ms, int64_t lock_timeout_ms,
                          char sql[TALLY_PG_SETUP_BYTES])
{
    int length = snprintf(sql, TALLY_PG_SETUP_BYTES,
                          "SELECT set_config('synchronous_commit', 'on', false),"
                          " set_config('timezone', 'UTC', false),"
                          " set_config('default_transaction_isolation', 'read committed', false),"
                          " set_config('statement_timeout', '%lld', false)",
                          (long long)statement_timeout_ms);
    if (lock_timeout_ms > 0)
        length +=
            snprintf(sql + length, TALLY_PG_SETUP_BYTES - (size_t)length,
                     ", set_config('lock_timeout', '%lld', false)", (long long)lock_timeout_ms);
    return (size_t)length;
}

struct meaning {
    const char *prefix; /* of the SQLSTATE; the first that fits counts */
    enum tally_status status;
};

static const struct meaning meanings[] = {
    {"08", TALLY_UNAVAILABLE},    /* connection exceptions */
    {"25006", TALLY_UNAVAILABLE}, /* read-only: a standby before its promotion */
    {"40", TALLY_UNAVAILABLE},    /* rolled back: serialization, deadlock */
    {"53", TALLY_UNAVAILABLE},    /* disk, memory, connections used up */
    {"55P03", TALLY_UNAVAILABLE}, /* lock_timeout */
    {"57", TALLY_UNAVAILABLE},    /* cancelled, shutting down, starting */
    {"58", TALLY_UNAVAILABLE},    /* the system under the server */
    {"28", TALLY_CONFIG},         /* credentials */
    {"3D", TALLY_CONFIG},         /* no such database */
    {"42", TALLY_CONFIG},         /* missing table, function or right: not migrated */
};

enum tally_status tally_pg_classify(const char *sqlstate)
{
    if (sqlstate == NULL)
        return TALLY_UNAVAILABLE;
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++) {
        if (strncmp(sqlstate, meanings[i].prefix, strlen(meanings[i].prefix)) == 0)
            return meanings[i].status;
    }
    return TALLY_INTERNAL;
}

enum tally_status tally_pg_fail_result(const PGresult *result, struct tally_error *error)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
    return tally_fail(error, tally_pg_classify(sqlstate), "PostgreSQL %s: %s%s%s",
                      sqlstate != NULL ? sqlstate : "(connection)",
                      message != NULL ? message : "the connection was lost",
                      constraint != NULL ? ", constraint " : "",
                      constraint != NULL ? constraint : "");
}

enum tally_status tally_pg_fail_connection(const PGconn *connection, const char *doing,
                                           struct tally_error *error)
{
    char text[TALLY_ERROR_TEXT_BYTES];
    const char *message = PQerrorMessage(connection);
    snprintf(text, sizeof text, "%s", message != NULL && message[0] != '\0' ? message : "no cause");
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == '\n')
        text[--length] = '\0';
    for (char *byte = text; *byte != '\0'; byte++) {
        if (*byte == '\n' || *byte == '\t')
            *byte = ' ';
    }
    return tally_fail(error, TALLY_UNAVAILABLE, "PostgreSQL, %s: %.200s", doing, text);
}
