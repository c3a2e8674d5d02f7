#include "faults.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PLACES_MOST = 4096 };

/* Where the program calls a wrapped function. */
struct place {
    const void *address;
    const char *function;
    int passed; /* calls in the run at hand */
    int calls;  /* in a run in which none failed; 1 where there were none */
    int chosen; /* calls that were chosen to fail: the first ones */
};

static atomic_long countdown; /* calls until one fails; 0: none does */
static atomic_int which_threads;
static atomic_long rounds = 1;    /* calls of faults_begin(), and one */
static _Thread_local long born;   /* what `rounds` was at the thread's first call */
static _Atomic(pthread_t) thread; /* of faults_begin() */
static _Atomic(const char *) failed;

static pthread_mutex_t places_lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static struct place places[PLACES_MOST];
static size_t place_count;
static atomic_bool by_place;
static struct place *aim; /* where the last chosen call fails; NULL: nowhere */

void faults_begin(long nth, enum faults_threads threads)
{
    atomic_store(&thread, pthread_self());
    atomic_fetch_add(&rounds, 1);
    atomic_store(&which_threads, threads);
    atomic_store(&failed, NULL);
    atomic_store(&countdown, nth);
}

bool faults_end(void)
{
    atomic_store(&countdown, 0);
    atomic_store(&by_place, false);
    return atomic_load(&failed) != NULL;
}

/* As faults_begin(), for one more call at a place than was chosen before; NULL: none fails, but
 * places are found. */
static void begin_at(struct place *place, enum faults_threads threads)
{
    faults_begin(0, threads);
    pthread_mutex_lock(&places_lock);
    for (size_t i = 0; i < place_count; i++)
        places[i].passed = 0;
    if (place != NULL)
        place->chosen++;
    aim = place;
    pthread_mutex_unlock(&places_lock);
    atomic_store(&by_place, true);
}

const char *faults_failed(void)
{
    const char *name = atomic_load(&failed);
    return name != NULL ? name : "nothing";
}

static bool concerns_this_thread(void)
{
    const bool own = pthread_equal(atomic_load(&thread), pthread_self());
    switch (atomic_load(&which_threads)) {
    case FAULTS_OF_THIS_THREAD:
        return own;
    case FAULTS_OF_OTHER_THREADS:
        return !own;
    case FAULTS_OF_NEW_THREADS:
        return !own && born == atomic_load(&rounds);
    default:
        return true;
    }
}

static struct place *find_place(const char *function, const void *address)
{
    for (size_t i = 0; i < place_count; i++) {
        if (places[i].address == address)
            return &places[i];
    }
    if (place_count == PLACES_MOST)
        return NULL;
    places[place_count] = (struct place){.address = address, .function = function};
    return &places[place_count++];
}

static bool due_at_place(const char *function, const void *address)
{
    bool due = false;
    pthread_mutex_lock(&places_lock);
    struct place *place = find_place(function, address);
    if (place != NULL) {
        place->passed++;
        if (aim == NULL || place->calls == 0)
            place->calls = place->passed;
        due = place == aim && place->passed == place->chosen;
    }
    pthread_mutex_unlock(&places_lock);
    if (due)
        atomic_store(&failed, function);
    return due;
}

bool faults_due(const char *function, const void *address)
{
    if (born == 0)
        born = atomic_load(&rounds);
    long left = atomic_load(&countdown);
    const bool at_place = atomic_load(&by_place);
    if ((left == 0 && !at_place) || !concerns_this_thread())
        return false;
    if (at_place)
        return due_at_place(function, address);
    while (left > 0 && !atomic_compare_exchange_weak(&countdown, &left, left - 1))
        ;
    if (left != 1)
        return false;
    atomic_store(&failed, function);
    return true;
}

static void on_tick(evutil_socket_t descriptor, short what, void *argument)
{
    (void)descriptor, (void)what, (void)argument;
}

struct event *faults_tick(struct event_base *base)
{
    const struct timeval period = {0, 5000};
    struct event *tick = event_new(base, -1, EV_PERSIST, on_tick, NULL);
    cr_assert_not_null(tick);
    cr_assert_eq(event_add(tick, &period), 0);
    return tick;
}

int faults_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder != NULL && readdir(folder) != NULL)
        count++;
    if (folder != NULL)
        closedir(folder);
    return count;
}

/* One run, for which a call was chosen to fail, and what must hold after it. False where no call
 * failed. */
static bool judge_run(faults_run *run, int descriptors, long nth)
{
    struct tally_error error = {0};
    const enum tally_status status = run(&error);
    const bool hit = faults_end();
    if (getenv("TALLY_FAULTS_SHOW") != NULL)
        (void)fprintf(stderr, "%ld %s: %s\n", nth, faults_failed(), error.text);
    if (!hit) {
        cr_expect_eq(status, TALLY_OK, "%s", error.text);
        return false;
    }
    cr_expect(status == TALLY_OK || error.text[0] != '\0', "no reason after call %ld, %s", nth,
              faults_failed());
    error = (struct tally_error){0};
    cr_expect_eq(run(&error), TALLY_OK, "after call %ld, %s: %s", nth, faults_failed(), error.text);
    /* Another thread may close what it has at its next turn. */
    for (int i = 0; i < 6000 && faults_descriptors() != descriptors; i++)
        usleep(10000);
    cr_expect_eq(faults_descriptors(), descriptors, "after call %ld, %s", nth, faults_failed());
    return true;
}

long faults_each(faults_run *run, enum faults_threads threads, long most)
{
    struct tally_error error = {0};
    cr_assert_eq(run(&error), TALLY_OK, "%s", error.text); /* what is made once is made */
    const int descriptors = faults_descriptors();
    for (long nth = 1; nth <= most; nth += FAULTS_STRIDE) {
        faults_begin(nth, threads);
        if (!judge_run(run, descriptors, nth))
            return nth - 1;
    }
    return most;
}

static bool was_chosen(const char *function)
{
    for (size_t i = 0; i < place_count; i++) {
        if (places[i].chosen > 0 && strcmp(places[i].function, function) == 0)
            return true;
    }
    return false;
}

/* The next place: one that calls what no chosen one calls; else of those where fewest were chosen,
 * and more are left, the next from `*last` on, with so many left out that `most` reach through all.
 * NULL: nothing is left. */
static struct place *next_place(size_t *last, long most)
{
    struct place *found = NULL;
    pthread_mutex_lock(&places_lock);
    const size_t stride = 1 + place_count / (size_t)most;
    for (size_t i = 0; i < place_count && found == NULL; i++) {
        if (!was_chosen(places[i].function))
            found = &places[i];
    }
    const bool another = found != NULL;
    for (size_t i = 0; i < place_count && !another; i++) {
        struct place *place = &places[(*last + stride + i) % place_count];
        if (place->chosen < place->calls && (found == NULL || place->chosen < found->chosen))
            found = place;
    }
    if (found != NULL && !another)
        *last = (size_t)(found - places);
    pthread_mutex_unlock(&places_lock);
    return found;
}

long faults_each_place(faults_run *run, enum faults_threads threads, long most)
{
    struct tally_error error = {0};
    long count = 0;
    size_t last = 0;
    most /= FAULTS_STRIDE;
    cr_assert_eq(run(&error), TALLY_OK, "%s", error.text); /* what is made once is made */
    begin_at(NULL, threads);
    cr_assert_eq(run(&error), TALLY_OK, "%s", error.text);
    (void)faults_end();
    const int descriptors = faults_descriptors();
    struct place *place = next_place(&last, most);
    for (; place != NULL && count < most; place = next_place(&last, most)) {
        begin_at(place, threads);
        count += judge_run(run, descriptors, count + 1);
    }
    pthread_mutex_lock(&places_lock);
    cr_log_info("%zu places call, %ld calls failed", place_count, count);
    pthread_mutex_unlock(&places_lock);
    return count;
}
