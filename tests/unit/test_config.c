#include "core/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum tally_status parse(struct tally_config *config, char *const *arguments,
                               struct tally_error *error)
{
    char *argv[8] = {"tally-command"};
    int argc = 1;
    for (; arguments[argc - 1] != NULL; argc++)
        argv[argc] = arguments[argc - 1];
    return tally_config_parse(config, TALLY_PROGRAM_COMMAND, "", argc, argv, error);
}

static void write_file(char path[], const char *text)
{
    int descriptor = mkstemp(path);
    cr_assert_geq(descriptor, 0);
    cr_assert_eq(write(descriptor, text, strlen(text)), (ssize_t)strlen(text));
    close(descriptor);
}

Test(config, every_default_in_the_table_is_a_valid_value)
{
    const enum tally_program programs[] = {TALLY_PROGRAM_COMMAND, TALLY_PROGRAM_PROJECTOR,
                                           TALLY_PROGRAM_QUERY, TALLY_PROGRAM_CTL};
    for (size_t i = 0; i < 4; i++) {
        struct tally_config config = {.program = programs[i]};
        struct tally_error error = {0};
        cr_assert_eq(tally_config_load(&config, &error), TALLY_OK, "%s", error.text);
    }
}

Test(config, a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default)
{
    char path[] = "/tmp/tally-config-XXXXXX";
    write_file(path, "# comment\n\nTALLY_TOPIC=file\nTALLY_DRAIN_MS=1\nTALLY_PG_DSN=file\n"
                     "TALLY_REDIS_URL=of another program\n");
    setenv("TALLY_TOPIC", "environment", 1);
    setenv("TALLY_DRAIN_MS", "2", 1);
    char *arguments[] = {"--config", path, "--drain-ms=3", NULL};
    struct tally_config config;
    struct tally_error error = {0};
    cr_assert_eq(parse(&config, arguments, &error), TALLY_OK, "%s", error.text);
    cr_assert_eq(config.settings.drain_ms, 3);
    cr_assert_str_eq(config.settings.topic, "environment");
    cr_assert_str_eq(config.settings.pg_dsn, "file");
    cr_assert_str_eq(config.settings.admin_listen, "127.0.0.1:9080");
    unlink(path);
}

Test(config, a_wrong_value_is_refused_with_its_name_and_bounds)
{
    const struct {
        const char *name, *value, *expected;
    } cases[] = {
        {"TALLY_DRAIN_MS", "-1", "0 to 600000"},
        {"TALLY_DRAIN_MS", "5s", "TALLY_DRAIN_MS"},
        {"TALLY_DRAIN_MS", "", "TALLY_DRAIN_MS"},
        {"TALLY_DRAIN_MS", "99999999999999999999", "ms"},
        {"TALLY_LOG_LEVEL", "inf", "info|warning"},
        {"TALLY_LOG_LEVEL", "", "TALLY_LOG_LEVEL"},
    };
    char *none[] = {NULL};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tally_config config;
        struct tally_error error = {0};
        setenv(cases[i].name, cases[i].value, 1);
        cr_assert_eq(parse(&config, none, &error), TALLY_CONFIG, "%s", cases[i].value);
        cr_assert_not_null(strstr(error.text, cases[i].expected), "%s", error.text);
        unsetenv(cases[i].name);
    }
}

Test(config, an_unknown_name_in_the_file_is_refused_with_its_line)
{
    char path[] = "/tmp/tally-config-XXXXXX";
    write_file(path, "TALLY_TOPIC=a\nTALLY_TOPPIC=b\n");
    char *arguments[] = {"--config", path, NULL};
    struct tally_config config;
    struct tally_error error = {0};
    cr_assert_eq(parse(&config, arguments, &error), TALLY_CONFIG);
    cr_assert_not_null(strstr(error.text, ":2:"), "%s", error.text);
    unlink(path);
}

Test(config, quotes_round_a_value_in_the_file_are_not_part_of_it)
{
    char path[] = "/tmp/tally-config-XXXXXX";
    write_file(path, "TALLY_TOPIC=\"a b\"\nTALLY_PG_DSN='host=\"x'\nTALLY_DRAIN_MS=\"7\"\n");
    char *arguments[] = {"--config", path, NULL};
    struct tally_config config;
    struct tally_error error = {0};
    cr_assert_eq(parse(&config, arguments, &error), TALLY_OK, "%s", error.text);
    cr_assert_str_eq(config.settings.topic, "a b");
    cr_assert_str_eq(config.settings.pg_dsn, "host=\"x");
    cr_assert_eq(config.settings.drain_ms, 7);
    unlink(path);
}

Test(config, a_reload_takes_what_is_reloadable_and_counts_what_must_wait)
{
    char path[] = "/tmp/tally-config-XXXXXX";
    write_file(path, "TALLY_LOG_LEVEL=info\nTALLY_TOPIC=before\n");
    char *arguments[] = {"--config", path, NULL};
    struct tally_config config;
    struct tally_error error = {0};
    size_t held = 0;
    cr_assert_eq(parse(&config, arguments, &error), TALLY_OK, "%s", error.text);

    FILE *file = fopen(path, "w");
    fputs("TALLY_LOG_LEVEL=debug\nTALLY_TOPIC=after\n", file);
    fclose(file);
    cr_assert_eq(tally_config_reload(&config, &held, &error), TALLY_OK, "%s", error.text);
    cr_assert_str_eq(config.settings.log_level, "debug");
    cr_assert_str_eq(config.settings.topic, "before");
    cr_assert_eq(held, 1);

    file = fopen(path, "w");
    fputs("TALLY_LOG_LEVEL=error\nTALLY_DRAIN_MS=never\n", file);
    fclose(file);
    cr_assert_eq(tally_config_reload(&config, &held, &error), TALLY_CONFIG);
    cr_assert_str_eq(config.settings.log_level, "debug", "a bad file must change nothing");
    unlink(path);
}

Test(config, an_address_is_host_and_port_and_nothing_else)
{
    struct tally_address address;
    cr_assert_eq(tally_address_parse("127.0.0.1:8080", &address, NULL), TALLY_OK);
    cr_assert_str_eq(address.host, "127.0.0.1");
    cr_assert_eq(address.port, 8080);
    cr_assert(tally_address_loopback(&address));
    cr_assert_eq(tally_address_parse("[::1]:0", &address, NULL), TALLY_OK);
    cr_assert_str_eq(address.host, "::1");
    cr_assert(tally_address_loopback(&address));
    cr_assert_eq(tally_address_parse("0.0.0.0:1", &address, NULL), TALLY_OK);
    cr_assert_not(tally_address_loopback(&address));
    const char *const wrong[] = {"",       ":80",        "host",    "host:",   "host:80x",
                                 "::1:80", "host:65536", "host:-1", "[::1]80", "host: 80"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_assert_eq(tally_address_parse(wrong[i], &address, NULL), TALLY_CONFIG, "%s", wrong[i]);
}
