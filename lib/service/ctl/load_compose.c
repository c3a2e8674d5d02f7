#include "service/ctl/load_internal.h"

#include <inttypes.h>

static void clear(struct load_lane *lane)
{
    tally_buffer_clear(&lane->target);
    tally_buffer_clear(&lane->headers);
    tally_buffer_clear(&lane->body);
}

static bool composed(const struct load_lane *lane)
{
    return !lane->target.failed && !lane->headers.failed && !lane->body.failed;
}

bool load_compose_user(struct load_lane *lane)
{
    uint64_t seed = lane->load->options->seed;
    clear(lane);
    lane->user = lane->number;
    lane->subject = 0;
    tally_buffer_append_text(&lane->target, "/v1/users");
    tally_buffer_format(&lane->headers,
                        "Content-Type: application/json\r\n"
                        "Idempotency-Key: load-user-%" PRIx64 "-%" PRId64 "\r\n",
                        seed, lane->number);
    tally_buffer_format(&lane->body,
                        "{\"name\":\"Load user %" PRId64 "\",\"email\":\"load-%" PRIx64 "-%" PRId64
                        "@example.test\"}",
                        lane->number, seed, lane->number);
    return composed(lane);
}

static int64_t choose_user(struct load *load)
{
    if (load->options->distribution.uniform)
        return (int64_t)tally_random_below(&load->random, (uint64_t)load->options->users);
    return tally_zipf_next(&load->zipf, &load->random) - 1;
}

static void compose_post(struct load_lane *lane)
{
    tally_buffer_append_text(&lane->target, "/v1/posts");
    tally_buffer_format(&lane->body,
                        "{\"authorId\":\"%" PRId64 "\",\"title\":\"Load\",\"body\":\"Post %" PRId64
                        " of the load generator.\"}",
                        lane->load->users[lane->user], lane->number);
}

static void compose_comment(struct load_lane *lane)
{
    tally_buffer_format(&lane->target, "/v1/posts/%" PRId64 "/comments", lane->subject);
    tally_buffer_format(&lane->body,
                        "{\"authorId\":\"%" PRId64 "\",\"body\":\"Comment %" PRId64
                        " of the load generator.\"}",
                        lane->load->users[lane->user], lane->number);
}

static bool take(struct load_lane *lane, struct tally_made *made)
{
    struct tally_made_thing thing = tally_made_take(made, &lane->load->random);
    if (thing.id == 0)
        return false;
    lane->subject = thing.id;
    lane->user = thing.user;
    return true;
}

static bool find_post(struct load_lane *lane)
{
    struct load *load = lane->load;
    lane->subject =
        tally_made_any(load->options->keep_commented ? &load->kept : &load->posts, &load->random)
            .id;
    return lane->subject != 0;
}

/* What the mix asks for may not be possible yet: nothing to comment on is answered by a post,
 * nothing to delete by the making of such a thing. */
bool load_compose_command(struct load_lane *lane)
{
    struct load *load = lane->load;
    clear(lane);
    lane->kind = tally_mix_next(&load->options->mix, &load->random);
    lane->user = choose_user(load);
    if (lane->kind == TALLY_LOAD_DELETE_POST && !take(lane, &load->posts))
        lane->kind = TALLY_LOAD_POST;
    if (lane->kind == TALLY_LOAD_DELETE_COMMENT && !take(lane, &load->comments))
        lane->kind = TALLY_LOAD_COMMENT;
    if (lane->kind == TALLY_LOAD_COMMENT && !find_post(lane))
        lane->kind = TALLY_LOAD_POST;
    if (lane->kind == TALLY_LOAD_POST)
        compose_post(lane);
    else if (lane->kind == TALLY_LOAD_COMMENT)
        compose_comment(lane);
    else
        tally_buffer_format(&lane->target, "/v1/%s/%" PRId64,
                            lane->kind == TALLY_LOAD_DELETE_POST ? "posts" : "comments",
                            lane->subject);
    if (lane->kind == TALLY_LOAD_POST || lane->kind == TALLY_LOAD_COMMENT)
        tally_buffer_format(&lane->headers,
                            "Content-Type: application/json\r\n"
                            "Idempotency-Key: load-%016" PRIx64 "-%" PRId64 "\r\n",
                            load->nonce, lane->number);
    return composed(lane);
}
