#include "service/ctl/output.h"

#include <stdio.h>
#include <string.h>

enum { REFERENCE_BYTES = 1 << 20 };

static error_t parse_config(int key, char *argument, struct argp_state *state)
{
    if (key == ARGP_KEY_ARG && strcmp(argument, "reference") != 0)
        argp_error(state, "\"%s\" is not understood; the argument is `reference`", argument);
    else if (key == ARGP_KEY_NO_ARGS)
        argp_error(state, "the argument `reference` is missing");
    else if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp config_argp = {
    .parser = parse_config,
    .args_doc = "reference",
    .doc = "Prints every setting of every program as a Markdown table." TALLY_CTL_EXIT_DOC,
};

int tally_ctl_config(struct tally_ctl *ctl, int argc, char **argv)
{
    int code = tally_ctl_parse(ctl, &config_argp, NULL, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    struct tally_buffer reference;
    tally_buffer_init(&reference, REFERENCE_BYTES);
    tally_config_reference(&reference);
    const char *text = tally_buffer_text(&reference);
    struct tally_error error;
    if (reference.failed) {
        (void)tally_fail(&error, TALLY_NO_MEMORY, "no memory for the reference");
        code = tally_ctl_fail(ctl, &error);
    } else if (ctl->json) {
        code = tally_ctl_print_json(ctl, json_pack("{s:s}", "markdown", text), TALLY_CTL_FINE);
    } else {
        (void)fputs(text, stdout);
    }
    tally_buffer_release(&reference);
    return code;
}

static const struct argp version_argp = {
    .doc = "Prints the version of this build." TALLY_CTL_EXIT_DOC,
};

int tally_ctl_version(struct tally_ctl *ctl, int argc, char **argv)
{
    int code = tally_ctl_parse(ctl, &version_argp, NULL, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    if (ctl->json)
        return tally_ctl_print_json(ctl, json_pack("{s:s}", "version", TALLY_VERSION),
                                    TALLY_CTL_FINE);
    (void)puts("tally " TALLY_VERSION);
    return TALLY_CTL_FINE;
}
