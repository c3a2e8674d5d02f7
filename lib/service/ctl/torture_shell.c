#include "service/ctl/torture_shell.h"

#include "core/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_MS = 5, TAIL_BYTES = 1024, FIRST_OWN_DESCRIPTOR = 3 };

/* A child that a killed group leaves behind may write on; hence a file and no pipe, whose end would
 * have to be waited for. */
static enum tally_status spawn(const char *command, int printed, pid_t *pid,
                               struct tally_error *error)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, ordinary;
    char shell[] = "sh", option[] = "-c";
    char *text = strdup(command);
    if (text == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "a command");
    char *const words[] = {shell, option, text, NULL};
    (void)sigemptyset(&none);
    (void)sigemptyset(&ordinary);
    (void)sigaddset(&ordinary, SIGINT);
    (void)sigaddset(&ordinary, SIGTERM);
    (void)sigaddset(&ordinary, SIGHUP);
    (void)sigaddset(&ordinary, SIGPIPE);
    int code = posix_spawn_file_actions_init(&actions);
    if (code == 0)
        code = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (code == 0)
        code = posix_spawn_file_actions_adddup2(&actions, printed, 1);
    if (code == 0)
        code = posix_spawn_file_actions_adddup2(&actions, printed, 2);
    if (code == 0)
        code = posix_spawn_file_actions_addclosefrom_np(&actions, FIRST_OWN_DESCRIPTOR);
    if (code == 0)
        code = posix_spawnattr_init(&attributes);
    if (code == 0) {
        (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                                        POSIX_SPAWN_SETSIGDEF);
        (void)posix_spawnattr_setpgroup(&attributes, 0);
        (void)posix_spawnattr_setsigmask(&attributes, &none);
        (void)posix_spawnattr_setsigdefault(&attributes, &ordinary);
        code = posix_spawn(pid, "/bin/sh", &actions, &attributes, words, environ);
        (void)posix_spawnattr_destroy(&attributes);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    free(text);
    if (code != 0)
        return tally_fail(error, TALLY_INTERNAL, "/bin/sh: %s", strerror(code));
    return TALLY_OK;
}

/* False where it had to be killed. */
static bool await(pid_t pid, int64_t timeout_ms, int *ending)
{
    const int64_t due_us = tally_clock_monotonic_us() + timeout_ms * 1000;
    while (waitpid(pid, ending, WNOHANG) == 0) {
        if (tally_clock_monotonic_us() >= due_us) {
            (void)kill(-pid, SIGKILL);
            (void)waitpid(pid, ending, 0);
            return false;
        }
        const struct timespec look = {.tv_nsec = LOOK_MS * 1000000L};
        (void)nanosleep(&look, NULL);
    }
    return true;
}

static void read_tail(int file, char *text, size_t bytes)
{
    off_t end = lseek(file, 0, SEEK_END);
    off_t from = end > (off_t)bytes - 1 ? end - ((off_t)bytes - 1) : 0;
    ssize_t length = pread(file, text, bytes - 1, from);
    text[length > 0 ? length : 0] = '\0';
}

/* The last line that is not empty; changes `text`. */
static const char *last_line(char *text)
{
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == ' '))
        text[--length] = '\0';
    const char *line = strrchr(text, '\n');
    return line != NULL ? line + 1 : text;
}

enum tally_status tally_shell_run(const char *command, int64_t timeout_ms, char *output,
                                  size_t output_bytes, struct tally_error *error)
{
    int printed = memfd_create("tallyctl torture", MFD_CLOEXEC);
    if (printed < 0)
        return tally_fail(error, TALLY_NO_MEMORY, "memfd_create: %s", strerror(errno));
    pid_t pid = 0;
    int ending = 0;
    bool ended = true;
    enum tally_status status = spawn(command, printed, &pid, error);
    if (status == TALLY_OK)
        ended = await(pid, timeout_ms, &ending);
    char tail[TAIL_BYTES];
    read_tail(printed, tail, sizeof tail);
    if (output != NULL)
        read_tail(printed, output, output_bytes);
    (void)close(printed);
    if (status != TALLY_OK)
        return status;
    if (!ended)
        return tally_fail(error, TALLY_REQUEST_TIMEOUT, "%.200s: not done within %lld s", command,
                          (long long)(timeout_ms / 1000));
    if (WIFSIGNALED(ending))
        return tally_fail(error, TALLY_INTERNAL, "%.200s: ended by signal %d", command,
                          WTERMSIG(ending));
    if (WEXITSTATUS(ending) != 0)
        return tally_fail(error, TALLY_INTERNAL, "%.200s: exit code %d: %.200s", command,
                          WEXITSTATUS(ending), last_line(tail));
    return TALLY_OK;
}
