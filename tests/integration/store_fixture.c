#include "store_fixture.h"

#include "core/clock.h"
#include "loop/loop.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { WAIT_US = 120 * 1000000 };

static void on_committed(void *context)
{
    ((struct writer *)context)->committed++;
}

static void on_batch(const struct tally_batch_report *report, void *context)
{
    ((struct writer *)context)->replayed += report->replayed;
}

static void on_failure(const struct tally_error *error, void *context)
{
    struct writer *writer = context;
    memcpy(writer->failure, error->text, sizeof writer->failure);
}

static void on_tick(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor;
    (void)what;
    (void)argument;
}

static bool all_up(void *context)
{
    struct writer *writer = context;
    return tally_batcher_connections_up(writer->batcher) == writer->pending;
}

void writer_start(struct writer *writer, const char *dsn, size_t connections, int64_t timeout_ms)
{
    struct tally_error error = {0};
    const struct timeval tick = {0, 20000};
    memset(writer, 0, sizeof *writer);
    writer->base = tally_loop_new();
    cr_assert_not_null(writer->base);
    writer->tick = event_new(writer->base, -1, EV_PERSIST, on_tick, NULL);
    event_add(writer->tick, &tick);
    const struct tally_batcher_options options = {
        .dsn = dsn,
        .connections = connections,
        .limits = {8192, 64 << 20, 256, 8 << 20},
        .timeout_ms = timeout_ms,
        .patience_ms = 750,
        .on_committed = on_committed,
        .on_batch = on_batch,
        .on_failure = on_failure,
        .context = writer,
    };
    cr_assert_eq(tally_batcher_new(writer->base, &options, &writer->batcher, &error), TALLY_OK,
                 "%s", error.text);
}

void writer_open(struct writer *writer, const char *dsn, size_t connections, int64_t timeout_ms)
{
    writer_start(writer, dsn, connections, timeout_ms);
    writer->pending = connections;
    writer_until(writer, all_up, writer);
    writer->pending = 0;
}

void writer_close(struct writer *writer)
{
    tally_batcher_free(&writer->batcher);
    event_free(writer->tick);
    event_base_free(writer->base);
}

void writer_until(struct writer *writer, bool (*done)(void *context), void *context)
{
    int64_t deadline_us = tally_clock_monotonic_us() + WAIT_US;
    while (!done(context)) {
        cr_assert_lt(tally_clock_monotonic_us(), deadline_us, "nothing more happens: %s",
                     writer->failure);
        event_base_loop(writer->base, EVLOOP_ONCE);
    }
}

static void on_done(const struct tally_command_outcome *outcome, void *context)
{
    struct job *job = context;
    cr_assert_eq(job->calls, 0, "two outcomes for one command");
    job->calls++;
    job->outcome = *outcome;
    job->writer->pending--;
}

void writer_submit(struct writer *writer, struct job *job)
{
    struct tally_error error = {0};
    job->writer = writer;
    job->calls = 0;
    enum tally_status status =
        tally_batcher_submit(writer->batcher, &job->command, on_done, job, &error);
    if (status == TALLY_OK)
        writer->pending++;
    else
        job->outcome = (struct tally_command_outcome){.status = status};
}

static bool none_pending(void *context)
{
    return ((struct writer *)context)->pending == 0;
}

void writer_wait(struct writer *writer)
{
    writer_until(writer, none_pending, writer);
}

struct tally_command_outcome writer_run(struct writer *writer, struct tally_command command)
{
    struct job job = {.command = command};
    writer_submit(writer, &job);
    writer_wait(writer);
    return job.outcome;
}

static int64_t must_run(struct writer *writer, struct tally_command command)
{
    struct tally_command_outcome outcome = writer_run(writer, command);
    cr_assert_eq(outcome.status, TALLY_OK, "%s: %s (%s)", tally_command_kind_text(command.kind),
                 tally_status_slug(outcome.status), writer->failure);
    return outcome.id;
}

int64_t make_user(struct writer *writer, const char *email)
{
    return must_run(writer, create_user(email));
}

int64_t make_post(struct writer *writer, int64_t author)
{
    return must_run(writer, create_post(author));
}

int64_t make_comment(struct writer *writer, int64_t post, int64_t author)
{
    return must_run(writer, create_comment(post, author));
}

struct tally_command create_user(const char *email)
{
    return (struct tally_command){
        .kind = TALLY_COMMAND_CREATE_USER, .name = "Somebody", .email = email};
}

struct tally_command create_post(int64_t author)
{
    return (struct tally_command){
        .kind = TALLY_COMMAND_CREATE_POST, .user_id = author, .body = "A post."};
}

struct tally_command create_comment(int64_t post, int64_t author)
{
    return (struct tally_command){.kind = TALLY_COMMAND_CREATE_COMMENT,
                                  .user_id = author,
                                  .target_id = post,
                                  .body = "A comment."};
}

struct tally_command delete_comment(int64_t comment)
{
    return (struct tally_command){.kind = TALLY_COMMAND_DELETE_COMMENT, .target_id = comment};
}

struct tally_command delete_post(int64_t post)
{
    return (struct tally_command){.kind = TALLY_COMMAND_DELETE_POST, .target_id = post};
}

struct tally_command delete_user(int64_t user)
{
    return (struct tally_command){.kind = TALLY_COMMAND_DELETE_USER, .user_id = user};
}

struct tally_command update_email(int64_t user, const char *email)
{
    return (struct tally_command){
        .kind = TALLY_COMMAND_UPDATE_USER, .user_id = user, .email = email};
}

long long sweep_all(PGconn *connection)
{
    long long rows = 0;
    long long piece;
    while ((piece = test_database_number(connection, "select sweep_deleted(500)")) > 0)
        rows += piece;
    return rows;
}

void expect_sound(PGconn *connection)
{
    cr_assert_eq(test_database_number(
                     connection,
                     "select count(*) from (select version, row_number() over (partition by user_id"
                     " order by seq) as place from events) e where version <> place"),
                 0, "a version is missing, twice, or out of order");
    cr_assert_eq(
        test_database_number(connection,
                             "select count(*) from users u where version <> (select max(version)"
                             " from events where user_id = u.id)"),
        0, "a version without its event, or the other way round");
    cr_assert_eq(
        test_database_number(
            connection,
            "select count(*) from users u where deleted_at is null and ((select count(*) from posts"
            " where author_id = u.id and deleted_at is null), (select count(*) from comments where"
            " author_id = u.id)) <> (select count(*) filter (where type = 'post.created') -"
            " count(*) filter (where type = 'post.deleted'), count(*) filter (where type ="
            " 'comment.created') - count(*) filter (where type = 'comment.deleted') from events"
            " where user_id = u.id)"),
        0, "the events do not add up to a recount");
}
