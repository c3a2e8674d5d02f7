/*
 * Explain judge: whether the counts that the read model shows of a user are the sum of the user's
 * events, and where the read model stands among them. Pure.
 */
#ifndef TALLY_SERVICE_CTL_EXPLAIN_JUDGE_H
#define TALLY_SERVICE_CTL_EXPLAIN_JUDGE_H

#include "domain/fold.h"
#include "store/history.h"

#define TALLY_EXPLAIN_TEXT_BYTES 512

struct tally_explain_verdict {
    bool explained; /* the sum of the deltas is what is shown */
    /* The counts before the first kept event: 0 where all events are kept, else inferred from the
     * recount. */
    int64_t base_posts, base_comments;
    /* Base and deltas up to the read model's version: what should be shown. */
    int64_t posts, comments;
    char text[TALLY_EXPLAIN_TEXT_BYTES]; /* one sentence for people, without a full stop */
};

/* `history` was read after `shown`, with the sums up to shown->version; a version of 0 means that
 * the read model has nothing of the user. */
void tally_explain_judge(int64_t user_id, const struct tally_history *history,
                         const struct tally_user_state *shown,
                         struct tally_explain_verdict *verdict);

#endif
