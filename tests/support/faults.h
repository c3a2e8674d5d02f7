/*
 * Faults: every call that Tally's own code makes of malloc, the system and its libraries can be
 * made to fail, one at a time. Works in programs that tally_faults() (tests/CMakeLists.txt) links
 * with ld's --wrap, which takes calls from Tally's objects and leaves those inside of libraries
 * alone; the idea is SQLite's, https://www.sqlite.org/testing.html#anomoly_testing.
 */
#ifndef TALLY_TEST_FAULTS_H
#define TALLY_TEST_FAULTS_H

#include "core/status.h"

struct event;
struct event_base;

enum faults_threads {
    FAULTS_OF_THIS_THREAD,
    FAULTS_OF_ALL_THREADS,
    FAULTS_OF_OTHER_THREADS,
    FAULTS_OF_NEW_THREADS, /* that make their first call after faults_begin() */
};

/* From now on the `nth` call fails, once; the next one is the first. */
void faults_begin(long nth, enum faults_threads threads);
/* Ends it; true where a call failed, which faults_failed() then names. */
bool faults_end(void);
const char *faults_failed(void);

/* Every call fails in its turn under ASan, which sees what is lost; elsewhere every so manieth. */
#if defined(__SANITIZE_ADDRESS__)
enum { FAULTS_STRIDE = 1 };
#elif defined(__SANITIZE_THREAD__)
enum { FAULTS_STRIDE = 8 };
#else
enum { FAULTS_STRIDE = 4 };
#endif

/* Runs `run` again and again, each time with FAULTS_STRIDE more calls before the one that fails,
 * until none does: it must be OK or say what is wrong, leave no descriptor open, and be OK the next
 * time. It may call faults_end() itself, before it looks at what came of it by calls of its own.
 * `most` bounds the calls. Returns how many there are. */
typedef enum tally_status faults_run(struct tally_error *error);
long faults_each(faults_run *run, enum faults_threads threads, long most);

/* The same for runs that are long, and may differ: `most` / FAULTS_STRIDE calls fail, one a run.
 * First the first call of each function, then the first one at each place in the program that
 * calls, then the second one at each, and so on; out of every part of the program, where `most` is
 * too few. Returns how many calls failed. */
long faults_each_place(faults_run *run, enum faults_threads threads, long most);

/* Descriptors that this process has open. */
int faults_descriptors(void);

/* Wakes a loop every few milliseconds, so that who turns it sees his deadline pass where nothing
 * else happens any more. To be freed by event_free() before the base. */
struct event *faults_tick(struct event_base *base);

/* For the wrapped functions: whether this call, from `address`, has to fail. */
bool faults_due(const char *function, const void *address);

#endif
