#include "simulation.h"

static void stop_for_a_while(struct simulation_process *process)
{
    static const uint64_t most_us[] = {20000, 400000, 8000000};
    process->stopped_until_us =
        simulation->now_us + (int64_t)simulation_below(most_us[simulation_below(3)]);
    simulation_note("sigstop", (int64_t)simulation_process_index(process),
                    process->stopped_until_us, 0);
}

static void rebalance(struct simulation_process *process)
{
    (void)process;
    simulated_group_rebalance();
}

static void crash_postgres(struct simulation_process *process)
{
    (void)process;
    simulated_postgres_crash();
}

static void break_sessions(struct simulation_process *process)
{
    simulated_postgres_break_sessions(process);
}

static void lose_kafka(struct simulation_process *process)
{
    (void)process;
    simulated_kafka_outage((int64_t)simulation_below(1000000));
}

static void break_connections(struct simulation_process *process)
{
    simulated_connections_break(process);
}

static void refuse_connections(struct simulation_process *process)
{
    (void)process;
    simulated_connections_refuse((int64_t)simulation_below(500000));
}

static void restore_redis(struct simulation_process *process)
{
    (void)process;
    simulated_redis_restore();
}

static void rewind_redis(struct simulation_process *process)
{
    (void)process;
    simulated_operators_rewind();
}

static void flush_redis(struct simulation_process *process)
{
    (void)process;
    simulated_redis_flush();
}

static void operate(struct simulation_process *process)
{
    static void (*const operations[])(void) = {
        simulated_redis_raise_epoch, simulated_operators_pause, simulated_operators_repair,
        simulated_operators_change,  simulated_postgres_refill,
    };
    (void)process;
    operations[simulation_below(sizeof operations / sizeof operations[0])]();
}

static const struct {
    uint64_t weight;
    void (*happen)(struct simulation_process *process); /* to that one, where it has to be one */
} faults[] = {
    {15, simulation_crash}, {16, stop_for_a_while}, {12, rebalance},        {6, crash_postgres},
    {4, break_sessions},    {4, lose_kafka},        {8, break_connections}, {4, refuse_connections},
    {9, restore_redis},     {3, flush_redis},       {18, operate},          {8, rewind_redis},
};

void simulation_disturb(void)
{
    struct simulation_process *process =
        simulation_process_at(simulation_below(SIMULATION_PROCESSES));
    /* That mistake shows where two projectors own a partition in turn, with calls on their way. */
    if (simulation_planted(PLANT_EPOCH_IGNORED) && simulation_below(4) != 0) {
        simulated_group_rebalance();
        return;
    }
    const size_t count = sizeof faults / sizeof faults[0];
    uint64_t all = 0;
    for (size_t i = 0; i < count; i++)
        all += faults[i].weight;
    uint64_t dice = simulation_below(all);
    size_t chosen = 0;
    while (dice >= faults[chosen].weight)
        dice -= faults[chosen++].weight;
    faults[chosen].happen(process);
}
