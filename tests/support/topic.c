#include "topic.h"

#include "kafka/admin.h"

#include <criterion/criterion.h>
#include <librdkafka/rdkafka.h>
#include <stdlib.h>

enum { PATIENCE_MS = 120000, DELETION_MS = 30000 };

const char *test_brokers(void)
{
    const char *text = getenv("TALLY_KAFKA_BROKERS");
    cr_assert_not_null(text, "TALLY_KAFKA_BROKERS is not set: run ./tests/run integration");
    return text;
}

static void create(const struct tally_kafka_new_topic *topic)
{
    struct tally_error error = {0};
    struct tally_kafka_admin *admin = NULL;
    bool existed = true;
    cr_assert_eq(tally_kafka_admin_new(test_brokers(), &admin, &error), TALLY_OK, "%s", error.text);
    cr_assert_eq(tally_kafka_admin_create(admin, topic, PATIENCE_MS, &existed, &error), TALLY_OK,
                 "%s", error.text);
    cr_assert_not(existed);
    tally_kafka_admin_free(&admin);
}

void test_topic_create(const char *name, int32_t partitions)
{
    create(
        &(struct tally_kafka_new_topic){.name = name, .partitions = partitions, .replication = 1});
}

void test_topic_create_with(const char *name, int32_t partitions, const char *option,
                            const char *value)
{
    const struct tally_kafka_topic_config config = {option, value};
    create(&(struct tally_kafka_new_topic){name, partitions, 1, &config, 1});
}

static rd_kafka_t *open_client(void)
{
    char reason[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    (void)rd_kafka_conf_set(conf, "bootstrap.servers", test_brokers(), reason, sizeof reason);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof reason);
    cr_assert_not_null(client, "%s", reason);
    return client;
}

/* Of the one topic that was asked for. */
static rd_kafka_resp_err_t outcome(rd_kafka_event_t *event)
{
    if (event == NULL)
        return RD_KAFKA_RESP_ERR__TIMED_OUT;
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    const rd_kafka_topic_result_t **topics = NULL;
    size_t count = 0;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR &&
        rd_kafka_event_type(event) == RD_KAFKA_EVENT_DELETETOPICS_RESULT)
        topics =
            rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &count);
    else if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        topics = rd_kafka_CreatePartitions_result_topics(
            rd_kafka_event_CreatePartitions_result(event), &count);
    if (count == 1)
        code = rd_kafka_topic_result_error(topics[0]);
    rd_kafka_event_destroy(event);
    return code;
}

void test_topic_widen(const char *name, int32_t partitions)
{
    char reason[256];
    rd_kafka_t *client = open_client();
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    rd_kafka_NewPartitions_t *topic =
        rd_kafka_NewPartitions_new(name, (size_t)partitions, reason, sizeof reason);
    cr_assert_not_null(topic, "%s", reason);
    rd_kafka_CreatePartitions(client, &topic, 1, NULL, queue);
    const rd_kafka_resp_err_t code = outcome(rd_kafka_queue_poll(queue, PATIENCE_MS));
    cr_assert_eq(code, RD_KAFKA_RESP_ERR_NO_ERROR, "topic %s is not widened: %s", name,
                 rd_kafka_err2str(code));
    rd_kafka_NewPartitions_destroy(topic);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(client);
}

void test_topic_delete(const char *name)
{
    rd_kafka_t *client = open_client();
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    rd_kafka_DeleteTopic_t *topic = rd_kafka_DeleteTopic_new(name);
    rd_kafka_DeleteTopics(client, &topic, 1, NULL, queue);
    const rd_kafka_resp_err_t code = outcome(rd_kafka_queue_poll(queue, DELETION_MS));
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) /* after a warning Criterion's exit code is 1 */
        cr_log_info("topic %s stays: %s", name, rd_kafka_err2str(code));
    rd_kafka_DeleteTopic_destroy(topic);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(client);
}
