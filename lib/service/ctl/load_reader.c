#include "core/clock.h"
#include "service/ctl/load_internal.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { READERS = 16, TARGET_BYTES = 96, READ_TIMEOUT_MS = 12000 };

static void count_read(struct load_reader *reader, const struct tally_http_client_answer *answer)
{
    struct tally_load_report *report = reader->load->report;
    if (tally_http_client_status(answer) != TALLY_OK ||
        tally_http_client_http_status(answer) != 200) {
        report->reads_failed++;
        return;
    }
    int64_t visible_us = tally_clock_monotonic_us();
    size_t length = 0;
    const char *text = tally_http_client_body(answer, &length);
    json_t *body = json_loadb(text, length, 0, NULL);
    int64_t version = json_integer_value(json_object_get(body, "version"));
    json_decref(body);
    if (version >= reader->version) {
        tally_latency_record(&report->visibility, visible_us - reader->acknowledged_us);
        return;
    }
    const struct tally_load_options *options = reader->load->options;
    report->reads_stale++;
    if (options->on_stale != NULL)
        options->on_stale(options->context, reader->user_id, reader->version, version);
}

static void release(struct load_reader *reader)
{
    reader->busy = false;
    reader->load->busy_readers--;
    load_check_end(reader->load);
}

static void on_read(const struct tally_http_client_answer *answer, void *context)
{
    struct load_reader *reader = context;
    count_read(reader, answer);
    release(reader);
}

static void read_back(struct load_reader *reader, int64_t user_id, int64_t version)
{
    char target[TARGET_BYTES];
    (void)snprintf(target, sizeof target, "/v1/users/%" PRId64 "?minVersion=%" PRId64, user_id,
                   version);
    const struct tally_http_client_request request = {
        .method = "GET",
        .target = target,
        .headers = "Prefer: wait=10\r\n",
        .timeout_ms = READ_TIMEOUT_MS,
    };
    struct tally_error error;
    reader->busy = true;
    reader->load->busy_readers++;
    reader->acknowledged_us = tally_clock_monotonic_us();
    reader->user_id = user_id;
    reader->version = version;
    if (tally_http_client_send(reader->client, &request, on_read, reader, &error) != TALLY_OK) {
        reader->load->report->reads_failed++;
        release(reader);
    }
}

void load_maybe_read(struct load *load, int64_t user_id, int64_t version)
{
    if (load->reader_count == 0 || tally_random_unit(&load->random) >= load->options->visibility)
        return;
    for (int i = 0; i < load->reader_count; i++) {
        if (!load->readers[i].busy) {
            read_back(&load->readers[i], user_id, version);
            return;
        }
    }
    load->report->reads_skipped++;
}

enum tally_status load_readers_open(struct load *load, struct tally_error *error)
{
    if (load->options->visibility <= 0)
        return TALLY_OK;
    load->readers = calloc(READERS, sizeof *load->readers);
    if (load->readers == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "%d connections", READERS);
    enum tally_status status = TALLY_OK;
    for (int i = 0; status == TALLY_OK && i < READERS; i++) {
        load->readers[i].load = load;
        status = tally_http_client_new(load->base, load->options->query_address, 0,
                                       &load->readers[i].client, error);
        load->reader_count += status == TALLY_OK;
    }
    return status;
}

void load_readers_close(struct load *load)
{
    for (int i = 0; i < load->reader_count; i++)
        tally_http_client_free(&load->readers[i].client);
    free(load->readers);
    load->readers = NULL;
    load->reader_count = 0;
}
