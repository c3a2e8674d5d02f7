/* A hash that finds no memory says so instead of ending the process. */
#define HASH_NONFATAL_OOM 1

#include "store/command_queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

static const char *const kind_texts[] = {
#define X(name, text) [TALLY_COMMAND_##name] = (text),
    TALLY_COMMAND_LIST(X)
#undef X
};

const char *tally_command_kind_text(enum tally_command_kind kind)
{
    return kind < TALLY_COMMAND_KIND_COUNT ? kind_texts[kind] : "unknown";
}

size_t tally_command_bytes(const struct tally_command *command)
{
    enum { FIXED_BYTES = 160 }; /* numbers, hash and the lengths before the elements */
    const char *const texts[] = {
        command->name, command->email,  command->avatar,          command->title,
        command->body, command->caller, command->idempotency_key, command->traceparent,
    };
    size_t bytes = FIXED_BYTES;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        bytes += texts[i] != NULL ? strlen(texts[i]) : 0;
    return bytes;
}

void tally_command_queue_init(struct tally_command_queue *queue,
                              const struct tally_command_queue_limits *limits)
{
    *queue = (struct tally_command_queue){.limits = *limits};
}

void tally_command_queue_release(struct tally_command_queue *queue)
{
    struct tally_queued *queued, *after;
    HASH_CLEAR(by_key, queue->keyed);
    DL_FOREACH_SAFE (queue->waiting, queued, after) {
        DL_DELETE(queue->waiting, queued);
        free(queued);
    }
    queue->count = 0;
    queue->bytes = 0;
}

static struct tally_queued *make_queued(const struct tally_command *command)
{
    const char *key = command->idempotency_key;
    size_t room = key != NULL ? strlen(command->caller) + strlen(key) + 2 : 1;
    struct tally_queued *queued = calloc(1, sizeof *queued + room);
    if (queued != NULL && key != NULL)
        (void)snprintf(queued->key, room, "%s\n%s", command->caller, key);
    return queued;
}

enum tally_status tally_command_queue_enter(struct tally_command_queue *queue,
                                            const struct tally_command *command,
                                            int64_t deadline_us, tally_command_done *done,
                                            void *context, struct tally_error *error)
{
    size_t bytes = tally_command_bytes(command);
    if (queue->count >= queue->limits.queue_most ||
        queue->bytes + bytes > queue->limits.queue_bytes)
        return tally_fail(error, TALLY_OVERLOADED, "%zu commands wait already", queue->count);
    struct tally_queued *queued = make_queued(command);
    if (queued == NULL)
        return tally_fail(error, TALLY_NO_MEMORY, "command");
    if (command->idempotency_key != NULL) {
        struct tally_queued *same = NULL;
        size_t length = strlen(queued->key);
        HASH_FIND(by_key, queue->keyed, queued->key, length, same);
        if (same != NULL) {
            free(queued);
            return tally_fail(error, TALLY_KEY_IN_USE, "the first request is still running");
        }
        HASH_ADD_KEYPTR(by_key, queue->keyed, queued->key, length, queued);
        if (queued->by_key.tbl == NULL) {
            free(queued);
            return tally_fail(error, TALLY_NO_MEMORY, "command key");
        }
    }
    queued->command = command;
    queued->done = done;
    queued->context = context;
    queued->deadline_us = deadline_us;
    queued->bytes = bytes;
    DL_APPEND(queue->waiting, queued);
    queue->count++;
    queue->bytes += bytes;
    return TALLY_OK;
}

static struct tally_queued *take_front(struct tally_command_queue *queue)
{
    struct tally_queued *front = queue->waiting;
    DL_DELETE(queue->waiting, front);
    queue->count--;
    queue->bytes -= front->bytes;
    return front;
}

size_t tally_command_queue_take(struct tally_command_queue *queue, struct tally_queued **batch)
{
    size_t count = 0;
    size_t bytes = 0;
    while (queue->waiting != NULL && count < queue->limits.batch_most) {
        if (count > 0 && bytes + queue->waiting->bytes > queue->limits.batch_bytes)
            break;
        bytes += queue->waiting->bytes;
        batch[count++] = take_front(queue);
    }
    return count;
}

void tally_command_queue_put_back(struct tally_command_queue *queue, struct tally_queued *queued)
{
    DL_PREPEND(queue->waiting, queued);
    queue->count++;
    queue->bytes += queued->bytes;
}

struct tally_queued *tally_command_queue_expire(struct tally_command_queue *queue, int64_t now_us)
{
    if (queue->waiting == NULL || queue->waiting->deadline_us > now_us)
        return NULL;
    return take_front(queue);
}

int64_t tally_command_queue_deadline_us(const struct tally_command_queue *queue)
{
    return queue->waiting != NULL ? queue->waiting->deadline_us : INT64_MAX;
}

static void forget_key(struct tally_command_queue *queue, struct tally_queued *queued)
{
    if (queued->key[0] != '\0')
        HASH_DELETE(by_key, queue->keyed, queued);
}

void tally_queued_forget(struct tally_command_queue *queue, struct tally_queued *queued)
{
    forget_key(queue, queued);
    free(queued);
}

void tally_queued_finish(struct tally_command_queue *queue, struct tally_queued *queued,
                         const struct tally_command_outcome *outcome)
{
    forget_key(queue, queued);
    queued->done(outcome, queued->context);
    free(queued);
}
