/*
 * Lease: at most one tallyctl builds, switches or drops generations. A thread renews it, however
 * long the holder waits for PostgreSQL; a holder that died loses it within seconds.
 */
#ifndef TALLY_SERVICE_CTL_LEASE_H
#define TALLY_SERVICE_CTL_LEASE_H

#include "core/settings.h"
#include "core/status.h"

struct tally_ctl_lease;

/* Takes the lease, waiting out that of a holder who does not renew it any more. KEY_IN_USE: it is
 * renewed, somebody is at work. `settings` is borrowed. */
enum tally_status tally_ctl_lease_take(const struct tally_settings *settings,
                                       struct tally_ctl_lease **lease,
                                       struct tally_error *error) TALLY_MUST_CHECK;
/* Gives it back. */
void tally_ctl_lease_release(struct tally_ctl_lease **lease);

/* The proof that scripts ask for; lives as long as the lease. */
const char *tally_ctl_lease_token(const struct tally_ctl_lease *lease);
/* FENCED once it could not be renewed in time: then another one may be at work. Any thread. */
enum tally_status tally_ctl_lease_check(const struct tally_ctl_lease *lease,
                                        struct tally_error *error) TALLY_MUST_CHECK;

#endif
