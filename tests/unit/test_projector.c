#include "core/id.h"
#include "domain/partitioner.h"
#include "service/projector/round.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARTITIONS = 4, ROUND_MOST = 8192 };

static const int64_t noon_us = 1795348800LL * 1000000; /* 2026-11-22T12:00:00Z */
static const int64_t day_us = 86400LL * 1000000;
static const char profile[] = "{\"name\":\"Ada\",\"email\":\"a@b.c\",\"avatar\":null}";

/* A projector's state with partition 0 owned and current, and a round for it. */
struct bench {
    struct tally_model *model;
    struct tally_round round;
    struct tally_apply_encoder encoder;
    int64_t offset; /* of the next record */
};

static void make_current(struct tally_model *model, int64_t offset)
{
    const int32_t owned[] = {0};
    const struct tally_position position = {.present = true, .epoch = 5, .offset = offset};
    tally_model_own(model, owned, 1);
    tally_partition_resume(&model->partitions[0], &position);
}

static struct bench setup(size_t users_most)
{
    struct bench bench = {.offset = 100};
    bench.model = tally_model_new(PARTITIONS, users_most);
    cr_assert_not_null(bench.model);
    bench.model->generation = 3;
    cr_assert(tally_round_init(&bench.round, ROUND_MOST));
    tally_apply_encoder_init(&bench.encoder);
    memset(bench.encoder.sha, 'a', sizeof bench.encoder.sha - 1);
    bench.encoder.sha[sizeof bench.encoder.sha - 1] = '\0';
    make_current(bench.model, bench.offset);
    return bench;
}

static void teardown(struct bench *bench)
{
    tally_round_release(&bench->round);
    tally_apply_encoder_release(&bench->encoder);
    tally_model_free(&bench->model);
}

/* The n-th user of partition 0. */
static int64_t user(int n)
{
    int64_t id = 1000;
    for (int seen = -1; seen < n; id++)
        seen += tally_partition_of(id, PARTITIONS) == 0;
    return id - 1;
}

/* A record that carries `event`, taken into the round at the next offset. */
static bool take_event(struct bench *bench, const struct tally_event *event)
{
    struct tally_event_headers encoded;
    struct tally_record_header headers[TALLY_EVENT_HEADER_COUNT];
    char key[TALLY_ID_TEXT_BYTES];
    tally_event_encode_headers(&encoded, event, "/tally", NULL);
    for (size_t i = 0; i < encoded.count; i++)
        headers[i] = (struct tally_record_header){encoded.list[i].name, encoded.list[i].value,
                                                  encoded.list[i].length};
    struct tally_record record = {
        .partition = 0,
        .offset = bench->offset++,
        .key = key,
        .key_length = tally_id_format(event->user_id, key),
        .value = event->value,
        .value_length = event->value_length,
        .headers = headers,
        .header_count = encoded.count,
    };
    return tally_round_take(&bench->round, bench->model, &record);
}

static struct tally_event event_of(int64_t user_id, int64_t version, enum tally_event_type type)
{
    struct tally_event event = {
        .type = type, .user_id = user_id, .version = version, .timeline = 1, .at_us = noon_us};
    if (type == TALLY_EVENT_USER_CREATED || type == TALLY_EVENT_USER_UPDATED) {
        event.value = profile;
        event.value_length = strlen(profile);
    }
    return event;
}

static bool take(struct bench *bench, int64_t user_id, int64_t version, enum tally_event_type type)
{
    const struct tally_event event = event_of(user_id, version, type);
    return take_event(bench, &event);
}

/* Redis has none of the users asked for. */
static void load_nothing(struct bench *bench)
{
    struct tally_round *round = &bench->round;
    for (size_t i = 0; i < round->missing_count; i++)
        round->missing[i]->loaded = true;
    struct tally_partition *partition = &bench->model->partitions[0];
    for (struct tally_user_slot *slot = partition->new_users; slot != NULL; slot = slot->next_new)
        slot->loaded = true;
    partition->new_users = NULL;
}

static void fold(struct bench *bench)
{
    struct tally_error error = {0};
    load_nothing(bench);
    cr_assert_eq(tally_round_fold(&bench->round, bench->model, &bench->encoder, &error), TALLY_OK,
                 "%s", error.text);
}

Test(projector, refuses_to_build_from_a_log_that_lacks_the_first_event_of_a_user)
{
    struct bench bench = setup(100);
    struct tally_error error = {0};
    struct tally_partition *partition = &bench.model->partitions[0];
    partition->until = 101;
    cr_assert(take(&bench, user(0), 2, TALLY_EVENT_POST_CREATED));
    load_nothing(&bench);
    cr_expect_eq(tally_round_fold(&bench.round, bench.model, &bench.encoder, &error), TALLY_CONFIG);
    cr_expect_not_null(strstr(error.text, "tallyctl rebuild"), "%s", error.text);
    teardown(&bench);
    /* Once it is built, it is a gap like any other. */
    bench = setup(100);
    bench.model->partitions[0].until = 100;
    cr_assert(take(&bench, user(0), 2, TALLY_EVENT_POST_CREATED));
    fold(&bench);
    cr_expect_eq(bench.round.items[0].outcome, TALLY_OUTCOME_GAP);
    teardown(&bench);
}

Test(projector, takes_nothing_from_partitions_it_does_not_know)
{
    struct bench bench = setup(100);
    tally_model_lose(bench.model, 0);
    cr_expect_not(take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED));
    tally_model_own(bench.model, NULL, 0);
    cr_expect_not(take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED));
    cr_expect_eq(bench.round.count, 0);
    teardown(&bench);
}

Test(projector, takes_no_record_before_the_position)
{
    struct bench bench = setup(100);
    bench.offset = 98;
    cr_expect_not(take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED));
    cr_expect_not(take(&bench, user(0), 2, TALLY_EVENT_POST_CREATED));
    cr_expect(take(&bench, user(0), 3, TALLY_EVENT_POST_CREATED));
    bench.offset = 100;
    cr_expect_not(take(&bench, user(0), 3, TALLY_EVENT_POST_CREATED));
    cr_expect_eq(bench.round.count, 1);
    teardown(&bench);
}

Test(projector, asks_for_each_unknown_user_once)
{
    struct bench bench = setup(100);
    take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED);
    take(&bench, user(0), 2, TALLY_EVENT_POST_CREATED);
    take(&bench, user(1), 8, TALLY_EVENT_POST_CREATED);
    take(&bench, user(1), 9, TALLY_EVENT_POST_CREATED);
    cr_expect_eq(bench.round.missing_count, 1);
    cr_expect_eq(bench.round.missing[0]->user_id, user(1));
    const struct tally_user_slot *fresh = bench.model->partitions[0].new_users;
    cr_assert_not_null(fresh);
    cr_expect_eq(fresh->user_id, user(0));
    cr_expect_null(fresh->next_new);
    fold(&bench);
    tally_round_clear(&bench.round);
    take(&bench, user(0), 3, TALLY_EVENT_POST_CREATED);
    cr_expect_eq(bench.round.missing_count, 0);
    cr_expect_null(bench.model->partitions[0].new_users);
    teardown(&bench);
}

Test(projector, one_call_covers_a_partition_of_a_round)
{
    struct bench bench = setup(100);
    for (int i = 0; i < 50; i++) {
        take(&bench, user(i % 10), i / 10 + 1,
             i < 10 ? TALLY_EVENT_USER_CREATED : TALLY_EVENT_POST_CREATED);
    }
    fold(&bench);
    cr_assert_eq(bench.round.call_count, 1);
    cr_expect_eq(bench.round.calls[0].to_offset, 150);
    cr_expect_eq(bench.round.calls[0].events, 50);
    const struct tally_partition *partition = &bench.model->partitions[0];
    cr_expect_eq(partition->folded, 150);
    cr_expect_eq(partition->totals.users, 10);
    cr_expect_eq(partition->totals.posts, 40);
    teardown(&bench);
}

Test(projector, a_call_never_names_more_users_than_its_bound)
{
    struct bench bench = setup(10000);
    enum { USERS = 2 * TALLY_APPLY_USERS_MOST + 1 };
    int64_t id = 1000;
    for (int taken = 0; taken < USERS; id++) {
        if (tally_partition_of(id, PARTITIONS) != 0)
            continue;
        cr_assert(take(&bench, id, 1, TALLY_EVENT_USER_CREATED));
        taken++;
    }
    fold(&bench);
    cr_assert_eq(bench.round.call_count, 3);
    cr_expect_eq(bench.round.calls[0].to_offset, 100 + TALLY_APPLY_USERS_MOST);
    cr_expect_eq(bench.round.calls[1].to_offset, 100 + 2 * TALLY_APPLY_USERS_MOST);
    cr_expect_eq(bench.round.calls[2].to_offset, 100 + USERS);
    cr_expect_eq(bench.model->partitions[0].totals.users, USERS);
    teardown(&bench);
}

Test(projector, midnight_cuts_a_call_for_a_user_of_both_days)
{
    struct bench bench = setup(100);
    struct tally_event before = event_of(user(0), 1, TALLY_EVENT_USER_CREATED);
    struct tally_event after = event_of(user(0), 2, TALLY_EVENT_POST_CREATED);
    struct tally_event other = event_of(user(1), 1, TALLY_EVENT_USER_CREATED);
    after.at_us += day_us;
    other.at_us += day_us;
    take_event(&bench, &before);
    take_event(&bench, &other);
    take_event(&bench, &after);
    fold(&bench);
    cr_assert_eq(bench.round.call_count, 2);
    cr_expect_eq(bench.round.calls[0].to_offset, 102);
    cr_expect_eq(bench.round.calls[1].to_offset, 103);
    teardown(&bench);
}

Test(projector, a_call_never_names_more_days_than_its_bound)
{
    struct bench bench = setup(100);
    for (int i = 0; i < TALLY_APPLY_DAYS_MOST + 1; i++) {
        struct tally_event event = event_of(user(i), 1, TALLY_EVENT_USER_CREATED);
        event.at_us += i * day_us;
        take_event(&bench, &event);
    }
    fold(&bench);
    cr_assert_eq(bench.round.call_count, 2);
    cr_expect_eq(bench.round.calls[0].events, TALLY_APPLY_DAYS_MOST);
    teardown(&bench);
}

Test(projector, a_user_who_was_only_flagged_so_far_does_not_bring_one_day_too_many)
{
    struct bench bench = setup(100);
    struct tally_event broken = event_of(user(0), 1, TALLY_EVENT_USER_CREATED);
    broken.value = "{\"name\":7}";
    broken.value_length = strlen(broken.value);
    take_event(&bench, &broken);
    for (int i = 1; i <= TALLY_APPLY_DAYS_MOST; i++) {
        struct tally_event event = event_of(user(i), 1, TALLY_EVENT_USER_CREATED);
        event.at_us += i * day_us;
        take_event(&bench, &event);
    }
    struct tally_event late = event_of(user(0), 2, TALLY_EVENT_POST_CREATED);
    late.at_us += (TALLY_APPLY_DAYS_MOST + 1) * day_us;
    take_event(&bench, &late);
    fold(&bench);
    cr_assert_eq(bench.round.call_count, 2);
    cr_expect_eq(bench.round.calls[1].events, 1);
    teardown(&bench);
}

Test(projector, duplicates_move_the_position_and_write_no_user)
{
    struct bench bench = setup(100);
    take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED);
    fold(&bench);
    const size_t first = bench.round.out.length;
    tally_round_clear(&bench.round);
    take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED);
    fold(&bench);
    cr_assert_eq(bench.round.call_count, 1);
    cr_expect_eq(bench.round.calls[0].to_offset, 102);
    cr_expect_eq(bench.round.items[0].outcome, TALLY_OUTCOME_DUPLICATE);
    cr_expect_lt(bench.round.out.length, first);
    cr_assert_not_null(tally_buffer_text(&bench.round.out));
    cr_expect_null(strstr(bench.round.out.data, ":user:"));
    teardown(&bench);
}

Test(projector, poison_flags_its_user_and_lets_the_partition_go_on)
{
    struct bench bench = setup(100);
    struct tally_event broken = event_of(user(0), 2, TALLY_EVENT_USER_UPDATED);
    broken.value = "{\"name\":7}";
    broken.value_length = strlen(broken.value);
    take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED);
    take_event(&bench, &broken);
    take(&bench, user(1), 1, TALLY_EVENT_USER_CREATED);
    fold(&bench);
    cr_expect_eq(bench.round.items[1].outcome, TALLY_OUTCOME_POISON);
    cr_assert_not_null(bench.round.items[1].poison);
    cr_expect_eq(bench.round.items[2].outcome, TALLY_OUTCOME_APPLIED);
    cr_expect(bench.round.items[0].slot->state.flagged);
    cr_expect_eq(bench.round.items[0].slot->state.version, 1);
    cr_expect_not(bench.round.items[2].slot->state.flagged);
    cr_expect_eq(bench.round.calls[0].to_offset, 103);
    teardown(&bench);
}

Test(projector, a_key_of_another_partition_is_poison_of_nobody)
{
    struct bench bench = setup(100);
    int64_t stranger = 1000;
    while (tally_partition_of(stranger, PARTITIONS) == 0)
        stranger++;
    take(&bench, stranger, 1, TALLY_EVENT_USER_CREATED);
    fold(&bench);
    cr_expect_eq(bench.round.items[0].outcome, TALLY_OUTCOME_POISON);
    cr_expect_null(bench.round.items[0].slot);
    cr_expect_eq(bench.model->partitions[0].totals.users, 0);
    teardown(&bench);
}

/* The log is of before partitions were added: others of the user are elsewhere. */
Test(projector, nothing_is_built_from_a_log_with_a_key_of_another_partition)
{
    struct bench bench = setup(100);
    struct tally_error error;
    int64_t stranger = 1000;
    while (tally_partition_of(stranger, PARTITIONS) == 0)
        stranger++;
    bench.model->partitions[0].until = 102;
    take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED);
    take(&bench, stranger, 1, TALLY_EVENT_USER_CREATED);
    load_nothing(&bench);
    cr_assert_eq(tally_round_fold(&bench.round, bench.model, &bench.encoder, &error), TALLY_CONFIG);
    cr_expect_eq(bench.round.headless, &bench.round.items[1]);
    cr_expect_eq(bench.round.misplaced, &bench.round.items[1]);
    cr_expect_not_null(strstr(error.text, "tallyctl rebuild"), "%s", error.text);
    teardown(&bench);
}

Test(projector, records_of_a_partition_that_is_lost_meanwhile_are_dropped)
{
    struct bench bench = setup(100);
    take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED);
    tally_model_lose(bench.model, 0);
    fold(&bench);
    cr_expect_eq(bench.round.items[0].outcome, TALLY_OUTCOME_DROPPED);
    cr_expect_eq(bench.round.call_count, 0);
    teardown(&bench);
}

Test(projector, calls_of_following_rounds_form_a_chain)
{
    struct bench bench = setup(100);
    take(&bench, user(0), 1, TALLY_EVENT_USER_CREATED);
    bench.offset += 5; /* a hole, as compaction leaves it */
    take(&bench, user(0), 2, TALLY_EVENT_POST_CREATED);
    fold(&bench);
    tally_round_clear(&bench.round);
    take(&bench, user(0), 3, TALLY_EVENT_POST_CREATED);
    fold(&bench);
    cr_assert_not_null(tally_buffer_text(&bench.round.out));
    /* Expected offset, then the new one. */
    cr_expect_not_null(strstr(bench.round.out.data, "$1\r\n5\r\n$3\r\n107\r\n$3\r\n108\r\n"));
    teardown(&bench);
}

Test(projector, forgets_the_least_recently_used_users_first)
{
    struct tally_users *users = tally_users_new(2, 3);
    cr_assert_not_null(users);
    for (int64_t id = 1; id <= 5; id++)
        tally_users_get(users, (int32_t)(id % 2), id)->loaded = true;
    (void)tally_users_get(users, 1, 1);
    cr_expect_eq(tally_users_count(users), 5);
    tally_users_trim(users);
    cr_expect_eq(tally_users_count(users), 3);
    cr_expect(tally_users_get(users, 1, 1)->loaded);
    cr_expect(tally_users_get(users, 1, 5)->loaded);
    cr_expect_not(tally_users_get(users, 0, 2)->loaded);
    tally_users_drop(users, 1);
    cr_expect_not(tally_users_get(users, 1, 5)->loaded);
    tally_users_free(&users);
    cr_expect_null(users);
}

static enum tally_status check(struct tally_position position, int64_t low, int64_t high,
                               struct tally_error *error)
{
    const struct tally_log log = {.cluster = "here", .partitions = 8, .low = low, .high = high};
    return tally_position_check(&position, 3, &log, error);
}

Test(projector, starts_only_from_a_position_that_fits_the_log)
{
    const struct tally_position good = {
        .present = true, .offset = 50, .cluster = "here", .partitions = 8};
    struct tally_position other = good;
    struct tally_error error;
    cr_expect_eq(check(good, 0, 50, &error), TALLY_OK);
    cr_expect_eq(check(good, 50, 60, &error), TALLY_OK);
    cr_expect_eq(check(good, 51, 60, &error), TALLY_CONFIG, "retention has passed it");
    cr_expect_eq(check(good, 0, 49, &error), TALLY_CONFIG, "the topic was recreated");
    strcpy(other.cluster, "elsewhere");
    cr_expect_eq(check(other, 0, 50, &error), TALLY_CONFIG, "another cluster");
    other = good;
    other.partitions = 4;
    cr_expect_eq(check(other, 0, 50, &error), TALLY_CONFIG, "partitions were added");
    other = good;
    other.totals_lost = true;
    cr_expect_eq(check(other, 0, 50, &error), TALLY_CONFIG, "its totals are gone");
    other = (struct tally_position){0};
    cr_expect_eq(check(other, 0, 50, &error), TALLY_CONFIG, "the position is gone");
    cr_expect_not_null(strstr(error.text, "tallyctl rebuild"));
}

Test(projector, knows_a_log_that_was_made_anew_by_the_record_before_its_position)
{
    const struct tally_position position = {
        .present = true, .offset = 50, .cluster = "here", .partitions = 8, .mark_ms = 1000};
    struct tally_log log = {.cluster = "here", .partitions = 8, .high = 60, .mark_ms = 1000};
    struct tally_error error;
    cr_expect_eq(tally_position_check(&position, 3, &log, &error), TALLY_OK);
    log.mark_ms = 0;
    cr_expect_eq(tally_position_check(&position, 3, &log, &error), TALLY_OK, "it is gone");
    log.mark_ms = 1001;
    cr_expect_eq(tally_position_check(&position, 3, &log, &error), TALLY_CONFIG);
    cr_expect_not_null(strstr(error.text, "tallyctl refill"));
    cr_expect_not_null(strstr(error.text, "tallyctl rebuild"));
}

Test(projector, begins_a_read_model_only_from_a_whole_log)
{
    const int64_t whole[] = {0, 0, 0};
    const int64_t cut[] = {0, 1, 0};
    struct tally_error error;
    cr_expect_eq(tally_log_whole(whole, 3, &error), TALLY_OK);
    cr_expect_eq(tally_log_whole(cut, 3, &error), TALLY_CONFIG);
    cr_expect_not_null(strstr(error.text, "tallyctl rebuild"));
}
