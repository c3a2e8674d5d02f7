/*
 * Config: fills struct tally_settings from flags, environment and a file, by the table of
 * lib/core/settings.h. A flag beats the environment, the environment beats the file, the file beats
 * the default.
 *
 * The file holds `NAME=value` lines, `#` comments and blank lines, so that systemd's
 * EnvironmentFile can read it too. Quotes round a value are not part of it; unlike there, nothing
 * is escaped inside them, and no line goes on in the next.
 */
#ifndef TALLY_CORE_CONFIG_H
#define TALLY_CORE_CONFIG_H

#include "core/buffer.h"
#include "core/settings.h"

struct argp;

enum tally_config_action {
    TALLY_CONFIG_RUN,
    TALLY_CONFIG_CHECK, /* --check-config: the caller says it is fine and exits 0 */
};

/* What was given on the command line, kept for the reload. */
struct tally_config {
    enum tally_program program;
    const char *file;      /* --config, or NULL; points into argv */
    const char *flags[64]; /* by row of the table; point into argv */
    enum tally_config_action action;
    struct tally_settings settings; /* what is in force */
};

/* Parses argv with argp: prints and exits for --help, --usage, --version and wrong flags (exit code
 * 64, EX_USAGE of sysexits.h). `doc` is the line of `--help`. Fails with TALLY_CONFIG where a value
 * is wrong; the error names the setting, the value and the bounds. */
enum tally_status tally_config_parse(struct tally_config *config, enum tally_program program,
                                     const char *doc, int argc, char **argv,
                                     struct tally_error *error) TALLY_MUST_CHECK;

/* For a program with options of its own: the argp child that parses the table's flags, whose input
 * is the struct tally_config, and the step that reads file and environment afterwards. The argp is
 * static; call from one thread. */
const struct argp *tally_config_argp(enum tally_program program);
enum tally_status tally_config_load(struct tally_config *config,
                                    struct tally_error *error) TALLY_MUST_CHECK;

/* Reads file and environment again. Settings that are not reloadable keep their value; on failure
 * all do. `*held` receives how many changed settings wait for a restart. */
enum tally_status tally_config_reload(struct tally_config *config, size_t *held,
                                      struct tally_error *error) TALLY_MUST_CHECK;

/* The table as Markdown, for the README. */
void tally_config_reference(struct tally_buffer *out);

/* Splits "host:port" or "[v6]:port"; port 0 to 65535. */
#define TALLY_HOST_BYTES 256
struct tally_address {
    char host[TALLY_HOST_BYTES];
    int port;
};
enum tally_status tally_address_parse(const char *text, struct tally_address *address,
                                      struct tally_error *error) TALLY_MUST_CHECK;
/* Whether the host is localhost, 127.0.0.0/8 or ::1, by its text alone. */
bool tally_address_loopback(const struct tally_address *address);

#endif
