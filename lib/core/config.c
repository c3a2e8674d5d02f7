#include "core/config.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

enum {
    FLAG_BYTES = 64,
    FLAG_KEY_FIRST = 0x1000, /* argp keys of the table's rows; above every character */
    KEY_CONFIG = 0x2000,
    KEY_CHECK,
    LINE_BYTES = 1024,
};

const char *argp_program_version = "tally " TALLY_VERSION;

_Static_assert(sizeof(((struct tally_config *)0)->flags) / sizeof(char *) >= 48,
               "room for every row of the table");

/* "TALLY_PG_DSN" -> "pg-dsn" */
static void flag_of(const struct tally_setting *row, char flag[FLAG_BYTES])
{
    const char *name = row->name + strlen("TALLY_");
    size_t i = 0;
    for (; name[i] != '\0' && i < FLAG_BYTES - 1; i++) {
        flag[i] = (char)tolower((unsigned char)name[i]);
        if (flag[i] == '_')
            flag[i] = '-';
    }
    flag[i] = '\0';
}

static bool choice_allowed(const char *choices, const char *value)
{
    size_t length = strlen(value);
    for (const char *choice = choices; choice != NULL; choice = strchr(choice, '|')) {
        choice += *choice == '|';
        if (strncmp(choice, value, length) == 0 &&
            (choice[length] == '|' || choice[length] == '\0'))
            return length > 0;
    }
    return false;
}

static enum tally_status set_integer(int64_t *field, const struct tally_setting *row,
                                     const char *value, struct tally_error *error)
{
    char *end = NULL;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || number < row->least || number > row->most)
        return tally_fail(error, TALLY_CONFIG, "%s=%s is not a number of %s from %lld to %lld",
                          row->name, value, row->unit, (long long)row->least, (long long)row->most);
    *field = number;
    return TALLY_OK;
}

static enum tally_status set_value(struct tally_settings *settings, const struct tally_setting *row,
                                   const char *value, struct tally_error *error)
{
    char *field = (char *)settings + row->offset;
    if (row->type == TALLY_SETTING_INTEGER)
        return set_integer((int64_t *)(void *)field, row, value, error);
    if (row->type == TALLY_SETTING_CHOICE && !choice_allowed(row->unit, value))
        return tally_fail(error, TALLY_CONFIG, "%s=%s is none of %s", row->name, value, row->unit);
    size_t length = strlen(value);
    if (length >= TALLY_SETTING_TEXT_BYTES)
        return tally_fail(error, TALLY_CONFIG, "%s is longer than %d bytes", row->name,
                          TALLY_SETTING_TEXT_BYTES - 1);
    memcpy(field, value, length + 1);
    return TALLY_OK;
}

static const struct tally_setting *find_row(const char *name, size_t length, unsigned program)
{
    for (size_t i = 0; i < tally_settings_count; i++) {
        const struct tally_setting *row = &tally_settings_table[i];
        bool mine = (row->programs & program) != 0;
        if (mine && strlen(row->name) == length && memcmp(row->name, name, length) == 0)
            return row;
    }
    return NULL;
}

/* Takes off a pair of quotes round `value`. */
static const char *unquote(char *value)
{
    size_t length = strlen(value);
    bool quoted =
        length >= 2 && (value[0] == '"' || value[0] == '\'') && value[length - 1] == value[0];
    if (!quoted)
        return value;
    value[length - 1] = '\0';
    return value + 1;
}

/* A name that no program knows is an error, so that a typing slip does not pass unseen; one that
 * belongs to another program is not, so that all can share a file. */
static enum tally_status apply_line(struct tally_settings *settings, unsigned program, char *line,
                                    const char *file, int number, struct tally_error *error)
{
    line[strcspn(line, "\r\n")] = '\0';
    line += strspn(line, " \t");
    if (*line == '\0' || *line == '#')
        return TALLY_OK;
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return tally_fail(error, TALLY_CONFIG, "%s:%d: no NAME=value", file, number);
    size_t length = (size_t)(equals - line);
    const struct tally_setting *row = find_row(line, length, program);
    if (row != NULL)
        return set_value(settings, row, unquote(equals + 1), error);
    if (find_row(line, length, ~0U) == NULL)
        return tally_fail(error, TALLY_CONFIG, "%s:%d: there is no setting %.*s", file, number,
                          (int)length, line);
    return TALLY_OK;
}

static enum tally_status apply_file(struct tally_settings *settings, unsigned program,
                                    const char *file, struct tally_error *error)
{
    FILE *stream = fopen(file, "re");
    if (stream == NULL)
        return tally_fail(error, TALLY_CONFIG, "%s: %s", file, strerror(errno));
    char line[LINE_BYTES];
    enum tally_status status = TALLY_OK;
    for (int number = 1; status == TALLY_OK && fgets(line, sizeof line, stream) != NULL; number++) {
        if (strlen(line) == sizeof line - 1)
            status = tally_fail(error, TALLY_CONFIG, "%s:%d: the line is too long", file, number);
        else
            status = apply_line(settings, program, line, file, number, error);
    }
    if (status == TALLY_OK && ferror(stream))
        status = tally_fail(error, TALLY_CONFIG, "%s: cannot be read", file);
    (void)fclose(stream);
    return status;
}

/* Defaults, file, environment and flags, in this order, into `settings`. */
static enum tally_status gather(const struct tally_config *config, struct tally_settings *settings,
                                struct tally_error *error)
{
    memset(settings, 0, sizeof *settings);
    enum tally_status status = TALLY_OK;
    for (size_t i = 0; i < tally_settings_count && status == TALLY_OK; i++) {
        const struct tally_setting *row = &tally_settings_table[i];
        if ((row->programs & config->program) != 0)
            status = set_value(settings, row, row->default_value, error);
    }
    if (status == TALLY_OK && config->file != NULL)
        status = apply_file(settings, config->program, config->file, error);
    for (size_t i = 0; i < tally_settings_count && status == TALLY_OK; i++) {
        const struct tally_setting *row = &tally_settings_table[i];
        if ((row->programs & config->program) == 0)
            continue;
        const char *value = config->flags[i] != NULL ? config->flags[i] : getenv(row->name);
        if (value != NULL)
            status = set_value(settings, row, value, error);
    }
    return status;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct tally_config *config = state->input;
    if (key == KEY_CONFIG)
        config->file = argument;
    else if (key == KEY_CHECK)
        config->action = TALLY_CONFIG_CHECK;
    else if (key >= FLAG_KEY_FIRST && key < FLAG_KEY_FIRST + (int)tally_settings_count)
        config->flags[key - FLAG_KEY_FIRST] = argument;
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

const struct argp *tally_config_argp(enum tally_program program)
{
    static struct argp_option options[64];
    static char flags[64][FLAG_BYTES];
    static char helps[64][320];
    static struct argp argp = {.options = options, .parser = parse_option};
    size_t count = 0;
    memset(options, 0, sizeof options);
    options[count++] = (struct argp_option){
        "config", KEY_CONFIG, "FILE", 0, "Read NAME=value lines from FILE; SIGHUP reads it again",
        1};
    options[count++] =
        (struct argp_option){"check-config", KEY_CHECK, NULL, 0, "Check the settings and exit", 1};
    for (size_t i = 0; i < tally_settings_count; i++) {
        const struct tally_setting *row = &tally_settings_table[i];
        if ((row->programs & program) == 0)
            continue;
        flag_of(row, flags[i]);
        (void)snprintf(helps[i], sizeof helps[i], "%s [%s, default %s] (%s)", row->help, row->unit,
                       row->default_value[0] != '\0' ? row->default_value : "empty", row->name);
        options[count++] =
            (struct argp_option){flags[i], FLAG_KEY_FIRST + (int)i, "VALUE", 0, helps[i], 2};
    }
    return &argp;
}

enum tally_status tally_config_load(struct tally_config *config, struct tally_error *error)
{
    return gather(config, &config->settings, error);
}

enum tally_status tally_config_parse(struct tally_config *config, enum tally_program program,
                                     const char *doc, int argc, char **argv,
                                     struct tally_error *error)
{
    *config = (struct tally_config){.program = program};
    struct argp argp = *tally_config_argp(program);
    argp.doc = doc;
    argp_err_exit_status = EX_USAGE;
    (void)argp_parse(&argp, argc, argv, 0, NULL, config);
    return tally_config_load(config, error);
}

static size_t value_bytes(const struct tally_setting *row)
{
    return row->type == TALLY_SETTING_INTEGER ? sizeof(int64_t) : TALLY_SETTING_TEXT_BYTES;
}

enum tally_status tally_config_reload(struct tally_config *config, size_t *held,
                                      struct tally_error *error)
{
    struct tally_settings fresh;
    enum tally_status status = gather(config, &fresh, error);
    if (status != TALLY_OK)
        return status;
    *held = 0;
    for (size_t i = 0; i < tally_settings_count; i++) {
        const struct tally_setting *row = &tally_settings_table[i];
        if ((row->programs & config->program) == 0)
            continue;
        char *current = (char *)&config->settings + row->offset;
        const char *next = (const char *)&fresh + row->offset;
        if (memcmp(current, next, value_bytes(row)) == 0)
            continue;
        if (row->reloadable)
            memcpy(current, next, value_bytes(row));
        else
            (*held)++;
    }
    return TALLY_OK;
}

static void append_programs(struct tally_buffer *out, unsigned programs)
{
    static const struct {
        unsigned program;
        const char *name;
    } names[] = {{TALLY_PROGRAM_COMMAND, "command"},
                 {TALLY_PROGRAM_PROJECTOR, "projector"},
                 {TALLY_PROGRAM_QUERY, "query"},
                 {TALLY_PROGRAM_CTL, "tallyctl"}};
    const char *comma = "";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if ((programs & names[i].program) == 0)
            continue;
        tally_buffer_format(out, "%s%s", comma, names[i].name);
        comma = ", ";
    }
}

void tally_config_reference(struct tally_buffer *out)
{
    tally_buffer_append_text(out,
                             "| setting | default | unit, form or bounds | read by | what it is |\n"
                             "|---|---|---|---|---|\n");
    for (size_t i = 0; i < tally_settings_count; i++) {
        const struct tally_setting *row = &tally_settings_table[i];
        tally_buffer_format(out, "| `%s` | %s%s%s | ", row->name, row->default_value[0] ? "`" : "",
                            row->default_value, row->default_value[0] ? "`" : "");
        if (row->type == TALLY_SETTING_INTEGER)
            tally_buffer_format(out, "%lld to %lld %s", (long long)row->least, (long long)row->most,
                                row->unit);
        else
            for (const char *c = row->unit; *c != '\0'; c++)
                tally_buffer_append_text(out, *c == '|' ? ", " : (char[]){*c, '\0'});
        tally_buffer_append_text(out, " | ");
        append_programs(out, row->programs);
        tally_buffer_format(out, " | %s%s |\n", row->help,
                            row->reloadable ? " (taken over on SIGHUP)" : "");
    }
}

enum tally_status tally_address_parse(const char *text, struct tally_address *address,
                                      struct tally_error *error)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t length = colon == NULL ? 0 : (size_t)(colon - text);
    bool bracketed = length >= 2 && text[0] == '[' && text[length - 1] == ']';
    if (bracketed) {
        host++;
        length -= 2;
    }
    char *end = NULL;
    long port =
        colon != NULL && colon[1] >= '0' && colon[1] <= '9' ? strtol(colon + 1, &end, 10) : -1;
    if (length == 0 || length >= sizeof address->host || port < 0 || port > 65535 || *end != '\0' ||
        (!bracketed && memchr(host, ':', length) != NULL))
        return tally_fail(error, TALLY_CONFIG, "\"%s\" is not host:port or [v6 address]:port",
                          text);
    memcpy(address->host, host, length);
    address->host[length] = '\0';
    address->port = (int)port;
    return TALLY_OK;
}

bool tally_address_loopback(const struct tally_address *address)
{
    return strcmp(address->host, "localhost") == 0 || strcmp(address->host, "::1") == 0 ||
           strncmp(address->host, "127.", 4) == 0;
}
