#include "store/migrate.h"
#include "pg/blocking.h"
#include "service/ctl/output.h"
#include "store/migrate_hint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_WAIT = 'w', WAIT_DEFAULT_S = 60 };

struct migrate_command {
    struct tally_ctl *ctl;
    bool status;
    int wait_ms;
    json_t *applied; /* with --json: what this call has applied */
};

static const struct argp_option options[] = {
    {"wait", KEY_WAIT, "SECONDS", 0,
     "Longest wait for another migrate to end and for the lock of a table (default 60)", 0},
    {0}};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct migrate_command *command = state->input;
    if (key == KEY_WAIT)
        command->wait_ms = (int)tally_ctl_integer(state, "wait", argument, 1, 3600) * 1000;
    else if (key == ARGP_KEY_ARG && strcmp(argument, "status") == 0 && !command->status)
        command->status = true;
    else if (key == ARGP_KEY_ARG)
        argp_error(state, "\"%s\" is not understood; the only argument is `status`", argument);
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[status]",
    .doc = "Brings the schema of PostgreSQL (TALLY_PG_DSN) to the version this build needs. Two at "
           "once are safe: the second waits, then finds nothing to do. `migrate status` shows what "
           "is applied, and exits with 1 where something is pending or does not "
           "fit." TALLY_CTL_EXIT_DOC,
};

static void show_applied(void *context, const struct tally_migration *migration,
                         int64_t duration_ms)
{
    struct migrate_command *command = context;
    if (command->ctl->json)
        tally_ctl_json_append(&command->applied,
                              json_pack("{s:i,s:s,s:I}", "version", migration->version, "name",
                                        migration->name, "durationMs", (json_int_t)duration_ms));
    else
        (void)printf("applied %04d_%-32s %6" PRId64 " ms\n", migration->version, migration->name,
                     duration_ms);
    (void)fflush(stdout);
}

static int migrate(struct migrate_command *command, PGconn *connection)
{
    struct tally_error error;
    const struct tally_migrate_options migrate_options = {
        .wait_ms = command->wait_ms, .on_applied = show_applied, .context = command};
    size_t applied = 0;
    if (tally_migrate(connection, tally_migrations(), &migrate_options, &applied, &error) !=
        TALLY_OK)
        return tally_ctl_fail(command->ctl, &error);
    int version = tally_schema_version_needed();
    if (command->ctl->json)
        return tally_ctl_print_json(command->ctl,
                                    json_pack("{s:i,s:i,s:O}", "version", version, "needed",
                                              version, "applied", command->applied),
                                    TALLY_CTL_FINE);
    if (applied == 0)
        (void)printf("Nothing to do: the schema is at version %d.\n", version);
    else
        (void)printf("The schema is at version %d.\n", version);
    return TALLY_CTL_FINE;
}

static json_t *status_json(const struct tally_migration_set *set,
                           const struct tally_migration_applied *applied, size_t count,
                           const struct tally_error *problem)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count || i < set->count; i++) {
        json_t *row;
        if (i < count)
            row = json_pack("{s:i,s:s,s:s,s:s,s:I}", "version", applied[i].version, "name",
                            applied[i].name, "state", "applied", "appliedAt", applied[i].applied_at,
                            "durationMs", (json_int_t)applied[i].duration_ms);
        else
            row = json_pack("{s:i,s:s,s:s}", "version", set->list[i].version, "name",
                            set->list[i].name, "state", "pending");
        tally_ctl_json_append(&list, row);
    }
    return json_pack("{s:i,s:i,s:s?,s:o}", "version", count == 0 ? 0 : applied[count - 1].version,
                     "needed", tally_schema_version_needed(), "problem",
                     problem->status == TALLY_OK ? NULL : problem->text, "migrations", list);
}

static void print_status(const struct tally_migration_set *set,
                         const struct tally_migration_applied *applied, size_t count,
                         const struct tally_error *problem)
{
    for (size_t i = 0; i < count; i++)
        (void)printf("applied  %04d_%-32s %6" PRId64 " ms  %s\n", applied[i].version,
                     applied[i].name, applied[i].duration_ms, applied[i].applied_at);
    for (size_t i = count; i < set->count; i++)
        (void)printf("pending  %04d_%s\n", set->list[i].version, set->list[i].name);
    if (problem->status != TALLY_OK)
        (void)printf("%s\n", problem->text);
    else if (count < set->count)
        (void)puts("Run `tallyctl migrate`.");
}

static int show_status(struct migrate_command *command, PGconn *connection)
{
    struct tally_error error;
    struct tally_migration_applied *applied = NULL;
    size_t count = 0, done = 0;
    if (tally_migrations_read(connection, &applied, &count, &error) != TALLY_OK)
        return tally_ctl_fail(command->ctl, &error);
    const struct tally_migration_set *set = tally_migrations();
    struct tally_error problem = {.status = TALLY_OK};
    bool fits = tally_migrations_compare(set, applied, count, &done, &problem) == TALLY_OK;
    int code = fits && done == set->count ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    if (command->ctl->json)
        code = tally_ctl_print_json(command->ctl, status_json(set, applied, count, &problem), code);
    else
        print_status(set, applied, count, &problem);
    free(applied);
    return code;
}

/* "There is no database" is the first thing a new operator meets: say how to make it. */
static int fail_connect(const struct tally_ctl *ctl, struct tally_error *error)
{
    char hint[TALLY_ERROR_TEXT_BYTES];
    if (tally_migrate_hint(ctl->config.settings.pg_dsn, hint, sizeof hint))
        (void)tally_fail(error, TALLY_CONFIG, "%s", hint);
    return tally_ctl_fail(ctl, error);
}

int tally_ctl_migrate(struct tally_ctl *ctl, int argc, char **argv)
{
    struct migrate_command command = {.ctl = ctl, .wait_ms = WAIT_DEFAULT_S * 1000};
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    struct tally_error error;
    PGconn *connection = NULL;
    if (tally_pg_connect(ctl->config.settings.pg_dsn, "tallyctl", &connection, &error) != TALLY_OK)
        return fail_connect(ctl, &error);
    command.applied = json_array();
    code = command.status ? show_status(&command, connection) : migrate(&command, connection);
    json_decref(command.applied);
    PQfinish(connection);
    return code;
}
