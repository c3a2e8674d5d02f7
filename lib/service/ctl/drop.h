/*
 * Drop: removes a generation of the read model that is not live. Blocking.
 */
#ifndef TALLY_SERVICE_CTL_DROP_H
#define TALLY_SERVICE_CTL_DROP_H

#include "service/ctl/lease.h"
#include "view/generation.h"

struct tally_drop {
    const struct tally_ctl_lease *lease;
    struct tally_redis *redis;
    int64_t generation;
    /* After each step of some thousand keys; may be NULL. */
    void (*on_progress)(void *context, int64_t removed);
    void *context;
};

/* `*removed` receives how many keys are gone, also where it fails; another call goes on, and so
 * does the next rebuild. FENCED: the lease was lost. */
enum tally_status tally_drop_run(const struct tally_drop *drop, int64_t *removed,
                                 struct tally_error *error) TALLY_MUST_CHECK;

#endif
