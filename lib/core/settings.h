/*
 * Settings: what an operator can set, as one table of rows over one struct.
 *
 * The table gives each setting its name, type, default, bounds, unit, help and which programs read
 * it; the flags, the environment, the file, `--help`, `--check-config` and the reference in the
 * README all come from it (lib/core/config.h).
 */
#ifndef TALLY_CORE_SETTINGS_H
#define TALLY_CORE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TALLY_SETTING_TEXT_BYTES 512

/* Which programs read a setting; a mask. */
enum tally_program {
    TALLY_PROGRAM_COMMAND = 1,
    TALLY_PROGRAM_PROJECTOR = 2,
    TALLY_PROGRAM_QUERY = 4,
    TALLY_PROGRAM_CTL = 8,
};

enum tally_setting_type { TALLY_SETTING_TEXT, TALLY_SETTING_INTEGER, TALLY_SETTING_CHOICE };

struct tally_settings {
    char command_listen[TALLY_SETTING_TEXT_BYTES];
    char query_listen[TALLY_SETTING_TEXT_BYTES];
    char admin_listen[TALLY_SETTING_TEXT_BYTES];
    char command_admin[TALLY_SETTING_TEXT_BYTES];
    char query_admin[TALLY_SETTING_TEXT_BYTES];
    char projector_admin[TALLY_SETTING_TEXT_BYTES];
    char pg_dsn[TALLY_SETTING_TEXT_BYTES];
    char redis_url[TALLY_SETTING_TEXT_BYTES];
    char kafka_brokers[TALLY_SETTING_TEXT_BYTES];
    char topic[TALLY_SETTING_TEXT_BYTES];
    char dlq_topic[TALLY_SETTING_TEXT_BYTES];
    char consumer_group[TALLY_SETTING_TEXT_BYTES];
    char group_instance_id[TALLY_SETTING_TEXT_BYTES];
    char kafka_compression[TALLY_SETTING_TEXT_BYTES];
    char log_level[TALLY_SETTING_TEXT_BYTES];
    char auth[TALLY_SETTING_TEXT_BYTES];
    int64_t command_connections;
    int64_t command_batch_most;
    int64_t command_queue_most;
    int64_t command_timeout_ms;
    int64_t breaker_ms;
    int64_t http_connections_most;
    int64_t relay_batch_events;
    int64_t relay_poll_most_ms;
    int64_t relay_in_flight_events;
    int64_t events_retention_days;
    int64_t projector_batch_events;
    int64_t projector_cache_users;
    int64_t projector_stall_ms;
    int64_t query_threads;
    int64_t query_waiters_most;
    int64_t redis_timeout_ms;
    int64_t drain_ms;
};

struct tally_setting {
    const char *name; /* "TALLY_PG_DSN"; the flag is "--pg-dsn" */
    enum tally_setting_type type;
    size_t offset;             /* of the field in struct tally_settings */
    const char *default_value; /* as text, for every type */
    int64_t least, most;       /* INTEGER: inclusive bounds */
    const char *unit;          /* INTEGER: "ms", "events"; CHOICE: "info|debug"; TEXT: its form */
    bool reloadable;           /* taken over on SIGHUP */
    bool secret;               /* never printed */
    unsigned programs;         /* mask of enum tally_program */
    const char *help;
};

extern const struct tally_setting tally_settings_table[];
extern const size_t tally_settings_count;

#endif
