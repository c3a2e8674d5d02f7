#include "pg/blocking.h"

#include "pg/session.h"

enum tally_status tally_pg_connect(const char *dsn, const char *application_name,
                                   PGconn **connection, struct tally_error *error)
{
    struct tally_pg_parameters parameters;
    enum tally_status status = tally_pg_parameters_fill(&parameters, dsn, application_name, error);
    if (status != TALLY_OK)
        return status;
    PGconn *made = PQconnectdbParams(parameters.keywords, parameters.values, 1);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "PostgreSQL connection");
    if (PQstatus(made) != CONNECTION_OK) {
        status = tally_pg_fail_connection(made, "connecting", error);
        PQfinish(made);
        return status;
    }
    /* libpq prints, on standard error, what a server says before it ends an idle session. */
    PQsetNoticeReceiver(made, tally_pg_drop_notice, NULL);
    char setup[TALLY_PG_SETUP_BYTES];
    tally_pg_setup_sql(0, 0, setup);
    status = tally_pg_exec(made, setup, 0, NULL, PGRES_TUPLES_OK, NULL, error);
    if (status != TALLY_OK) {
        PQfinish(made);
        return status;
    }
    *connection = made;
    return TALLY_OK;
}

/* Takes over `made` and hands it on where it is what was expected. */
static enum tally_status judge(PGconn *connection, PGresult *made, ExecStatusType expected,
                               PGresult **result, struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    ExecStatusType kind = PQresultStatus(made);
    if (made == NULL || PQstatus(connection) == CONNECTION_BAD)
        status = tally_pg_fail_connection(connection, "running a statement", error);
    else if (kind == PGRES_FATAL_ERROR)
        status = tally_pg_fail_result(made, error);
    else if (kind != expected)
        status = tally_fail(error, TALLY_PROTOCOL, "PostgreSQL answered %s instead of %s",
                            PQresStatus(kind), PQresStatus(expected));
    if (status == TALLY_OK && result != NULL)
        *result = made;
    else
        PQclear(made);
    return status;
}

enum tally_status tally_pg_exec(PGconn *connection, const char *sql, int count,
                                const char *const *values, ExecStatusType expected,
                                PGresult **result, struct tally_error *error)
{
    PGresult *made = count == 0 ? PQexec(connection, sql)
                                : PQexecParams(connection, sql, count, NULL, values, NULL, NULL, 0);
    return judge(connection, made, expected, result, error);
}

enum tally_status tally_pg_prepare(PGconn *connection, const char *name, const char *sql,
                                   struct tally_error *error)
{
    return judge(connection, PQprepare(connection, name, sql, 0, NULL), PGRES_COMMAND_OK, NULL,
                 error);
}

enum tally_status tally_pg_exec_prepared(PGconn *connection, const char *name, int count,
                                         const char *const *values, ExecStatusType expected,
                                         PGresult **result, struct tally_error *error)
{
    return judge(connection, PQexecPrepared(connection, name, count, values, NULL, NULL, 0),
                 expected, result, error);
}

enum tally_status tally_pg_rollback(PGconn *connection, enum tally_status status,
                                    struct tally_error *error)
{
    struct tally_error of_rollback = {0};
    const enum tally_status ended =
        tally_pg_exec(connection, "rollback", 0, NULL, PGRES_COMMAND_OK, NULL, &of_rollback);
    if (status != TALLY_OK || ended == TALLY_OK)
        return status;
    *error = of_rollback;
    return ended;
}
