/*
 * Writes a whole read model of made-up users to standard output, as commands for `redis-cli
 * --pipe`: generation 1, complete in every partition. The key names are the library's own, so that
 * the model is one that tally-query reads.
 */
#include "core/buffer.h"
#include "core/clock.h"
#include "domain/partitioner.h"
#include "redis/command.h"
#include "view/keys.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARTITIONS_MOST = 64, GENERATION = 1, COMMAND_BYTES = 4096, NUMBER_BYTES = 24 };

struct options {
    int64_t first;
    int64_t count;
    int64_t partitions;
    const char *partition_file;
};

static const struct argp_option option_table[] = {
    {"first", 'f', "ID", 0, "Id of the first user; the others follow", 0},
    {"count", 'c', "N", 0, "Number of users", 0},
    {"partitions", 'p', "N", 0, "Partitions, at most 64 (8)", 0},
    {"partition-file", 'o', "FILE", 0,
     "Where to write the users' partitions, one byte each: '0' + partition", 0},
    {0},
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'f':
        options->first = strtoll(argument, NULL, 10);
        return 0;
    case 'c':
        options->count = strtoll(argument, NULL, 10);
        return 0;
    case 'p':
        options->partitions = strtoll(argument, NULL, 10);
        return 0;
    case 'o':
        options->partition_file = argument;
        return 0;
    case ARGP_KEY_END:
        if (options->first < 1 || options->count < 1 || options->partitions < 1 ||
            options->partitions > PARTITIONS_MOST || options->partition_file == NULL)
            argp_error(state, "needs --first, --count and --partition-file");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void put_number(struct tally_buffer *out, const char *name, int64_t value)
{
    char text[NUMBER_BYTES];
    snprintf(text, sizeof text, "%" PRId64, value);
    tally_redis_part_text(out, name);
    tally_redis_part_text(out, text);
}

/* A field whose text holds a number, so that no two users are alike. */
static void put_text(struct tally_buffer *out, const char *name, const char *before, int64_t number,
                     const char *after)
{
    char text[128];
    snprintf(text, sizeof text, "%s%" PRId64 "%s", before, number, after);
    tally_redis_part_text(out, name);
    tally_redis_part_text(out, text);
}

static void hset(struct tally_buffer *out, const char *key, size_t key_length, size_t fields)
{
    tally_redis_command(out, 2 + 2 * fields);
    tally_redis_part_text(out, "HSET");
    tally_redis_part(out, key, key_length);
}

static void put_user(struct tally_buffer *out, int64_t id, int32_t partition)
{
    char key[TALLY_VIEW_KEY_BYTES];
    const int64_t posts = id % 97;
    const int64_t comments = id % 389;
    hset(out, key, tally_view_user_key(key, GENERATION, partition, id), 7);
    put_number(out, TALLY_VIEW_USER_VERSION, 1 + posts + comments);
    put_number(out, TALLY_VIEW_USER_POSTS, posts);
    put_number(out, TALLY_VIEW_USER_COMMENTS, comments);
    put_text(out, TALLY_VIEW_USER_NAME, "Reader ", id, "");
    put_text(out, TALLY_VIEW_USER_EMAIL, "reader-", id, "@example.org");
    put_text(out, TALLY_VIEW_USER_AVATAR, "https://cdn.example.org/", id, ".png");
    put_number(out, TALLY_VIEW_USER_TIMELINE, 1);
}

static void put_partition(struct tally_buffer *out, const struct options *options,
                          int32_t partition, int64_t users)
{
    char key[TALLY_VIEW_KEY_BYTES];
    const int64_t now_ms = tally_clock_wall_us() / 1000;
    hset(out, key, tally_view_totals_key(key, GENERATION, partition), 3);
    put_number(out, TALLY_VIEW_TOTALS_USERS, users);
    put_number(out, TALLY_VIEW_TOTALS_POSTS, 0);
    put_number(out, TALLY_VIEW_TOTALS_COMMENTS, 0);
    hset(out, key, tally_view_position_key(key, GENERATION, partition), 7);
    put_number(out, TALLY_VIEW_POSITION_EPOCH, 1);
    put_number(out, TALLY_VIEW_POSITION_OFFSET, 1);
    put_number(out, TALLY_VIEW_POSITION_UNTIL, 1);
    put_text(out, TALLY_VIEW_POSITION_CLUSTER, "bench-", 1, "");
    put_number(out, TALLY_VIEW_POSITION_PARTITIONS, options->partitions);
    put_number(out, TALLY_VIEW_POSITION_EVENT_AT, now_ms);
    put_number(out, TALLY_VIEW_POSITION_FRESH_AT, now_ms);
}

/* Sends what is in the buffer on its way and empties it. */
static bool flush(struct tally_buffer *out)
{
    const bool written = !out->failed && fwrite(out->data, 1, out->length, stdout) == out->length;
    tally_buffer_clear(out);
    return written;
}

static bool write_model(const struct options *options, FILE *partition_file)
{
    int64_t users[PARTITIONS_MOST] = {0};
    struct tally_buffer out;
    tally_buffer_init(&out, COMMAND_BYTES);
    bool written = true;
    for (int64_t i = 0; i < options->count && written; i++) {
        const int64_t id = options->first + i;
        const int32_t partition = tally_partition_of(id, (int32_t)options->partitions);
        users[partition]++;
        put_user(&out, id, partition);
        written = fputc('0' + partition, partition_file) != EOF && flush(&out);
    }
    for (int32_t i = 0; i < options->partitions && written; i++) {
        put_partition(&out, options, i, users[i]);
        written = flush(&out);
    }
    /* Last: a live generation without its positions would mean loss. */
    tally_redis_command(&out, 3);
    tally_redis_part_text(&out, "SET");
    put_number(&out, TALLY_VIEW_GENERATION_KEY, GENERATION);
    written = written && flush(&out) && fflush(stdout) == 0;
    tally_buffer_release(&out);
    return written;
}

int main(int argc, char **argv)
{
    struct options options = {.partitions = 8};
    const struct argp argp = {.options = option_table,
                              .parser = parse_option,
                              .doc = "Writes a read model for redis-cli --pipe."};
    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
        return EXIT_FAILURE;
    FILE *partition_file = fopen(options.partition_file, "w");
    if (partition_file == NULL) {
        perror(options.partition_file);
        return EXIT_FAILURE;
    }
    const bool written = write_model(&options, partition_file);
    if (fclose(partition_file) == 0 && written)
        return EXIT_SUCCESS;
    perror("bench_fill_users");
    return EXIT_FAILURE;
}
