/* A rebuild equals its source, goes on after a kill, and is switched to only when it is right. */
#include "kafka/admin.h"
#include "model_fixture.h"
#include "service/ctl/lease.h"
#include "service/ctl/rebuild.h"
#include "store/relay_position.h"
#include "view/generation.h"

#include "domain/partitioner.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { USERS = 40 };

static struct model_fixture model;
static struct tally_rebuild_result result;
static int64_t differing_user;
static int waits; /* for a relay */

/* A rebuild in another process, to be killed. It is forked before there is any client, whose
 * threads and locks a later copy would have only half of, and waits for its settings. */
static struct {
    pid_t process;
    int orders; /* the settings go in here */
} other;

static void fork_other(void);

static void end_other(void)
{
    close(other.orders);
    (void)waitpid(other.process, NULL, 0);
}

static void open_all(void)
{
    fork_other();
    model_open(&model);
    for (int64_t id = 1; id <= USERS; id++)
        model_add(&model, id, 1, 1 + id % 5);
    fixture_await_applied(&model.log);
}

static void close_all(void)
{
    model_close(&model);
    end_other();
}

TestSuite(rebuild, .init = open_all, .fini = close_all, .timeout = 300);

static void on_difference(void *context, const struct tally_verify_difference *difference)
{
    (void)context;
    if (difference->user_id != 0)
        differing_user = difference->user_id;
}

static struct tally_rebuild_options options(void)
{
    return (struct tally_rebuild_options){
        .settings = &model.settings,
        .grace_ms = 60000,
        .on_difference = on_difference,
    };
}

static void rebuild(const struct tally_rebuild_options *with)
{
    struct tally_error error = {0};
    cr_assert_eq(tally_rebuild_run(with, &result, &error), TALLY_OK, "%s", error.text);
}

static void die(void *context, const struct tally_rebuild_progress *progress)
{
    (void)context;
    if (progress->done >= USERS / 4)
        (void)raise(SIGKILL);
}

static void obey(int orders)
{
    struct tally_error error;
    if (read(orders, &model.settings, sizeof model.settings) != (ssize_t)sizeof model.settings)
        _exit(0); /* the test ends without it */
    struct tally_rebuild_options with = options();
    with.rate_s = 20;
    with.on_progress = die;
    (void)!tally_rebuild_run(&with, &result, &error);
    _exit(1);
}

static void fork_other(void)
{
    int ends[2];
    _Static_assert(sizeof model.settings <= 65536, "fits into an empty pipe, hence comes whole");
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    other.process = fork();
    cr_assert_geq(other.process, 0);
    if (other.process == 0) {
        close(ends[1]);
        obey(ends[0]);
    }
    close(ends[0]);
    other.orders = ends[1];
}

/* Lets the other process rebuild; it is killed when it has read a quarter of the users. */
static void rebuild_and_kill(void)
{
    int status = 0;
    cr_assert_eq(write(other.orders, &model.settings, sizeof model.settings),
                 (ssize_t)sizeof model.settings);
    cr_assert_eq(waitpid(other.process, &status, 0), other.process);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static int64_t unfinished(void)
{
    struct tally_generation_entry entries[TALLY_GENERATIONS_MOST];
    struct tally_error error = {0};
    size_t count = 0;
    cr_assert_eq(tally_generation_list(model.log.redis, entries, &count, &error), TALLY_OK);
    for (size_t i = 0; i < count; i++) {
        if (entries[i].role == TALLY_GENERATION_BUILDING)
            return entries[i].number;
    }
    return 0;
}

Test(rebuild, the_new_generation_equals_the_source_and_the_projector_goes_on_with_it)
{
    const int64_t before = fixture_generation(&model.log);
    test_database_run(model.database.connection,
                      "insert into users (id, version, deleted_at) values (900, 3, now())");
    const struct tally_rebuild_options with = options();
    rebuild(&with);
    cr_assert(result.switched);
    cr_assert_eq(result.previous, before);
    cr_assert_eq(result.users, USERS + 1);
    cr_assert_eq(fixture_generation(&model.log), result.generation);
    cr_assert_str_eq(model_field(&model, 0, 900, "deleted"), "1");
    test_database_run(model.database.connection,
                      "update users set swept_at = now() where id = 900");
    model_add(&model, 3, 5, 9);
    fixture_await_version(&model.log, 3, 9);
    model_expect_equal(&model);
    projector_stop(&model.projector);
}

Test(rebuild, the_log_alone_gives_the_same)
{
    struct tally_rebuild_options with = options();
    with.source = TALLY_REBUILD_LOG;
    rebuild(&with);
    cr_assert(result.switched);
    cr_assert_eq(result.users, 0);
    model_expect_equal(&model);
    projector_stop(&model.projector);
}

Test(rebuild, after_a_kill_it_goes_on_with_another_snapshot_and_counts_once)
{
    const int64_t before = fixture_generation(&model.log);
    rebuild_and_kill();
    const int64_t number = unfinished();
    cr_assert_neq(number, 0);
    cr_assert_eq(fixture_generation(&model.log), before);
    /* Some of them were read already, some will be in the next snapshot as well as in the log. */
    for (int64_t id = 1; id <= USERS; id++)
        model_add(&model, id, 2 + id % 5, 8);
    model_add(&model, USERS + 1, 1, 4);
    const struct tally_rebuild_options with = options();
    rebuild(&with);
    cr_assert(result.switched && result.resumed);
    cr_assert_eq(result.generation, number);
    cr_assert_lt(result.users, USERS + 1);
    model_expect_equal(&model);
    projector_stop(&model.projector);
}

Test(rebuild, a_wrong_count_refuses_the_switch_until_it_is_accepted)
{
    const int64_t before = fixture_generation(&model.log);
    rebuild_and_kill();
    const int64_t number = unfinished();
    model_set_field(&model, number, 1, "posts", "77");
    struct tally_rebuild_options with = options();
    rebuild(&with);
    cr_assert_not(result.switched);
    cr_assert_eq(differing_user, 1);
    cr_assert_eq(fixture_generation(&model.log), before);
    with.accept_differences = true;
    rebuild(&with);
    cr_assert(result.switched);
    cr_assert_eq(fixture_generation(&model.log), number);
    cr_assert_str_eq(model_field(&model, 0, 1, "posts"), "77");
    with.accept_differences = false;
    rebuild(&with);
    cr_assert(result.switched);
    model_expect_equal(&model);
    projector_stop(&model.projector);
}

Test(rebuild, a_generation_that_was_lost_half_built_is_begun_again)
{
    rebuild_and_kill();
    const int64_t number = unfinished();
    char position[TALLY_VIEW_KEY_BYTES];
    redisReply *reply = NULL;
    struct tally_error error = {0};
    tally_view_position_key(position, number, 1);
    cr_assert_eq(tally_redis_call(model.log.redis, &reply, &error, "DEL %s", position), TALLY_OK);
    freeReplyObject(reply);
    const struct tally_rebuild_options with = options();
    rebuild(&with);
    cr_assert(result.switched);
    cr_assert_not(result.resumed);
    cr_assert_gt(result.generation, number);
    model_expect_equal(&model);
    projector_stop(&model.projector);
}

Test(rebuild, a_second_one_at_the_same_time_is_refused)
{
    struct tally_ctl_lease *lease = NULL;
    struct tally_error error = {0};
    cr_assert_eq(tally_ctl_lease_take(&model.settings, &lease, &error), TALLY_OK, "%s", error.text);
    const struct tally_rebuild_options with = options();
    cr_assert_eq(tally_rebuild_run(&with, &result, &error), TALLY_KEY_IN_USE);
    struct tally_rollback_result rolled;
    cr_assert_eq(tally_rebuild_rollback(&model.settings, &rolled, &error), TALLY_KEY_IN_USE);
    tally_ctl_lease_release(&lease);
    rebuild(&with);
    cr_assert(result.switched);
    projector_stop(&model.projector);
}

/* Publishes by `count` partitions, as far as the database tells; somebody leads. */
static void pretend_relay(PGconn *leader, const char *count)
{
    char sql[128];
    (void)snprintf(sql, sizeof sql, "select pg_try_advisory_lock(%" PRId64 ")",
                   TALLY_RELAY_LOCK_KEY);
    test_database_run(leader, sql);
    (void)snprintf(sql, sizeof sql, "update relay_position set partitions = %s", count);
    test_database_run(leader, sql);
}

static void follow_on_note(void *context, const char *text)
{
    if (strstr(text, "waiting until the relay") == NULL)
        return;
    waits++;
    /* One that went by the old count until then. */
    model.log.partitions = FIXTURE_PARTITIONS - 1;
    model_add(&model, USERS + 1, 1, 3);
    model.log.partitions = 0;
    pretend_relay(context, "4");
}

Test(rebuild, takes_its_offsets_once_the_relay_goes_by_the_topics_partitions)
{
    PGconn *leader = test_database_connect(&model.database);
    pretend_relay(leader, "3");
    struct tally_rebuild_options with = options();
    with.on_note = follow_on_note;
    with.context = leader;
    rebuild(&with);
    cr_assert(result.switched);
    cr_assert_eq(waits, 1);
    cr_assert_eq(result.events, 0, "%" PRId64 " events lay behind the offsets", result.events);
    /* Nobody leads: nothing is published. */
    pretend_relay(leader, "3");
    PQfinish(leader);
    with.on_note = NULL;
    rebuild(&with);
    cr_assert(result.switched);
    projector_stop(&model.projector);
}

/* Kafka gives a static member that comes back soon what it had. */
Test(rebuild, a_projector_that_keeps_its_instance_id_owns_the_partitions_that_were_added)
{
    enum { WIDER = FIXTURE_PARTITIONS + 1 };
    struct tally_error error = {0};
    const struct tally_rebuild_options with = options();
    int64_t moved = USERS + 1;
    projector_stop(&model.projector);
    (void)snprintf(model.projector.settings.group_instance_id,
                   sizeof model.projector.settings.group_instance_id, "one");
    projector_start(&model.log, &model.projector);
    model_add(&model, 3, 5, 6);
    fixture_await_version(&model.log, 3, 6);
    projector_stop(&model.projector);
    fixture_widen_topic(&model.log, WIDER);
    projector_start(&model.log, &model.projector);
    cr_assert_eq(projector_await_end(&model.projector, &error), TALLY_CONFIG, "%s", error.text);
    rebuild(&with);
    cr_assert(result.switched);
    projector_start(&model.log, &model.projector);
    while (tally_partition_of(moved, WIDER) != FIXTURE_PARTITIONS)
        moved++;
    model_add(&model, moved, 1, 3);
    fixture_await_version(&model.log, moved, 3);
    model_expect_equal(&model);
    projector_stop(&model.projector);
}

/* Once the offsets are taken. */
static void widen_on_progress(void *context, const struct tally_rebuild_progress *progress)
{
    (void)progress;
    bool *widened = context;
    if (*widened)
        return;
    *widened = true;
    fixture_widen_topic(&model.log, FIXTURE_PARTITIONS + 1);
    for (int64_t id = 1; id <= USERS; id++)
        model_add(&model, id, 2 + id % 5, 8);
}

static int64_t count_dead_letters(void)
{
    int64_t low = 0, high = 0;
    struct tally_error error = {0};
    struct tally_kafka_admin *admin = NULL;
    cr_assert_eq(tally_kafka_admin_new(model.settings.kafka_brokers, &admin, &error), TALLY_OK,
                 "%s", error.text);
    cr_assert_eq(
        tally_kafka_admin_watermarks(admin, model.log.dead_topic, 0, 60000, &low, &high, &error),
        TALLY_OK, "%s", error.text);
    tally_kafka_admin_free(&admin);
    return high;
}

Test(rebuild, partitions_that_are_added_meanwhile_are_named_and_the_next_one_goes_by_them)
{
    bool widened = false;
    struct tally_error error = {0};
    struct tally_rebuild_options with = options();
    projector_stop(&model.projector);
    with.on_progress = widen_on_progress;
    with.context = &widened;
    cr_assert_eq(tally_rebuild_run(&with, &result, &error), TALLY_CONFIG);
    cr_assert_not_null(strstr(error.text, "5 partitions now"), "%s", error.text);
    cr_assert_eq(count_dead_letters(), 0);
    rebuild(&with);
    cr_assert(result.switched);
    cr_assert_not(result.resumed);
    projector_start(&model.log, &model.projector);
    model_expect_equal(&model);
    projector_stop(&model.projector);
}

Test(rebuild, nothing_is_built_from_a_log_that_holds_events_of_another_partition_count)
{
    struct tally_error error = {0};
    struct tally_rebuild_options with = options();
    model.log.partitions = FIXTURE_PARTITIONS - 1;
    for (int64_t id = 1; id <= USERS; id++)
        model_add(&model, id, 8, 8);
    with.source = TALLY_REBUILD_LOG;
    cr_assert_eq(tally_rebuild_run(&with, &result, &error), TALLY_CONFIG);
    cr_assert_not_null(strstr(error.text, "--from database"), "%s", error.text);
    projector_stop(&model.projector);
}

Test(rebuild, the_kept_generation_is_incomplete_after_a_rollback_until_it_has_caught_up)
{
    const int64_t before = fixture_generation(&model.log);
    struct tally_error error = {0};
    struct tally_rollback_result rolled;
    cr_assert_eq(tally_rebuild_rollback(&model.settings, &rolled, &error), TALLY_NOT_FOUND);
    const struct tally_rebuild_options with = options();
    rebuild(&with);
    model_add(&model, 3, 5, 9);
    fixture_await_version(&model.log, 3, 9);
    projector_stop(&model.projector);
    cr_assert_eq(tally_rebuild_rollback(&model.settings, &rolled, &error), TALLY_OK, "%s",
                 error.text);
    cr_assert_eq(rolled.generation, before);
    cr_assert_eq(rolled.behind, 5);
    struct tally_position position;
    const int32_t partition = tally_partition_of(3, FIXTURE_PARTITIONS);
    cr_assert_eq(tally_position_read(model.log.redis, before, &partition, 1, &position, &error),
                 TALLY_OK);
    cr_assert_lt(position.offset, position.until);
    projector_start(&model.log, &model.projector);
    fixture_await_applied(&model.log);
    cr_assert_eq(fixture_generation(&model.log), before);
    model_expect_equal(&model);
    projector_stop(&model.projector);
}

/* Seals the live generation for a while, moves its positions on as a switch does, and has user 3
 * come from version `at` to `next`. Returns how often the seal was seen, and the user as before. */
static int looks_while_sealed(int64_t seal_ms, int64_t at, int64_t next)
{
    struct tally_ctl_lease *lease = NULL;
    struct tally_error error = {0};
    const int64_t live = fixture_generation(&model.log);
    struct tally_position_change changes[FIXTURE_PARTITIONS];
    struct tally_position_changed changed[FIXTURE_PARTITIONS];
    int looks = 0;
    cr_assert_eq(tally_ctl_lease_take(&model.settings, &lease, &error), TALLY_OK);
    cr_assert_eq(
        tally_generation_seal(model.log.redis, tally_ctl_lease_token(lease), live, seal_ms, &error),
        TALLY_OK);
    for (int32_t i = 0; i < FIXTURE_PARTITIONS; i++)
        changes[i] = (struct tally_position_change){.epoch = -1, .until = -1, .fresh_at_ms = -1};
    cr_assert_eq(
        tally_positions_change(model.log.redis, live, FIXTURE_PARTITIONS, changes, changed, &error),
        TALLY_OK);
    model_add(&model, 3, at + 1, next);
    /* Sealed: what is refused now is not tried with the new epoch before the seal is gone. */
    for (int64_t sealed = live; sealed == live;) {
        const int64_t version = strtoll(model_field(&model, 0, 3, "v"), NULL, 10);
        cr_assert_eq(tally_generation_sealed(model.log.redis, &sealed, &error), TALLY_OK);
        if (sealed == live) {
            cr_assert_eq(version, at);
            looks++;
        }
    }
    fixture_await_version(&model.log, 3, next);
    tally_ctl_lease_release(&lease);
    return looks;
}

Test(rebuild, a_projector_waits_for_a_switch_that_never_comes_only_as_long_as_the_seal)
{
    enum { SEAL_MOST_MS = 60000 };
    int64_t at = 4;
    /* Again with a longer seal where it ended before the events were sent. */
    for (int64_t seal_ms = 1500; looks_while_sealed(seal_ms, at, at + 5) == 0; seal_ms *= 2) {
        cr_assert_lt(seal_ms, SEAL_MOST_MS, "no look was before the end of a seal");
        at += 5;
    }
    model_expect_equal(&model);
    projector_stop(&model.projector);
}
