#include "core/clock.h"
#include "core/id.h"
#include "service/ctl/explain.h"
#include "service/ctl/output.h"
#include "store/recount.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_EVENTS = 'e',
    KEY_SCAN = 't',
    KEY_NO_KAFKA = 0x4000,
    KEY_SAMPLE = 's',
    EVENTS_DEFAULT = 1000,
    SCAN_DEFAULT_S = 20,
    SAMPLE_MOST = 1000000,
    DELTA_BYTES = 16,
    PLACE_BYTES = 48,
};

struct explain_command {
    struct tally_ctl *ctl;
    int64_t user_id;
    int64_t sample; /* 0: the one user */
    size_t list_most;
    int64_t scan_ms; /* 0: Kafka is not asked */
    struct tally_progress progress;
};

static const struct argp_option options[] = {
    {"events", KEY_EVENTS, "N", 0, "List the newest N events (default 1000); all are summed up", 0},
    {"scan-seconds", KEY_SCAN, "SECONDS", 0,
     "Longest time to look for the events in Kafka (default 20)", 0},
    {"no-kafka", KEY_NO_KAFKA, NULL, 0, "Do not look for the events in Kafka", 0},
    {"sample", KEY_SAMPLE, "N", 0,
     "Explain about N users picked at random and list those alone whose counts are not the sum of "
     "their events",
     0},
    {0}};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct explain_command *command = state->input;
    if (key == KEY_EVENTS)
        command->list_most =
            (size_t)tally_ctl_integer(state, "events", argument, 0, TALLY_HISTORY_EVENTS_MOST);
    else if (key == KEY_SCAN)
        command->scan_ms = tally_ctl_integer(state, "scan-seconds", argument, 1, 86400) * 1000;
    else if (key == KEY_NO_KAFKA)
        command->scan_ms = 0;
    else if (key == KEY_SAMPLE)
        command->sample = tally_ctl_integer(state, "sample", argument, 1, SAMPLE_MOST);
    else if (key == ARGP_KEY_ARG && command->user_id == 0) {
        if (!tally_id_parse(argument, strlen(argument), &command->user_id))
            argp_error(state, "\"%s\" is no user id", argument);
    } else if (key == ARGP_KEY_ARG)
        argp_error(state, "one user at a time");
    else if (key == ARGP_KEY_END && (command->user_id == 0) == (command->sample == 0))
        argp_error(state, "give one USER, or --sample");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "USER",
    .doc = "Shows the events that make up a user's counts and where each of them stands: written "
           "in PostgreSQL, published by the relay, its partition and offset in Kafka, applied to "
           "the read model. Exits with 0 where the changes add up to the counts shown, with 1 "
           "where they do not." TALLY_CTL_EXIT_DOC,
};

static void show_progress(void *context, int64_t done, int64_t total)
{
    struct explain_command *command = context;
    command->progress.total = total;
    tally_progress_show(&command->progress, done, "");
}

static json_t *place_json(const struct tally_explain *explain, size_t index)
{
    const struct tally_explain_place *place = &explain->places[index];
    json_t *offsets = json_array();
    for (int64_t i = 0; i < place->copies && i < TALLY_EXPLAIN_COPIES; i++)
        tally_ctl_json_append(&offsets, json_integer(place->offsets[i]));
    return json_pack("{s:i,s:I,s:o}", "partition", (int)explain->partition, "copies",
                     (json_int_t)place->copies, "offsets", offsets);
}

static json_t *events_json(const struct tally_explain *explain)
{
    json_t *list = json_array();
    for (size_t i = 0; i < explain->history.event_count; i++) {
        const struct tally_history_event *event = &explain->history.events[i];
        char at[TALLY_TIMESTAMP_BYTES];
        tally_clock_format(event->at_us, at);
        tally_ctl_json_append(
            &list, json_pack("{s:I,s:s,s:i,s:i,s:s,s:I,s:b,s:o,s:b}", "version",
                             (json_int_t)event->version, "type", tally_event_type_text(event->type),
                             "posts", tally_event_posts_delta(event->type), "comments",
                             tally_event_comments_delta(event->type), "at", at, "seq",
                             (json_int_t)event->seq, "published", event->published, "kafka",
                             explain->places != NULL ? place_json(explain, i) : json_null(),
                             "applied", event->version <= explain->shown.version));
    }
    return list;
}

static json_t *kafka_json(const struct tally_explain *explain)
{
    if (explain->places == NULL && explain->kafka_trouble[0] == '\0')
        return json_null();
    return json_pack("{s:i,s:I,s:I,s:I,s:b,s:I,s:s?}", "partition", (int)explain->partition, "from",
                     (json_int_t)explain->scan_from, "to", (json_int_t)explain->scan_to, "reached",
                     (json_int_t)explain->scan_reached, "complete",
                     explain->scan_reached >= explain->scan_to && explain->kafka_trouble[0] == '\0',
                     "otherRecords", (json_int_t)explain->others, "trouble",
                     explain->kafka_trouble[0] != '\0' ? explain->kafka_trouble : NULL);
}

static json_t *database_json(const struct tally_history *history)
{
    return json_pack("{s:b,s:b,s:I,s:I,s:I,s:I,s:I,s:I}", "exists", history->found, "deleted",
                     history->deleted, "version", (json_int_t)history->version, "posts",
                     (json_int_t)history->posts, "comments", (json_int_t)history->comments,
                     "eventsKept", (json_int_t)history->kept, "firstVersionKept",
                     (json_int_t)history->first_version, "firstVersionWaiting",
                     (json_int_t)history->first_waiting);
}

static json_t *explain_json(const struct tally_explain *explain)
{
    const struct tally_user_state *shown = &explain->shown;
    const struct tally_explain_verdict *verdict = &explain->verdict;
    char user[TALLY_ID_TEXT_BYTES];
    (void)tally_id_format(explain->user_id, user);
    json_t *model = json_pack(
        "{s:I,s:i,s:I,s:I,s:I,s:I,s:b,s:b}", "generation", (json_int_t)explain->generation,
        "partition", (int)explain->partition, "nextOffset", (json_int_t)explain->position,
        "version", (json_int_t)shown->version, "posts", (json_int_t)shown->posts, "comments",
        (json_int_t)shown->comments, "deleted", shown->deleted, "flagged", shown->flagged);
    json_t *sum = json_pack("{s:I,s:I,s:I,s:I,s:I}", "fromVersion",
                            (json_int_t)explain->history.first_version, "basePosts",
                            (json_int_t)verdict->base_posts, "baseComments",
                            (json_int_t)verdict->base_comments, "posts", (json_int_t)verdict->posts,
                            "comments", (json_int_t)verdict->comments);
    return json_pack("{s:s,s:b,s:s,s:o,s:o,s:o,s:o,s:o}", "user", user, "explained",
                     verdict->explained, "verdict", verdict->text, "database",
                     database_json(&explain->history), "readModel", model, "kafka",
                     kafka_json(explain), "sum", sum, "events", events_json(explain));
}

static void describe_delta(enum tally_event_type type, char text[DELTA_BYTES])
{
    const int posts = tally_event_posts_delta(type);
    const int comments = tally_event_comments_delta(type);
    text[0] = '\0';
    if (posts != 0)
        (void)snprintf(text, DELTA_BYTES, "%+d post", posts);
    else if (comments != 0)
        (void)snprintf(text, DELTA_BYTES, "%+d comment", comments);
}

static void describe_place(const struct tally_explain *explain, size_t index,
                           char text[PLACE_BYTES])
{
    const struct tally_explain_place *place =
        explain->places != NULL ? &explain->places[index] : NULL;
    if (place == NULL || place->copies == 0)
        (void)snprintf(text, PLACE_BYTES, "-");
    else if (place->copies == 1)
        (void)snprintf(text, PLACE_BYTES, "%d:%" PRId64, explain->partition, place->offsets[0]);
    else
        (void)snprintf(text, PLACE_BYTES, "%d:%" PRId64 " and %" PRId64 " more", explain->partition,
                       place->offsets[0], place->copies - 1);
}

static void print_events(const struct tally_explain *explain)
{
    const struct tally_history *history = &explain->history;
    if (history->event_count > 0)
        (void)printf("%9s %-16s %-11s %-28s %12s %-10s %-22s %s\n", "version", "type", "change",
                     "time", "seq", "relay", "kafka", "read model");
    for (size_t i = 0; i < history->event_count; i++) {
        const struct tally_history_event *event = &history->events[i];
        char at[TALLY_TIMESTAMP_BYTES], delta[DELTA_BYTES], place[PLACE_BYTES];
        tally_clock_format(event->at_us, at);
        describe_delta(event->type, delta);
        describe_place(explain, i, place);
        (void)printf("%9" PRId64 " %-16s %-11s %-28s %12" PRId64 " %-10s %-22s %s\n",
                     event->version, tally_event_type_text(event->type), delta, at, event->seq,
                     event->published ? "published" : "waiting", place,
                     event->version <= explain->shown.version ? "applied" : "-");
    }
    if ((int64_t)history->event_count < history->kept)
        (void)printf("%" PRId64 " older events are not listed (--events)\n",
                     history->kept - (int64_t)history->event_count);
}

static void print_kafka(const struct tally_explain *explain)
{
    if (explain->places == NULL)
        return;
    if (explain->kafka_trouble[0] != '\0')
        (void)printf("Kafka: %s\n", explain->kafka_trouble);
    else if (explain->scan_reached < explain->scan_to)
        (void)printf("Kafka: partition %d was read from offset %" PRId64 " to %" PRId64
                     " of %" PRId64 "; more with --scan-seconds\n",
                     explain->partition, explain->scan_from, explain->scan_reached,
                     explain->scan_to);
    if (explain->others > 0)
        (void)printf("Kafka: %" PRId64 " more records of the user are none of these events\n",
                     explain->others);
}

static void print_sum(const struct tally_explain *explain)
{
    const struct tally_history *history = &explain->history;
    const struct tally_explain_verdict *verdict = &explain->verdict;
    if (!history->found || history->deleted)
        return;
    if (history->first_version > 1)
        (void)printf("The events are known from version %" PRId64
                     " on; the sum starts from the %" PRId64 " posts and %" PRId64
                     " comments before it, which the recount implies.\n",
                     history->first_version, verdict->base_posts, verdict->base_comments);
    else if (history->kept == 0)
        (void)printf("No event of the user is kept any more; the sum is the recount.\n");
    (void)printf("sum up to version %" PRId64 ": %" PRId64 " posts, %" PRId64
                 " comments; shown: %" PRId64 " posts, %" PRId64 " comments\n",
                 explain->shown.version, verdict->posts, verdict->comments, explain->shown.posts,
                 explain->shown.comments);
}

static void print_explain(const struct tally_explain *explain)
{
    const struct tally_history *history = &explain->history;
    const struct tally_user_state *shown = &explain->shown;
    if (history->found)
        (void)printf("PostgreSQL: version %" PRId64 ", %" PRId64 " posts, %" PRId64 " comments%s\n",
                     history->version, history->posts, history->comments,
                     history->deleted ? ", deleted (the counts are of what is not swept yet)" : "");
    if (explain->model_partitions == 0)
        (void)puts("read model: there is none");
    else
        (void)printf("read model: generation %" PRId64 ", partition %d (next offset %" PRId64
                     "): version %" PRId64 ", %" PRId64 " posts, %" PRId64 " comments%s%s\n",
                     explain->generation, explain->partition, explain->position, shown->version,
                     shown->posts, shown->comments, shown->deleted ? ", deleted" : "",
                     shown->flagged ? ", flagged" : "");
    print_events(explain);
    print_kafka(explain);
    print_sum(explain);
    (void)printf("%s.\n", explain->verdict.text);
}

static int explain_one(struct explain_command *command, struct tally_explainer *explainer)
{
    struct tally_explain explain;
    struct tally_error error;
    enum tally_status status =
        tally_explain_read(explainer, command->user_id, command->list_most, &explain, &error);
    if (status != TALLY_OK)
        return tally_ctl_fail(command->ctl, &error);
    if (command->scan_ms > 0 && explain.history.found) {
        tally_progress_start(&command->progress, "looking in Kafka", "offsets", 0);
        tally_explain_locate(explainer, &explain, command->scan_ms, show_progress, command);
        tally_progress_end(&command->progress);
    }
    int code = explain.verdict.explained ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    if (command->ctl->json)
        code = tally_ctl_print_json(command->ctl, explain_json(&explain), code);
    else
        print_explain(&explain);
    tally_explain_release(&explain);
    return code;
}

/* Explains `count` users; fills `list` with those that are not explained, and counts them. */
static enum tally_status explain_each(struct explain_command *command,
                                      struct tally_explainer *explainer, const int64_t *ids,
                                      size_t count, json_t **list, size_t *unexplained,
                                      struct tally_error *error)
{
    enum tally_status status = TALLY_OK;
    *unexplained = 0;
    command->progress.total = (int64_t)count;
    for (size_t i = 0; i < count && status == TALLY_OK; i++) {
        struct tally_explain explain;
        status = tally_explain_read(explainer, ids[i], 0, &explain, error);
        if (status == TALLY_OK && !explain.verdict.explained) {
            (*unexplained)++;
            tally_ctl_json_append(list, explain_json(&explain));
            if (!command->ctl->json) {
                tally_progress_end(&command->progress);
                (void)printf("user %" PRId64 ": %s.\n", ids[i], explain.verdict.text);
            }
        }
        tally_explain_release(&explain);
        tally_progress_show(&command->progress, (int64_t)i + 1, "");
    }
    return status;
}

static int explain_sample(struct explain_command *command, struct tally_explainer *explainer)
{
    struct tally_error error;
    const size_t most = (size_t)command->sample;
    size_t count = 0;
    size_t unexplained = 0;
    int64_t *ids = calloc(most, sizeof *ids);
    json_t *list = json_array();
    enum tally_status status = ids != NULL ? TALLY_OK : TALLY_NO_MEMORY;
    if (status != TALLY_OK)
        (void)tally_fail(&error, TALLY_NO_MEMORY, "%zu users", most);
    else
        status =
            tally_recount_sample(explainer->connection, command->sample, ids, most, &count, &error);
    tally_progress_start(&command->progress, "explaining", "users", 0);
    if (status == TALLY_OK)
        status = explain_each(command, explainer, ids, count, &list, &unexplained, &error);
    tally_progress_end(&command->progress);
    free(ids);
    int code = unexplained == 0 ? TALLY_CTL_FINE : TALLY_CTL_DIFFERENT;
    if (status != TALLY_OK)
        code = tally_ctl_fail(command->ctl, &error);
    else if (command->ctl->json)
        code = tally_ctl_print_json(command->ctl,
                                    json_pack("{s:I,s:I,s:O}", "usersExplained",
                                              (json_int_t)(count - unexplained), "usersSampled",
                                              (json_int_t)count, "unexplained", list),
                                    code);
    else
        (void)printf("of %zu users %zu show the sum of their events\n", count, count - unexplained);
    json_decref(list);
    return code;
}

int tally_ctl_explain(struct tally_ctl *ctl, int argc, char **argv)
{
    struct explain_command command = {
        .ctl = ctl, .list_most = EVENTS_DEFAULT, .scan_ms = INT64_C(1000) * SCAN_DEFAULT_S};
    int code = tally_ctl_parse(ctl, &argp, &command, argc, argv);
    if (code != TALLY_CTL_FINE)
        return code;
    struct tally_explainer explainer;
    struct tally_error error;
    if (tally_explainer_open(&explainer, &ctl->config.settings, &error) != TALLY_OK)
        return tally_ctl_fail(ctl, &error);
    code = command.sample > 0 ? explain_sample(&command, &explainer)
                              : explain_one(&command, &explainer);
    tally_explainer_close(&explainer);
    return code;
}
