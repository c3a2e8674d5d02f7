#include "store/command_queue.h"

#include <criterion/criterion.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const struct tally_command_queue_limits roomy = {100, 1 << 20, 10, 1 << 20};

static struct tally_command post(int64_t author, const char *body)
{
    return (struct tally_command){
        .kind = TALLY_COMMAND_CREATE_POST, .user_id = author, .body = body};
}

static struct tally_command keyed(const char *caller, const char *key)
{
    struct tally_command command = post(1, "body");
    command.caller = caller;
    command.idempotency_key = key;
    return command;
}

struct seen {
    int calls;
    enum tally_status status;
};

static void on_done(const struct tally_command_outcome *outcome, void *context)
{
    struct seen *seen = context;
    seen->calls++;
    seen->status = outcome->status;
}

static enum tally_status enter(struct tally_command_queue *queue,
                               const struct tally_command *command, int64_t deadline_us,
                               struct seen *seen)
{
    struct tally_error error;
    return tally_command_queue_enter(queue, command, deadline_us, on_done, seen, &error);
}

static void finish(struct tally_command_queue *queue, struct tally_queued *queued,
                   enum tally_status status)
{
    const struct tally_command_outcome outcome = {.status = status};
    tally_queued_finish(queue, queued, &outcome);
}

Test(command_queue, commands_leave_in_the_order_they_came)
{
    struct tally_command_queue queue;
    struct tally_command commands[] = {post(1, "a"), post(2, "b"), post(3, "c")};
    struct tally_queued *batch[10];
    struct seen seen = {0};
    tally_command_queue_init(&queue, &roomy);
    for (size_t i = 0; i < COUNT(commands); i++)
        cr_assert_eq(enter(&queue, &commands[i], 1, &seen), TALLY_OK);
    cr_assert_eq(tally_command_queue_take(&queue, batch), 3);
    for (size_t i = 0; i < COUNT(commands); i++) {
        cr_assert_eq(batch[i]->command, &commands[i]);
        finish(&queue, batch[i], TALLY_OK);
    }
    cr_assert_eq(seen.calls, 3);
    cr_assert_eq(queue.bytes, 0);
    tally_command_queue_release(&queue);
}

Test(command_queue, a_full_queue_refuses_by_count_and_by_bytes)
{
    struct tally_command_queue queue;
    struct tally_command command = post(1, "a");
    struct seen seen = {0};
    struct tally_command_queue_limits limits = roomy;
    limits.queue_most = 2;
    tally_command_queue_init(&queue, &limits);
    cr_assert_eq(enter(&queue, &command, 1, &seen), TALLY_OK);
    cr_assert_eq(enter(&queue, &command, 1, &seen), TALLY_OK);
    cr_assert_eq(enter(&queue, &command, 1, &seen), TALLY_OVERLOADED);
    tally_command_queue_release(&queue);

    limits = roomy;
    limits.queue_bytes = tally_command_bytes(&command) * 3 / 2;
    tally_command_queue_init(&queue, &limits);
    cr_assert_eq(enter(&queue, &command, 1, &seen), TALLY_OK);
    cr_assert_eq(enter(&queue, &command, 1, &seen), TALLY_OVERLOADED);
    cr_assert_eq(seen.calls, 0, "a refusal is the return value, not a callback");
    tally_command_queue_release(&queue);
}

Test(command_queue, a_batch_is_bounded_by_count_and_bytes_but_never_empty)
{
    struct tally_command_queue queue;
    struct tally_command command = post(1, "a body of some length");
    struct tally_queued *batch[10];
    struct seen seen = {0};
    struct tally_command_queue_limits limits = roomy;
    limits.batch_most = 3;
    tally_command_queue_init(&queue, &limits);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(enter(&queue, &command, 1, &seen), TALLY_OK);
    cr_assert_eq(tally_command_queue_take(&queue, batch), 3);
    for (int i = 0; i < 3; i++)
        finish(&queue, batch[i], TALLY_OK);
    cr_assert_eq(tally_command_queue_take(&queue, batch), 1);
    finish(&queue, batch[0], TALLY_OK);
    tally_command_queue_release(&queue);

    limits.batch_bytes = 1;
    tally_command_queue_init(&queue, &limits);
    cr_assert_eq(enter(&queue, &command, 1, &seen), TALLY_OK);
    cr_assert_eq(enter(&queue, &command, 1, &seen), TALLY_OK);
    cr_assert_eq(tally_command_queue_take(&queue, batch), 1);
    finish(&queue, batch[0], TALLY_OK);
    tally_command_queue_release(&queue);
}

Test(command_queue, a_key_is_in_use_from_entry_until_the_outcome_and_belongs_to_its_caller)
{
    struct tally_command_queue queue;
    struct tally_command first = keyed("ada", "k");
    struct tally_command same = keyed("ada", "k");
    struct tally_command of_another = keyed("bob", "k");
    struct tally_queued *batch[10];
    struct seen seen = {0};
    tally_command_queue_init(&queue, &roomy);
    cr_assert_eq(enter(&queue, &first, 1, &seen), TALLY_OK);
    cr_assert_eq(enter(&queue, &same, 1, &seen), TALLY_KEY_IN_USE, "while it waits");
    cr_assert_eq(tally_command_queue_take(&queue, batch), 1);
    cr_assert_eq(enter(&queue, &same, 1, &seen), TALLY_KEY_IN_USE, "while it is in flight");
    cr_assert_eq(enter(&queue, &of_another, 1, &seen), TALLY_OK);
    finish(&queue, batch[0], TALLY_OK);
    cr_assert_eq(enter(&queue, &same, 1, &seen), TALLY_OK, "the database decides from here");
    tally_command_queue_release(&queue);
}

Test(command_queue, what_was_not_sent_goes_back_to_the_front_in_its_order)
{
    struct tally_command_queue queue;
    struct tally_command commands[] = {post(1, "a"), post(2, "b"), post(3, "c")};
    struct tally_queued *batch[10];
    struct seen seen = {0};
    tally_command_queue_init(&queue, &roomy);
    cr_assert_eq(enter(&queue, &commands[0], 1, &seen), TALLY_OK);
    cr_assert_eq(enter(&queue, &commands[1], 1, &seen), TALLY_OK);
    cr_assert_eq(tally_command_queue_take(&queue, batch), 2);
    cr_assert_eq(enter(&queue, &commands[2], 2, &seen), TALLY_OK);
    tally_command_queue_put_back(&queue, batch[1]);
    tally_command_queue_put_back(&queue, batch[0]);
    cr_assert_eq(tally_command_queue_take(&queue, batch), 3);
    for (size_t i = 0; i < COUNT(commands); i++) {
        cr_assert_eq(batch[i]->command, &commands[i]);
        finish(&queue, batch[i], TALLY_OK);
    }
    tally_command_queue_release(&queue);
}

Test(command_queue, a_command_expires_at_its_deadline_and_not_before)
{
    struct tally_command_queue queue;
    struct tally_command command = post(1, "a");
    struct seen seen = {0};
    tally_command_queue_init(&queue, &roomy);
    cr_assert_eq(tally_command_queue_deadline_us(&queue), INT64_MAX);
    cr_assert_eq(enter(&queue, &command, 100, &seen), TALLY_OK);
    cr_assert_eq(enter(&queue, &command, 200, &seen), TALLY_OK);
    cr_assert_eq(tally_command_queue_deadline_us(&queue), 100);
    cr_assert_null(tally_command_queue_expire(&queue, 99));
    struct tally_queued *expired = tally_command_queue_expire(&queue, 100);
    cr_assert_not_null(expired);
    finish(&queue, expired, TALLY_UNAVAILABLE);
    cr_assert_eq(seen.status, TALLY_UNAVAILABLE);
    cr_assert_null(tally_command_queue_expire(&queue, 100));
    cr_assert_eq(queue.count, 1);
    tally_command_queue_release(&queue);
}
