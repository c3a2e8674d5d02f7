/*
 * Redis server: one of a test's own, on a free port, empty.
 */
#ifndef TALLY_TEST_REDIS_SERVER_H
#define TALLY_TEST_REDIS_SERVER_H

#include "redis/connection.h"

#include <sys/types.h>

struct redis_server {
    pid_t process;
    int port;
    const char *policy;
    char url[64];
};

/* Starts it and waits until it answers; failing fails the test. `policy` is maxmemory-policy, a
 * literal. */
void redis_server_start(struct redis_server *server, const char *policy);
/* Kills it, where it runs, and starts an empty one in its place, on the same port. */
void redis_server_restart(struct redis_server *server);
/* Kills it, where it runs. */
void redis_server_stop(struct redis_server *server);
/* A connection to it; the test closes it. */
struct tally_redis *redis_server_open(const struct redis_server *server);

#endif
