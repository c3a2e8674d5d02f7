/*
 * Torture faults: what can be done to a stack, as a file of its operator says, and the order in
 * which a seed does it. Pure but for the reading of the file.
 *
 * The file has a section `[name]` for each fault, with `key = value` lines; the value is the rest
 * of the line, a `#` first on a line begins a comment:
 *   inject    shell command that begins the fault (must be there)
 *   heal      shell command that ends it; without it the fault ends by itself
 *   lasts     time between the two: 3s, or 1s-5s for a random time of that range (default 0s)
 *   recovers  a violation where a new write is not readable so long after the end (default: none)
 * Before the first section:
 *   logs      shell command that prints the latest log lines of the services
 *   revive    shell command that starts services which have ended by themselves
 */
#ifndef TALLY_SERVICE_CTL_TORTURE_FAULTS_H
#define TALLY_SERVICE_CTL_TORTURE_FAULTS_H

#include "core/random.h"
#include "core/status.h"

#include <stddef.h>

#define TALLY_FAULTS_MOST 64
#define TALLY_FAULT_NAME_BYTES 49
#define TALLY_FAULT_COMMAND_BYTES 1024

struct tally_fault {
    char name[TALLY_FAULT_NAME_BYTES]; /* a-z, 0-9, "-" */
    char inject[TALLY_FAULT_COMMAND_BYTES];
    char heal[TALLY_FAULT_COMMAND_BYTES]; /* "": there is none */
    int64_t lasts_least_ms, lasts_most_ms;
    int64_t recovers_ms; /* 0: no bound */
};

struct tally_faults {
    struct tally_fault list[TALLY_FAULTS_MOST];
    size_t count;
    char logs[TALLY_FAULT_COMMAND_BYTES];
    char revive[TALLY_FAULT_COMMAND_BYTES];
};

/* Those of a stack that deploy/local/up has started: the text of deploy/torture/local.faults. */
extern const char tally_faults_local[];

/* "250ms", "10s", "5m", "2h"; up to a week. INVALID. */
enum tally_status tally_duration_parse(const char *text, int64_t *milliseconds,
                                       struct tally_error *error) TALLY_MUST_CHECK;

/* INVALID with `origin` and the line's number where anything is not as described above. */
enum tally_status tally_faults_parse(const char *text, const char *origin,
                                     struct tally_faults *faults,
                                     struct tally_error *error) TALLY_MUST_CHECK;
/* The same of a file of 256 KiB at most. IO: it cannot be read. */
enum tally_status tally_faults_read(const char *path, struct tally_faults *faults,
                                    struct tally_error *error) TALLY_MUST_CHECK;
/* Keeps those that are named, in the order of the file. INVALID: there is none of that name. */
enum tally_status tally_faults_choose(struct tally_faults *faults, const char *const *names,
                                      size_t count, struct tally_error *error) TALLY_MUST_CHECK;

/* The order: rounds, in each of which every fault comes once. The same seed gives the same order,
 * times and pauses, whatever happens meanwhile. */
struct tally_fault_step {
    const struct tally_fault *fault;
    int64_t round; /* from 1 */
    int64_t lasts_ms;
    int64_t pause_ms; /* after it; half to one and a half of what was asked for */
};
struct tally_fault_plan {
    const struct tally_faults *faults; /* borrowed */
    struct tally_random random;
    int64_t pause_ms;
    size_t order[TALLY_FAULTS_MOST];
    size_t next;
    int64_t round;
};
/* `faults` has one at least. */
void tally_fault_plan_init(struct tally_fault_plan *plan, const struct tally_faults *faults,
                           uint64_t seed, int64_t pause_ms);
void tally_fault_plan_next(struct tally_fault_plan *plan, struct tally_fault_step *step);

#endif
