/* Every call that comparing the read model with the write model makes of malloc, the system and the
 * libraries fails once: it says so, and the next comparison is right. */
#include "core/log.h"
#include "database.h"
#include "faults.h"
#include "query_fixture.h"
#include "service/ctl/verify.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { RUNS_MOST = 1500, USER = 1 };

static struct test_database database;
static struct fixture fixture;

static void open_all(void)
{
    test_database_create(&database);
    test_database_run(database.connection,
                      "insert into users (id, name, email, avatar, version) values"
                      " (1, 'Ann', 'ann@x.test', null, 2);"
                      "insert into posts (id, author_id, body) values (11, 1, 'x')");
    fixture_open(&fixture);
    fixture_make_generation(&fixture, FIXTURE_GENERATION);
    fixture_set_user(&fixture, FIXTURE_GENERATION, USER,
                     "v 2 posts 1 comments 0 name Ann email ann@x.test tl 1");
    fixture_redis(&fixture, "HSET tally:%d:{%d}:totals users 1 posts 1 comments 0",
                  FIXTURE_GENERATION, 0);
    tally_log_set_level(TALLY_LOG_ERROR);
}

static void close_all(void)
{
    fixture_close(&fixture);
    test_database_drop(&database);
}

TestSuite(faults_read, .init = open_all, .fini = close_all, .timeout = 600);

static enum tally_status verify(struct tally_error *error)
{
    struct tally_verify_result result = {0};
    const struct tally_verify_options options = {
        .pg_dsn = database.dsn,
        .redis_url = fixture.redis_url,
        .redis_timeout_ms = 5000,
        .grace_ms = 100,
        .pending_most = 2,
    };
    enum tally_status status = tally_verify_run(&options, &result, error);
    cr_expect(status != TALLY_OK || (result.checked == 1 && result.differences == 0),
              "after %s failed: %lld checked, %lld differ", faults_failed(),
              (long long)result.checked, (long long)result.differences);
    return status;
}

Test(faults_read, verify_is_right_or_says_why_it_cannot_be)
{
    const long calls = faults_each(verify, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, 20);
    cr_expect_lt(calls, RUNS_MOST);
}
