#include "redis_server.h"

#include "core/clock.h"
#include "port.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_S = 120, PAUSE_US = 10000 };

static pid_t spawn(const struct redis_server *server)
{
    char port[8];
    const pid_t parent = getpid();
    (void)snprintf(port, sizeof port, "%d", server->port);
    const pid_t process = fork();
    cr_assert(process >= 0);
    if (process == 0) {
        /* A test that dies must not leave it behind. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || freopen("/dev/null", "w", stdout) == NULL)
            _exit(1);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
               "--appendonly", "no", "--maxmemory-policy", server->policy, (char *)NULL);
        _exit(127);
    }
    return process;
}

/* Whether it is this process that answers: the port may be another test's, and ours about to
 * notice.
 */
static bool answers(const struct redis_server *server)
{
    struct tally_redis *redis = NULL;
    redisReply *reply = NULL;
    struct tally_redis_url url;
    char process[32];
    bool found = false;
    (void)snprintf(process, sizeof process, "\nprocess_id:%d\r", (int)server->process);
    cr_assert_eq(tally_redis_url_parse(server->url, &url, NULL), TALLY_OK);
    if (tally_redis_open(&url, 1000, &redis, NULL) == TALLY_OK &&
        tally_redis_call(redis, &reply, NULL, "INFO server") == TALLY_OK) {
        found = reply->str != NULL && strstr(reply->str, process) != NULL;
        freeReplyObject(reply);
    }
    tally_redis_close(&redis);
    return found;
}

/* Starts it on its port, or on any: again where somebody else has the port. */
static void start(struct redis_server *server, bool any_port)
{
    const int64_t give_up_us = tally_clock_monotonic_us() + PATIENCE_S * INT64_C(1000000);
    bool running = false;
    do {
        if (!running) {
            if (any_port)
                server->port = test_port_choose();
            (void)snprintf(server->url, sizeof server->url, "redis://127.0.0.1:%d/0", server->port);
            server->process = spawn(server);
        } else {
            usleep(PAUSE_US);
        }
        cr_assert(tally_clock_monotonic_us() < give_up_us, "redis-server does not start");
        running = waitpid(server->process, NULL, WNOHANG) == 0;
    } while (!running || !answers(server));
}

void redis_server_start(struct redis_server *server, const char *policy)
{
    server->policy = policy;
    start(server, true);
}

void redis_server_stop(struct redis_server *server)
{
    if (server->process <= 0)
        return;
    kill(server->process, SIGKILL);
    waitpid(server->process, NULL, 0);
    server->process = 0;
}

void redis_server_restart(struct redis_server *server)
{
    redis_server_stop(server);
    start(server, false);
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
