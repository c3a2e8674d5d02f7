#include "kafka/admin.h"
#include "service/ctl/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_PARTITIONS = 'p',
    KEY_REPLICATION = 'r',
    KEY_RETENTION = 't',
    TIMEOUT_MS = 10000,
    TOPICS = 2,
    VALUE_BYTES = 32,
    SEGMENTS = 7, /* at least, of the time that records are kept */
    SEGMENT_MOST_MS = 24 * 3600 * 1000,
    EVENT_MOST_BYTES = 1 << 20,
    LETTER_MOST_BYTES = 16 << 20, /* a record, whatever Kafka took for one, and why it is there */
};

struct topics_command {
    struct tally_ctl *ctl;
    const char *verb;
    int32_t partitions;
    int replication;
    int64_t retention_hours;
};

/* One topic of Tally and what became of it. */
struct topic {
    const char *name;
    int32_t partitions; /* wanted */
    int64_t retention_ms;
    int message_most_bytes;
    int32_t found;
    bool existed;
    bool differs; /* it exists with another partition count */
};

static const struct argp_option options[] = {
    {"partitions", KEY_PARTITIONS, "N", 0, "Partitions of the events topic (default 8)", 0},
    {"replication", KEY_REPLICATION, "N", 0,
     "Replicas of each partition (default: what the brokers make by themselves)", 0},
    {"retention-hours", KEY_RETENTION, "HOURS", 0,
     "Time that events are kept (default 168); dead letters are kept four times as long", 0},
    {0}};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct topics_command *command = state->input;
    if (key == KEY_PARTITIONS)
        command->partitions = (int32_t)tally_ctl_integer(state, "partitions", argument, 1,
                                                         TALLY_KAFKA_PARTITIONS_MOST);
    else if (key == KEY_REPLICATION)
        command->replication = (int)tally_ctl_integer(state, "replication", argument, 1, 15);
    else if (key == KEY_RETENTION)
        command->retention_hours =
            tally_ctl_integer(state, "retention-hours", argument, 1, INT64_C(24) * 3650);
    else if (key == ARGP_KEY_ARG && command->verb == NULL &&
             (strcmp(argument, "create") == 0 || strcmp(argument, "status") == 0))
        command->verb = argument;
    else if (key == ARGP_KEY_ARG)
        argp_error(state, "\"%s\" is not understood; the argument is `create` or `status`",
                   argument);
    else if (key == ARGP_KEY_NO_ARGS)
        argp_error(state, "the argument is missing: `create` or `status`");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "create|status",
    .doc = "`topics create` makes the topics of events (TALLY_TOPIC) and of dead letters "
           "(TALLY_DLQ_TOPIC); topics that exist with the same partition count are left as they "
           "are. `topics status` shows them, and exits with 1 where one is "
           "missing or compacted, or too narrow for dead letters." TALLY_CTL_EXIT_DOC,
};

static void describe_wanted(const struct topics_command *command, struct topic topics[TOPICS])
{
    const struct tally_settings *settings = &command->ctl->config.settings;
    const int64_t hour_ms = INT64_C(3600) * 1000;
    topics[0] = (struct topic){.name = settings->topic,
                               .partitions = command->partitions,
                               .retention_ms = command->retention_hours * hour_ms,
                               .message_most_bytes = EVENT_MOST_BYTES};
    topics[1] = (struct topic){.name = settings->dlq_topic,
                               .partitions = 1,
                               .retention_ms = command->retention_hours * 4 * hour_ms,
                               .message_most_bytes = LETTER_MOST_BYTES};
}

static enum tally_status create(struct tally_kafka_admin *admin, struct topic *topic,
                                int replication, struct tally_error *error)
{
    char retention[VALUE_BYTES], segment[VALUE_BYTES], message[VALUE_BYTES];
    (void)snprintf(retention, sizeof retention, "%" PRId64, topic->retention_ms);
    /* A record goes with its segment, and that when its newest record is old enough: Kafka's
     * default of a week would double the time that an erased user's records are kept. */
    (void)snprintf(segment, sizeof segment, "%" PRId64,
                   topic->retention_ms / SEGMENTS < SEGMENT_MOST_MS ? topic->retention_ms / SEGMENTS
                                                                    : SEGMENT_MOST_MS);
    (void)snprintf(message, sizeof message, "%d", topic->message_most_bytes);
    /* acks=all means what it says only when a write needs a second replica; with fewer than three
     * one lost broker would then stop all writes. */
    const char *in_sync = replication >= 3 ? "2" : "1";
    const struct tally_kafka_topic_config configs[] = {
        {"cleanup.policy", "delete"},     {"retention.ms", retention},
        {"segment.ms", segment},          {"retention.bytes", "-1"},
        {"max.message.bytes", message},   {"unclean.leader.election.enable", "false"},
        {"compression.type", "producer"}, {"message.timestamp.type", "CreateTime"},
        {"min.insync.replicas", in_sync}, /* last: left to the brokers where the replicas are */
    };
    const size_t config_count = sizeof configs / sizeof configs[0] - (replication < 0 ? 1 : 0);
    const struct tally_kafka_new_topic wanted = {
        .name = topic->name,
        .partitions = topic->partitions,
        .replication = replication,
        .configs = configs,
        .config_count = config_count,
    };
    enum tally_status status =
        tally_kafka_admin_create(admin, &wanted, TIMEOUT_MS, &topic->existed, error);
    topic->found = topic->partitions;
    int brokers = 0;
    if (status == TALLY_OK && topic->existed)
        status =
            tally_kafka_admin_topic(admin, topic->name, TIMEOUT_MS, &brokers, &topic->found, error);
    topic->differs = topic->found != topic->partitions;
    return status;
}

static json_t *topic_json(const struct topic *topic)
{
    return json_pack("{s:s,s:i,s:i,s:b,s:b}", "topic", topic->name, "partitions", topic->found,
                     "wanted", topic->partitions, "created", !topic->existed, "differs",
                     topic->differs);
}

static void print_created(const struct topic *topic)
{
    if (topic->differs)
        (void)fprintf(stderr,
                      "tallyctl: topic %s has %d partitions instead of %d. A user's partition "
                      "depends on the count, so it is not changed under a read model: ask for "
                      "--partitions %d, or name a new topic by TALLY_TOPIC.\n",
                      topic->name, topic->found, topic->partitions, topic->found);
    else
        (void)printf("%s %s (%d partition%s)\n", topic->existed ? "exists " : "created",
                     topic->name, topic->found, topic->found == 1 ? "" : "s");
}

static int create_topics(struct topics_command *command, struct tally_kafka_admin *admin)
{
    struct topic topics[TOPICS];
    describe_wanted(command, topics);
    struct tally_error error;
    bool differs = false;
    json_t *list = json_array();
    for (size_t i = 0; i < TOPICS; i++) {
        if (create(admin, &topics[i], command->replication, &error) != TALLY_OK) {
            json_decref(list);
            return tally_ctl_fail(command->ctl, &error);
        }
        differs = differs || topics[i].differs;
        if (command->ctl->json)
            tally_ctl_json_append(&list, topic_json(&topics[i]));
        else
            print_created(&topics[i]);
    }
    int code = differs ? TALLY_CTL_DIFFERENT : TALLY_CTL_FINE;
    if (command->ctl->json)
        return tally_ctl_print_json(command->ctl, json_pack("{s:o}", "topics", list), code);
    json_decref(list);
    return code;
}

/* Keeps the settings that say how safe and how long the events are kept. */
static void note_config(void *context, const char *name, const char *value)
{
    static const char *const shown[] = {
        "cleanup.policy",      "retention.ms",     "retention.bytes",  "segment.ms",
        "min.insync.replicas", "compression.type", "max.message.bytes"};
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
        if (strcmp(name, shown[i]) == 0)
            tally_ctl_json_set(context, name, json_string(value));
}

static enum tally_status describe(struct tally_kafka_admin *admin, const char *name, json_t **out,
                                  struct tally_error *error)
{
    int brokers = 0;
    int32_t partitions = 0;
    enum tally_status status =
        tally_kafka_admin_topic(admin, name, TIMEOUT_MS, &brokers, &partitions, error);
    int64_t messages = 0;
    for (int32_t i = 0; status == TALLY_OK && i < partitions; i++) {
        int64_t low = 0, high = 0;
        status = tally_kafka_admin_watermarks(admin, name, i, TIMEOUT_MS, &low, &high, error);
        messages += high - low;
    }
    json_t *configs = json_object();
    if (status == TALLY_OK && partitions > 0)
        status = tally_kafka_admin_configs(admin, name, TIMEOUT_MS, note_config, &configs, error);
    if (status == TALLY_OK)
        *out = json_pack("{s:s,s:b,s:i,s:i,s:I,s:o}", "topic", name, "exists", partitions > 0,
                         "partitions", (int)partitions, "brokers", brokers, "offsets",
                         (json_int_t)messages, "configs", configs);
    else
        json_decref(configs);
    return status;
}

/* Compaction takes a user's older events away and leaves the newer ones. */
static bool compacted(const json_t *topic)
{
    const char *policy =
        json_string_value(json_object_get(json_object_get(topic, "configs"), "cleanup.policy"));
    return policy != NULL && strstr(policy, "compact") != NULL;
}

static int64_t message_most_bytes(const json_t *topic)
{
    const char *most =
        json_string_value(json_object_get(json_object_get(topic, "configs"), "max.message.bytes"));
    return most != NULL ? strtoll(most, NULL, 10) : 0;
}

/* Whether there may be events that do not fit into a dead letter, which then hold up all others of
 * their partition. */
static bool narrower(const json_t *letters, const json_t *events)
{
    return message_most_bytes(events) > 0 && message_most_bytes(letters) > 0 &&
           message_most_bytes(letters) <= message_most_bytes(events);
}

static void print_topic(json_t *topic, const json_t *events)
{
    const char *name = json_string_value(json_object_get(topic, "topic"));
    if (!json_is_true(json_object_get(topic, "exists"))) {
        (void)printf("%s: missing; make it with `tallyctl topics create`\n", name);
        return;
    }
    char number[TALLY_NUMBER_BYTES];
    (void)printf(
        "%s: %lld partitions, %s offsets kept\n", name,
        (long long)json_integer_value(json_object_get(topic, "partitions")),
        tally_ctl_format_number(json_integer_value(json_object_get(topic, "offsets")), number));
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(json_object_get(topic, "configs"), key, value)(void)
        printf("  %-22s %s\n", key, json_string_value(value));
    if (compacted(topic))
        (void)puts(
            "  compaction would leave holes in the counts of a read model that is built from "
            "this log: set cleanup.policy=delete");
    if (narrower(topic, events))
        (void)puts("  a dead letter is larger than the event that it holds: set a "
                   "max.message.bytes above that of the events");
}

static int show_topics(struct topics_command *command, struct tally_kafka_admin *admin)
{
    struct topic topics[TOPICS];
    describe_wanted(command, topics);
    struct tally_error error;
    int code = TALLY_CTL_FINE;
    json_t *list = json_array();
    for (size_t i = 0; i < TOPICS; i++) {
        json_t *topic = NULL;
        if (describe(admin, topics[i].name, &topic, &error) != TALLY_OK) {
            json_decref(list);
            return tally_ctl_fail(command->ctl, &error);
        }
        const json_t *events = json_array_get(list, 0); /* NULL: it is this one */
        if (!json_is_true(json_object_get(topic, "exists")) || compacted(topic) ||
            narrower(topic, events))
            code = TALLY_CTL_DIFFERENT;
        if (!command->ctl->json)
            print_topic(topic, events);
        tally_ctl_json_append(&list, topic);
    }
    if (command->ctl->json)
        return tally_ctl_print_json(command->ctl, json_pack("{s:o}", "topics", list), code);
    json_decref(list);
    return code;
}

int tally_ctl_topics(struct tally_ctl *ctl, int argc, char **argv)
{
    struct topics_command command = {
        .ctl = ctl, .partitions = 8, .replication = -1, .retention_hours = 168};
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    struct tally_error error;
    struct tally_kafka_admin *admin = NULL;
    if (tally_kafka_admin_new(ctl->config.settings.kafka_brokers, &admin, &error) != TALLY_OK)
        return tally_ctl_fail(ctl, &error);
    code = strcmp(command.verb, "create") == 0 ? create_topics(&command, admin)
                                               : show_topics(&command, admin);
    tally_kafka_admin_free(&admin);
    return code;
}
