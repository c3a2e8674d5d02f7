#include "loop/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void tally_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof address.sun_path)
        return;
    size_t length = strlen(path);
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') /* an abstract socket */
        address.sun_path[0] = '\0';
    int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor < 0)
        return;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    ssize_t sent = sendto(descriptor, state, strlen(state), MSG_NOSIGNAL,
                          (const struct sockaddr *)&address, size);
    (void)sent;
    close(descriptor);
}

int64_t tally_notify_watchdog_us(void)
{
    const char *text = getenv("WATCHDOG_USEC");
    if (text == NULL || getenv("NOTIFY_SOCKET") == NULL)
        return 0;
    long long interval_us = strtoll(text, NULL, 10);
    return interval_us > 1 ? interval_us / 2 : 0;
}
