#include "simulation.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>

enum { SEEDS = 500, SEEDS_UNTIL_CAUGHT = 3000 };

Test(simulation, every_seed_keeps_the_promises)
{
    const struct simulation_range range = {.first = 1, .last = SEEDS, .steps = SIMULATION_STEPS};
    struct simulation_outcome outcome;
    uint64_t seed = 0;
    cr_assert_eq(simulation_many(&range, true, &seed, &outcome), 0,
                 "simulation --seed %llu --trace: %s", (unsigned long long)seed, outcome.reason);
}

Test(simulation, a_seed_replays_identically)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        const struct simulation_settings settings = {.seed = seed, .steps = SIMULATION_STEPS};
        struct simulation_outcome first;
        struct simulation_outcome second;
        simulation_run(&settings, &first);
        simulation_run(&settings, &second);
        cr_expect_eq(first.hash, second.hash);
        cr_expect_eq(first.steps, second.steps);
    }
}

Test(simulation, its_faults_happen)
{
    struct simulation_outcome all = {0};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const struct simulation_settings settings = {.seed = seed, .steps = SIMULATION_STEPS};
        struct simulation_outcome one;
        simulation_run(&settings, &one);
        all.commits += one.commits;
        all.published += one.published;
        all.applied += one.applied;
        all.refused += one.refused;
        all.crashes += one.crashes;
        all.losses += one.losses;
        all.repairs += one.repairs;
        all.switches += one.switches;
        all.refills += one.refills;
    }
    cr_expect_gt(all.commits, 200);
    cr_expect_gt(all.published, 1000);
    cr_expect_gt(all.applied, 200);
    cr_expect_gt(all.refused, 0);
    cr_expect_gt(all.crashes, 20);
    cr_expect_gt(all.losses, 10);
    cr_expect_gt(all.repairs, 0);
    cr_expect_gt(all.switches, 0);
    cr_expect_gt(all.refills, 0);
}

ParameterizedTestParameters(simulation, a_planted_mistake_is_caught)
{
    static int plants[SIMULATION_PLANT_COUNT - 1];
    for (int i = 1; i < SIMULATION_PLANT_COUNT; i++)
        plants[i - 1] = i;
    return cr_make_param_array(int, plants, SIMULATION_PLANT_COUNT - 1);
}

ParameterizedTest(int *number, simulation, a_planted_mistake_is_caught)
{
    const struct simulation_range range = {
        .first = 1,
        .last = SEEDS_UNTIL_CAUGHT,
        .steps = SIMULATION_STEPS,
        .plant = (enum simulation_plant) * number,
        .stop_at_failure = true,
    };
    struct simulation_outcome outcome;
    uint64_t seed = 0;
    cr_expect_gt(simulation_many(&range, true, &seed, &outcome), 0, "%s: no seed of %d fails",
                 simulation_plant_text(range.plant), SEEDS_UNTIL_CAUGHT);
}
