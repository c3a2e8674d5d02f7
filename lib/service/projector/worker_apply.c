#include "service/projector/worker.h"

#include "core/clock.h"
#include "redis/command.h"

#include <string.h>

enum { EXISTS_MOST = 1000, LETTER_WAIT_MS = 10000, LOG_INTERVAL_MS = 1000 };

/* A Redis call failed in a way that leaves nothing known. */
static void lose_redis(struct tally_worker *worker, const struct tally_error *error)
{
    tally_worker_disconnect(worker, error);
}

/* Appends one EXISTS over the users of one partition that should not exist, from index `*at` on;
 * returns how many it names. An existing key costs a third of reading its fields, and users that
 * appear for the first time are most of a catch-up. */
static size_t append_exists(struct tally_worker *worker, const struct tally_round *round,
                            size_t at, struct tally_buffer *out)
{
    const int32_t partition = round->missing_partitions[at];
    char key[TALLY_VIEW_KEY_BYTES];
    size_t count = 0;
    while (at + count < round->missing_count && count < EXISTS_MOST &&
           round->missing_partitions[at + count] == partition &&
           round->missing[at + count]->expected_absent)
        count++;
    tally_redis_command(out, 1 + count);
    tally_redis_part_text(out, "EXISTS");
    for (size_t i = 0; i < count; i++) {
        const size_t length = tally_view_user_key(key, worker->model->generation, partition,
                                                  round->missing[at + i]->user_id);
        tally_redis_part(out, key, length);
    }
    return count;
}
