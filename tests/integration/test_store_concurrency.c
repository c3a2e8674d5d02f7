#include "core/random.h"
#include "store_fixture.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* Several tally-command processes write to the same few users, posts and addresses. */
enum {
    WRITERS = 3,
    CONNECTIONS = 2,
    USERS = 40,
    ROUNDS = 40,
    IN_FLIGHT = 60, /* commands of a writer that are under way at once */
    ADDRESSES = 12,
};

struct hammer {
    const char *dsn;
    const int64_t *users;
    uint64_t seed;
    int counts[TALLY_STATUS_COUNT];
    int64_t posts[512]; /* made by this writer; older ones are overwritten */
    int64_t comments[512];
    size_t post_count, comment_count;
    char addresses[ADDRESSES][32];
};

static _Atomic int64_t shared_posts[64]; /* where all writers comment and delete */

static int64_t zipf_user(struct hammer *hammer, struct tally_random *random)
{
    double place = pow((double)USERS + 1, tally_random_unit(random)) - 1;
    return hammer->users[(size_t)place < USERS ? (size_t)place : USERS - 1];
}

static int64_t any_post(struct hammer *hammer, struct tally_random *random)
{
    if (hammer->post_count > 0 && tally_random_below(random, 4) == 0)
        return hammer->posts[tally_random_below(
            random, hammer->post_count < 512 ? hammer->post_count : 512)];
    return atomic_load(&shared_posts[tally_random_below(random, 64)]);
}

static struct tally_command next_command(struct hammer *hammer, struct tally_random *random)
{
    uint64_t choice = tally_random_below(random, 1000);
    int64_t user = zipf_user(hammer, random);
    if (choice < 300)
        return create_post(user);
    if (choice < 650)
        return create_comment(any_post(hammer, random), user);
    if (choice < 750 && hammer->comment_count > 0)
        return delete_comment(hammer->comments[tally_random_below(
            random, hammer->comment_count < 512 ? hammer->comment_count : 512)]);
    if (choice < 850)
        return delete_post(any_post(hammer, random));
    if (choice < 970)
        return update_email(user, hammer->addresses[tally_random_below(random, ADDRESSES)]);
    if (choice < 998)
        return create_user(hammer->addresses[tally_random_below(random, ADDRESSES)]);
    return delete_user(user);
}

static void remember(struct hammer *hammer, const struct job *job, struct tally_random *random)
{
    hammer->counts[job->outcome.status]++;
    if (job->outcome.status != TALLY_OK)
        return;
    if (job->command.kind == TALLY_COMMAND_CREATE_POST) {
        hammer->posts[hammer->post_count++ % 512] = job->outcome.id;
        atomic_store(&shared_posts[tally_random_below(random, 64)], job->outcome.id);
    } else if (job->command.kind == TALLY_COMMAND_CREATE_COMMENT) {
        hammer->comments[hammer->comment_count++ % 512] = job->outcome.id;
    }
}

static void *hammer_on(void *context)
{
    struct hammer *hammer = context;
    struct writer writer;
    struct tally_random random;
    struct job *jobs = calloc(IN_FLIGHT, sizeof *jobs);
    tally_random_seed(&random, hammer->seed);
    writer_open(&writer, hammer->dsn, CONNECTIONS, 30000);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < IN_FLIGHT; i++) {
            jobs[i].command = next_command(hammer, &random);
            writer_submit(&writer, &jobs[i]);
            if (tally_random_below(&random, 10) == 0)
                event_base_loop(writer.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
        }
        writer_wait(&writer);
        for (int i = 0; i < IN_FLIGHT; i++)
            remember(hammer, &jobs[i], &random);
    }
    cr_expect_eq(writer.replayed, 0, "an SQL error: %s", writer.failure);
    writer_close(&writer);
    free(jobs);
    return NULL;
}

static void *sweep_on(void *context)
{
    struct {
        const char *dsn;
        atomic_bool *stopping;
    } *work = context;
    PGconn *connection = PQconnectdb(work->dsn);
    while (!atomic_load(work->stopping))
        test_database_number(connection, "select sweep_deleted(20)");
    PQfinish(connection);
    return NULL;
}

static void make_users(const char *dsn, int64_t *users)
{
    struct writer writer;
    char email[32];
    writer_open(&writer, dsn, 1, 30000);
    for (int i = 0; i < USERS; i++) {
        (void)snprintf(email, sizeof email, "user%d@example.org", i);
        users[i] = make_user(&writer, email);
    }
    for (int i = 0; i < 64; i++)
        atomic_store(&shared_posts[i], make_post(&writer, users[i % USERS]));
    writer_close(&writer);
}

static void prepare(struct hammer *hammer, int number, const char *dsn, const int64_t *users)
{
    *hammer = (struct hammer){.dsn = dsn, .users = users, .seed = (uint64_t)number + 1};
    for (int i = 0; i < ADDRESSES; i++)
        (void)snprintf(hammer->addresses[i], sizeof hammer->addresses[i], "%s%d@example.org",
                       number % 2 ? "Shared" : "shared", i);
}

TestSuite(store_concurrency, .timeout = 300);

Test(store_concurrency, several_writers_on_the_same_users_neither_deadlock_nor_miscount)
{
    struct test_database database;
    int64_t users[USERS];
    static struct hammer hammers[WRITERS];
    pthread_t threads[WRITERS];
    pthread_t sweeper;
    atomic_bool stopping = false;
    test_database_create(&database);
    make_users(database.dsn, users);
    struct {
        const char *dsn;
        atomic_bool *stopping;
    } sweeping = {database.dsn, &stopping};
    pthread_create(&sweeper, NULL, sweep_on, &sweeping);
    for (int i = 0; i < WRITERS; i++) {
        prepare(&hammers[i], i, database.dsn, users);
        pthread_create(&threads[i], NULL, hammer_on, &hammers[i]);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&stopping, true);
    pthread_join(sweeper, NULL);
    int accepted = 0;
    for (int i = 0; i < WRITERS; i++) {
        accepted += hammers[i].counts[TALLY_OK];
        cr_expect_eq(hammers[i].counts[TALLY_INTERNAL] + hammers[i].counts[TALLY_UNAVAILABLE] +
                         hammers[i].counts[TALLY_OUTCOME_UNKNOWN],
                     0);
    }
    cr_assert_gt(accepted, WRITERS * ROUNDS * IN_FLIGHT / 4, "only %d were accepted", accepted);
    expect_sound(database.connection);
    sweep_all(database.connection);
    expect_sound(database.connection);
    cr_assert_eq(test_database_number(database.connection,
                                      "select deadlocks from pg_stat_database where datname ="
                                      " current_database()"),
                 0);
    test_database_drop(&database);
}
