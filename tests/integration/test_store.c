#include "pg/blocking.h"
#include "store_fixture.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct test_database database;
static struct writer writer;

static void start(void)
{
    test_database_create(&database);
    writer_open(&writer, database.dsn, 2, 10000);
}

static void stop(void)
{
    writer_close(&writer);
    test_database_drop(&database);
}

TestSuite(store, .init = start, .fini = stop, .timeout = 300);

static long long number(const char *format, ...)
{
    char sql[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(sql, sizeof sql, format, arguments);
    va_end(arguments);
    return test_database_number(database.connection, sql);
}

static void expect_status(struct tally_command command, enum tally_status status)
{
    struct tally_command_outcome outcome = writer_run(&writer, command);
    cr_expect_eq(outcome.status, status, "%s: %s instead of %s (%s)",
                 tally_command_kind_text(command.kind), tally_status_slug(outcome.status),
                 tally_status_slug(status), writer.failure);
}

Test(store, each_write_moves_its_users_version_by_one_and_says_so_in_an_event)
{
    int64_t ada = make_user(&writer, "ada@example.org");
    int64_t bob = make_user(&writer, "bob@example.org");
    int64_t post = make_post(&writer, ada);
    int64_t comment = make_comment(&writer, post, bob);
    struct tally_command_outcome outcome = writer_run(&writer, delete_comment(comment));
    cr_assert_eq(outcome.status, TALLY_OK);
    cr_assert_eq(outcome.id, comment);
    cr_assert_eq(outcome.user_id, bob, "the comment counts for its author");
    cr_assert_eq(outcome.version, 3);
    outcome = writer_run(&writer, delete_post(post));
    cr_assert_eq(outcome.user_id, ada);
    cr_assert_eq(outcome.version, 3);
    expect_status(update_email(ada, "ada@example.com"), TALLY_OK);
    cr_assert_eq(number("select count(*) from events where user_id = %lld and type ="
                        " (array['user.created','post.created','post.deleted','user.updated'])"
                        "[version]",
                        (long long)ada),
                 4);
    cr_assert_eq(number("select count(*) from events where user_id = %lld and data::jsonb ="
                        " jsonb_build_object('commentId', '%lld', 'postId', '%lld')",
                        (long long)bob, (long long)comment, (long long)post),
                 2);
    cr_assert_eq(number("select count(*) from events where timeline = 1 and traceparent is null"),
                 number("select count(*) from events"));
    expect_sound(database.connection);
}

Test(store, what_is_not_there_is_refused_and_changes_nothing)
{
    int64_t ada = make_user(&writer, "ada@example.org");
    int64_t post = make_post(&writer, ada);
    expect_status(create_post(1), TALLY_USER_NOT_FOUND);
    expect_status(create_comment(1, ada), TALLY_POST_NOT_FOUND);
    expect_status(create_comment(post, 1), TALLY_USER_NOT_FOUND);
    expect_status(delete_comment(1), TALLY_COMMENT_NOT_FOUND);
    expect_status(delete_post(1), TALLY_POST_NOT_FOUND);
    expect_status(delete_user(1), TALLY_USER_NOT_FOUND);
    expect_status(update_email(1, "x@example.org"), TALLY_USER_NOT_FOUND);
    cr_assert_eq(number("select count(*) from events"), 2);
    cr_assert_eq(writer.replayed, 0, "a refusal is a value, no SQL error");
}

Test(store, an_address_belongs_to_one_user_whatever_its_case)
{
    int64_t ada = make_user(&writer, "ada@example.org");
    int64_t bob = make_user(&writer, "bob@example.org");
    expect_status(create_user("ADA@example.org"), TALLY_EMAIL_TAKEN);
    expect_status(update_email(bob, "Ada@Example.org"), TALLY_EMAIL_TAKEN);
    expect_status(update_email(ada, "ADA@example.org"), TALLY_OK);
    expect_status(delete_user(ada), TALLY_OK);
    expect_status(update_email(bob, "ada@example.org"), TALLY_OK);
    cr_assert_eq(writer.replayed, 0);
    expect_sound(database.connection);
}

Test(store, of_one_address_wanted_many_times_in_one_batch_exactly_one_user_comes)
{
    struct job jobs[20] = {0};
    int made = 0;
    for (int i = 0; i < 20; i++) {
        jobs[i].command = create_user("same@example.org");
        writer_submit(&writer, &jobs[i]);
    }
    writer_wait(&writer);
    for (int i = 0; i < 20; i++) {
        made += jobs[i].outcome.status == TALLY_OK;
        cr_expect(jobs[i].outcome.status == TALLY_OK ||
                  jobs[i].outcome.status == TALLY_EMAIL_TAKEN);
    }
    cr_assert_eq(made, 1);
}

Test(store, of_writes_with_the_same_if_match_exactly_one_is_made)
{
    struct job jobs[20] = {0};
    int made = 0;
    int64_t ada = make_user(&writer, "ada@example.org");
    for (int i = 0; i < 20; i++) {
        jobs[i].command = update_email(ada, i % 2 ? "one@example.org" : "two@example.org");
        jobs[i].command.if_match = 1;
        writer_submit(&writer, &jobs[i]);
    }
    writer_wait(&writer);
    for (int i = 0; i < 20; i++) {
        made += jobs[i].outcome.status == TALLY_OK;
        cr_expect(jobs[i].outcome.status == TALLY_OK ||
                  jobs[i].outcome.status == TALLY_VERSION_MISMATCH);
    }
    cr_assert_eq(made, 1);
    struct tally_command erase = delete_user(ada);
    erase.if_match = 1;
    expect_status(erase, TALLY_VERSION_MISMATCH);
    erase.if_match = 2;
    expect_status(erase, TALLY_OK);
    expect_sound(database.connection);
}

Test(store, a_change_keeps_what_it_does_not_name_and_can_remove_the_avatar)
{
    struct tally_command command = create_user("ada@example.org");
    command.avatar = "https://example.org/ada.png";
    int64_t ada = writer_run(&writer, command).id;
    expect_status(update_email(ada, "ada@example.com"), TALLY_OK);
    cr_assert_eq(
        number("select count(*) from events where version = 2 and data::jsonb = '{\"name\":"
               "\"Somebody\",\"email\":\"ada@example.com\",\"avatar\":"
               "\"https://example.org/ada.png\"}'"),
        1);
    command = update_email(ada, NULL);
    command.avatar = "";
    expect_status(command, TALLY_OK);
    cr_assert_eq(
        number("select count(*) from events where version = 3 and data::jsonb = '{\"name\":"
               "\"Somebody\",\"email\":\"ada@example.com\",\"avatar\":null}'"),
        1);
}

static struct tally_command keyed(struct tally_command command, const char *key, char hash)
{
    command.caller = "anonymous";
    command.idempotency_key = key;
    memset(command.request_hash, hash, sizeof command.request_hash);
    return command;
}

Test(store, a_key_repeats_the_stored_outcome_also_of_a_refusal)
{
    int64_t ada = make_user(&writer, "ada@example.org");
    struct tally_command_outcome first = writer_run(&writer, keyed(create_post(ada), "k1", 'a'));
    struct tally_command_outcome again = writer_run(&writer, keyed(create_post(ada), "k1", 'a'));
    cr_assert_eq(first.status, TALLY_OK);
    cr_assert_not(first.replayed);
    cr_assert(again.replayed);
    cr_assert_eq(again.id, first.id);
    cr_assert_eq(again.version, first.version);
    struct tally_command of_another = keyed(create_post(ada), "k1", 'a');
    of_another.caller = "somebody else";
    cr_assert_neq(writer_run(&writer, of_another).id, first.id, "keys are the caller's");
    expect_status(keyed(create_post(ada), "k1", 'b'), TALLY_KEY_REUSED);

    expect_status(keyed(create_user("ada@example.org"), "k2", 'a'), TALLY_EMAIL_TAKEN);
    expect_status(delete_user(ada), TALLY_OK);
    again = writer_run(&writer, keyed(create_user("ada@example.org"), "k2", 'a'));
    cr_assert_eq(again.status, TALLY_EMAIL_TAKEN);
    cr_assert(again.replayed);
}

Test(store, of_20_concurrent_requests_with_one_key_exactly_one_is_made)
{
    struct writer others[4];
    struct job jobs[20] = {0};
    int made = 0;
    int64_t ada = make_user(&writer, "ada@example.org");
    for (int i = 0; i < 4; i++)
        writer_open(&others[i], database.dsn, 1, 10000);
    for (int i = 0; i < 20; i++) {
        jobs[i].command = keyed(create_post(ada), "k", 'a');
        writer_submit(&others[i % 4], &jobs[i]);
    }
    /* All four batches are in the server before any outcome is taken. */
    for (int i = 0; i < 4; i++)
        event_base_loop(others[i].base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    for (int i = 0; i < 4; i++)
        writer_wait(&others[i]);
    for (int i = 0; i < 20; i++) {
        made += jobs[i].outcome.status == TALLY_OK && !jobs[i].outcome.replayed;
        cr_expect(jobs[i].outcome.status == TALLY_OK || jobs[i].outcome.status == TALLY_KEY_IN_USE,
                  "%s", tally_status_slug(jobs[i].outcome.status));
    }
    cr_assert_eq(made, 1);
    cr_assert_eq(number("select count(*) from posts"), 1);
    for (int i = 0; i < 4; i++)
        writer_close(&others[i]);
}

Test(store, keys_are_forgotten_after_a_day_and_not_before)
{
    int64_t ada = make_user(&writer, "ada@example.org");
    expect_status(keyed(create_post(ada), "old", 'a'), TALLY_OK);
    expect_status(keyed(create_post(ada), "new", 'a'), TALLY_OK);
    test_database_run(database.connection, "update idempotency_keys set created_at = now() -"
                                           " interval '25 hours' where key = 'old'");
    cr_assert_eq(number("select expire_idempotency_keys(10)"), 1);
    cr_assert_eq(number("select count(*) from idempotency_keys where key = 'new'"), 1);
}

Test(store, a_post_takes_the_comments_of_all_their_authors_along)
{
    enum { AUTHORS = 30, COMMENTS = 90 };
    int64_t authors[AUTHORS];
    struct job jobs[COMMENTS] = {0};
    char email[32];
    for (int i = 0; i < AUTHORS; i++) {
        (void)snprintf(email, sizeof email, "u%d@example.org", i);
        authors[i] = make_user(&writer, email);
    }
    int64_t post = make_post(&writer, authors[0]);
    int64_t other_post = make_post(&writer, authors[1]);
    int64_t kept = make_comment(&writer, other_post, authors[2]);
    for (int i = 0; i < COMMENTS; i++) {
        jobs[i].command = create_comment(post, authors[i % AUTHORS]);
        writer_submit(&writer, &jobs[i]);
    }
    writer_wait(&writer);
    struct tally_command_outcome outcome = writer_run(&writer, delete_post(post));
    cr_assert_eq(outcome.status, TALLY_OK);
    cr_assert_eq(outcome.user_id, authors[0]);
    cr_assert_eq(outcome.version,
                 number("select version from users where id = %lld", (long long)authors[0]),
                 "the answer's version covers the author's own comments that went along");
    cr_assert_eq(number("select count(*) from comments"), 1);
    cr_assert_eq(number("select count(*) from posts"), 1);
    cr_assert_eq(number("select count(*) from comments where id = %lld", (long long)kept), 1);
    expect_status(delete_post(post), TALLY_POST_NOT_FOUND);
    expect_sound(database.connection);
}

Test(store, within_one_batch_the_second_deletion_finds_nothing)
{
    struct job jobs[6] = {0};
    int64_t ada = make_user(&writer, "ada@example.org");
    int64_t post = make_post(&writer, ada);
    int64_t comment = make_comment(&writer, post, ada);
    int64_t second_post = make_post(&writer, ada);
    jobs[0].command = delete_comment(comment);
    jobs[1].command = delete_comment(comment);
    jobs[2].command = delete_post(second_post);
    jobs[3].command = delete_post(second_post);
    jobs[4].command = delete_user(ada);
    jobs[5].command = delete_user(ada);
    for (int i = 0; i < 6; i++)
        writer_submit(&writer, &jobs[i]);
    writer_wait(&writer);
    for (int i = 0; i < 6; i += 2) {
        cr_expect_eq(jobs[i].outcome.status, TALLY_OK, "%d", i);
        cr_expect_neq(jobs[i + 1].outcome.status, TALLY_OK, "%d", i);
    }
    cr_assert_eq(writer.replayed, 0);
    expect_sound(database.connection);
}

static void fill_post(int64_t post, int64_t author, int count)
{
    struct job *jobs = calloc((size_t)count, sizeof *jobs);
    for (int i = 0; i < count; i++) {
        jobs[i].command = create_comment(post, author);
        writer_submit(&writer, &jobs[i]);
    }
    writer_wait(&writer);
    free(jobs);
}

Test(store, a_large_post_vanishes_at_once_and_its_comments_are_swept_with_their_events)
{
    int64_t ada = make_user(&writer, "ada@example.org");
    int64_t bob = make_user(&writer, "bob@example.org");
    int64_t post = make_post(&writer, ada);
    fill_post(post, bob, 1201);
    struct tally_command_outcome outcome = writer_run(&writer, delete_post(post));
    cr_assert_eq(outcome.status, TALLY_OK);
    cr_assert_eq(outcome.version, 3);
    cr_assert_eq(number("select count(*) from comments"), 1201, "not in the command's transaction");
    expect_status(create_comment(post, bob), TALLY_POST_NOT_FOUND);
    expect_status(delete_post(post), TALLY_POST_NOT_FOUND);
    expect_sound(database.connection);
    cr_assert_leq(number("select sweep_deleted(500)"), 501, "a piece is bounded");
    expect_sound(database.connection);
    sweep_all(database.connection);
    cr_assert_eq(number("select count(*) from comments"), 0);
    cr_assert_eq(number("select count(*) from posts"), 0);
    cr_assert_eq(number("select count(*) from events where user_id = %lld and type ="
                        " 'comment.deleted'",
                        (long long)bob),
                 1201);
    expect_sound(database.connection);
}

/* The plans are those of a session that began while there were no posts. */
Test(store, posts_are_found_by_their_ids_also_by_plans_that_are_older_than_they_are)
{
    enum { POSTS = 3000, WRITES = 20 };
    int64_t ada = make_user(&writer, "ada@example.org");
    for (int i = 0; i < WRITES; i++) {
        int64_t post = make_post(&writer, ada);
        (void)make_comment(&writer, post, ada);
        expect_status(delete_post(post), TALLY_OK);
    }
    char sql[128];
    (void)snprintf(sql, sizeof sql,
                   "insert into posts (id, author_id, title, body) select i, %lld, 't', 'b' from"
                   " generate_series(1, %d) as i",
                   (long long)ada, POSTS);
    test_database_run(database.connection, sql);
    for (int i = 1; i <= WRITES; i++) {
        (void)make_comment(&writer, i, ada);
        expect_status(delete_post(i), TALLY_OK);
    }
    writer_close(&writer); /* a session that ends tells what it has read */
    while (number("select count(*) from pg_stat_activity where datname = current_database()") > 1)
        usleep(1000);
    cr_expect_lt(number("select idx_tup_read from pg_stat_user_indexes"
                        " where indexrelname = 'posts_of_author'"),
                 POSTS);
    writer_open(&writer, database.dsn, 2, 10000);
}

Test(store, a_deleted_user_leaves_no_personal_data_and_takes_everything_along)
{
    int64_t ada = make_user(&writer, "ada@example.org");
    int64_t bob = make_user(&writer, "bob@example.org");
    int64_t adas_post = make_post(&writer, ada);
    int64_t bobs_post = make_post(&writer, bob);
    make_comment(&writer, adas_post, bob);
    make_comment(&writer, adas_post, ada);
    int64_t adas_comment = make_comment(&writer, bobs_post, ada);
    struct tally_command_outcome outcome = writer_run(&writer, delete_user(ada));
    cr_assert_eq(outcome.status, TALLY_OK);
    cr_assert_eq(outcome.version, 5);
    cr_assert_eq(
        number("select count(*) from users where id = %lld and version = 5 and name is null"
               " and email is null and avatar is null",
               (long long)ada),
        1);
    cr_assert_eq(number("select count(*) from events where type = 'user.deleted' and data is null"),
                 1);
    expect_status(create_post(ada), TALLY_USER_NOT_FOUND);
    expect_status(create_comment(adas_post, bob), TALLY_POST_NOT_FOUND);
    expect_status(delete_post(adas_post), TALLY_POST_NOT_FOUND);
    expect_status(delete_comment(adas_comment), TALLY_COMMENT_NOT_FOUND);
    expect_status(delete_user(ada), TALLY_USER_NOT_FOUND);
    cr_assert_gt(sweep_all(database.connection), 0);
    cr_assert_eq(number("select count(*) from posts where id <> %lld", (long long)bobs_post), 0);
    cr_assert_eq(number("select count(*) from comments"), 0);
    cr_assert_eq(number("select max(version) from events where user_id = %lld", (long long)ada), 5,
                 "nothing more is said of the dead");
    cr_assert_eq(number("select count(*) from events where user_id = %lld and type ="
                        " 'comment.deleted'",
                        (long long)bob),
                 1);
    expect_sound(database.connection);
}

/* A transaction of another database on the server may keep the snapshot's xmin back for a while. */
static bool old_events_dropped(void *context)
{
    (void)context;
    test_database_run(database.connection,
                      "update relay_position set snapshot = pg_current_snapshot()");
    return number("select maintain_events(7, 7)") == 1;
}

Test(store, event_partitions_are_made_ahead_and_dropped_once_old_and_published)
{
    cr_assert_eq(number("select count(*) from pg_inherits where inhparent = 'events'::regclass"),
                 8);
    test_database_run(database.connection,
                      "select create_event_partition((now() at time zone 'utc')::date - 9);"
                      "insert into events (user_id, version, type, timeline, at)"
                      " values (1, 1, 'user.deleted', 1, now() - interval '9 days')");
    cr_assert_eq(number("select maintain_events(7, 7)"), 0, "the relay has not published it");
    writer_until(&writer, old_events_dropped, NULL);
    cr_assert_eq(number("select count(*) from pg_inherits where inhparent = 'events'::regclass"),
                 8);
    test_database_run(database.connection,
                      "insert into events (user_id, version, type, timeline, at)"
                      " values (1, 1, 'user.deleted', 1, now() + interval '7 days')");
}

Test(store, a_session_that_the_server_ends_is_an_error_and_nothing_on_standard_error)
{
    char sql[64];
    PGconn *session = NULL;
    struct tally_error error = {0};
    FILE *caught = tmpfile();
    const int kept = dup(STDERR_FILENO);
    cr_assert_not_null(caught);
    cr_assert_eq(tally_pg_connect(database.dsn, "ended", &session, &error), TALLY_OK, "%s",
                 error.text);
    const int pid = PQbackendPID(session);
    (void)snprintf(sql, sizeof sql, "select pg_terminate_backend(%d, 60000)", pid);
    test_database_run(database.connection, sql);
    (void)fflush(stderr);
    cr_assert_geq(dup2(fileno(caught), STDERR_FILENO), 0);
    /* Read before anything is asked, as when a request cannot be sent any more. */
    (void)PQconsumeInput(session);
    (void)PQisBusy(session);
    const enum tally_status status =
        tally_pg_exec(session, "select 1", 0, NULL, PGRES_TUPLES_OK, NULL, &error);
    (void)fflush(stderr);
    cr_assert_geq(dup2(kept, STDERR_FILENO), 0);
    cr_expect_eq(status, TALLY_UNAVAILABLE, "%s", error.text);
    cr_expect_eq(lseek(fileno(caught), 0, SEEK_END), 0, "something was printed");
    PQfinish(session);
    (void)fclose(caught);
    (void)close(kept);
}
