/* The planted mistakes that lie in production code, put round its functions by ld's --wrap. The
 * others are where their server is simulated. */
#include "simulation.h"

#include "service/projector/model.h"
#include "service/relay/flight.h"

#include <string.h>

static const struct {
    const char *text;
    const char *help;
} plants[SIMULATION_PLANT_COUNT] = {
#define X(name, text, help) [PLANT_##name] = {text, help},
    SIMULATION_PLANT_LIST(X)
#undef X
};

const char *simulation_plant_text(enum simulation_plant plant)
{
    return plants[plant].text;
}

const char *simulation_plant_help(enum simulation_plant plant)
{
    return plants[plant].help;
}

bool simulation_plant_parse(const char *text, enum simulation_plant *plant)
{
    for (int i = 0; i < SIMULATION_PLANT_COUNT; i++) {
        if (strcmp(plants[i].text, text) == 0) {
            *plant = (enum simulation_plant)i;
            return true;
        }
    }
    return false;
}

bool simulation_planted(enum simulation_plant plant)
{
    return simulation->settings.plant == plant;
}

enum tally_fold_result __real_tally_fold(struct tally_user_state *state,
                                         const struct tally_event *event,
                                         struct tally_fold_effect *effect);
enum tally_fold_result __wrap_tally_fold(struct tally_user_state *state,
                                         const struct tally_event *event,
                                         struct tally_fold_effect *effect);
void __real_tally_model_lose(struct tally_model *model, int32_t partition);
void __wrap_tally_model_lose(struct tally_model *model, int32_t partition);
uint64_t __real_tally_flight_depart(struct tally_flight *flight, struct tally_relay_position *after,
                                    int64_t events, int64_t oldest_at_us);
uint64_t __wrap_tally_flight_depart(struct tally_flight *flight, struct tally_relay_position *after,
                                    int64_t events, int64_t oldest_at_us);
bool __real_tally_flight_arrive(struct tally_flight *flight, uint64_t number, bool acknowledged);
bool __wrap_tally_flight_arrive(struct tally_flight *flight, uint64_t number, bool acknowledged);

enum tally_fold_result __wrap_tally_fold(struct tally_user_state *state,
                                         const struct tally_event *event,
                                         struct tally_fold_effect *effect)
{
    if ((simulation_planted(PLANT_FENCE_OFF_BY_ONE) && event->version == state->version) ||
        (simulation_planted(PLANT_DUPLICATE_COUNTED) && event->version <= state->version))
        state->version = event->version - 1;
    return __real_tally_fold(state, event, effect);
}

void __wrap_tally_model_lose(struct tally_model *model, int32_t partition)
{
    if (!simulation_planted(PLANT_NO_RESYNC))
        __real_tally_model_lose(model, partition);
}

uint64_t __wrap_tally_flight_depart(struct tally_flight *flight, struct tally_relay_position *after,
                                    int64_t events, int64_t oldest_at_us)
{
    return __real_tally_flight_depart(
        flight, after, simulation_planted(PLANT_RELAY_BEFORE_ACK) ? 0 : events, oldest_at_us);
}

bool __wrap_tally_flight_arrive(struct tally_flight *flight, uint64_t number, bool acknowledged)
{
    return !simulation_planted(PLANT_RELAY_BEFORE_ACK) &&
           __real_tally_flight_arrive(flight, number, acknowledged);
}
