/*
 * Verify compare: whether what the read model holds of one user is what the recount says. Pure.
 */
#ifndef TALLY_SERVICE_CTL_VERIFY_COMPARE_H
#define TALLY_SERVICE_CTL_VERIFY_COMPARE_H

#include "service/ctl/verify.h"
#include "store/recount.h"

/* A user in the read model; texts are borrowed, NULL where absent. */
struct tally_verify_found {
    int64_t version; /* 0: there is no such key */
    int64_t posts;   /* -1: the field is absent or no number */
    int64_t comments;
    const char *name, *email, *avatar;
    bool deleted;
    bool flagged;
};

enum tally_verify_verdict {
    TALLY_VERIFY_EQUAL,
    TALLY_VERIFY_IN_FLIGHT, /* look again */
    TALLY_VERIFY_DIFFERENT,
};

/* Fields that can differ in one user. */
#define TALLY_VERIFY_FIELDS 8

struct tally_verify_differences {
    struct tally_verify_difference list[TALLY_VERIFY_FIELDS];
    size_t count;
};

/* PostgreSQL was read before Redis, so another version proves nothing. */
enum tally_verify_verdict tally_verify_first_look(const struct tally_recount_user *expected,
                                                  const struct tally_verify_found *found,
                                                  struct tally_verify_differences *differences);
/* Redis was read before PostgreSQL (by tally_recount_at() with the version found). The user counts
 * as caught up once the version found is at least `wanted`. */
enum tally_verify_verdict tally_verify_next_look(const struct tally_recount_user *expected,
                                                 const struct tally_verify_found *found,
                                                 int64_t wanted,
                                                 struct tally_verify_differences *differences);
/* Whether a user whose grace has passed may wait once more: one who is written to all the time has
 * perhaps left behind the version that was waited for without ever standing still, which is
 * progress and no difference. `*wanted` then asks for more: without further progress the next grace
 * is the last. */
bool tally_verify_extend(const struct tally_verify_found *found, int64_t *wanted);
/* The difference of a user whose grace has passed: "missing" or "version". */
void tally_verify_overdue(int64_t user_id, int64_t wanted, const struct tally_verify_found *found,
                          struct tally_verify_differences *differences);

#endif
