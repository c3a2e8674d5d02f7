#include "core/breaker.h"

void tally_breaker_init(struct tally_breaker *breaker, int64_t patience_ms,
                        int64_t patience_most_ms)
{
    *breaker = (struct tally_breaker){
        .state = TALLY_BREAKER_CLOSED,
        .patience_us = patience_ms * 1000,
        .patience_least_us = patience_ms * 1000,
        .patience_most_us = patience_most_ms * 1000,
    };
}

/* For how long nothing was heard although an answer is due. */
static int64_t silence_us(const struct tally_breaker_sight *sight, int64_t now_us)
{
    if (sight->asked_us == INT64_MAX)
        return 0;
    return now_us - (sight->heard_us > sight->asked_us ? sight->heard_us : sight->asked_us);
}

static void open_breaker(struct tally_breaker *breaker, const struct tally_breaker_sight *sight,
                         int64_t now_us, bool silent)
{
    breaker->opened++;
    breaker->opened_us = now_us;
    if (silent)
        (void)tally_fail(&breaker->cause, TALLY_UNAVAILABLE,
                         "nothing was heard for %lld ms with an answer due",
                         (long long)(silence_us(sight, now_us) / 1000));
    else
        breaker->cause = *sight->failure;
}

bool tally_breaker_look(struct tally_breaker *breaker, const struct tally_breaker_sight *sight,
                        int64_t now_us)
{
    const bool refused = tally_breaker_refuses(breaker);
    const bool silent = silence_us(sight, now_us) >= breaker->patience_us;
    const bool lost =
        !sight->connected && sight->failure != NULL && sight->failure->status != TALLY_OK;
    if (refused && sight->connected && !silent && sight->heard_us > breaker->opened_us) {
        breaker->state = TALLY_BREAKER_CLOSED;
        breaker->cause = (struct tally_error){0};
        return true;
    }
    if (!refused && !silent && !lost)
        return false;
    if (!refused)
        open_breaker(breaker, sight, now_us, silent);
    breaker->state = sight->trying ? TALLY_BREAKER_HALF_OPEN : TALLY_BREAKER_OPEN;
    return !refused;
}

void tally_breaker_measured(struct tally_breaker *breaker, int64_t round_trip_us)
{
    int64_t wanted_us = 2 * round_trip_us;
    if (wanted_us < breaker->patience_least_us)
        wanted_us = breaker->patience_least_us;
    if (wanted_us > breaker->patience_most_us)
        wanted_us = breaker->patience_most_us;
    breaker->patience_us = wanted_us;
}

bool tally_breaker_refuses(const struct tally_breaker *breaker)
{
    return breaker->state != TALLY_BREAKER_CLOSED;
}
