#include "service/ctl/torture_internal.h"

#include <inttypes.h>
#include <stdatomic.h>

/* A write is repeated across any fault that heals. */
enum { RETRY_FOR_S = 300 };

static const double twice = 0.1, read_back = 0.2; /* shares of the writes */

static void on_users(void *context, const int64_t *ids)
{
    struct torture_load *load = context;
    struct torture_ledger *ledger = &load->report->ledger;
    for (int64_t i = 0; i < ledger->count - 1; i++) {
        ledger->accounts[i].id = ids[i];
        atomic_store(&ledger->accounts[i].version, 1);
    }
    atomic_store(&load->users_made, true);
}

static void on_event(void *context, const struct tally_load_event *event)
{
    struct torture_load *load = context;
    struct torture_ledger *ledger = &load->report->ledger;
    int64_t id = ledger->accounts[event->user].id;
    const char *kind = tally_load_kind_text(event->kind);
    switch (event->outcome) {
    case TALLY_LOAD_ACKNOWLEDGED:
        torture_ledger_acknowledge(ledger, event->user, event->kind, event->version);
        break;
    case TALLY_LOAD_UNKNOWN:
        torture_ledger_doubt(ledger, event->user, event->kind);
        break;
    case TALLY_LOAD_MISSING:
        torture_violate(ledger, "lost", id,
                        "%s: %" PRId64 " was acknowledged and is not found any more", kind,
                        event->target);
        break;
    case TALLY_LOAD_UNEXPECTED:
        torture_ledger_doubt(ledger, event->user, event->kind);
        torture_violate(ledger, "answer", id, "%s was answered by %s", kind, event->failure);
        break;
    case TALLY_LOAD_DIFFERING:
        torture_violate(ledger, "answer", id, "%s: %s", kind, event->failure);
        break;
    }
}

static void on_stale(void *context, int64_t user_id, int64_t wanted, int64_t shown)
{
    struct torture_load *load = context;
    torture_violate(&load->report->ledger, "older", user_id,
                    "read back at version %" PRId64 ", shown version %" PRId64, wanted, shown);
}

static void *run_load(void *context)
{
    struct torture_load *load = context;
    load->status = tally_load_run(&load->options, &load->report->load, &load->error);
    atomic_store(&load->ended, true);
    return NULL;
}

enum tally_status torture_load_start(struct torture_load *load,
                                     const struct torture_options *options,
                                     struct torture_report *report, struct tally_error *error)
{
    load->report = report;
    /* Users of its own each time: those of an earlier run have counts already. */
    struct tally_random system;
    tally_random_seed_from_system(&system);
    load->options = (struct tally_load_options){
        .command_address = options->settings->command_listen,
        .query_address = options->settings->query_listen,
        .users = options->users,
        .distribution = {.exponent = 1},
        .connections = options->connections,
        .rate_s = options->rate_s,
        .seed = tally_random_below(&system, UINT64_C(1) << 48),
        .retry_for_s = RETRY_FOR_S,
        .commands = INT64_MAX / 2,
        .visibility = read_back,
        .twice = twice,
        .keep_commented = true,
        .stop = &load->stop,
        .on_users = on_users,
        .on_event = on_event,
        .on_stale = on_stale,
        .context = load,
    };
    enum tally_status status = tally_mix_parse("post=45,comment=45,delete-post=5,delete-comment=5",
                                               &load->options.mix, error);
    if (status == TALLY_OK && pthread_create(&load->thread, NULL, run_load, load) != 0)
        status = tally_fail(error, TALLY_NO_MEMORY, "the load's thread");
    return status;
}

void torture_load_stop(struct torture_load *load)
{
    atomic_store(&load->stop, true);
    (void)pthread_join(load->thread, NULL);
}
