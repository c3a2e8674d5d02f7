/* Commands that are sent over two connections at once, under one key. */
#include "service/ctl/load_internal.h"

enum { BODY_BYTES = 4096 };

enum tally_status load_twin_open(struct load_lane *lane, struct tally_error *error)
{
    const struct tally_load_options *options = lane->load->options;
    tally_buffer_init(&lane->own.body, BODY_BYTES);
    tally_buffer_init(&lane->twin.body, BODY_BYTES);
    if (options->twice <= 0)
        return TALLY_OK;
    const char *address =
        options->other_address != NULL ? options->other_address : options->command_address;
    return tally_http_client_new(lane->load->base, address, 0, &lane->twin_client, error);
}

void load_twin_close(struct load_lane *lane)
{
    if (lane->twin_client != NULL)
        tally_http_client_free(&lane->twin_client);
    tally_buffer_release(&lane->own.body);
    tally_buffer_release(&lane->twin.body);
}

static void on_answered(const struct tally_http_client_answer *answer, void *context)
{
    struct load_lane *lane = context;
    char failure[LOAD_NAME_BYTES];
    load_answer_name(answer, failure);
    if (!load_answer_may_change(answer, failure))
        load_answer_keep(&lane->twin, answer);
    lane->twin_busy = false;
    load_lane_settle(lane);
}

void load_twin_begin(struct load_lane *lane, const struct tally_http_client_request *request)
{
    struct load *load = lane->load;
    struct tally_error error;
    load_answer_forget(&lane->own);
    load_answer_forget(&lane->twin);
    lane->twin_sent = false;
    if (lane->twin_client == NULL || load->phase != LOAD_WRITING || request->body == NULL ||
        tally_random_unit(&load->random) >= load->options->twice)
        return;
    lane->twin_busy =
        tally_http_client_send(lane->twin_client, request, on_answered, lane, &error) == TALLY_OK;
    lane->twin_sent = lane->twin_busy;
    load->report->twice += lane->twin_sent;
}
