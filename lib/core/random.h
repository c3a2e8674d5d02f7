/*
 * Random: numbers that need not be secret, and the jittered back-off every retry uses.
 */
#ifndef TALLY_CORE_RANDOM_H
#define TALLY_CORE_RANDOM_H

#include <stdint.h>

/* A generator of its own for whoever wants a repeatable sequence (xoshiro256**, Blackman and Vigna,
 * https://prng.di.unimi.it). One thread. */
struct tally_random {
    uint64_t state[4];
};

/* The same seed gives the same sequence, on every machine. */
void tally_random_seed(struct tally_random *random, uint64_t seed);
/* Seeds from the system's entropy. */
void tally_random_seed_from_system(struct tally_random *random);
uint64_t tally_random_next(struct tally_random *random);
/* Uniform over 0 … bound - 1; bound > 0. */
uint64_t tally_random_below(struct tally_random *random, uint64_t bound);
/* Uniform over [0, 1). */
double tally_random_unit(struct tally_random *random);

/* Exponential back-off with full jitter
 * (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). */
struct tally_backoff {
    int64_t first_ms;  /* bound of the first wait, > 0 */
    int64_t most_ms;   /* bound of every wait */
    unsigned attempts; /* failures since the last success; set to 0 on success */
};

/* Milliseconds to wait before the next attempt, between 1 and the bound of this attempt. */
int64_t tally_backoff_next_ms(struct tally_backoff *backoff, struct tally_random *random);

#endif
