/*
 * Ctl: the frame of tallyctl: its subcommands, their common options and their exit codes.
 *
 * Every subcommand writes its result to standard output, as text for people or, with --json, as
 * one JSON object for machines; errors and progress go to standard error.
 */
#ifndef TALLY_SERVICE_CTL_CTL_H
#define TALLY_SERVICE_CTL_CTL_H

#include "core/config.h"

#include <argp.h>

enum tally_ctl_exit {
    TALLY_CTL_FINE = 0,
    TALLY_CTL_DIFFERENT = 1, /* differences, or something unhealthy, were found */
    TALLY_CTL_USAGE = 2,     /* wrong flags, arguments or settings */
    TALLY_CTL_FAILED = 3,    /* a server cannot be reached, or failed */
};

/* What the subcommands have in common. */
struct tally_ctl {
    struct tally_config config;
    bool json;
};

struct tally_ctl_command {
    const char *name;
    int (*run)(struct tally_ctl *ctl, int argc, char **argv); /* returns an exit code */
    const char *help;
};

/* Parses the options before the subcommand, and runs the subcommand. `commands` ends with a row
 * whose name is NULL. Returns the exit code; --help, --version and wrong flags exit. */
int tally_ctl_run(const struct tally_ctl_command *commands, int argc, char **argv);

/* For a subcommand: parses its own options (`own`, with the input `input`) and the common ones, and
 * reads the settings. Exits on --help and wrong flags; returns TALLY_CTL_FINE or, with the cause
 * printed, TALLY_CTL_USAGE. `own->doc` should end with TALLY_CTL_EXIT_DOC. */
int tally_ctl_parse(struct tally_ctl *ctl, const struct argp *own, void *input, int argc,
                    char **argv) TALLY_MUST_CHECK;

#define TALLY_CTL_EXIT_DOC                                                                    \
    "\vExit codes: 0 fine; 1 differences or something unhealthy found; 2 usage or settings; " \
    "3 a server cannot be reached or failed."

/* Reads a whole number of `least` to `most` from an option's argument; exits by argp_error() where
 * it is anything else. */
int64_t tally_ctl_integer(struct argp_state *state, const char *name, const char *argument,
                          int64_t least, int64_t most);
/* The same for a number with a fraction. */
double tally_ctl_real(struct argp_state *state, const char *name, const char *argument,
                      double least, double most);

/* The subcommands. */
int tally_ctl_migrate(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_topics(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_status(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_verify(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_audit(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_dlq(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_erase(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_explain(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_rebuild(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_generations(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_repair(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_torture(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_load(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_refill(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_pause(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_resume(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_config(struct tally_ctl *ctl, int argc, char **argv);
int tally_ctl_version(struct tally_ctl *ctl, int argc, char **argv);

#endif
