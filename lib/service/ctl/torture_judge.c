#include "core/clock.h"
#include "core/id.h"
#include "pg/blocking.h"
#include "service/ctl/status_probe.h"
#include "service/ctl/torture_internal.h"
#include "service/ctl/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PENDING_MOST = 100000,
    LOOK_MS = 500,
    GRACE_MS = 30000,
    CHUNK = 100, /* users; as many as the read API gives at once */
    CHUNK_BYTES = CHUNK * 24 + 64,
    READ_TIMEOUT_MS = 5000,
};

static bool zero(const json_t *component, const char *member)
{
    const json_t *value = json_object_get(component, member);
    return json_is_integer(value) && json_integer_value(value) == 0;
}

static bool nothing_lags(const struct tally_settings *settings)
{
    json_t *components = tally_status_collect(settings);
    const json_t *relay = tally_status_component(components, "relay");
    const json_t *projector = tally_status_component(components, "projector");
    bool done = zero(relay, "backlogEvents") && zero(projector, "lagEvents") &&
                strcmp(json_string_value(json_object_get(projector, "state")), "up") == 0;
    json_decref(components);
    return done;
}

static void on_difference(void *context, const struct tally_verify_difference *difference)
{
    struct torture_judgement *judgement = context;
    if (judgement->count == TORTURE_VIOLATIONS_LISTED)
        return;
    struct torture_finding *finding = &judgement->findings[judgement->count++];
    finding->kind = "verify";
    finding->user_id = difference->user_id;
    (void)snprintf(finding->text, sizeof finding->text,
                   "%s: expected %s, found %s (version %" PRId64 ", in Redis %" PRId64 ")",
                   difference->field, difference->expected, difference->found,
                   difference->expected_version, difference->found_version);
}

static enum tally_status verify(const struct torture_options *options, int64_t grace_ms,
                                struct torture_judgement *judgement,
                                struct tally_verify_result *result, struct tally_error *error)
{
    const struct tally_verify_options checked = {
        .pg_dsn = options->settings->pg_dsn,
        .redis_url = options->settings->redis_url,
        .redis_timeout_ms = options->settings->redis_timeout_ms,
        .grace_ms = grace_ms,
        .pending_most = PENDING_MOST,
        .on_difference = on_difference,
        .context = judgement,
    };
    return tally_verify_run(&checked, result, error);
}

static void describe_bad(const json_t *components, bool *down, char text[TORTURE_TEXT_BYTES])
{
    size_t index = 0;
    json_t *component = NULL;
    text[0] = '\0';
    json_array_foreach(components, index, component)
    {
        const char *state = json_string_value(json_object_get(component, "state"));
        if (state == NULL || strcmp(state, "up") == 0)
            continue;
        *down = *down || strcmp(state, "down") == 0;
        size_t used = strlen(text);
        (void)snprintf(text + used, TORTURE_TEXT_BYTES - used, "%s%s is %s: %.100s",
                       used > 0 ? "; " : "",
                       json_string_value(json_object_get(component, "component")), state,
                       json_string_value(json_object_get(component, "summary")));
        if (used + 1 >= TORTURE_TEXT_BYTES)
            return;
    }
}

enum tally_status torture_examine(const struct torture_options *options, struct tally_error *error)
{
    bool down = false;
    char bad[TORTURE_TEXT_BYTES];
    json_t *components = tally_status_collect(options->settings);
    describe_bad(components, &down, bad);
    json_decref(components);
    if (bad[0] != '\0')
        return tally_fail(error, down ? TALLY_UNAVAILABLE : TALLY_READ_MODEL_INCOMPLETE,
                          "the stack is not well, so nothing is done to it: %s", bad);
    struct torture_judgement *judgement = calloc(1, sizeof *judgement);
    if (judgement == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "the differences");
    struct tally_verify_result result;
    enum tally_status status = verify(options, GRACE_MS, judgement, &result, error);
    if (status == TALLY_OK && result.differences > 0)
        status = tally_fail(
            error, TALLY_READ_MODEL_INCOMPLETE,
            "the read model differs already (%" PRId64 " differences, first: user "
            "%" PRId64 " %s), so nothing is done to it; `tallyctl verify` lists them",
            result.differences, judgement->findings[0].user_id, judgement->findings[0].text);
    else if (status == TALLY_OK && result.flagged > 0)
        status = tally_fail(error, TALLY_READ_MODEL_INCOMPLETE,
                            "%" PRId64 " users are flagged already, so nothing is done to it; "
                            "`tallyctl repair --flagged` restores them",
                            result.flagged);
    free(judgement);
    return status;
}

void torture_judge(const struct torture_options *options, struct torture_judgement *judgement)
{
    const int64_t due_us = tally_clock_monotonic_us() + options->patience_ms * 1000;
    memset(judgement, 0, sizeof *judgement);
    judgement->lagging = true;
    while ((judgement->lagging = !nothing_lags(options->settings)) &&
           tally_clock_monotonic_us() < due_us)
        tally_clock_sleep_ms(LOOK_MS);
    struct tally_verify_result result;
    judgement->failure.status =
        verify(options, judgement->lagging ? 0 : GRACE_MS, judgement, &result, &judgement->failure);
    if (judgement->failure.status != TALLY_OK)
        return;
    judgement->differences = result.differences;
    if (result.flagged > 0 && judgement->count < TORTURE_VIOLATIONS_LISTED) {
        struct torture_finding *finding = &judgement->findings[judgement->count++];
        finding->kind = "degraded";
        (void)snprintf(finding->text, sizeof finding->text,
                       "%" PRId64 " users are flagged, and read as degraded until `tallyctl repair "
                       "--flagged`",
                       result.flagged);
        judgement->differences++;
    }
}

/*
 * The ledger against the rows, and the rows against the read API.
 */

struct row {
    int64_t id, version, posts, comments;
    bool found;
};

struct comparison {
    int64_t due_us; /* monotonic: what the read side refuses is asked again until then */
    struct torture_report *report;
    PGconn *connection;
    struct torture_asker asker;
    int64_t first; /* account of rows[0] */
    int count;
    struct row rows[CHUNK];
    char ids[CHUNK_BYTES]; /* separated by commas */
};

static int64_t number_at(const PGresult *result, int row, int column)
{
    return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

/* Recounted by a statement of its own: what Tally recounts by would share its mistakes. */
static enum tally_status read_rows(struct comparison *comparison, struct tally_error *error)
{
    static const char sql[] =
        "SELECT u.id, u.version, "
        "(SELECT count(*) FROM posts p WHERE p.author_id = u.id AND p.deleted_at IS NULL), "
        "(SELECT count(*) FROM comments c WHERE c.author_id = u.id) "
        "FROM users u WHERE u.deleted_at IS NULL AND u.id = ANY(string_to_array($1, "
        "',')::bigint[])";
    const char *values[] = {comparison->ids};
    PGresult *result = NULL;
    enum tally_status status =
        tally_pg_exec(comparison->connection, sql, 1, values, PGRES_TUPLES_OK, &result, error);
    for (int i = 0; status == TALLY_OK && i < PQntuples(result); i++) {
        int64_t id = number_at(result, i, 0);
        for (int place = 0; place < comparison->count; place++) {
            if (comparison->rows[place].id == id)
                comparison->rows[place] =
                    (struct row){id, number_at(result, i, 1), number_at(result, i, 2),
                                 number_at(result, i, 3), true};
        }
    }
    PQclear(result);
    return status;
}

static void choose_rows(struct comparison *comparison)
{
    const struct torture_ledger *ledger = &comparison->report->ledger;
    int length = 0;
    comparison->count = 0;
    comparison->ids[0] = '\0';
    for (int64_t user = comparison->first; user < ledger->count && comparison->count < CHUNK;
         user++) {
        int64_t id = ledger->accounts[user].id;
        comparison->rows[comparison->count++] = (struct row){.id = id};
        length += snprintf(comparison->ids + length, CHUNK_BYTES - (size_t)length, "%s%" PRId64,
                           length > 0 ? "," : "", id);
    }
}

static void judge_shown(struct comparison *comparison, const json_t *users)
{
    for (int place = 0; place < comparison->count; place++) {
        const struct row *row = &comparison->rows[place];
        char id[TALLY_ID_TEXT_BYTES];
        (void)tally_id_format(row->id, id);
        size_t index = 0;
        json_t *user = NULL;
        const json_t *shown = NULL;
        json_array_foreach(users, index, user)
        {
            const char *text =
                json_string_value(json_object_get(json_object_get(user, "user"), "id"));
            if (text != NULL && strcmp(text, id) == 0)
                shown = user;
        }
        int64_t version = json_integer_value(json_object_get(shown, "version"));
        int64_t posts = json_integer_value(json_object_get(shown, "postCount"));
        int64_t comments = json_integer_value(json_object_get(shown, "commentCount"));
        if (shown == NULL && row->found)
            torture_violate(&comparison->report->ledger, "read", row->id, "is not shown");
        else if (row->found &&
                 (version != row->version || posts != row->posts || comments != row->comments))
            torture_violate(&comparison->report->ledger, "read", row->id,
                            "is shown with %" PRId64 " posts and %" PRId64
                            " comments (version %" PRId64 "); PostgreSQL has %" PRId64
                            " and %" PRId64 " (version %" PRId64 ")",
                            posts, comments, version, row->posts, row->comments, row->version);
    }
}

/* Repeated while the read side refuses, until the patience with all of them is over. */
static void read_shown(struct comparison *comparison)
{
    char target[CHUNK_BYTES + 32];
    (void)snprintf(target, sizeof target, "/v1/users?ids=%s", comparison->ids);
    const struct tally_http_client_request request = {
        .method = "GET", .target = target, .timeout_ms = READ_TIMEOUT_MS};
    struct torture_asker *asker = &comparison->asker;
    for (;;) {
        torture_ask(asker, &request);
        if (asker->status == TALLY_OK && asker->http == 200) {
            judge_shown(comparison, json_object_get(asker->body, "users"));
            return;
        }
        if (tally_clock_monotonic_us() >= comparison->due_us)
            break;
        tally_clock_sleep_ms(LOOK_MS);
    }
    torture_violate(&comparison->report->ledger, "read", 0,
                    "%d users could not be read: the answer was %d", comparison->count,
                    asker->status == TALLY_OK ? asker->http : 0);
}

static void judge_rows(struct comparison *comparison)
{
    struct torture_report *report = comparison->report;
    for (int place = 0; place < comparison->count; place++) {
        const struct row *row = &comparison->rows[place];
        if (!row->found) {
            torture_violate(&report->ledger, "lost", row->id,
                            "the user was acknowledged and is not in PostgreSQL");
            continue;
        }
        report->posts += row->posts;
        report->comments += row->comments;
        torture_ledger_compare(&report->ledger, comparison->first + place, row->version, row->posts,
                               row->comments);
    }
}

enum tally_status torture_compare(const struct torture_options *options,
                                  struct torture_report *report, struct tally_error *error)
{
    struct comparison *comparison = calloc(1, sizeof *comparison);
    if (comparison == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "the comparison");
    comparison->due_us = tally_clock_monotonic_us() + options->patience_ms * 1000;
    comparison->report = report;
    enum tally_status status = tally_pg_connect(options->settings->pg_dsn, "tallyctl torture",
                                                &comparison->connection, error);
    if (status == TALLY_OK)
        status = torture_asker_open(&comparison->asker, options->settings->query_listen, error);
    while (status == TALLY_OK && comparison->first < report->ledger.count) {
        choose_rows(comparison);
        status = read_rows(comparison, error);
        if (status == TALLY_OK) {
            judge_rows(comparison);
            read_shown(comparison);
        }
        comparison->first += comparison->count;
    }
    torture_asker_close(&comparison->asker);
    PQfinish(comparison->connection);
    free(comparison);
    return status;
}
