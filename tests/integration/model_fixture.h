/*
 * Model fixture: users whose history is both in a PostgreSQL database and in a topic of the test's
 * own, and a projector that applies it to a Redis of the test's own.
 */
#ifndef TALLY_TEST_MODEL_FIXTURE_H
#define TALLY_TEST_MODEL_FIXTURE_H

#include "database.h"
#include "projector_fixture.h"

struct model_fixture {
    struct fixture log;
    struct projector projector;
    struct test_database database;
    struct tally_settings settings; /* for tallyctl's functions */
};

/* Everything empty; the projector runs. */
void model_open(struct model_fixture *model);
/* The projector must have been stopped. */
void model_close(struct model_fixture *model);

/* Moves a user's row, posts and comments in PostgreSQL from version `first` - 1 to `last`, as
 * fixture_send_history() does in the log: user.created, then posts and comments in turn. */
void model_write(struct model_fixture *model, int64_t user_id, int64_t first, int64_t last);
/* Sends the events of these versions. */
void model_publish(struct model_fixture *model, int64_t user_id, int64_t first, int64_t last);
/* Both. */
void model_add(struct model_fixture *model, int64_t user_id, int64_t first, int64_t last);

/* Fails the test unless tally_verify_run() finds the live read model equal, totals included. */
void model_expect_equal(struct model_fixture *model);
/* One field of a user of any generation, "-" where absent; of the live one where 0. */
const char *model_field(struct model_fixture *model, int64_t generation, int64_t user_id,
                        const char *field);
void model_set_field(struct model_fixture *model, int64_t generation, int64_t user_id,
                     const char *field, const char *value);

#endif
