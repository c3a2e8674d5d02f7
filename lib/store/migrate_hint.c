#include "store/migrate_hint.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

/* The parameters of a connection that failed say what libpq made of the DSN and its defaults. */
static void write_hint(const PGconn *failed, char *hint, size_t hint_bytes)
{
    const char *host = PQhost(failed), *port = PQport(failed), *user = PQuser(failed);
    bool named = host != NULL && host[0] != '\0';
    (void)snprintf(hint, hint_bytes,
                   "there is no database \"%s\" on that server: make it with "
                   "`createdb --encoding=UTF8%s%s --port=%s --username=%s %s`",
                   PQdb(failed), named ? " --host=" : "", named ? host : "", port, user,
                   PQdb(failed));
}

static bool exists(PGconn *server, const char *name)
{
    const char *const values[] = {name};
    PGresult *result = PQexecParams(server, "select 1 from pg_database where datname = $1", 1, NULL,
                                    values, NULL, NULL, 0);
    /* Where the question itself fails nothing is known, and the first error says more. */
    bool found = PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) > 0;
    PQclear(result);
    return found;
}

bool tally_migrate_hint(const char *dsn, char *hint, size_t hint_bytes)
{
    const char *const keywords[] = {"connect_timeout", "dbname", "application_name", NULL};
    const char *const values[] = {"5", dsn, "tallyctl", NULL};
    PGconn *failed = PQconnectdbParams(keywords, values, 1);
    /* Only the first dbname is read as a DSN; a later one overrides the database in it. */
    const char *const server_keywords[] = {"connect_timeout", "dbname", "application_name",
                                           "dbname", NULL};
    const char *const server_values[] = {"5", dsn, "tallyctl", "postgres", NULL};
    PGconn *server = PQconnectdbParams(server_keywords, server_values, 1);
    bool missing = failed != NULL && PQstatus(failed) == CONNECTION_BAD &&
                   PQstatus(server) == CONNECTION_OK && PQdb(failed) != NULL &&
                   !exists(server, PQdb(failed));
    if (missing)
        write_hint(failed, hint, hint_bytes);
    PQfinish(server);
    PQfinish(failed);
    return missing;
}
