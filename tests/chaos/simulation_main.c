#include "simulation.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum key {
    OPTION_SEED = 's',
    OPTION_SEEDS = 'r',
    OPTION_STEPS = 'n',
    OPTION_TRACE = 't',
    OPTION_PLANT = 'p',
    OPTION_PLANTS = 'l'
};

static const struct argp_option options[] = {
    {"seed", OPTION_SEED, "N", 0, "Run one seed and print what became of it", 0},
    {"seeds", OPTION_SEEDS, "A..B", 0, "Run all of these seeds (default 1..1000)", 0},
    {"steps", OPTION_STEPS, "K", 0, "Steps with faults of each run (default 3000)", 0},
    {"trace", OPTION_TRACE, NULL, 0, "With --seed: print every step", 0},
    {"plant", OPTION_PLANT, "NAME", 0, "Plant a mistake; some seed must then fail", 0},
    {"plants", OPTION_PLANTS, NULL, 0, "List the mistakes that can be planted", 0},
    {0},
};

struct choice {
    struct simulation_range range;
    bool single, trace, list;
};

static uint64_t parse_number(struct argp_state *state, const char *text, const char *end)
{
    char *stop = NULL;
    const uint64_t number = strtoull(text, &stop, 10);
    if (text[0] < '0' || text[0] > '9' || (end != NULL ? stop != end : *stop != '\0'))
        argp_error(state, "%s is no number", text);
    return number;
}

static void parse_range(struct argp_state *state, const char *text, struct simulation_range *range)
{
    const char *dots = text;
    while (*dots != '\0' && *dots != '.')
        dots++;
    if (dots[0] != '.' || dots[1] != '.')
        argp_error(state, "%s is no range A..B", text);
    range->first = parse_number(state, text, dots);
    range->last = parse_number(state, dots + 2, NULL);
    if (range->last < range->first)
        argp_error(state, "%s is an empty range", text);
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct choice *choice = state->input;
    switch (key) {
    case OPTION_SEED:
        choice->single = true;
        choice->range.first = choice->range.last = parse_number(state, argument, NULL);
        return 0;
    case OPTION_SEEDS:
        parse_range(state, argument, &choice->range);
        return 0;
    case OPTION_STEPS:
        choice->range.steps = (int64_t)parse_number(state, argument, NULL);
        return 0;
    case OPTION_TRACE:
        choice->trace = true;
        return 0;
    case OPTION_PLANT:
        if (!simulation_plant_parse(argument, &choice->range.plant))
            argp_error(state, "no mistake is called %s; see --plants", argument);
        return 0;
    case OPTION_PLANTS:
        choice->list = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int run_one(const struct choice *choice)
{
    const struct simulation_settings settings = {.seed = choice->range.first,
                                                 .steps = choice->range.steps,
                                                 .plant = choice->range.plant,
                                                 .trace = choice->trace};
    struct simulation_outcome outcome;
    simulation_run(&settings, &outcome);
    printf("seed %" PRIu64 ": %s%s\n", settings.seed, outcome.failed ? "failed: " : "passed",
           outcome.reason);
    printf("%" PRId64 " steps, %" PRId64 " transactions, %" PRId64 " messages, %" PRId64
           " calls applied and %" PRId64 " refused, %" PRId64 " crashes, %" PRId64
           " losses of Redis, %" PRId64 " rebuilds, %" PRId64 " repairs, %" PRId64
           " switches, %" PRId64 " refills; trace %016" PRIx64 "\n",
           outcome.steps, outcome.commits, outcome.published, outcome.applied, outcome.refused,
           outcome.crashes, outcome.losses, outcome.rebuilds, outcome.repairs, outcome.switches,
           outcome.refills, outcome.hash);
    return outcome.failed;
}

static int run_many(const struct simulation_range *range)
{
    uint64_t seed = 0;
    struct simulation_outcome outcome;
    const uint64_t failures = simulation_many(range, false, &seed, &outcome);
    if (failures > 0) {
        printf("seed %" PRIu64 " failed: %s\n", seed, outcome.reason);
        printf("replay: simulation --seed %" PRIu64 " --steps %" PRId64 "%s%s --trace\n", seed,
               range->steps, range->plant != PLANT_NONE ? " --plant " : "",
               range->plant != PLANT_NONE ? simulation_plant_text(range->plant) : "");
    }
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", range->last - range->first + 1 - failures,
           failures);
    return failures > 0;
}

int main(int argc, char **argv)
{
    const struct argp argp = {
        options,
        parse,
        NULL,
        "Runs relay and projector on simulated servers that crash, lose, repeat and delay.",
        NULL,
        NULL,
        NULL};
    struct choice choice = {.range = {.first = 1, .last = 1000, .steps = SIMULATION_STEPS}};
    if (argp_parse(&argp, argc, argv, 0, NULL, &choice) != 0)
        return 2;
    for (int i = 1; choice.list && i < SIMULATION_PLANT_COUNT; i++)
        printf("%-22s %s\n", simulation_plant_text((enum simulation_plant)i),
               simulation_plant_help((enum simulation_plant)i));
    if (choice.list)
        return 0;
    return choice.single ? run_one(&choice) : run_many(&choice.range);
}
