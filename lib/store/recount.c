#include "store/recount.h"

#include "core/buffer.h"
#include "core/id.h"
#include "pg/blocking.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ARRAY_BYTES = 22 * (TALLY_RECOUNT_MOST + 1),
    NUMBER_BYTES = 24,
    SAMPLE_FETCH = 10000,
};

/* The columns of every read of users. */
enum column {
    ID,
    VERSION,
    DELETED,
    NAME,
    EMAIL,
    AVATAR,
    POSTS,
    COMMENTS,
    EVENTS_AFTER,
    POSTS_AFTER,
    COMMENTS_AFTER,
    PROFILE_AFTER,
};

/* One index scan a user: both counts are answered by posts_of_author and comments_of_author. */
#define COUNTED                                                                          \
    "u.id, u.version, u.deleted_at is not null, u.name, u.email, u.avatar,"              \
    " (select count(*) from posts p where p.author_id = u.id and p.deleted_at is null)," \
    " (select count(*) from comments c where c.author_id = u.id)"

#define TEXT_OF(number) #number
#define TEXT_OF_VALUE(number) TEXT_OF(number)

static const char after_sql[] =
    "select " COUNTED ", 0, 0, 0, false from"
    " (select * from users where id > $1::bigint order by id limit $2::bigint) as u order by u.id";

static const char at_sql[] =
    "with asked as materialized"
    " (select * from unnest($1::bigint[], $2::bigint[]) as asked (id, version)),"
    " later as materialized (select e.user_id, count(*) as events,"
    "  count(*) filter (where e.type = 'post.created')"
    "   - count(*) filter (where e.type = 'post.deleted') as posts,"
    "  count(*) filter (where e.type = 'comment.created')"
    "   - count(*) filter (where e.type = 'comment.deleted') as comments,"
    "  bool_or(e.type = 'user.updated') as profile"
    "  from events e join asked a on a.id = e.user_id and e.version > a.version"
    "  where e.seq > (select last_value from event_sequence)"
    "   - " TEXT_OF_VALUE(TALLY_RECOUNT_EVENTS) " group by e.user_id)"
                                                " select " COUNTED
                                                ", coalesce(l.events, 0), coalesce(l.posts, 0), "
                                                "coalesce(l.comments, 0),"
                                                " coalesce(l.profile, false)"
                                                " from asked a join users u on u.id = a.id left "
                                                "join later l on l.user_id = a.id";

/* What is published: see store/relay_position.h. A position of another database says nothing. */
static const char waiting_sql[] =
    "select a.number - 1 from unnest($1::bigint[], $2::bigint[]) with ordinality"
    " as a (id, version, number) where exists (select from events e"
    "  left join (select p.* from relay_position p, pg_control_system() s"
    "   where p.system_identifier = s.system_identifier) as r on true"
    "  where e.user_id = a.id and e.version <= a.version"
    "   and not coalesce(pg_visible_in_snapshot(e.xid, r.snapshot), false)"
    "   and not coalesce(e.seq <= r.reached_seq and pg_visible_in_snapshot(e.xid, r.target), "
    "false))";

static const char timeline_sql[] = "select (current_batch_context()).timeline";

static const char stream_begin_sql[] =
    "begin isolation level repeatable read read only; set local cursor_tuple_fraction = 1;"
    " set local statement_timeout = 0";

/* No index scan a user here: at millions of users one pass over each table is far cheaper. */
static const char stream_sql[] =
    "declare users_of_snapshot no scroll cursor for"
    " select u.id, u.version, u.deleted_at is not null, u.name, u.email, u.avatar,"
    "  coalesce(p.posts, 0), coalesce(c.comments, 0), 0, 0, 0, false"
    " from users u"
    " left join (select author_id, count(*) as posts from posts"
    "  where deleted_at is null and author_id > %" PRId64 " group by author_id) p"
    "  on p.author_id = u.id"
    " left join (select author_id, count(*) as comments from comments"
    "  where author_id > %" PRId64 " group by author_id) c on c.author_id = u.id"
    " where u.id > %" PRId64 " order by u.id";

static const char absent_sql[] = "select id from unnest($1::bigint[]) as asked (id)"
                                 " where not exists (select from users u where u.id = asked.id)";

static const char state_sql[] =
    "select (select count(*) from users), (select last_value from event_sequence),"
    " exists (select from users where deleted_at is not null and swept_at is null)"
    " or exists (select from posts where deleted_at is not null)";

static const char quiet_sql[] =
    "select pg_snapshot_xmin(s) = pg_snapshot_xmax(s) from pg_current_snapshot() as s";

void tally_recount_clear(struct tally_recount_rows *rows)
{
    PQclear(rows->rows);
    *rows = (struct tally_recount_rows){0};
}

static int64_t number(const PGresult *rows, int row, int column)
{
    return strtoll(PQgetvalue(rows, row, column), NULL, 10);
}

static const char *text(const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column) ? NULL : PQgetvalue(rows, row, column);
}

void tally_recount_user(const struct tally_recount_rows *rows, int index,
                        struct tally_recount_user *user)
{
    const PGresult *result = rows->rows;
    *user = (struct tally_recount_user){
        .id = number(result, index, ID),
        .version = number(result, index, VERSION),
        .deleted = PQgetvalue(result, index, DELETED)[0] == 't',
        .posts = number(result, index, POSTS),
        .comments = number(result, index, COMMENTS),
        .name = text(result, index, NAME),
        .email = text(result, index, EMAIL),
        .avatar = text(result, index, AVATAR),
        .events_after = number(result, index, EVENTS_AFTER),
        .posts_after = number(result, index, POSTS_AFTER),
        .comments_after = number(result, index, COMMENTS_AFTER),
        .profile_after = PQgetvalue(result, index, PROFILE_AFTER)[0] == 't',
    };
}

static enum tally_status read_rows(PGconn *connection, const char *sql, const char *first,
                                   const char *second, struct tally_recount_rows *rows,
                                   struct tally_error *error)
{
    const char *const values[] = {first, second};
    *rows = (struct tally_recount_rows){0};
    enum tally_status status = tally_pg_exec(connection, sql, second == NULL ? 1 : 2, values,
                                             PGRES_TUPLES_OK, &rows->rows, error);
    if (status == TALLY_OK)
        rows->count = PQntuples(rows->rows);
    return status;
}

enum tally_status tally_recount_after(PGconn *connection, int64_t after_id, int limit,
                                      struct tally_recount_rows *rows, struct tally_error *error)
{
    char after_text[NUMBER_BYTES], limit_text[NUMBER_BYTES];
    (void)snprintf(after_text, sizeof after_text, "%" PRId64, after_id);
    (void)snprintf(limit_text, sizeof limit_text, "%d", limit);
    return read_rows(connection, after_sql, after_text, limit_text, rows, error);
}

/* PostgreSQL's text form of an array; the caller releases the buffer. */
static const char *array_text(struct tally_buffer *buffer, const int64_t *numbers, size_t count)
{
    tally_buffer_init(buffer, ARRAY_BYTES);
    tally_buffer_append_char(buffer, '{');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            tally_buffer_append_char(buffer, ',');
        tally_buffer_append_integer(buffer, numbers[i]);
    }
    tally_buffer_append_char(buffer, '}');
    return tally_buffer_text(buffer);
}

/* Runs a statement whose parameters are these two arrays. */
static enum tally_status read_pairs(PGconn *connection, const char *sql, const int64_t *ids,
                                    const int64_t *versions, size_t count,
                                    struct tally_recount_rows *rows, struct tally_error *error)
{
    struct tally_buffer id_array, version_array;
    const char *id_text = array_text(&id_array, ids, count);
    const char *version_text = array_text(&version_array, versions, count);
    enum tally_status status;
    if (id_array.failed || version_array.failed)
        status = tally_fail(error, TALLY_NO_MEMORY, "a list of %zu users", count);
    else
        status = read_rows(connection, sql, id_text, version_text, rows, error);
    tally_buffer_release(&id_array);
    tally_buffer_release(&version_array);
    return status;
}

enum tally_status tally_recount_at(PGconn *connection, const int64_t *ids, const int64_t *versions,
                                   size_t count, struct tally_recount_rows *rows,
                                   struct tally_error *error)
{
    return read_pairs(connection, at_sql, ids, versions, count, rows, error);
}

enum tally_status tally_recount_published(PGconn *connection, const int64_t *ids,
                                          const int64_t *versions, size_t count, bool *published,
                                          struct tally_error *error)
{
    struct tally_recount_rows rows = {0};
    enum tally_status status =
        read_pairs(connection, waiting_sql, ids, versions, count, &rows, error);
    if (status != TALLY_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        published[i] = true;
    for (int i = 0; i < rows.count; i++)
        published[number(rows.rows, i, 0)] = false;
    tally_recount_clear(&rows);
    return TALLY_OK;
}

enum tally_status tally_recount_absent(PGconn *connection, int64_t *ids, size_t count,
                                       size_t *absent, struct tally_error *error)
{
    struct tally_buffer array;
    struct tally_recount_rows rows = {0};
    const char *id_text = array_text(&array, ids, count);
    enum tally_status status;
    *absent = 0;
    if (array.failed)
        status = tally_fail(error, TALLY_NO_MEMORY, "a list of %zu users", count);
    else
        status = read_rows(connection, absent_sql, id_text, NULL, &rows, error);
    for (int i = 0; status == TALLY_OK && i < rows.count; i++)
        ids[(*absent)++] = number(rows.rows, i, 0);
    tally_recount_clear(&rows);
    tally_buffer_release(&array);
    return status;
}

enum tally_status tally_recount_timeline(PGconn *connection, int32_t *timeline,
                                         struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status =
        tally_pg_exec(connection, timeline_sql, 0, NULL, PGRES_TUPLES_OK, &rows, error);
    if (status == TALLY_OK)
        *timeline = (int32_t)number(rows, 0, 0);
    PQclear(rows);
    return status;
}

enum tally_status tally_recount_stream_begin(PGconn *connection, int64_t after_id, int64_t *users,
                                             struct tally_error *error)
{
    char sql[sizeof stream_sql + 64];
    PGresult *rows = NULL;
    enum tally_status status =
        tally_pg_exec(connection, stream_begin_sql, 0, NULL, PGRES_COMMAND_OK, NULL, error);
    if (status != TALLY_OK)
        return status;
    /* The first statement takes the snapshot. */
    (void)snprintf(sql, sizeof sql, "select count(*) from users where id > %" PRId64, after_id);
    status = tally_pg_exec(connection, sql, 0, NULL, PGRES_TUPLES_OK, &rows, error);
    if (status != TALLY_OK)
        return status;
    *users = number(rows, 0, 0);
    PQclear(rows);
    (void)snprintf(sql, sizeof sql, stream_sql, after_id, after_id, after_id);
    return tally_pg_exec(connection, sql, 0, NULL, PGRES_COMMAND_OK, NULL, error);
}

enum tally_status tally_recount_stream_next(PGconn *connection, int limit,
                                            struct tally_recount_rows *rows,
                                            struct tally_error *error)
{
    char sql[80];
    *rows = (struct tally_recount_rows){0};
    (void)snprintf(sql, sizeof sql, "fetch %d from users_of_snapshot", limit);
    enum tally_status status =
        tally_pg_exec(connection, sql, 0, NULL, PGRES_TUPLES_OK, &rows->rows, error);
    if (status == TALLY_OK)
        rows->count = PQntuples(rows->rows);
    return status;
}

/* Bernoulli sampling reads the table once and favours no part of it. */
enum tally_status tally_recount_sample(PGconn *connection, int64_t wanted, int64_t *ids,
                                       size_t most, size_t *count, struct tally_error *error)
{
    *count = 0;
    struct tally_recount_state state;
    enum tally_status status = tally_recount_state(connection, &state, error);
    if (status != TALLY_OK)
        return status;
    double percent = state.users <= wanted ? 100.0 : 100.0 * (double)wanted / (double)state.users;
    char sql[200];
    (void)snprintf(sql, sizeof sql,
                   "begin; declare sample no scroll cursor for select id from users tablesample "
                   "bernoulli (%.9f)",
                   percent);
    status = tally_pg_exec(connection, sql, 0, NULL, PGRES_COMMAND_OK, NULL, error);
    (void)snprintf(sql, sizeof sql, "fetch %d from sample", SAMPLE_FETCH);
    int fetched = SAMPLE_FETCH;
    while (status == TALLY_OK && fetched == SAMPLE_FETCH && *count < most) {
        PGresult *rows = NULL;
        status = tally_pg_exec(connection, sql, 0, NULL, PGRES_TUPLES_OK, &rows, error);
        fetched = status == TALLY_OK ? PQntuples(rows) : 0;
        for (int i = 0; i < fetched && *count < most; i++)
            ids[(*count)++] = number(rows, i, 0);
        PQclear(rows);
    }
    return tally_pg_rollback(connection, status, error);
}

enum tally_status tally_recount_state(PGconn *connection, struct tally_recount_state *state,
                                      struct tally_error *error)
{
    PGresult *rows = NULL;
    enum tally_status status =
        tally_pg_exec(connection, state_sql, 0, NULL, PGRES_TUPLES_OK, &rows, error);
    if (status != TALLY_OK)
        return status;
    *state = (struct tally_recount_state){
        .users = number(rows, 0, 0),
        .last_event = number(rows, 0, 1),
        .sweeping = PQgetvalue(rows, 0, 2)[0] == 't',
    };
    PQclear(rows);
    /* A statement of its own: its snapshot is younger than the number read above. */
    status = tally_pg_exec(connection, quiet_sql, 0, NULL, PGRES_TUPLES_OK, &rows, error);
    if (status != TALLY_OK)
        return status;
    state->quiet = PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return TALLY_OK;
}
