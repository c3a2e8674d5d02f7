#include "service/ctl/torture_faults.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES = 256 * 1024, LINE_BYTES = 1200, WEEK_S = 7 * 24 * 3600 };

static const char blanks[] = " \t\r";

enum tally_status tally_duration_parse(const char *text, int64_t *milliseconds,
                                       struct tally_error *error)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    char *end = NULL;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno == 0 && text[0] >= '0' && text[0] <= '9') {
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
            if (strcmp(end, units[i].unit) == 0 && number <= WEEK_S * 1000LL / units[i].ms) {
                *milliseconds = number * units[i].ms;
                return TALLY_OK;
            }
        }
    }
    return tally_fail(error, TALLY_INVALID, "\"%.40s\" is no time such as 500ms, 10s, 5m or 2h",
                      text);
}

static enum tally_status parse_command(const char *value, char command[TALLY_FAULT_COMMAND_BYTES],
                                       struct tally_error *error)
{
    if (command[0] != '\0')
        return tally_fail(error, TALLY_INVALID, "is given twice");
    if (value[0] == '\0')
        return tally_fail(error, TALLY_INVALID, "has no value");
    if (strlen(value) >= TALLY_FAULT_COMMAND_BYTES)
        return tally_fail(error, TALLY_INVALID, "is longer than %d bytes",
                          TALLY_FAULT_COMMAND_BYTES - 1);
    (void)snprintf(command, TALLY_FAULT_COMMAND_BYTES, "%s", value);
    return TALLY_OK;
}

static enum tally_status parse_lasts(const char *value, struct tally_fault *fault,
                                     struct tally_error *error)
{
    char least[LINE_BYTES];
    (void)snprintf(least, sizeof least, "%s", value);
    char *dash = strchr(least, '-');
    if (dash != NULL)
        *dash = '\0';
    enum tally_status status = tally_duration_parse(least, &fault->lasts_least_ms, error);
    if (status == TALLY_OK)
        status =
            tally_duration_parse(dash != NULL ? dash + 1 : least, &fault->lasts_most_ms, error);
    if (status == TALLY_OK && fault->lasts_most_ms < fault->lasts_least_ms)
        status = tally_fail(error, TALLY_INVALID, "%s: the second time is the shorter one", value);
    return status;
}

/* `error` gets what is wrong with the value alone. */
static enum tally_status set_key(struct tally_faults *faults, struct tally_fault *fault,
                                 const char *key, const char *value, struct tally_error *error)
{
    if (fault == NULL && strcmp(key, "logs") == 0)
        return parse_command(value, faults->logs, error);
    if (fault == NULL && strcmp(key, "revive") == 0)
        return parse_command(value, faults->revive, error);
    if (fault == NULL)
        return tally_fail(error, TALLY_INVALID,
                          "is no key of the file's head: it has logs and revive, and a fault "
                          "begins by its [name]");
    if (strcmp(key, "inject") == 0)
        return parse_command(value, fault->inject, error);
    if (strcmp(key, "heal") == 0)
        return parse_command(value, fault->heal, error);
    if (strcmp(key, "lasts") == 0)
        return parse_lasts(value, fault, error);
    if (strcmp(key, "recovers") == 0)
        return tally_duration_parse(value, &fault->recovers_ms, error);
    return tally_fail(error, TALLY_INVALID,
                      "is no key of a fault: it has inject, heal, lasts and recovers");
}

static bool name_valid(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length < TALLY_FAULT_NAME_BYTES &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == length && name[0] != '-';
}

static enum tally_status begin_fault(struct tally_faults *faults, char *line,
                                     struct tally_error *error)
{
    char *end = strchr(line, ']');
    if (end == NULL || end[1 + strspn(end + 1, blanks)] != '\0')
        return tally_fail(error, TALLY_INVALID, "a fault begins by [name] alone on its line");
    *end = '\0';
    const char *name = line + 1;
    if (!name_valid(name))
        return tally_fail(error, TALLY_INVALID,
                          "a fault's name is 1 to %d of a-z, 0-9 and \"-\", not \"%.60s\"",
                          TALLY_FAULT_NAME_BYTES - 1, name);
    for (size_t i = 0; i < faults->count; i++)
        if (strcmp(faults->list[i].name, name) == 0)
            return tally_fail(error, TALLY_INVALID, "there are two faults [%s]", name);
    if (faults->count == TALLY_FAULTS_MOST)
        return tally_fail(error, TALLY_INVALID, "there are more than %d faults", TALLY_FAULTS_MOST);
    (void)snprintf(faults->list[faults->count++].name, TALLY_FAULT_NAME_BYTES, "%s", name);
    return TALLY_OK;
}

static enum tally_status parse_line(struct tally_faults *faults, char *line,
                                    struct tally_error *error)
{
    line += strspn(line, blanks);
    size_t length = strlen(line);
    while (length > 0 && strchr(blanks, line[length - 1]) != NULL)
        line[--length] = '\0';
    if (line[0] == '\0' || line[0] == '#')
        return TALLY_OK;
    if (line[0] == '[')
        return begin_fault(faults, line, error);
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return tally_fail(error, TALLY_INVALID, "neither [name] nor key = value");
    const char *value = equals + 1 + strspn(equals + 1, blanks);
    *equals = '\0';
    line[strcspn(line, blanks)] = '\0';
    struct tally_fault *fault = faults->count > 0 ? &faults->list[faults->count - 1] : NULL;
    struct tally_error cause;
    enum tally_status status = set_key(faults, fault, line, value, &cause);
    return status == TALLY_OK ? TALLY_OK
                              : tally_fail(error, TALLY_INVALID, "%s %s", line, cause.text);
}

enum tally_status tally_faults_parse(const char *text, const char *origin,
                                     struct tally_faults *faults, struct tally_error *error)
{
    memset(faults, 0, sizeof *faults);
    struct tally_error cause;
    for (int number = 1; *text != '\0'; number++) {
        char line[LINE_BYTES];
        size_t length = strcspn(text, "\n");
        enum tally_status status = TALLY_OK;
        if (length >= sizeof line) {
            status = tally_fail(&cause, TALLY_INVALID, "the line is too long");
        } else {
            memcpy(line, text, length);
            line[length] = '\0';
            status = parse_line(faults, line, &cause);
        }
        if (status != TALLY_OK)
            return tally_fail(error, TALLY_INVALID, "%s:%d: %s", origin, number, cause.text);
        text += length + (text[length] == '\n');
    }
    for (size_t i = 0; i < faults->count; i++)
        if (faults->list[i].inject[0] == '\0')
            return tally_fail(error, TALLY_INVALID, "%s: [%s] has no inject", origin,
                              faults->list[i].name);
    if (faults->count == 0)
        return tally_fail(error, TALLY_INVALID, "%s: there is no fault", origin);
    return TALLY_OK;
}

enum tally_status tally_faults_read(const char *path, struct tally_faults *faults,
                                    struct tally_error *error)
{
    FILE *stream = fopen(path, "re");
    if (stream == NULL)
        return tally_fail(error, TALLY_IO, "%s: %s", path, strerror(errno));
    enum tally_status status = TALLY_OK;
    char *text = malloc(FILE_BYTES);
    if (text == NULL) {
        status = tally_fail(error, TALLY_NO_MEMORY, "%s", path);
    } else {
        size_t length = fread(text, 1, FILE_BYTES, stream);
        if (ferror(stream))
            status = tally_fail(error, TALLY_IO, "%s: %s", path, strerror(errno));
        else if (length == FILE_BYTES)
            status = tally_fail(error, TALLY_INVALID, "%s is too long", path);
        else if (memchr(text, '\0', length) != NULL)
            status = tally_fail(error, TALLY_INVALID, "%s is no text", path);
        else
            text[length] = '\0';
    }
    if (status == TALLY_OK && text != NULL)
        status = tally_faults_parse(text, path, faults, error);
    free(text);
    (void)fclose(stream);
    return status;
}

enum tally_status tally_faults_choose(struct tally_faults *faults, const char *const *names,
                                      size_t count, struct tally_error *error)
{
    bool wanted[TALLY_FAULTS_MOST] = {false};
    for (size_t i = 0; i < count; i++) {
        size_t place = 0;
        while (place < faults->count && strcmp(faults->list[place].name, names[i]) != 0)
            place++;
        if (place == faults->count)
            return tally_fail(error, TALLY_INVALID,
                              "there is no fault \"%.60s\"; --check lists them", names[i]);
        wanted[place] = true;
    }
    size_t kept = 0;
    for (size_t i = 0; i < faults->count; i++) {
        if (wanted[i] && kept != i)
            faults->list[kept] = faults->list[i];
        kept += wanted[i];
    }
    faults->count = kept;
    return TALLY_OK;
}

void tally_fault_plan_init(struct tally_fault_plan *plan, const struct tally_faults *faults,
                           uint64_t seed, int64_t pause_ms)
{
    *plan =
        (struct tally_fault_plan){.faults = faults, .pause_ms = pause_ms, .next = faults->count};
    tally_random_seed(&plan->random, seed);
    for (size_t i = 0; i < faults->count; i++)
        plan->order[i] = i;
}

/* Fisher and Yates. */
static void shuffle(struct tally_fault_plan *plan)
{
    for (size_t i = plan->faults->count - 1; i > 0; i--) {
        size_t other = (size_t)tally_random_below(&plan->random, i + 1);
        size_t moved = plan->order[i];
        plan->order[i] = plan->order[other];
        plan->order[other] = moved;
    }
}

void tally_fault_plan_next(struct tally_fault_plan *plan, struct tally_fault_step *step)
{
    if (plan->next == plan->faults->count) {
        shuffle(plan);
        plan->next = 0;
        plan->round++;
    }
    const struct tally_fault *fault = &plan->faults->list[plan->order[plan->next++]];
    uint64_t range = (uint64_t)(fault->lasts_most_ms - fault->lasts_least_ms) + 1;
    *step = (struct tally_fault_step){
        .fault = fault,
        .round = plan->round,
        .lasts_ms = fault->lasts_least_ms + (int64_t)tally_random_below(&plan->random, range),
        .pause_ms = plan->pause_ms / 2 +
                    (int64_t)tally_random_below(&plan->random, (uint64_t)plan->pause_ms + 1),
    };
}
