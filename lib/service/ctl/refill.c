#include "core/clock.h"
#include "pg/blocking.h"
#include "service/ctl/output.h"
#include "store/relay_control.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KEY_YES = 'y', KEY_HOURS = 'H', KEY_ALL = 'a', KEY_WAIT = 'w', LOOK_NS = 250000000 };

struct refill_command {
    struct tally_ctl *ctl;
    bool yes;
    bool all;
    int64_t hours; /* 0: all */
    int64_t wait_s;
    struct tally_progress progress;
};

static const struct argp_option options[] = {
    {"all", KEY_ALL, NULL, 0, "All events that PostgreSQL keeps (the default)", 0},
    {"hours", KEY_HOURS, "N", 0, "Those of the last N hours, and what is not published yet", 0},
    {"yes", KEY_YES, NULL, 0, "Do not ask; needed where standard input is no terminal", 0},
    {"wait", KEY_WAIT, "SECONDS", 0,
     "Longest time to follow the relay (default 3600; 0: return at once)", 0},
    {0}};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct refill_command *command = state->input;
    if (key == KEY_YES)
        command->yes = true;
    else if (key == KEY_ALL)
        command->all = true;
    else if (key == KEY_HOURS)
        command->hours = tally_ctl_integer(state, "hours", argument, 1, INT64_C(24) * 3650);
    else if (key == KEY_WAIT)
        command->wait_s = tally_ctl_integer(state, "wait", argument, 0, INT64_C(7) * 86400);
    else if (key == ARGP_KEY_ARG)
        argp_error(state, "\"%s\" is not understood", argument);
    else if (key == ARGP_KEY_END && command->all && command->hours > 0)
        argp_error(state, "--all and --hours exclude each other");
    else if (key == ARGP_KEY_END && !command->yes && isatty(STDIN_FILENO) != 1)
        argp_error(state, "standard input is no terminal to ask on; say --yes");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc = "Has the relay publish events again that PostgreSQL still keeps, for when Kafka has "
           "lost the topic or a part of it. Consumers drop by its version what they have already. "
           "New events wait until the relay has come past those before them. Follows the relay "
           "until all is published; exits with 1 where that takes longer than --wait. A read "
           "model whose position lies in a log that is gone needs `tallyctl rebuild` "
           "afterwards." TALLY_CTL_EXIT_DOC,
};

static bool confirmed(const struct refill_command *command, const struct tally_relay_refill *refill)
{
    char number[TALLY_NUMBER_BYTES], answer[16];
    if (command->yes)
        return true;
    (void)fprintf(stderr, "Publish %s events again? [y/N] ",
                  tally_ctl_format_number(refill->events, number));
    return fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

/* By its share of the sequence numbers, which have few holes. */
static int64_t published(const struct tally_relay_view *view,
                         const struct tally_relay_refill *refill)
{
    const double span = (double)(refill->last_seq - refill->first_seq + 1);
    const double done = (double)(view->reached_seq - refill->first_seq + 1);
    return done <= 0      ? 0
           : done >= span ? refill->events
                          : (int64_t)(done / span * (double)refill->events);
}

/* `*drained` says whether the relay got through in time. */
static enum tally_status follow(struct refill_command *command, PGconn *connection,
                                const struct tally_relay_refill *refill, bool *drained,
                                struct tally_error *error)
{
    const int64_t due_us = tally_clock_monotonic_us() + command->wait_s * 1000000;
    enum tally_status status = TALLY_OK;
    *drained = false;
    tally_progress_start(&command->progress, "publishing", "events", refill->events);
    while (status == TALLY_OK && !*drained && tally_clock_monotonic_us() < due_us) {
        struct tally_relay_view view;
        (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
        status = tally_relay_view_read(connection, &view, error);
        *drained = status == TALLY_OK && view.whole;
        if (status == TALLY_OK)
            tally_progress_show(&command->progress, published(&view, refill),
                                view.leader_pid == 0 ? "nobody leads: is a tally-command running?"
                                : view.orders.paused ? "the relay is paused"
                                                     : "");
    }
    tally_progress_end(&command->progress);
    return status;
}

static int report(const struct refill_command *command, const struct tally_relay_refill *refill,
                  bool begun, bool drained)
{
    const bool awaited = command->wait_s > 0 && begun;
    const int code = !awaited || drained ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    char number[TALLY_NUMBER_BYTES];
    if (command->ctl->json)
        return tally_ctl_print_json(command->ctl,
                                    json_pack("{s:I,s:b,s:b}", "events", (json_int_t)refill->events,
                                              "begun", begun, "published", drained),
                                    code);
    tally_ctl_format_number(refill->events, number);
    if (!begun)
        (void)puts("there is nothing to publish");
    else if (!awaited)
        (void)printf("the relay publishes %s events; `tallyctl status` shows the backlog\n",
                     number);
    else if (!drained)
        (void)printf(
            "the relay has not published all of %s events in time; `tallyctl status` shows "
            "the backlog\n",
            number);
    else
        (void)printf("%s events are published again\n", number);
    if (begun)
        (void)puts("A read model that was built from another log (a projector that stops and says "
                   "so) needs `tallyctl rebuild`.");
    return code;
}

int tally_ctl_refill(struct tally_ctl *ctl, int argc, char **argv)
{
    struct refill_command command = {.ctl = ctl, .wait_s = 3600};
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    struct tally_error error;
    struct tally_relay_refill refill = {0};
    PGconn *connection = NULL;
    bool drained = false, begun = false, refused = false;
    enum tally_status status =
        tally_pg_connect(ctl->config.settings.pg_dsn, "tallyctl refill", &connection, &error);
    if (status == TALLY_OK)
        status = tally_relay_refill_plan(connection, command.hours, &refill, &error);
    if (status == TALLY_OK && refill.events > 0) {
        refused = !confirmed(&command, &refill);
        if (!refused)
            status = tally_relay_refill(connection, command.hours, &refill, &error);
        begun = status == TALLY_OK && !refused && refill.events > 0;
    }
    if (begun && command.wait_s > 0)
        status = follow(&command, connection, &refill, &drained, &error);
    PQfinish(connection);
    if (status != TALLY_OK)
        return tally_ctl_fail(ctl, &error);
    if (refused) {
        (void)fputs("nothing was done\n", stderr);
        return TALLY_CTL_DIFFERENT;
    }
    return report(&command, &refill, begun, drained);
}
