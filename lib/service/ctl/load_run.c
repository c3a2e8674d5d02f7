#include "core/clock.h"
#include "service/ctl/load_internal.h"

#include <event2/event.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What can be deleted again, of each kind: 8 MiB of ids. */
enum { MADE_MOST = 1 << 20, TICK_US = 200000, SECOND_SIGNAL_US = 1000000 };

void load_check_end(struct load *load)
{
    if (load->busy_lanes == 0 && load->busy_readers == 0)
        (void)event_base_loopbreak(load->base);
}

void load_count_error(struct tally_load_errors *errors, const char *name)
{
    size_t place = 0;
    while (place < errors->count && strcmp(errors->list[place].name, name) != 0)
        place++;
    if (place == errors->count) {
        if (errors->count < TALLY_LOAD_ERRORS)
            errors->count++;
        else
            name = "other";
        place = errors->count - 1;
        (void)snprintf(errors->list[place].name, sizeof errors->list[place].name, "%s", name);
    }
    errors->list[place].count++;
}

static void on_tick(evutil_socket_t descriptor, short what, void *context)
{
    (void)descriptor, (void)what;
    struct load *load = context;
    const struct tally_load_options *options = load->options;
    if (options->stop != NULL && atomic_load(options->stop) && !load->stopping) {
        load->stopping = true;
        load->report->interrupted = true;
    }
    if (options->on_progress == NULL)
        return;
    if (load->phase == LOAD_MAKING_USERS)
        options->on_progress(options->context, "making users", load->done, options->users);
    else
        options->on_progress(options->context, "writing", load->done,
                             options->commands > 0 ? options->commands
                             : options->rate_s > 0
                                 ? (int64_t)(options->rate_s * (double)options->duration_s)
                                 : 0);
}

/* The first signal lets what is in flight end; one a second later kills as usual. `timeout` and
 * terminals send it twice at once, to the process and to its group. */
static void on_signal(evutil_socket_t number, short what, void *context)
{
    (void)what;
    struct load *load = context;
    int64_t now_us = tally_clock_monotonic_us();
    if (load->stopping && now_us - load->signalled_us > SECOND_SIGNAL_US) {
        (void)signal((int)number, SIG_DFL);
        (void)raise((int)number);
    }
    if (!load->stopping)
        load->signalled_us = now_us;
    load->stopping = true;
    load->report->interrupted = true;
}

static void run_phase(struct load *load, enum load_phase phase)
{
    load->phase = phase;
    load->next = 0;
    load->done = 0;
    load->start_us = tally_clock_monotonic_us();
    load_lanes_start(load);
    if (load->busy_lanes > 0 || load->busy_readers > 0)
        (void)event_base_dispatch(load->base);
    on_tick(-1, 0, load);
}

static enum tally_status run_phases(struct load *load)
{
    run_phase(load, LOAD_MAKING_USERS);
    if (load->failed)
        return load->error->status;
    if (load->stopping)
        return TALLY_OK;
    if (load->options->on_users != NULL)
        load->options->on_users(load->options->context, load->users);
    int64_t start_us = tally_clock_monotonic_us();
    run_phase(load, LOAD_WRITING);
    load->report->seconds = (double)(tally_clock_monotonic_us() - start_us) / 1e6;
    return TALLY_OK;
}

/* The ticking and the signals, for as long as the phases run. */
static enum tally_status run_watched(struct load *load)
{
    struct event *tick = event_new(load->base, -1, EV_PERSIST, on_tick, load);
    struct event *interrupt = evsignal_new(load->base, SIGINT, on_signal, load);
    struct event *terminate = evsignal_new(load->base, SIGTERM, on_signal, load);
    enum tally_status status;
    if (tick == NULL || interrupt == NULL || terminate == NULL) {
        status = tally_fail(load->error, TALLY_NO_MEMORY, "events of the loop");
    } else {
        (void)event_add(tick, &(struct timeval){.tv_usec = TICK_US});
        if (load->options->stop == NULL) {
            (void)event_add(interrupt, NULL);
            (void)event_add(terminate, NULL);
        }
        status = run_phases(load);
    }
    if (tick != NULL)
        event_free(tick);
    if (interrupt != NULL)
        event_free(interrupt);
    if (terminate != NULL)
        event_free(terminate);
    return status;
}

static enum tally_status prepare(struct load *load)
{
    const struct tally_load_options *options = load->options;
    load->base = tally_loop_new();
    load->users = calloc((size_t)options->users, sizeof *load->users);
    if (load->base == NULL || load->users == NULL)
        return tally_fail(load->error, TALLY_NO_MEMORY, "the ids of the users");
    struct tally_random system;
    tally_random_seed_from_system(&system);
    load->nonce = tally_random_next(&system);
    tally_random_seed(&load->random, options->seed);
    tally_zipf_init(&load->zipf, options->users, options->distribution.exponent);
    enum tally_status status = tally_made_init(&load->posts, MADE_MOST, load->error);
    if (status == TALLY_OK)
        status = tally_made_init(&load->comments, MADE_MOST, load->error);
    if (status == TALLY_OK && options->keep_commented)
        status = tally_made_init(&load->kept, MADE_MOST, load->error);
    if (status == TALLY_OK)
        status = load_lanes_open(load, load->error);
    if (status == TALLY_OK)
        status = load_readers_open(load, load->error);
    if (status == TALLY_OK)
        status = load_ledger_open(load, load->error);
    return status;
}

enum tally_status tally_load_run(const struct tally_load_options *options,
                                 struct tally_load_report *report, struct tally_error *error)
{
    *report = (struct tally_load_report){0};
    struct load load = {.options = options, .report = report, .error = error};
    enum tally_status status = prepare(&load);
    if (status == TALLY_OK)
        status = run_watched(&load);
    struct tally_error unwritten;
    if (load_ledger_close(&load, &unwritten) != TALLY_OK && status == TALLY_OK) {
        *error = unwritten;
        status = unwritten.status;
    }
    load_readers_close(&load);
    load_lanes_close(&load);
    tally_made_release(&load.posts);
    tally_made_release(&load.comments);
    tally_made_release(&load.kept);
    free(load.users);
    if (load.base != NULL)
        event_base_free(load.base);
    return status;
}
