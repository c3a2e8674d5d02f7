/*
 * Choice: what the load generator picks at random: which user, which kind of command, which of the
 * things it made. Pure but for the generator of random numbers, so that a seed repeats a run.
 */
#ifndef TALLY_SERVICE_CTL_CHOICE_H
#define TALLY_SERVICE_CTL_CHOICE_H

#include "core/random.h"
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

/* Zipf's distribution over 1 … n in constant time and memory, by rejection-inversion: W. Hörmann
 * and G. Derflinger, "Rejection-inversion to generate variates from monotone discrete
 * distributions", ACM TOMACS 6(3), 1996. */
struct tally_zipf {
    int64_t n;
    double exponent; /* > 0 */
    double integral_first, integral_last, threshold;
};

/* `n` > 0, `exponent` from 0.01 to 10. */
void tally_zipf_init(struct tally_zipf *zipf, int64_t n, double exponent);
/* 1 … n; 1 is the most frequent. */
int64_t tally_zipf_next(const struct tally_zipf *zipf, struct tally_random *random);

/* Which of the users: "uniform", "zipf" (exponent 1) or "zipf:0.8". */
struct tally_distribution {
    bool uniform;
    double exponent;
};
enum tally_status tally_distribution_parse(const char *text, struct tally_distribution *out,
                                           struct tally_error *error) TALLY_MUST_CHECK;

/* X(name, text in --mix). */
#define TALLY_LOAD_KIND_LIST(X)   \
    X(POST, "post")               \
    X(COMMENT, "comment")         \
    X(DELETE_POST, "delete-post") \
    X(DELETE_COMMENT, "delete-comment")

enum tally_load_kind {
#define X(name, text) TALLY_LOAD_##name,
    TALLY_LOAD_KIND_LIST(X)
#undef X
        TALLY_LOAD_KIND_COUNT
};

/* Weights of the kinds; their sum is above 0. */
struct tally_mix {
    int weights[TALLY_LOAD_KIND_COUNT];
    int sum;
};

const char *tally_load_kind_text(enum tally_load_kind kind);
/* "post=45,comment=45,delete-post=5"; a kind that is not named has weight 0. Weights are 0 to
 * 1000000; each kind once. INVALID says what is wrong. */
enum tally_status tally_mix_parse(const char *text, struct tally_mix *mix,
                                  struct tally_error *error) TALLY_MUST_CHECK;
enum tally_load_kind tally_mix_next(const struct tally_mix *mix, struct tally_random *random);

/* Things that were made and can still be used; bounded: where it is full, a new one takes the place
 * of any other. */
struct tally_made_thing {
    int64_t id;   /* 0: there is none */
    int64_t user; /* index of its author */
};
struct tally_made {
    struct tally_made_thing *things; /* owned */
    size_t count, most;
};
enum tally_status tally_made_init(struct tally_made *made, size_t most,
                                  struct tally_error *error) TALLY_MUST_CHECK;
void tally_made_release(struct tally_made *made);
void tally_made_add(struct tally_made *made, struct tally_made_thing thing,
                    struct tally_random *random);
/* One of them; taking removes it. */
struct tally_made_thing tally_made_any(const struct tally_made *made, struct tally_random *random);
struct tally_made_thing tally_made_take(struct tally_made *made, struct tally_random *random);

#endif
