#include "service/ctl/choice.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHT_MOST = 1000000, TEXT_BYTES = 256 };

/* (exp(x) - 1) / x and log(1 + x) / x, which need their series near 0. */
static double expm1_over(double x)
{
    return fabs(x) > 1e-8 ? expm1(x) / x : 1 + x / 2 * (1 + x / 3 * (1 + x / 4));
}

static double log1p_over(double x)
{
    return fabs(x) > 1e-8 ? log1p(x) / x : 1 - x * (0.5 - x * (1.0 / 3 - x / 4));
}

/* The paper's h, its integral H and the inverse of H. */
static double density(const struct tally_zipf *zipf, double x)
{
    return exp(-zipf->exponent * log(x));
}

static double integral(const struct tally_zipf *zipf, double x)
{
    double log_x = log(x);
    return expm1_over((1 - zipf->exponent) * log_x) * log_x;
}

static double inverse_integral(const struct tally_zipf *zipf, double x)
{
    double t = x * (1 - zipf->exponent);
    if (t < -1)
        t = -1; /* rounding must not leave the domain of the logarithm */
    return exp(log1p_over(t) * x);
}

void tally_zipf_init(struct tally_zipf *zipf, int64_t n, double exponent)
{
    *zipf = (struct tally_zipf){.n = n, .exponent = exponent};
    zipf->integral_first = integral(zipf, 1.5) - 1;
    zipf->integral_last = integral(zipf, (double)n + 0.5);
    zipf->threshold = 2 - inverse_integral(zipf, integral(zipf, 2.5) - density(zipf, 2));
}

int64_t tally_zipf_next(const struct tally_zipf *zipf, struct tally_random *random)
{
    for (;;) {
        double u = zipf->integral_last +
                   tally_random_unit(random) * (zipf->integral_first - zipf->integral_last);
        double x = inverse_integral(zipf, u);
        int64_t k = (int64_t)(x + 0.5);
        k = k < 1 ? 1 : k > zipf->n ? zipf->n : k;
        if ((double)k - x <= zipf->threshold ||
            u >= integral(zipf, (double)k + 0.5) - density(zipf, (double)k))
            return k;
    }
}

enum tally_status tally_distribution_parse(const char *text, struct tally_distribution *out,
                                           struct tally_error *error)
{
    *out = (struct tally_distribution){.uniform = strcmp(text, "uniform") == 0, .exponent = 1};
    if (out->uniform || strcmp(text, "zipf") == 0)
        return TALLY_OK;
    char *end = NULL;
    if (strncmp(text, "zipf:", 5) == 0 && text[5] != '\0') {
        out->exponent = strtod(text + 5, &end);
        if (*end == '\0' && out->exponent >= 0.01 && out->exponent <= 10)
            return TALLY_OK;
    }
    return tally_fail(error, TALLY_INVALID,
                      "\"%s\" is none of uniform, zipf and zipf:EXPONENT with an exponent from "
                      "0.01 to 10",
                      text);
}

const char *tally_load_kind_text(enum tally_load_kind kind)
{
    static const char *const texts[] = {
#define X(name, text) text,
        TALLY_LOAD_KIND_LIST(X)
#undef X
    };
    return texts[kind];
}

static enum tally_status parse_weight(char *part, struct tally_mix *mix,
                                      bool seen[TALLY_LOAD_KIND_COUNT], struct tally_error *error)
{
    char *equals = strchr(part, '=');
    if (equals == NULL)
        return tally_fail(error, TALLY_INVALID, "\"%s\" is not KIND=WEIGHT", part);
    *equals = '\0';
    for (size_t kind = 0; kind < TALLY_LOAD_KIND_COUNT; kind++) {
        if (strcmp(part, tally_load_kind_text((enum tally_load_kind)kind)) != 0)
            continue;
        char *end = NULL;
        long weight = strtol(equals + 1, &end, 10);
        if (seen[kind])
            return tally_fail(error, TALLY_INVALID, "%s is named twice", part);
        if (end == equals + 1 || *end != '\0' || weight < 0 || weight > WEIGHT_MOST)
            return tally_fail(error, TALLY_INVALID, "the weight of %s is no number from 0 to %d",
                              part, WEIGHT_MOST);
        seen[kind] = true;
        mix->weights[kind] = (int)weight;
        mix->sum += (int)weight;
        return TALLY_OK;
    }
    return tally_fail(error, TALLY_INVALID,
                      "\"%s\" is none of post, comment, delete-post and delete-comment", part);
}

enum tally_status tally_mix_parse(const char *text, struct tally_mix *mix,
                                  struct tally_error *error)
{
    char copy[TEXT_BYTES];
    bool seen[TALLY_LOAD_KIND_COUNT] = {false};
    *mix = (struct tally_mix){.sum = 0};
    if (strlen(text) >= sizeof copy)
        return tally_fail(error, TALLY_INVALID, "the mix is longer than %zu bytes",
                          sizeof copy - 1);
    (void)snprintf(copy, sizeof copy, "%s", text);
    char *rest = copy;
    for (char *part = strsep(&rest, ","); part != NULL; part = strsep(&rest, ",")) {
        enum tally_status status = parse_weight(part, mix, seen, error);
        if (status != TALLY_OK)
            return status;
    }
    if (mix->sum == 0)
        return tally_fail(error, TALLY_INVALID, "every weight of the mix is 0");
    return TALLY_OK;
}

enum tally_load_kind tally_mix_next(const struct tally_mix *mix, struct tally_random *random)
{
    int place = (int)tally_random_below(random, (uint64_t)mix->sum);
    size_t kind = 0;
    while (place >= mix->weights[kind] && kind < TALLY_LOAD_KIND_COUNT - 1)
        place -= mix->weights[kind++];
    return (enum tally_load_kind)kind;
}

enum tally_status tally_made_init(struct tally_made *made, size_t most, struct tally_error *error)
{
    *made = (struct tally_made){.things = calloc(most, sizeof *made->things), .most = most};
    if (made->things == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "a list of %zu ids", most);
    return TALLY_OK;
}

void tally_made_release(struct tally_made *made)
{
    free(made->things);
    *made = (struct tally_made){0};
}

void tally_made_add(struct tally_made *made, struct tally_made_thing thing,
                    struct tally_random *random)
{
    if (made->count < made->most)
        made->things[made->count++] = thing;
    else
        made->things[tally_random_below(random, made->most)] = thing;
}

struct tally_made_thing tally_made_any(const struct tally_made *made, struct tally_random *random)
{
    if (made->count == 0)
        return (struct tally_made_thing){0};
    return made->things[tally_random_below(random, made->count)];
}

struct tally_made_thing tally_made_take(struct tally_made *made, struct tally_random *random)
{
    if (made->count == 0)
        return (struct tally_made_thing){0};
    size_t place = (size_t)tally_random_below(random, made->count);
    struct tally_made_thing thing = made->things[place];
    made->things[place] = made->things[--made->count];
    return thing;
}
