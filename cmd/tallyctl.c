#include "service/ctl/ctl.h"

#include <stddef.h>

static const struct tally_ctl_command commands[] = {
    {"migrate", tally_ctl_migrate, "bring the schema of PostgreSQL forward, or show it"},
    {"topics", tally_ctl_topics, "make the topics in Kafka, or show them"},
    {"status", tally_ctl_status, "show how each server and service is"},
    {"verify", tally_ctl_verify, "prove that the read model equals a recount"},
    {"audit", tally_ctl_audit, "verify without end, and repair single users that differ"},
    {"rebuild", tally_ctl_rebuild, "build the read model anew beside the live one"},
    {"generations", tally_ctl_generations, "list the read models in Redis, roll back, drop"},
    {"repair", tally_ctl_repair, "restore single users from PostgreSQL"},
    {"explain", tally_ctl_explain, "show the events that make up a user's counts"},
    {"erase", tally_ctl_erase, "remove a user's personal data for good, with a receipt"},
    {"dlq", tally_ctl_dlq, "list, show, retry or discard dead letters"},
    {"refill", tally_ctl_refill, "publish kept events again after Kafka has lost them"},
    {"pause", tally_ctl_pause, "pause the relay or the projectors"},
    {"resume", tally_ctl_resume, "end such a pause"},
    {"load", tally_ctl_load, "send writes and measure them"},
    {"torture", tally_ctl_torture, "break a stack under load, and prove that it counts right"},
    {"config", tally_ctl_config, "print the reference of all settings"},
    {"version", tally_ctl_version, "print the version"},
    {NULL, NULL, NULL},
};

int main(int argc, char **argv)
{
    return tally_ctl_run(commands, argc, argv);
}
