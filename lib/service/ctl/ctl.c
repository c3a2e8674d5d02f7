#include "service/ctl/ctl.h"

#include "service/ctl/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_JSON = 0x3000, HELP_BYTES = 4096, NAME_BYTES = 64, OPTIONS_MOST = 64 };

static error_t parse_common(int key, char *argument, struct argp_state *state)
{
    (void)argument;
    struct tally_ctl *ctl = state->input;
    if (key == ARGP_KEY_INIT)
        state->child_inputs[0] = &ctl->config;
    else if (key == KEY_JSON)
        ctl->json = true;
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

/* The common options; a subcommand takes the settings too but lists its own options only. */
static const struct argp *common_argp(bool listed)
{
    static struct argp_option settings_options[OPTIONS_MOST];
    static struct argp settings;
    static struct argp_child children[2];
    static const struct argp_option options[] = {
        {"json", KEY_JSON, NULL, 0, "Print one JSON object for machines", 0}, {0}};
    static struct argp common = {.options = options, .parser = parse_common, .children = children};
    settings = *tally_config_argp(TALLY_PROGRAM_CTL);
    if (!listed) {
        size_t count = 0;
        for (; count < OPTIONS_MOST - 1 && settings.options[count].name != NULL; count++) {
            settings_options[count] = settings.options[count];
            settings_options[count].flags |= OPTION_HIDDEN;
        }
        settings_options[count] = (struct argp_option){0};
        settings.options = settings_options;
    }
    children[0] = (struct argp_child){&settings, 0, NULL, 0};
    return &common;
}

/* What the wrapping parsers of this file pass down. */
struct parse {
    struct tally_ctl *ctl;
    const struct tally_ctl_command *commands;
    const struct tally_ctl_command *chosen;
    void *own_input;
    int first; /* index of the subcommand's name in argv */
};

static error_t parse_subcommand(int key, char *argument, struct argp_state *state)
{
    (void)argument;
    struct parse *parse = state->input;
    if (key != ARGP_KEY_INIT)
        return ARGP_ERR_UNKNOWN;
    state->child_inputs[0] = parse->own_input;
    state->child_inputs[1] = parse->ctl;
    return 0;
}

int tally_ctl_parse(struct tally_ctl *ctl, const struct argp *own, void *input, int argc,
                    char **argv)
{
    struct argp inner = *own;
    inner.doc = NULL;
    inner.args_doc = NULL;
    const struct argp_child children[] = {
        {&inner, 0, NULL, 0}, {common_argp(false), 0, NULL, 0}, {0}};
    const struct argp whole = {.parser = parse_subcommand,
                               .args_doc = own->args_doc,
                               .doc = own->doc,
                               .children = children};
    struct parse parse = {.ctl = ctl, .own_input = input};
    (void)argp_parse(&whole, argc, argv, 0, NULL, &parse);
    struct tally_error error;
    if (tally_config_load(&ctl->config, &error) != TALLY_OK) {
        tally_ctl_print_error(ctl, &error);
        return TALLY_CTL_USAGE;
    }
    if (ctl->config.action == TALLY_CONFIG_CHECK) {
        (void)puts("The settings are valid.");
        exit(TALLY_CTL_FINE);
    }
    return TALLY_CTL_FINE;
}

static error_t parse_main(int key, char *argument, struct argp_state *state)
{
    struct parse *parse = state->input;
    if (key == ARGP_KEY_INIT) {
        state->child_inputs[0] = parse->ctl;
        return 0;
    }
    if (key == ARGP_KEY_NO_ARGS)
        argp_error(state, "which subcommand?");
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    for (const struct tally_ctl_command *row = parse->commands; row->name != NULL; row++)
        if (strcmp(row->name, argument) == 0)
            parse->chosen = row;
    if (parse->chosen == NULL)
        argp_error(state, "there is no subcommand \"%s\"", argument);
    /* The rest is the subcommand's to parse. */
    parse->first = state->next - 1;
    state->next = state->argc;
    return 0;
}

static void list_commands(const struct tally_ctl_command *commands, char text[HELP_BYTES])
{
    struct tally_buffer help;
    tally_buffer_init(&help, HELP_BYTES - 1);
    tally_buffer_append_text(&help, "Operates Tally: its schema, its topics, its health and the "
                                    "proof that its counts are right.\v"
                                    "Subcommands (each has its own --help):\n");
    for (const struct tally_ctl_command *row = commands; row->name != NULL; row++)
        tally_buffer_format(&help, "  %-12s %s\n", row->name, row->help);
    tally_buffer_append_text(&help, "\nExit codes: 0 fine; 1 differences or something unhealthy "
                                    "found; 2 usage or settings; 3 a server cannot be reached or "
                                    "failed.");
    (void)snprintf(text, HELP_BYTES, "%s", tally_buffer_text(&help));
    tally_buffer_release(&help);
}

int tally_ctl_run(const struct tally_ctl_command *commands, int argc, char **argv)
{
    char help[HELP_BYTES];
    list_commands(commands, help);
    struct tally_ctl ctl = {.config = {.program = TALLY_PROGRAM_CTL}};
    const struct argp_child children[] = {{common_argp(true), 0, NULL, 0}, {0}};
    const struct argp whole = {.parser = parse_main,
                               .args_doc = "SUBCOMMAND [ARGUMENT...]",
                               .doc = help,
                               .children = children};
    struct parse parse = {.ctl = &ctl, .commands = commands};
    argp_err_exit_status = TALLY_CTL_USAGE;
    (void)argp_parse(&whole, argc, argv, ARGP_IN_ORDER, NULL, &parse);
    if (parse.chosen == NULL)
        return TALLY_CTL_USAGE;
    char name[NAME_BYTES];
    (void)snprintf(name, sizeof name, "tallyctl %s", parse.chosen->name);
    argv[parse.first] = name;
    int code = parse.chosen->run(&ctl, argc - parse.first, argv + parse.first);
    /* A full disk or a closed pipe must not pass for success. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        (void)fprintf(stderr, "tallyctl: writing to standard output: %s\n", strerror(errno));
        return code == TALLY_CTL_FINE ? TALLY_CTL_FAILED : code;
    }
    return code;
}

int64_t tally_ctl_integer(struct argp_state *state, const char *name, const char *argument,
                          int64_t least, int64_t most)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(argument, &end, 10);
    if (errno != 0 || end == argument || *end != '\0' || value < least || value > most)
        argp_error(state, "--%s=%s is not a whole number from %lld to %lld", name, argument,
                   (long long)least, (long long)most);
    return value;
}

double tally_ctl_real(struct argp_state *state, const char *name, const char *argument,
                      double least, double most)
{
    char *end = NULL;
    errno = 0;
    double value = strtod(argument, &end);
    if (errno != 0 || end == argument || *end != '\0' || !(value >= least && value <= most))
        argp_error(state, "--%s=%s is not a number from %g to %g", name, argument, least, most);
    return value;
}
