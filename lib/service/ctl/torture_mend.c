#include "service/ctl/status_probe.h"
#include "service/ctl/torture_internal.h"
#include "service/ctl/torture_shell.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOG_BYTES = 64 * 1024, LOG_TIMEOUT_MS = 20000, MEND_TIMEOUT_MS = 3600 * 1000 };

static const char quoted[] = "`tallyctl ";
static const char *const mending[] = {"rebuild", "refill", "repair"};

/* This tallyctl and no other one of the path. Refill asks first, and has nobody here to ask;
 * --mend is the consent. */
static const char this_tallyctl[] =
    "tallyctl() { [ \"$1\" != refill ] || set -- \"$@\" --yes; \"$TALLYCTL\" \"$@\"; }; ";

/* The length of a command that mends, at `text`; 0: it is another one, or holds what a message of
 * ours never does and a shell would act on. */
static size_t mends(const char *text)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789- ");
    if (text[length] != '`')
        return 0;
    for (size_t i = 0; i < sizeof mending / sizeof mending[0]; i++) {
        size_t word = strlen(mending[i]);
        if (strncmp(text, mending[i], word) == 0 && (text[word] == ' ' || text[word] == '`'))
            return length;
    }
    return 0;
}

void torture_named_in(const char *text, char named[TORTURE_NAMED_BYTES])
{
    named[0] = '\0';
    while (*text != '\0') {
        size_t line = strcspn(text, "\n");
        const char *end = text + line;
        char found[TORTURE_NAMED_BYTES] = "";
        for (const char *at = strstr(text, quoted); at != NULL && at < end;
             at = strstr(at + 1, quoted)) {
            const char *command = at + sizeof quoted - 1;
            size_t length = mends(command), used = strlen(found);
            char whole[TORTURE_NAMED_BYTES];
            if (length == 0 || length + sizeof "tallyctl " > sizeof whole)
                continue;
            (void)snprintf(whole, sizeof whole, "tallyctl %.*s", (int)length, command);
            if (strstr(found, whole) != NULL || used + strlen(whole) + 5 >= sizeof found)
                continue;
            if (used > 0) {
                memcpy(found + used, " && ", 5);
                used += 4;
            }
            memcpy(found + used, whole, strlen(whole) + 1);
        }
        if (found[0] != '\0')
            (void)snprintf(named, TORTURE_NAMED_BYTES, "%s", found);
        text = end + (*end == '\n');
    }
}

static void look_for_named(const struct torture_options *options, char named[TORTURE_NAMED_BYTES])
{
    struct tally_error error;
    named[0] = '\0';
    char *log = options->faults.logs[0] != '\0' ? malloc(LOG_BYTES) : NULL;
    if (log != NULL) {
        log[0] = '\0';
        /* What it printed counts, however it ended. */
        (void)!tally_shell_run(options->faults.logs, LOG_TIMEOUT_MS, log, LOG_BYTES, &error);
        torture_named_in(log, named);
        free(log);
    }
    json_t *components = tally_status_collect(options->settings);
    char *text = json_dumps(components, JSON_INDENT(1));
    json_decref(components);
    char told[TORTURE_NAMED_BYTES];
    torture_named_in(text != NULL ? text : "", told);
    if (told[0] != '\0')
        (void)snprintf(named, TORTURE_NAMED_BYTES, "%s", told);
    free(text);
}

/* A service that ends by its error and is started again by its supervisor does not say it all the
 * time. */
void torture_find_named(const struct torture_options *options, int looks,
                        char named[TORTURE_NAMED_BYTES])
{
    for (int i = 0; i < looks; i++) {
        if (i > 0)
            (void)sleep(1);
        look_for_named(options, named);
        if (named[0] != '\0')
            return;
    }
}

enum tally_status torture_mend(const struct torture_options *options, const char *named,
                               struct tally_error *error)
{
    char command[TORTURE_NAMED_BYTES + sizeof this_tallyctl];
    (void)snprintf(command, sizeof command, "%s%s", this_tallyctl, named);
    enum tally_status status = tally_shell_run(command, MEND_TIMEOUT_MS, NULL, 0, error);
    if (status == TALLY_OK && options->faults.revive[0] != '\0')
        status = tally_shell_run(options->faults.revive, MEND_TIMEOUT_MS, NULL, 0, error);
    return status;
}
