#include "simulation.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

enum { STACK_BYTES = 512 << 10 };

/* Every switch is told to AddressSanitizer, which keeps what it knows of a stack per stack. */
static void before_switch(void **shadow, const void *stack, size_t bytes)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(shadow, stack, bytes);
#else
    (void)shadow, (void)stack, (void)bytes;
#endif
}

static void after_switch(void *shadow, const void **stack, size_t *bytes)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(shadow, stack, bytes);
#else
    (void)shadow, (void)stack, (void)bytes;
#endif
}

static void yield(struct simulation_process *process)
{
    before_switch(process->ended ? NULL : &process->shadow, simulation->scheduler_stack,
                  simulation->scheduler_stack_bytes);
    swapcontext(&process->context, &simulation->scheduler);
    after_switch(process->shadow, &simulation->scheduler_stack, &simulation->scheduler_stack_bytes);
}

static void enter(void)
{
    struct simulation_process *process = simulation->current;
    after_switch(NULL, &simulation->scheduler_stack, &simulation->scheduler_stack_bytes);
    (void)process->body(process->argument);
    process->ended = true;
    yield(process);
}

void simulation_fiber_resume(struct simulation_process *process)
{
    simulation->current = process;
    process->ready = NULL;
    before_switch(&simulation->scheduler_shadow, process->stack, STACK_BYTES);
    swapcontext(&simulation->scheduler, &process->context);
    after_switch(simulation->scheduler_shadow, NULL, NULL);
    simulation->current = NULL;
}

bool simulation_fiber_runnable(const struct simulation_process *process)
{
    if (!process->running || process->ended || simulation->now_us < process->stopped_until_us)
        return false;
    return simulation->now_us >= process->wake_us ||
           (process->ready != NULL && process->ready(process->ready_context));
}

void simulation_fiber_release(struct simulation_process *process)
{
    if (process->stack != NULL)
        munmap(process->stack, STACK_BYTES);
    process->stack = NULL;
}

bool simulation_killed(void)
{
    return simulation->current == NULL || simulation->current->killed;
}

void simulation_wait(int64_t us, bool (*ready)(const void *), const void *context)
{
    if (simulation_killed())
        return;
    struct simulation_process *process = simulation->current;
    process->wake_us = simulation->now_us + us;
    process->ready = ready;
    process->ready_context = context;
    yield(process);
}

/* What production code calls of the system, by ld's --wrap. */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*body)(void *), void *argument);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *until);
int __wrap_poll(struct pollfd *descriptors, nfds_t count, int timeout_ms);
int __wrap_usleep(useconds_t us);
int64_t __wrap_tally_clock_monotonic_us(void);
int64_t __wrap_tally_clock_wall_us(void);
void __wrap_tally_random_seed_from_system(struct tally_random *random);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*body)(void *), void *argument)
{
    (void)attributes;
    struct simulation_process *process = simulation->starting;
    if (process->stack == NULL) {
        process->stack =
            mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (process->stack == MAP_FAILED)
            abort();
    }
    *thread = (pthread_t)simulation_process_index(process);
    process->body = body;
    process->argument = argument;
    process->running = true;
    getcontext(&process->context);
    process->context.uc_stack.ss_sp = process->stack;
    process->context.uc_stack.ss_size = STACK_BYTES;
    process->context.uc_link = NULL;
    makecontext(&process->context, enter, 0);
    return 0;
}

/* The process has been killed or asked to stop: it needs no more than to be let run. */
int __wrap_pthread_join(pthread_t thread, void **result)
{
    (void)result;
    struct simulation_process *process = simulation_process_at((size_t)thread);
    if (!process->ended)
        simulation_fiber_resume(process);
    return process->ended ? 0 : -1;
}

int __wrap_pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *until)
{
    (void)until;
    return __wrap_pthread_join(thread, result);
}

static bool woken(const void *context)
{
    return ((const struct simulation_process *)context)->woken;
}

/* Only the relay polls, and for its wake-up alone. */
int __wrap_poll(struct pollfd *descriptors, nfds_t count, int timeout_ms)
{
    (void)descriptors, (void)count;
    if (simulation_killed())
        return 0;
    struct simulation_process *process = simulation->current;
    simulation_wait(timeout_ms * INT64_C(1000), woken, process);
    const bool told = process->woken;
    process->woken = false;
    return told;
}

int __wrap_usleep(useconds_t us)
{
    simulation_wait(us, NULL, NULL);
    return 0;
}

int64_t __wrap_tally_clock_monotonic_us(void)
{
    /* For one that only unwinds every deadline is over. */
    if (simulation->current != NULL && simulation->current->killed)
        return simulation->now_us + INT64_C(3600000000);
    return simulation->now_us;
}

int64_t __wrap_tally_clock_wall_us(void)
{
    return INT64_C(1795348800000000) + simulation->now_us;
}

void __wrap_tally_random_seed_from_system(struct tally_random *random)
{
    tally_random_seed(random, tally_random_next(&simulation->random));
}
