/*
 * Load: reads the states of the users that a round met for the first time.
 */
#ifndef TALLY_SERVICE_PROJECTOR_LOAD_H
#define TALLY_SERVICE_PROJECTOR_LOAD_H

#include "service/projector/round.h"

/* Sends the questions for the round's missing and new users, by way of its `out`; the replies come
 * after those of all that was sent before. `*loaded` receives how many users there are; 0: nothing
 * was sent. */
enum tally_status tally_load_ask(struct tally_round *round, struct tally_model *model,
                                 struct tally_redis *redis, size_t *loaded,
                                 struct tally_error *error) TALLY_MUST_CHECK;
/* Reads the replies; every user is loaded then. A new user that Redis does have costs a second
 * round trip. */
enum tally_status tally_load_answer(struct tally_round *round, struct tally_model *model,
                                    struct tally_redis *redis,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* Forgets the lists of new users, after tally_load_answer() or a failure. */
void tally_load_end(struct tally_model *model);

#endif
