/*
 * Audit claim: a user who is said to differ, until a second look has said whether it is so. Pure.
 */
#ifndef TALLY_SERVICE_CTL_AUDIT_CLAIM_H
#define TALLY_SERVICE_CTL_AUDIT_CLAIM_H

#include "service/ctl/verify.h"
#include "view/restore.h"

/* X(name, label of the metrics). */
#define TALLY_AUDIT_KIND_LIST(X)                                                                \
    X(COUNTS, "counts")       /* equal versions, other counts */                                \
    X(PROFILE, "profile")     /* equal versions and counts, other name, e-mail or avatar */     \
    X(DELETED, "deleted")     /* shown though deleted, or the other way round */                \
    X(AHEAD, "ahead")         /* newer in the read model than in PostgreSQL, which went back */ \
    X(BEHIND, "behind")       /* nothing is under way, and still an older version */            \
    X(MISSING, "missing")     /* nothing is under way, and still absent */                      \
    X(FLAGGED, "flagged")     /* marked as degraded */                                          \
    X(GHOST, "ghost")         /* PostgreSQL has no such user */                                 \
    X(MISPLACED, "misplaced") /* a key in the wrong partition; never repaired */

enum tally_audit_kind {
#define X(name, text) TALLY_AUDIT_##name,
    TALLY_AUDIT_KIND_LIST(X)
#undef X
        TALLY_AUDIT_KIND_COUNT
};

const char *tally_audit_kind_text(enum tally_audit_kind kind);

enum tally_audit_verdict {
    TALLY_AUDIT_UNCONFIRMED, /* perhaps under way: for the next sweep */
    TALLY_AUDIT_SETTLED,     /* it is right by now */
    TALLY_AUDIT_CONFIRMED,
};

#define TALLY_AUDIT_TEXT_BYTES 128

struct tally_audit_claim {
    int64_t user_id;
    enum tally_audit_kind kind;
    int64_t expected_version;
    int64_t found_version;
    char expected[TALLY_AUDIT_TEXT_BYTES]; /* "posts 3, comments 2"; never personal data */
    char found[TALLY_AUDIT_TEXT_BYTES];
    enum tally_audit_verdict verdict;
};

/* So many go through one repair. */
#define TALLY_AUDIT_CLAIMS_MOST TALLY_REPAIR_USERS_MOST

struct tally_audit_claims {
    struct tally_audit_claim list[TALLY_AUDIT_CLAIMS_MOST];
    size_t count;
};

/* Whether a difference belongs to the last claim; if not, it needs room for one more. */
bool tally_audit_claims_continue(const struct tally_audit_claims *claims,
                                 const struct tally_verify_difference *difference);
/* Adds a difference, of a user, to that user's claim or as a new one. There must be room. */
void tally_audit_claims_add(struct tally_audit_claims *claims,
                            const struct tally_verify_difference *difference);

#endif
