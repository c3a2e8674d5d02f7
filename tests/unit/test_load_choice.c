/* Load generator: what it picks at random, and how it reads its options. */
#include "service/ctl/choice.h"

#include <criterion/criterion.h>
#include <math.h>

enum { DRAWS = 200000, RANKS = 1000 };

static void draw(double exponent, int64_t counts[RANKS + 1])
{
    struct tally_zipf zipf;
    struct tally_random random;
    tally_random_seed(&random, 42);
    tally_zipf_init(&zipf, RANKS, exponent);
    for (int i = 0; i < DRAWS; i++) {
        int64_t rank = tally_zipf_next(&zipf, &random);
        cr_assert(rank >= 1 && rank <= RANKS);
        counts[rank]++;
    }
}

static void check_frequencies(double exponent)
{
    static int64_t counts[RANKS + 1];
    draw(exponent, counts);
    double sum = 0;
    for (int rank = 1; rank <= RANKS; rank++)
        sum += pow(rank, -exponent);
    const int ranks[] = {1, 2, 3, 10, 100};
    for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
        double share = pow(ranks[i], -exponent) / sum;
        double expected = share * DRAWS;
        double deviation = sqrt(expected * (1 - share));
        cr_expect_lt(fabs((double)counts[ranks[i]] - expected), 5 * deviation + 1,
                     "exponent %g, rank %d: %lld instead of %.0f", exponent, ranks[i],
                     (long long)counts[ranks[i]], expected);
    }
}

Test(load_choice, zipf_with_exponent_1_draws_each_rank_as_often_as_it_should)
{
    check_frequencies(1);
}

Test(load_choice, zipf_with_a_small_exponent_draws_each_rank_as_often_as_it_should)
{
    check_frequencies(0.5);
}

Test(load_choice, zipf_with_a_large_exponent_draws_each_rank_as_often_as_it_should)
{
    check_frequencies(2);
}

Test(load_choice, zipf_over_one_user_picks_that_user)
{
    struct tally_zipf zipf;
    struct tally_random random;
    tally_random_seed(&random, 1);
    tally_zipf_init(&zipf, 1, 1);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(tally_zipf_next(&zipf, &random), 1);
}

Test(load_choice, a_distribution_is_read_or_refused)
{
    struct tally_distribution distribution;
    struct tally_error error;
    cr_assert_eq(tally_distribution_parse("uniform", &distribution, &error), TALLY_OK);
    cr_assert(distribution.uniform);
    cr_assert_eq(tally_distribution_parse("zipf", &distribution, &error), TALLY_OK);
    cr_assert_eq(distribution.exponent, 1.0);
    cr_assert_eq(tally_distribution_parse("zipf:0.8", &distribution, &error), TALLY_OK);
    cr_assert_float_eq(distribution.exponent, 0.8, 1e-12);
    const char *const wrong[] = {"",        "zip",    "zipf:",   "zipf:x",
                                 "zipf:1x", "zipf:0", "zipf:99", "zipf:nan"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_expect_eq(tally_distribution_parse(wrong[i], &distribution, &error), TALLY_INVALID, "%s",
                     wrong[i]);
}

Test(load_choice, a_mix_is_read_or_refused)
{
    struct tally_mix mix;
    struct tally_error error;
    cr_assert_eq(tally_mix_parse("post=45,comment=50,delete-post=5", &mix, &error), TALLY_OK);
    cr_assert_eq(mix.sum, 100);
    cr_assert_eq(mix.weights[TALLY_LOAD_COMMENT], 50);
    cr_assert_eq(mix.weights[TALLY_LOAD_DELETE_COMMENT], 0);
    const char *const wrong[] = {"",       "post",   "post=", "post=-1",       "post=1x",
                                 "post=0", "user=1", ",",     "post=1,post=2", "post=1,"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_expect_eq(tally_mix_parse(wrong[i], &mix, &error), TALLY_INVALID, "%s", wrong[i]);
}

Test(load_choice, a_mix_draws_kinds_by_their_weights)
{
    struct tally_mix mix;
    struct tally_error error;
    struct tally_random random;
    int counts[TALLY_LOAD_KIND_COUNT] = {0};
    tally_random_seed(&random, 7);
    cr_assert_eq(tally_mix_parse("post=3,delete-comment=1", &mix, &error), TALLY_OK);
    for (int i = 0; i < 40000; i++)
        counts[tally_mix_next(&mix, &random)]++;
    cr_assert_eq(counts[TALLY_LOAD_COMMENT] + counts[TALLY_LOAD_DELETE_POST], 0);
    cr_assert(abs(counts[TALLY_LOAD_POST] - 30000) < 500);
}

Test(load_choice, what_was_made_is_taken_once_and_kept_within_its_bound)
{
    struct tally_made made;
    struct tally_error error;
    struct tally_random random;
    tally_random_seed(&random, 7);
    cr_assert_eq(tally_made_init(&made, 3, &error), TALLY_OK);
    cr_assert_eq(tally_made_take(&made, &random).id, 0);
    for (int64_t id = 1; id <= 10; id++)
        tally_made_add(&made, (struct tally_made_thing){.id = id, .user = 100 + id}, &random);
    struct tally_made_thing first = tally_made_take(&made, &random),
                            second = tally_made_take(&made, &random),
                            third = tally_made_take(&made, &random);
    cr_assert(first.id > 0 && second.id > 0 && third.id > 0);
    cr_assert(first.id != second.id && second.id != third.id && first.id != third.id);
    cr_assert_eq(first.user, 100 + first.id);
    cr_assert_eq(tally_made_any(&made, &random).id, 0);
    tally_made_release(&made);
}
