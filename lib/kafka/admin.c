#include "kafka/admin.h"

#include "core/clock.h"
#include "kafka/watermarks.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REASON_BYTES = 512, TOPIC_LOOKS = 4, PAUSE_MS = 100 };

struct tally_kafka_admin {
    rd_kafka_t *client;
    rd_kafka_queue_t *queue;   /* where the answers of admin requests come */
    char reason[REASON_BYTES]; /* the last connection failure librdkafka told of */
};

/* librdkafka says why a broker cannot be reached only here; a request just times out. */
static void on_error(rd_kafka_t *client, int code, const char *reason, void *context)
{
    (void)client;
    struct tally_kafka_admin *admin = context;
    if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || admin->reason[0] == '\0')
        (void)snprintf(admin->reason, sizeof admin->reason, "%s", reason);
}

static void stay_silent(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
    (void)client, (void)level, (void)facility, (void)text;
}

static enum tally_status fail_unreachable(struct tally_kafka_admin *admin, rd_kafka_resp_err_t code,
                                          const char *doing, struct tally_error *error)
{
    (void)rd_kafka_poll(admin->client, 0);
    return tally_fail(error, TALLY_UNAVAILABLE, "Kafka, %s: %s%s%s", doing, rd_kafka_err2str(code),
                      admin->reason[0] != '\0' ? "; " : "", admin->reason);
}

static enum tally_status configure(rd_kafka_conf_t *conf, const char *brokers,
                                   struct tally_error *error)
{
    const char *const options[][2] = {
        {"bootstrap.servers", brokers},
        {"client.id", "tallyctl"},
        {"topic.metadata.refresh.sparse", "true"},
        /* A tool must not make a topic by asking about it. */
        {"allow.auto.create.topics", "false"},
        {"enable.partition.eof", "true"},
        {"enable.auto.commit", "false"},
        {"auto.offset.reset", "error"},
        {"reconnect.backoff.max.ms", "500"},
        /* A consumer's client needs a group id; it never subscribes, so that no group comes to be.
         */
        {"group.id", "tallyctl"},
    };
    char reason[REASON_BYTES];
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (rd_kafka_conf_set(conf, options[i][0], options[i][1], reason, sizeof reason) !=
            RD_KAFKA_CONF_OK)
            return tally_fail(error, TALLY_CONFIG, "%s: %s", options[i][0], reason);
    return TALLY_OK;
}

enum tally_status tally_kafka_admin_new(const char *brokers, struct tally_kafka_admin **admin,
                                        struct tally_error *error)
{
    struct tally_kafka_admin *made = calloc(1, sizeof *made);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (made == NULL || conf == NULL) {
        if (conf != NULL)
            rd_kafka_conf_destroy(conf);
        free(made);
        return tally_fail(error, TALLY_NO_MEMORY, "Kafka client");
    }
    enum tally_status status = configure(conf, brokers, error);
    if (status != TALLY_OK) {
        rd_kafka_conf_destroy(conf);
        free(made);
        return status;
    }
    rd_kafka_conf_set_opaque(conf, made);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, stay_silent);
    char reason[REASON_BYTES];
    made->client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof reason);
    if (made->client == NULL) {
        rd_kafka_conf_destroy(conf);
        free(made);
        return tally_fail(error, TALLY_CONFIG, "Kafka client: %s", reason);
    }
    made->queue = rd_kafka_queue_new(made->client);
    *admin = made;
    return TALLY_OK;
}

void tally_kafka_admin_free(struct tally_kafka_admin **admin)
{
    if (*admin == NULL)
        return;
    rd_kafka_queue_destroy((*admin)->queue);
    /* Closing the group membership there is not would wait for a coordinator. */
    rd_kafka_destroy_flags((*admin)->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    free(*admin);
    *admin = NULL;
}

static enum tally_status ask_topic(struct tally_kafka_admin *admin, rd_kafka_topic_t *topic,
                                   int timeout_ms, int *brokers, int32_t *partitions,
                                   struct tally_error *error)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t code = rd_kafka_metadata(admin->client, 0, topic, &metadata, timeout_ms);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        return fail_unreachable(admin, code, "asking for topics", error);
    *brokers = metadata->broker_cnt;
    *partitions = 0;
    enum tally_status status = TALLY_OK;
    for (int i = 0; i < metadata->topic_cnt; i++) {
        const rd_kafka_metadata_topic_t *found = &metadata->topics[i];
        if (found->err == RD_KAFKA_RESP_ERR_NO_ERROR)
            *partitions = found->partition_cnt;
        else if (found->err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
            status = tally_fail(error, TALLY_UNAVAILABLE, "topic %s: %s",
                                rd_kafka_topic_name(topic), rd_kafka_err2str(found->err));
    }
    rd_kafka_metadata_destroy(metadata);
    return status;
}

enum tally_status tally_kafka_admin_topic(struct tally_kafka_admin *admin, const char *topic,
                                          int timeout_ms, int *brokers, int32_t *partitions,
                                          struct tally_error *error)
{
    rd_kafka_topic_t *handle = rd_kafka_topic_new(admin->client, topic, NULL);
    if (handle == NULL)
        return tally_fail(error, TALLY_CONFIG, "topic %s: %s", topic,
                          rd_kafka_err2str(rd_kafka_last_error()));
    /* Shortly after a topic was made brokers still answer that there is none, now and then; one
     * that is missing must be told of soon all the same. */
    enum tally_status status = TALLY_OK;
    *partitions = 0;
    for (int i = 0; i < TOPIC_LOOKS && status == TALLY_OK && *partitions == 0; i++) {
        if (i > 0)
            tally_clock_sleep_ms(PAUSE_MS);
        status = ask_topic(admin, handle, timeout_ms, brokers, partitions, error);
    }
    rd_kafka_topic_destroy(handle);
    return status;
}

/* NULL, for which librdkafka has its own, where there is no memory. */
static rd_kafka_AdminOptions_t *options_new(struct tally_kafka_admin *admin,
                                            rd_kafka_admin_op_t operation, int timeout_ms)
{
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(admin->client, operation);
    char reason[REASON_BYTES];
    if (options != NULL)
        (void)rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, reason, sizeof reason);
    return options;
}

static void options_free(rd_kafka_AdminOptions_t *options)
{
    if (options != NULL)
        rd_kafka_AdminOptions_destroy(options);
}

/* The next event of a kind, or NULL in time. One of another kind is the answer to an earlier
 * request, which was not waited for long enough. */
static rd_kafka_event_t *next_of_kind(struct tally_kafka_admin *admin, rd_kafka_event_type_t kind,
                                      int timeout_ms)
{
    const int64_t until_us = tally_clock_monotonic_us() + timeout_ms * INT64_C(1000);
    while (timeout_ms >= 0) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(admin->queue, timeout_ms);
        if (event == NULL || rd_kafka_event_type(event) == kind)
            return event;
        rd_kafka_event_destroy(event);
        timeout_ms = (int)((until_us - tally_clock_monotonic_us()) / 1000);
    }
    return NULL;
}

/* The answer of the one request under way, or NULL with `error` filled. */
static rd_kafka_event_t *await(struct tally_kafka_admin *admin, rd_kafka_event_type_t kind,
                               int timeout_ms, const char *doing, struct tally_error *error)
{
    rd_kafka_event_t *event = next_of_kind(admin, kind, timeout_ms + 500);
    if (event == NULL) {
        (void)fail_unreachable(admin, RD_KAFKA_RESP_ERR__TIMED_OUT, doing, error);
    } else if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        (void)fail_unreachable(admin, rd_kafka_event_error(event), doing, error);
        rd_kafka_event_destroy(event);
        event = NULL;
    }
    return event;
}

static rd_kafka_NewTopic_t *new_topic(const struct tally_kafka_new_topic *topic,
                                      struct tally_error *error)
{
    char reason[REASON_BYTES];
    rd_kafka_NewTopic_t *made = rd_kafka_NewTopic_new(topic->name, topic->partitions,
                                                      topic->replication, reason, sizeof reason);
    if (made == NULL) {
        (void)tally_fail(error, TALLY_CONFIG, "topic %s: %s", topic->name, reason);
        return NULL;
    }
    for (size_t i = 0; i < topic->config_count; i++) {
        const struct tally_kafka_topic_config *config = &topic->configs[i];
        const rd_kafka_resp_err_t code =
            rd_kafka_NewTopic_set_config(made, config->name, config->value);
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        (void)tally_fail(error, TALLY_CONFIG, "topic %s: %s: %s", topic->name, config->name,
                         rd_kafka_err2str(code));
        rd_kafka_NewTopic_destroy(made);
        return NULL;
    }
    return made;
}

/* Waits until the brokers tell of a topic that they have just made. */
static enum tally_status await_topic(struct tally_kafka_admin *admin, const char *name,
                                     int64_t due_us, struct tally_error *error)
{
    int64_t left_ms = 1;
    int brokers = 0;
    int32_t partitions = 0;
    enum tally_status status = TALLY_OK;
    while (status == TALLY_OK && partitions == 0 && left_ms > 0) {
        left_ms = (due_us - tally_clock_monotonic_us()) / 1000;
        status = tally_kafka_admin_topic(admin, name, left_ms > 1 ? (int)left_ms : 1, &brokers,
                                         &partitions, error);
    }
    return status == TALLY_OK && partitions == 0
               ? tally_fail(error, TALLY_UNAVAILABLE,
                            "topic %s is made, and no broker knows it yet", name)
               : status;
}

enum tally_status tally_kafka_admin_create(struct tally_kafka_admin *admin,
                                           const struct tally_kafka_new_topic *topic,
                                           int timeout_ms, bool *existed, struct tally_error *error)
{
    const int64_t due_us = tally_clock_monotonic_us() + timeout_ms * INT64_C(1000);
    rd_kafka_NewTopic_t *made = new_topic(topic, error);
    if (made == NULL)
        return TALLY_CONFIG;
    rd_kafka_AdminOptions_t *options =
        options_new(admin, RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout_ms);
    rd_kafka_CreateTopics(admin->client, &made, 1, options, admin->queue);
    options_free(options);
    rd_kafka_NewTopic_destroy(made);
    rd_kafka_event_t *event =
        await(admin, RD_KAFKA_EVENT_CREATETOPICS_RESULT, timeout_ms, "creating a topic", error);
    if (event == NULL)
        return TALLY_UNAVAILABLE;
    size_t count = 0;
    const rd_kafka_topic_result_t **topics =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
    rd_kafka_resp_err_t code =
        count == 1 ? rd_kafka_topic_result_error(topics[0]) : RD_KAFKA_RESP_ERR__BAD_MSG;
    enum tally_status status = TALLY_OK;
    *existed = code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS;
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR && !*existed) {
        const char *text = count == 1 ? rd_kafka_topic_result_error_string(topics[0]) : NULL;
        status = tally_fail(error, TALLY_CONFIG, "topic %s: %s", topic->name,
                            text != NULL ? text : rd_kafka_err2str(code));
    }
    rd_kafka_event_destroy(event);
    return status == TALLY_OK && !*existed ? await_topic(admin, topic->name, due_us, error)
                                           : status;
}

enum tally_status tally_kafka_admin_configs(struct tally_kafka_admin *admin, const char *topic,
                                            int timeout_ms,
                                            void (*each)(void *context, const char *name,
                                                         const char *value),
                                            void *context, struct tally_error *error)
{
    rd_kafka_ConfigResource_t *resource =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    rd_kafka_AdminOptions_t *options =
        options_new(admin, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeout_ms);
    rd_kafka_DescribeConfigs(admin->client, &resource, 1, options, admin->queue);
    options_free(options);
    rd_kafka_ConfigResource_destroy(resource);
    rd_kafka_event_t *event = await(admin, RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT, timeout_ms,
                                    "asking for a topic's settings", error);
    if (event == NULL)
        return TALLY_UNAVAILABLE;
    size_t resources = 0, entries = 0;
    const rd_kafka_ConfigResource_t **found = rd_kafka_DescribeConfigs_result_resources(
        rd_kafka_event_DescribeConfigs_result(event), &resources);
    if (resources == 1) {
        const rd_kafka_ConfigEntry_t **list = rd_kafka_ConfigResource_configs(found[0], &entries);
        for (size_t i = 0; i < entries; i++) {
            const char *value = rd_kafka_ConfigEntry_value(list[i]);
            each(context, rd_kafka_ConfigEntry_name(list[i]), value != NULL ? value : "");
        }
    }
    rd_kafka_event_destroy(event);
    return TALLY_OK;
}

enum tally_status tally_kafka_admin_watermarks(struct tally_kafka_admin *admin, const char *topic,
                                               int32_t partition, int timeout_ms, int64_t *low,
                                               int64_t *high, struct tally_error *error)
{
    rd_kafka_resp_err_t code =
        tally_kafka_watermarks(admin->client, topic, partition, timeout_ms, low, high);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        return fail_unreachable(admin, code, "asking for offsets", error);
    return TALLY_OK;
}

static enum tally_status deletion_outcome(const rd_kafka_topic_partition_list_t *cut,
                                          struct tally_error *error)
{
    for (int i = 0; i < cut->cnt; i++) {
        const rd_kafka_topic_partition_t *partition = &cut->elems[i];
        if (partition->err != RD_KAFKA_RESP_ERR_NO_ERROR)
            return tally_fail(error, TALLY_CONFIG, "deleting records of %s, partition %d: %s",
                              partition->topic, partition->partition,
                              rd_kafka_err2str(partition->err));
    }
    return TALLY_OK;
}

enum tally_status tally_kafka_admin_delete_before(struct tally_kafka_admin *admin,
                                                  const char *topic, const int64_t *offsets,
                                                  int32_t partitions, int timeout_ms,
                                                  struct tally_error *error)
{
    rd_kafka_topic_partition_list_t *before = rd_kafka_topic_partition_list_new(partitions);
    for (int32_t i = 0; i < partitions; i++)
        rd_kafka_topic_partition_list_add(before, topic, i)->offset = offsets[i];
    rd_kafka_DeleteRecords_t *deletion = rd_kafka_DeleteRecords_new(before);
    rd_kafka_topic_partition_list_destroy(before);
    rd_kafka_AdminOptions_t *options =
        options_new(admin, RD_KAFKA_ADMIN_OP_DELETERECORDS, timeout_ms);
    rd_kafka_DeleteRecords(admin->client, &deletion, 1, options, admin->queue);
    options_free(options);
    rd_kafka_DeleteRecords_destroy(deletion);
    rd_kafka_event_t *event =
        await(admin, RD_KAFKA_EVENT_DELETERECORDS_RESULT, timeout_ms, "deleting records", error);
    if (event == NULL)
        return TALLY_UNAVAILABLE;
    enum tally_status status = deletion_outcome(
        rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event)), error);
    rd_kafka_event_destroy(event);
    return status;
}

static void copy_name(char *target, size_t size, const char *text)
{
    (void)snprintf(target, size, "%s", text != NULL ? text : "");
}

static void copy_group(struct tally_kafka_group *group,
                       const rd_kafka_ConsumerGroupDescription_t *found)
{
    copy_name(group->state, sizeof group->state,
              rd_kafka_consumer_group_state_name(rd_kafka_ConsumerGroupDescription_state(found)));
    size_t count = rd_kafka_ConsumerGroupDescription_member_count(found);
    for (size_t i = 0; i < count && i < TALLY_KAFKA_MEMBERS_MOST; i++) {
        const rd_kafka_MemberDescription_t *member =
            rd_kafka_ConsumerGroupDescription_member(found, i);
        const rd_kafka_MemberAssignment_t *assignment =
            rd_kafka_MemberDescription_assignment(member);
        const rd_kafka_topic_partition_list_t *partitions =
            assignment != NULL ? rd_kafka_MemberAssignment_partitions(assignment) : NULL;
        struct tally_kafka_member *copy = &group->members[group->member_count++];
        copy_name(copy->client_id, sizeof copy->client_id,
                  rd_kafka_MemberDescription_client_id(member));
        copy_name(copy->instance_id, sizeof copy->instance_id,
                  rd_kafka_MemberDescription_group_instance_id(member));
        copy_name(copy->host, sizeof copy->host, rd_kafka_MemberDescription_host(member));
        copy->partitions = partitions != NULL ? partitions->cnt : 0;
    }
}

enum tally_status tally_kafka_admin_group(struct tally_kafka_admin *admin, const char *name,
                                          int timeout_ms, struct tally_kafka_group *group,
                                          struct tally_error *error)
{
    *group = (struct tally_kafka_group){.state = "Unknown"};
    rd_kafka_AdminOptions_t *options =
        options_new(admin, RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, timeout_ms);
    rd_kafka_DescribeConsumerGroups(admin->client, &name, 1, options, admin->queue);
    options_free(options);
    rd_kafka_event_t *event = await(admin, RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT, timeout_ms,
                                    "asking for the consumer group", error);
    if (event == NULL)
        return TALLY_UNAVAILABLE;
    size_t count = 0;
    const rd_kafka_ConsumerGroupDescription_t **groups =
        rd_kafka_DescribeConsumerGroups_result_groups(
            rd_kafka_event_DescribeConsumerGroups_result(event), &count);
    const rd_kafka_error_t *failure =
        count == 1 ? rd_kafka_ConsumerGroupDescription_error(groups[0]) : NULL;
    enum tally_status status = TALLY_OK;
    if (failure != NULL)
        status = fail_unreachable(admin, rd_kafka_error_code(failure),
                                  "asking for the consumer group", error);
    else if (count == 1)
        copy_group(group, groups[0]);
    rd_kafka_event_destroy(event);
    return status;
}
