#include "loop/loop.h"

#include "core/log.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct tally_wakeup {
    int descriptor;
    struct event *event;
    tally_wakeup_callback *callback;
    void *context;
};

/* libevent would print it on standard error, between the lines of the log. */
static void on_log(int severity, const char *text)
{
    tally_log(severity == EVENT_LOG_ERR    ? TALLY_LOG_ERROR
              : severity == EVENT_LOG_WARN ? TALLY_LOG_WARNING
                                           : TALLY_LOG_INFO,
              "loop.libevent", TALLY_TEXT("text", text));
}

struct event_base *tally_loop_new(void)
{
    event_set_log_callback(on_log);
    struct event_config *config = event_config_new();
    if (config == NULL)
        return NULL;
    struct event_base *base = NULL;
    if (event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER) == 0)
        base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static void on_signalled(evutil_socket_t descriptor, short what, void *argument)
{
    (void)what;
    struct tally_wakeup *wakeup = argument;
    uint64_t count;
    /* Only resets the counter; nothing to read means that another turn has done so. */
    if (read(descriptor, &count, sizeof count) == (ssize_t)sizeof count)
        wakeup->callback(wakeup->context);
}

enum tally_status tally_wakeup_new(struct event_base *base, tally_wakeup_callback *callback,
                                   void *context, struct tally_wakeup **wakeup,
                                   struct tally_error *error)
{
    struct tally_wakeup *made = calloc(1, sizeof *made);
    if (made == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "wake-up");
    made->callback = callback;
    made->context = context;
    made->descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (made->descriptor < 0) {
        free(made);
        return tally_fail(error, TALLY_IO, "eventfd: %s", strerror(errno));
    }
    made->event = event_new(base, made->descriptor, EV_READ | EV_PERSIST, on_signalled, made);
    if (made->event == NULL || event_add(made->event, NULL) != 0) {
        tally_wakeup_free(&made);
        return tally_fail(error, TALLY_NO_MEMORY, "wake-up event");
    }
    *wakeup = made;
    return TALLY_OK;
}

void tally_wakeup_signal(struct tally_wakeup *wakeup)
{
    const uint64_t one = 1;
    /* It can only fail where the counter is full, and then the loop is awake already. */
    ssize_t written = write(wakeup->descriptor, &one, sizeof one);
    (void)written;
}

void tally_wakeup_free(struct tally_wakeup **wakeup)
{
    if (*wakeup == NULL)
        return;
    if ((*wakeup)->event != NULL)
        event_free((*wakeup)->event);
    close((*wakeup)->descriptor);
    free(*wakeup);
    *wakeup = NULL;
}
