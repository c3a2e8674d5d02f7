#include "core/random.h"

#include "core/clock.h"

#include <sys/random.h>
#include <sys/types.h>
#include <unistd.h>

static uint64_t rotate_left(uint64_t value, int bits)
{
    return (value << bits) | (value >> (64 - bits));
}

void tally_random_seed(struct tally_random *random, uint64_t seed)
{
    /* splitmix64 spreads a small seed over the whole state, which must not be all zero. */
    for (int i = 0; i < 4; i++) {
        seed += 0x9E3779B97F4A7C15U;
        uint64_t mixed = seed;
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9U;
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBU;
        random->state[i] = mixed ^ (mixed >> 31);
    }
}

void tally_random_seed_from_system(struct tally_random *random)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = (uint64_t)tally_clock_wall_us() ^ ((uint64_t)getpid() << 40);
    tally_random_seed(random, seed);
}

uint64_t tally_random_next(struct tally_random *random)
{
    uint64_t *state = random->state;
    const uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    const uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

uint64_t tally_random_below(struct tally_random *random, uint64_t bound)
{
    /* Values past the last whole multiple of bound would favour the small remainders. */
    const uint64_t excess = (UINT64_MAX % bound + 1) % bound;
    uint64_t value;
    do {
        value = tally_random_next(random);
    } while (value > UINT64_MAX - excess);
    return value % bound;
}

double tally_random_unit(struct tally_random *random)
{
    return (double)(tally_random_next(random) >> 11) * 0x1.0p-53;
}

int64_t tally_backoff_next_ms(struct tally_backoff *backoff, struct tally_random *random)
{
    unsigned doublings = backoff->attempts < 30 ? backoff->attempts : 30;
    int64_t bound = backoff->most_ms;
    if (backoff->first_ms < (backoff->most_ms >> doublings))
        bound = backoff->first_ms << doublings;
    backoff->attempts++;
    return 1 + (int64_t)tally_random_below(random, (uint64_t)bound);
}
