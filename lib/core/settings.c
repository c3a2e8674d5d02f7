#include "core/settings.h"

#define FIELD(name) offsetof(struct tally_settings, name)

enum {
    COMMAND = TALLY_PROGRAM_COMMAND,
    PROJECTOR = TALLY_PROGRAM_PROJECTOR,
    QUERY = TALLY_PROGRAM_QUERY,
    CTL = TALLY_PROGRAM_CTL,
    SERVICES = COMMAND | PROJECTOR | QUERY,
};

#define TEXT(name, field, default_value, form, programs, help)                                     \
    {                                                                                              \
        name, TALLY_SETTING_TEXT, FIELD(field), default_value, 0, 0, form, false, false, programs, \
            help                                                                                   \
    }
#define SECRET(name, field, default_value, form, programs, help)                                  \
    {                                                                                             \
        name, TALLY_SETTING_TEXT, FIELD(field), default_value, 0, 0, form, false, true, programs, \
            help                                                                                  \
    }
#define CHOICE(name, field, default_value, choices, reloadable, programs, help)                    \
    {                                                                                              \
        name, TALLY_SETTING_CHOICE, FIELD(field), default_value, 0, 0, choices, reloadable, false, \
            programs, help                                                                         \
    }
#define INTEGER(name, field, default_value, least, most, unit, programs, help)                     \
    {                                                                                              \
        name, TALLY_SETTING_INTEGER, FIELD(field), default_value, least, most, unit, false, false, \
            programs, help                                                                         \
    }

/* clang-format off */
const struct tally_setting tally_settings_table[] = {
    TEXT("TALLY_COMMAND_LISTEN", command_listen, "127.0.0.1:8080", "host:port", COMMAND | CTL,
         "Address of the write API"),
    TEXT("TALLY_QUERY_LISTEN", query_listen, "127.0.0.1:8081", "host:port", QUERY | CTL,
         "Address of the read API"),
    TEXT("TALLY_ADMIN_LISTEN", admin_listen, "127.0.0.1:9080", "host:port", COMMAND,
         "Address of /livez, /readyz and /metrics of tally-command"),
    TEXT("TALLY_ADMIN_LISTEN", admin_listen, "127.0.0.1:9081", "host:port", QUERY,
         "Address of /livez, /readyz and /metrics of tally-query"),
    TEXT("TALLY_ADMIN_LISTEN", admin_listen, "127.0.0.1:9082", "host:port", PROJECTOR,
         "Address of /livez, /readyz and /metrics of tally-projector"),
    TEXT("TALLY_ADMIN_LISTEN", admin_listen, "127.0.0.1:9083", "host:port", CTL,
         "Address of /livez, /readyz and /metrics of tallyctl audit"),
    TEXT("TALLY_COMMAND_ADMIN", command_admin, "127.0.0.1:9080", "host:port", CTL,
         "Admin address of tally-command, for status"),
    TEXT("TALLY_QUERY_ADMIN", query_admin, "127.0.0.1:9081", "host:port", CTL,
         "Admin address of tally-query, for status"),
    TEXT("TALLY_PROJECTOR_ADMIN", projector_admin, "127.0.0.1:9082", "host:port", CTL,
         "Admin address of tally-projector, for status"),
    SECRET("TALLY_PG_DSN", pg_dsn, "postgresql:///tally", "libpq URI or conninfo", COMMAND | CTL,
           "PostgreSQL of the write model"),
    SECRET("TALLY_REDIS_URL", redis_url, "redis://127.0.0.1:6379/0", "redis://[:password@]host:port/db",
           PROJECTOR | QUERY | CTL, "Redis of the read model"),
    TEXT("TALLY_KAFKA_BROKERS", kafka_brokers, "127.0.0.1:9092", "host:port,…", COMMAND | PROJECTOR | CTL,
         "Kafka bootstrap servers"),
    TEXT("TALLY_TOPIC", topic, "tally.events.v1", "topic", COMMAND | PROJECTOR | CTL,
         "Topic of the events"),
    TEXT("TALLY_DLQ_TOPIC", dlq_topic, "tally.events.dlq", "topic", PROJECTOR | CTL,
         "Topic that takes the events which cannot be applied"),
    TEXT("TALLY_CONSUMER_GROUP", consumer_group, "tally-projector", "group", PROJECTOR | CTL,
         "Kafka consumer group of the projectors"),
    TEXT("TALLY_GROUP_INSTANCE_ID", group_instance_id, "", "id", PROJECTOR,
         "Static group member id, stable over restarts and unique among projectors; empty: dynamic membership"),
    CHOICE("TALLY_KAFKA_COMPRESSION", kafka_compression, "lz4", "lz4|zstd|none", false, COMMAND,
           "Compression of event batches"),
    CHOICE("TALLY_LOG_LEVEL", log_level, "info", "debug|info|warning|error", true, SERVICES | CTL,
           "Least level that is logged"),
    CHOICE("TALLY_AUTH", auth, "off", "off", false, COMMAND | QUERY,
           "Authentication; `off` is accepted only where the API listens on a loopback address"),
    INTEGER("TALLY_COMMAND_CONNECTIONS", command_connections, "2", 1, 16, "connections", COMMAND,
            "PostgreSQL connections that carry batches"),
    INTEGER("TALLY_COMMAND_BATCH_MOST", command_batch_most, "256", 1, 1024, "commands", COMMAND,
            "Commands one batch may hold"),
    INTEGER("TALLY_COMMAND_QUEUE_MOST", command_queue_most, "8192", 1, 1000000, "commands", COMMAND,
            "Commands that may wait for a batch; more are answered 503"),
    INTEGER("TALLY_COMMAND_TIMEOUT_MS", command_timeout_ms, "5000", 100, 60000, "ms", COMMAND,
            "Longest wait for a batch to be sent, and then for its outcome"),
    INTEGER("TALLY_BREAKER_MS", breaker_ms, "750", 10, 60000, "ms", COMMAND | QUERY,
            "Silence of PostgreSQL or Redis, with an answer due, after which requests are refused at once"),
    INTEGER("TALLY_HTTP_CONNECTIONS_MOST", http_connections_most, "4096", 1, 100000, "connections",
            COMMAND | QUERY, "Client connections that are open at once; more wait in the backlog"),
    INTEGER("TALLY_RELAY_BATCH_EVENTS", relay_batch_events, "2000", 1, 100000, "events", COMMAND,
            "Events the relay reads from PostgreSQL at a time"),
    INTEGER("TALLY_RELAY_POLL_MOST_MS", relay_poll_most_ms, "20", 1, 1000, "ms", COMMAND,
            "Longest pause between two looks for events that other processes have written"),
    INTEGER("TALLY_RELAY_IN_FLIGHT_EVENTS", relay_in_flight_events, "50000", 100, 1000000, "events",
            COMMAND, "Events that may wait for Kafka's acknowledgement"),
    INTEGER("TALLY_EVENTS_RETENTION_DAYS", events_retention_days, "7", 1, 3650, "days", COMMAND,
            "Age at which a day of published events is dropped from PostgreSQL"),
    INTEGER("TALLY_PROJECTOR_BATCH_EVENTS", projector_batch_events, "5000", 1, 100000, "events",
            PROJECTOR, "Events that one round of the projector takes"),
    INTEGER("TALLY_PROJECTOR_CACHE_USERS", projector_cache_users, "1000000", 1000, 100000000, "users",
            PROJECTOR, "User states that a projector keeps in memory, over all its partitions"),
    INTEGER("TALLY_PROJECTOR_STALL_MS", projector_stall_ms, "15000", 1000, 600000, "ms", PROJECTOR,
            "Time with lag and no progress after which /readyz turns red"),
    INTEGER("TALLY_QUERY_THREADS", query_threads, "2", 1, 64, "threads", QUERY,
            "Event loops that serve reads"),
    INTEGER("TALLY_QUERY_WAITERS_MOST", query_waiters_most, "4096", 1, 100000, "requests", QUERY,
            "Reads of one thread that may wait for a version; more are answered at once"),
    INTEGER("TALLY_REDIS_TIMEOUT_MS", redis_timeout_ms, "1000", 10, 60000, "ms", PROJECTOR | QUERY | CTL,
            "Longest wait for an answer from Redis"),
    INTEGER("TALLY_DRAIN_MS", drain_ms, "5000", 0, 600000, "ms", SERVICES | CTL,
            "Longest time after SIGTERM for what is in flight; the exit comes within 5 s of that"),
};
/* clang-format on */
const size_t tally_settings_count = sizeof tally_settings_table / sizeof tally_settings_table[0];
