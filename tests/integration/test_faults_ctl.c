/* Calls that tallyctl's commands make of malloc, the system and the libraries fail once: a command
 * prints all of its result, or says why there is none, and the next one prints it. */
#include "core/log.h"
#include "faults.h"
#include "model_fixture.h"
#include "service/ctl/ctl.h"
#include "service/ctl/rebuild.h"
#include "service/ctl/status_probe.h"
#include "view/pause.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    USERS = 3,
    VERSIONS = 5,
    ERASED = 3,
    RUNS_MOST = 1000,
    CALLS_OF_RETRY = 70,
    CALLS_OF_ERASE = 40,
    CALLS_OF_STATUS = 80
};
enum { TEXT_BYTES = 1 << 16, ARGUMENTS_MOST = 16 };

static struct model_fixture model;
static char receipt[64];
static int out, err;     /* files in the place of standard output and standard error */
static json_t *expected; /* what the first run printed */
static int lines_expected;
static struct tally_ctl ctl;
static struct tally_redis *pause_redis;

static char *saved_dsn; /* of the server that the tests share */

static void set_environment(void)
{
    const struct tally_settings *settings = &model.settings;
    const char *dsn = getenv("TALLY_PG_DSN");
    saved_dsn = dsn != NULL ? strdup(dsn) : NULL;
    cr_assert_not_null(saved_dsn);
    (void)setenv("TALLY_PG_DSN", settings->pg_dsn, 1);
    (void)setenv("TALLY_REDIS_URL", settings->redis_url, 1);
    (void)setenv("TALLY_KAFKA_BROKERS", settings->kafka_brokers, 1);
    (void)setenv("TALLY_TOPIC", settings->topic, 1);
    (void)setenv("TALLY_DLQ_TOPIC", settings->dlq_topic, 1);
    (void)setenv("TALLY_CONSUMER_GROUP", settings->consumer_group, 1);
    (void)setenv("TALLY_REDIS_TIMEOUT_MS", "10000", 1);
    /* Nobody listens there. */
    (void)setenv("TALLY_COMMAND_ADMIN", "127.0.0.1:1", 1);
    (void)setenv("TALLY_QUERY_ADMIN", "127.0.0.1:1", 1);
    (void)setenv("TALLY_PROJECTOR_ADMIN", "127.0.0.1:1", 1);
}

/* Two letters about user 2. */
static void poison(void)
{
    const struct tally_producer_header headers[] = {{"a", "1", 1}};
    const struct tally_producer_message message = {.key = "2",
                                                   .key_length = 1,
                                                   .value = "x",
                                                   .value_length = 1,
                                                   .headers = headers,
                                                   .header_count = 1};
    fixture_send_raw(&model.log, 2, &message);
    fixture_send_raw(&model.log, 2, &message);
}

static void open_all(void)
{
    tally_log_set_level(TALLY_LOG_ERROR);
    model_open(&model);
    test_database_run(model.database.connection,
                      "insert into events (user_id, version, type, timeline) select u, v,"
                      " case when v = 1 then 'user.created' when v % 2 = 0 then 'post.created'"
                      "  else 'comment.created' end, 1"
                      " from generate_series(1, 3) as u, generate_series(1, 5) as v");
    for (int64_t id = 1; id <= USERS; id++)
        model_add(&model, id, 1, VERSIONS);
    poison();
    fixture_await_applied(&model.log);
    set_environment();
    out = memfd_create("out", MFD_CLOEXEC);
    err = memfd_create("err", MFD_CLOEXEC);
    cr_assert(out >= 0 && err >= 0);
    (void)fflush(stdout);
    cr_assert_eq(dup2(out, STDOUT_FILENO), STDOUT_FILENO);
}

static void close_all(void)
{
    json_decref(expected);
    (void)setenv("TALLY_PG_DSN", saved_dsn, 1);
    free(saved_dsn);
    projector_stop(&model.projector);
    model_close(&model);
}

TestSuite(faults_ctl, .init = open_all, .fini = close_all, .timeout = 600);

static const char *text_of(int file)
{
    static char text[TEXT_BYTES];
    const ssize_t length = pread(file, text, sizeof text - 1, 0);
    cr_assert_geq(length, 0);
    text[length] = '\0';
    return text;
}

static void empty(int file)
{
    cr_assert_eq(ftruncate(file, 0), 0);
    cr_assert_eq(lseek(file, 0, SEEK_SET), 0);
}

/* Bytes are told in hexadecimal too. */
static const json_t *member_of(const json_t *object, const char *name)
{
    char hex[64];
    (void)snprintf(hex, sizeof hex, "%sHex", name);
    const json_t *value = json_object_get(object, name);
    return value != NULL ? value : json_object_get(object, hex);
}

/* Whether two results say as much: the same members, lists of the same length. */
static bool alike(const json_t *left, const json_t *right)
{
    const char *name = NULL;
    json_t *value = NULL;
    size_t i = 0;
    bool same = right != NULL && json_typeof(left) == json_typeof(right) &&
                json_object_size(left) == json_object_size(right) &&
                json_array_size(left) == json_array_size(right);
    if (same && json_is_array(left)) {
        json_array_foreach((json_t *)(uintptr_t)left, i, value)
        {
            same = same && alike(value, json_array_get(right, i));
        }
    }
    if (same && json_is_object(left)) {
        json_object_foreach((json_t *)(uintptr_t)left, name, value)
        {
            same = same && alike(value, member_of(right, name));
        }
    }
    return same;
}

/* What Kafka does not tell is said in an explanation, which goes on without; headers that
 * librdkafka does not read are not there. */
static bool is_without_kafka(const json_t *result)
{
    return json_is_string(json_object_get(json_object_get(result, "kafka"), "trouble")) ||
           strstr(faults_failed(), "header") != NULL;
}

static int lines_of(const char *text)
{
    int lines = 0;
    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

/* For people: as many lines as the first time. */
static void expect_lines(const char *text)
{
    if (lines_expected == 0)
        lines_expected = lines_of(text);
    cr_expect(lines_of(text) == lines_expected || strstr(text, "Kafka: ") != NULL ||
                  strstr(faults_failed(), "header") != NULL,
              "after %s failed: %.2000s", faults_failed(), text);
}

static void expect_result(const char *text)
{
    json_error_t cause;
    json_t *result = json_loads(text, 0, &cause);
    cr_assert_not_null(result, "after %s failed: %s: %s", faults_failed(), cause.text, text);
    if (expected == NULL)
        expected = json_incref(result);
    cr_expect(alike(expected, result) || is_without_kafka(result), "after %s failed: %.2000s",
              faults_failed(), text);
    json_decref(result);
}

/* Runs a command as its line says, with what it prints in `out` and `err`; returns its exit code.
 */
static int run_into_files(int (*command)(struct tally_ctl *ctl, int argc, char **argv),
                          const char *line)
{
    char words[256];
    char *argv[ARGUMENTS_MOST] = {NULL};
    char *rest = NULL;
    int argc = 0;
    ctl = (struct tally_ctl){.config = {.program = TALLY_PROGRAM_CTL}};
    (void)snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok_r(words, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    empty(out);
    empty(err);
    const int saved = dup(STDERR_FILENO);
    cr_assert_eq(dup2(err, STDERR_FILENO), STDERR_FILENO);
    const int code = command(&ctl, argc, argv);
    (void)faults_end();
    (void)fflush(stdout);
    cr_assert_eq(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    (void)close(saved);
    return code;
}

/* The same; what it printed is judged where `*code` is not that of a failure. */
static enum tally_status run(int (*command)(struct tally_ctl *ctl, int argc, char **argv),
                             const char *line, int *code, struct tally_error *error)
{
    *code = run_into_files(command, line);
    if (*code != TALLY_CTL_FINE && *code != TALLY_CTL_DIFFERENT)
        return tally_fail(error, TALLY_INTERNAL, "%s", text_of(err));
    (ctl.json ? expect_result : expect_lines)(text_of(out));
    return TALLY_OK;
}

/* The same, where any other exit code is wrong. */
static enum tally_status run_to(int (*command)(struct tally_ctl *ctl, int argc, char **argv),
                                const char *line, int wanted, struct tally_error *error)
{
    int code = 0;
    const enum tally_status status = run(command, line, &code, error);
    cr_expect(status != TALLY_OK || code == wanted, "exit code %d after %s failed", code,
              faults_failed());
    return status;
}

static void expect_each(faults_run *each, long least)
{
    const long calls = faults_each(each, FAULTS_OF_THIS_THREAD, RUNS_MOST);
    cr_log_info("%ld calls", calls);
    cr_expect_gt(calls, least);
    cr_expect_lt(calls, RUNS_MOST);
}

static enum tally_status explain(struct tally_error *error)
{
    return run_to(tally_ctl_explain, "explain --json 1", TALLY_CTL_FINE, error);
}

Test(faults_ctl, a_user_is_explained_or_it_is_said_why_not)
{
    expect_each(explain, 40);
}

static enum tally_status explain_to_people(struct tally_error *error)
{
    return run_to(tally_ctl_explain, "explain 1", TALLY_CTL_FINE, error);
}

Test(faults_ctl, a_user_is_explained_to_people_or_it_is_said_why_not)
{
    expect_each(explain_to_people, 40);
}

static enum tally_status explain_sample(struct tally_error *error)
{
    return run_to(tally_ctl_explain, "explain --json --sample 10", TALLY_CTL_DIFFERENT, error);
}

Test(faults_ctl, users_who_are_not_explained_are_all_listed)
{
    model_set_field(&model, 0, 1, "posts", "70");
    model_set_field(&model, 0, 3, "comments", "70");
    expect_each(explain_sample, 40);
}

static enum tally_status list_letters(struct tally_error *error)
{
    return run_to(tally_ctl_dlq, "dlq --json list", TALLY_CTL_DIFFERENT, error);
}

Test(faults_ctl, letters_are_all_listed_or_it_is_said_why_not)
{
    expect_each(list_letters, 40);
}

static enum tally_status list_letters_to_people(struct tally_error *error)
{
    return run_to(tally_ctl_dlq, "dlq list", TALLY_CTL_DIFFERENT, error);
}

Test(faults_ctl, letters_are_all_listed_to_people_or_it_is_said_why_not)
{
    expect_each(list_letters_to_people, 40);
}

static enum tally_status show_letter(struct tally_error *error)
{
    return run_to(tally_ctl_dlq, "dlq --json show 1", TALLY_CTL_FINE, error);
}

Test(faults_ctl, a_letter_is_shown_whole_or_it_is_said_why_not)
{
    expect_each(show_letter, 40);
}

static enum tally_status show_letter_to_people(struct tally_error *error)
{
    return run_to(tally_ctl_dlq, "dlq show 1", TALLY_CTL_FINE, error);
}

Test(faults_ctl, a_letter_is_shown_whole_to_people_or_it_is_said_why_not)
{
    expect_each(show_letter_to_people, 40);
}

static enum tally_status retry_letters(struct tally_error *error)
{
    const enum tally_status status =
        run_to(tally_ctl_dlq, "dlq --json retry --all", TALLY_CTL_FINE, error);
    if (status == TALLY_OK)
        cr_expect_str_eq(fixture_user(&model.log, 2), fixture_history(VERSIONS));
    test_database_run(model.database.connection, "delete from closed_dead_letters");
    model_set_field(&model, 0, 2, "flagged", "1");
    return status;
}

Test(faults_ctl, letters_are_retried_or_it_is_said_why_not)
{
    cr_expect_gt(faults_each_place(retry_letters, FAULTS_OF_THIS_THREAD, CALLS_OF_RETRY),
                 50 / FAULTS_STRIDE);
}

static enum tally_status discard_letters(struct tally_error *error)
{
    const enum tally_status status =
        run_to(tally_ctl_dlq, "dlq --json discard --all --reason=x", TALLY_CTL_FINE, error);
    cr_expect(status != TALLY_OK ||
              test_database_number(model.database.connection,
                                   "select count(*) from closed_dead_letters") == 2);
    test_database_run(model.database.connection, "delete from closed_dead_letters");
    return status;
}

Test(faults_ctl, letters_are_discarded_or_it_is_said_why_not)
{
    expect_each(discard_letters, 40);
}

/* What others do of an erasure. */
static void await_erasure(void)
{
    const struct tally_event deleted = {.type = TALLY_EVENT_USER_DELETED,
                                        .user_id = ERASED,
                                        .version = VERSIONS + 1,
                                        .timeline = 1,
                                        .at_us = 1};
    test_database_run(model.database.connection, "select begin_erasure(3);"
                                                 "delete from comments where author_id = 3;"
                                                 "delete from posts where author_id = 3;"
                                                 "update users set swept_at = now() where id = 3;");
    test_database_run(model.database.connection,
                      "update relay_position set snapshot = pg_current_snapshot(),"
                      " system_identifier = (select system_identifier from pg_control_system())");
    fixture_send(&model.log, &deleted);
    fixture_await_version(&model.log, ERASED, VERSIONS + 1);
}

/* Each does anew what an erasure notes as done. Parts of it that a fault keeps from being done wait
 * for another attempt, which follows. */
static enum tally_status erase(struct tally_error *error)
{
    char line[128];
    (void)snprintf(line, sizeof line, "erase --json --wait=60 --receipt=%s %d", receipt, ERASED);
    const enum tally_status status = run_to(tally_ctl_erase, line, TALLY_CTL_FINE, error);
    test_database_run(model.database.connection,
                      "update erasures set published_at = null, vacuumed_at = null,"
                      " files_written_anew_at = null, completed_at = null");
    return status;
}

Test(faults_ctl, a_user_is_erased_or_it_is_said_why_not)
{
    (void)snprintf(receipt, sizeof receipt, "/tmp/tally-receipt-%d", getpid());
    await_erasure();
    cr_expect_gt(faults_each_place(erase, FAULTS_OF_THIS_THREAD, CALLS_OF_ERASE),
                 20 / FAULTS_STRIDE);
    cr_expect_eq(unlink(receipt), 0);
}

static enum tally_status list_generations(struct tally_error *error)
{
    return run_to(tally_ctl_generations, "generations --json list", TALLY_CTL_FINE, error);
}

Test(faults_ctl, generations_are_all_listed_or_it_is_said_why_not)
{
    expect_each(list_generations, 3);
}

static enum tally_status list_generations_to_people(struct tally_error *error)
{
    return run_to(tally_ctl_generations, "generations list", TALLY_CTL_FINE, error);
}

Test(faults_ctl, generations_are_all_listed_to_people_or_it_is_said_why_not)
{
    expect_each(list_generations_to_people, 3);
}

/* The live generation and the kept one change places, and the projector follows. */
static enum tally_status roll_back(struct tally_error *error)
{
    const enum tally_status status =
        run_to(tally_ctl_generations, "generations --json rollback", TALLY_CTL_FINE, error);
    fixture_await_applied(&model.log);
    model_expect_equal(&model);
    return status;
}

Test(faults_ctl, a_generation_is_live_again_or_it_is_said_why_not)
{
    const struct tally_rebuild_options options = {
        .settings = &model.settings, .source = TALLY_REBUILD_DATABASE, .grace_ms = 60000};
    struct tally_rebuild_result result;
    struct tally_error error;
    cr_assert_eq(tally_rebuild_run(&options, &result, &error), TALLY_OK, "%s", error.text);
    cr_assert(result.switched);
    expect_each(roll_back, 3);
}

static bool relay_is_paused(void)
{
    return test_database_number(model.database.connection,
                                "select count(*) from relay_position where paused_at is not null");
}

static enum tally_status pause_relay(struct tally_error *error)
{
    const enum tally_status status =
        run_to(tally_ctl_pause, "pause --json --reason=x relay", TALLY_CTL_FINE, error);
    cr_expect(status != TALLY_OK || relay_is_paused(), "after %s failed", faults_failed());
    test_database_run(model.database.connection, "update relay_position set paused_at = null");
    return status;
}

Test(faults_ctl, the_relay_is_paused_or_it_is_said_why_not)
{
    expect_each(pause_relay, 3);
}

static enum tally_status resume_relay(struct tally_error *error)
{
    const enum tally_status status =
        run_to(tally_ctl_resume, "resume --json relay", TALLY_CTL_FINE, error);
    cr_expect(status != TALLY_OK || !relay_is_paused(), "after %s failed", faults_failed());
    test_database_run(model.database.connection, "update relay_position set paused_at = now()");
    return status;
}

Test(faults_ctl, the_relay_goes_on_or_it_is_said_why_not)
{
    test_database_run(model.database.connection, "update relay_position set paused_at = now()");
    expect_each(resume_relay, 3);
}

static void set_projector_paused(bool paused)
{
    struct tally_error error;
    const enum tally_status status = paused ? tally_view_pause_set(pause_redis, 1, "x", &error)
                                            : tally_view_pause_clear(pause_redis, &error);
    cr_assert_eq(status, TALLY_OK, "%s", error.text);
}

static bool projector_is_paused(void)
{
    struct tally_view_pause pause;
    struct tally_error error;
    cr_assert_eq(tally_view_pause_read(pause_redis, &pause, &error), TALLY_OK, "%s", error.text);
    return pause.paused;
}

static void open_redis(void)
{
    struct tally_error error;
    cr_assert_eq(tally_redis_open_text(model.settings.redis_url, 10000, &pause_redis, &error),
                 TALLY_OK, "%s", error.text);
}

static enum tally_status pause_projector(struct tally_error *error)
{
    const enum tally_status status =
        run_to(tally_ctl_pause, "pause --json --reason=x projector", TALLY_CTL_FINE, error);
    cr_expect(status != TALLY_OK || projector_is_paused(), "after %s failed", faults_failed());
    set_projector_paused(false);
    return status;
}

Test(faults_ctl, projectors_are_paused_or_it_is_said_why_not)
{
    open_redis();
    expect_each(pause_projector, 3);
    tally_redis_close(&pause_redis);
}

static enum tally_status resume_projector(struct tally_error *error)
{
    const enum tally_status status =
        run_to(tally_ctl_resume, "resume --json projector", TALLY_CTL_FINE, error);
    cr_expect(status != TALLY_OK || !projector_is_paused(), "after %s failed", faults_failed());
    set_projector_paused(true);
    return status;
}

Test(faults_ctl, projectors_go_on_or_it_is_said_why_not)
{
    open_redis();
    set_projector_paused(true);
    expect_each(resume_projector, 3);
    set_projector_paused(false);
    tally_redis_close(&pause_redis);
}

static enum tally_status refill(struct tally_error *error)
{
    static int64_t epoch = 0;
    const enum tally_status status =
        run_to(tally_ctl_refill, "refill --json --yes --wait=0", TALLY_CTL_FINE, error);
    const int64_t before = epoch;
    epoch = test_database_number(model.database.connection, "select epoch from relay_position");
    cr_expect(status != TALLY_OK || epoch > before, "after %s failed", faults_failed());
    return status;
}

Test(faults_ctl, a_log_is_filled_again_or_it_is_said_why_not)
{
    expect_each(refill, 3);
}

static enum tally_status describe_topics(struct tally_error *error)
{
    return run_to(tally_ctl_topics, "topics --json status", TALLY_CTL_DIFFERENT, error);
}

Test(faults_ctl, topics_are_described_or_it_is_said_why_not)
{
    expect_each(describe_topics, 3);
}

/* No service runs here, so that not all can be up, and what is said to be up has as many members as
 * the first time. */
static enum tally_status show_status(struct tally_error *error)
{
    const int code = run_into_files(tally_ctl_status, "status --json");
    if (code == TALLY_CTL_FAILED)
        return tally_fail(error, TALLY_INTERNAL, "%s", text_of(err));
    json_t *result = json_loads(text_of(out), 0, NULL);
    const json_t *components = json_object_get(result, "components");
    cr_assert(code == TALLY_CTL_DIFFERENT && json_is_array(components),
              "exit code %d after %s failed: %.2000s", code, faults_failed(), text_of(out));
    if (expected == NULL)
        expected = json_incref(result);
    size_t i = 0;
    json_t *shown = NULL;
    json_array_foreach((json_t *)(uintptr_t)components, i, shown)
    {
        const char *name = json_string_value(json_object_get(shown, "component"));
        const char *state = json_string_value(json_object_get(shown, "state"));
        cr_assert(name != NULL && state != NULL, "after %s failed", faults_failed());
        const json_t *first = tally_status_component(json_object_get(expected, "components"), name);
        cr_expect(strcmp(state, "up") != 0 || json_object_size(first) == json_object_size(shown),
                  "%s after %s failed: %s", name, faults_failed(), text_of(out));
    }
    json_decref(result);
    return TALLY_OK;
}

Test(faults_ctl, a_component_is_up_and_told_of_whole_or_it_is_not_up)
{
    cr_expect_gt(faults_each_place(show_status, FAULTS_OF_ALL_THREADS, CALLS_OF_STATUS),
                 30 / FAULTS_STRIDE);
}
