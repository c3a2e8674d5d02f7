#include "redis_server.h"

#include "core/clock.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const int64_t START_WAIT_US = 20LL * 1000 * 1000;

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    const int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(descriptor >= 0 && bind(descriptor, (const struct sockaddr *)&address, size) == 0 &&
              getsockname(descriptor, (struct sockaddr *)&address, &size) == 0);
    close(descriptor);
    return ntohs(address.sin_port);
}

static void spawn(struct redis_server *server, const char *policy)
{
    char port[8];
    (void)snprintf(port, sizeof port, "%d", server->port);
    server->process = fork();
    cr_assert(server->process >= 0);
    if (server->process == 0) {
        /* A test that dies must not leave it behind. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)!freopen("/dev/null", "w", stdout);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
               "--appendonly", "no", "--maxmemory-policy", policy, (char *)NULL);
        _exit(127);
    }
    const int64_t give_up_us = tally_clock_monotonic_us() + START_WAIT_US;
    struct tally_redis *redis = NULL;
    redisReply *reply = NULL;
    struct tally_redis_url url;
    cr_assert_eq(tally_redis_url_parse(server->url, &url, NULL), TALLY_OK);
    while (tally_redis_open(&url, 1000, &redis, NULL) != TALLY_OK ||
           tally_redis_call(redis, &reply, NULL, "PING") != TALLY_OK) {
        tally_redis_close(&redis);
        cr_assert(tally_clock_monotonic_us() < give_up_us, "redis-server does not start");
        usleep(10000);
    }
    freeReplyObject(reply);
    tally_redis_close(&redis);
}

void redis_server_start(struct redis_server *server, const char *policy)
{
    server->port = free_port();
    (void)snprintf(server->url, sizeof server->url, "redis://127.0.0.1:%d/0", server->port);
    spawn(server, policy);
}

void redis_server_stop(struct redis_server *server)
{
    kill(server->process, SIGKILL);
    waitpid(server->process, NULL, 0);
}

void redis_server_restart(struct redis_server *server)
{
    redis_server_stop(server);
    spawn(server, "noeviction");
}

struct tally_redis *redis_server_open(const struct redis_server *server)
{
    struct tally_redis *redis = NULL;
    struct tally_redis_url url;
    struct tally_error error = {0};
    cr_assert_eq(tally_redis_url_parse(server->url, &url, &error), TALLY_OK);
    cr_assert_eq(tally_redis_open(&url, 5000, &redis, &error), TALLY_OK, "%s", error.text);
    return redis;
}
