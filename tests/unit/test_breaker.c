#include "core/breaker.h"

#include <criterion/criterion.h>
#include <stdint.h>

enum { MS = 1000, PATIENCE_MS = 750, PATIENCE_MOST_MS = 5000 };

static const struct tally_error refused = {TALLY_UNAVAILABLE, "connection refused"};

static struct tally_breaker breaker;
static struct tally_breaker_sight sight;

static void start(void)
{
    tally_breaker_init(&breaker, PATIENCE_MS, PATIENCE_MOST_MS);
    sight = (struct tally_breaker_sight){.connected = true, .asked_us = INT64_MAX, .heard_us = 1};
}

TestSuite(breaker, .init = start);

static bool look(int64_t now_ms)
{
    return tally_breaker_look(&breaker, &sight, now_ms * MS);
}

static void ask(int64_t now_ms)
{
    sight.asked_us = now_ms * MS;
}

static void hear(int64_t now_ms)
{
    sight.heard_us = now_ms * MS;
}

Test(breaker, a_server_that_is_not_asked_may_be_silent)
{
    cr_expect_not(look(1000000));
    cr_expect_not(tally_breaker_refuses(&breaker));
}

Test(breaker, silence_with_an_answer_due_opens_it_at_the_patience_and_not_before)
{
    ask(10000);
    cr_expect_not(look(10000 + PATIENCE_MS - 1));
    cr_assert(look(10000 + PATIENCE_MS));
    cr_expect_eq(breaker.state, TALLY_BREAKER_OPEN);
    cr_expect_eq(breaker.opened, 1);
    cr_expect_eq(breaker.cause.status, TALLY_UNAVAILABLE);
    cr_expect_str_eq(breaker.cause.text, "nothing was heard for 750 ms with an answer due");
}

Test(breaker, a_slow_statement_beside_which_probes_are_answered_does_not_open_it)
{
    ask(10000);
    for (int64_t now_ms = 10000; now_ms < 70000; now_ms += 250) {
        hear(now_ms);
        cr_assert_not(look(now_ms + 249));
    }
    cr_expect_not(tally_breaker_refuses(&breaker));
}

Test(breaker, a_server_that_refuses_connections_opens_it_at_once_with_its_cause)
{
    sight.connected = false;
    sight.failure = &refused;
    cr_assert(look(10000));
    cr_expect_eq(breaker.state, TALLY_BREAKER_OPEN);
    cr_expect_str_eq(breaker.cause.text, refused.text);
}

Test(breaker, a_connection_that_is_only_being_made_does_not_open_it)
{
    sight.connected = false;
    sight.trying = true;
    ask(10000);
    cr_expect_not(look(10000 + PATIENCE_MS - 1));
    cr_expect_not(tally_breaker_refuses(&breaker));
}

Test(breaker, an_attempt_makes_it_half_open_which_still_refuses_and_is_no_news)
{
    ask(10000);
    look(11000);
    sight.trying = true;
    cr_expect_not(look(11100));
    cr_expect_eq(breaker.state, TALLY_BREAKER_HALF_OPEN);
    cr_expect(tally_breaker_refuses(&breaker));
    sight.trying = false;
    cr_expect_not(look(11200));
    cr_expect_eq(breaker.state, TALLY_BREAKER_OPEN);
    cr_expect_eq(breaker.opened, 1);
}

Test(breaker, what_was_heard_before_it_opened_does_not_close_it)
{
    ask(10000);
    hear(10100);
    cr_assert(look(10100 + PATIENCE_MS));
    sight.asked_us = INT64_MAX;
    cr_expect_not(look(20000));
    cr_expect(tally_breaker_refuses(&breaker));
}

Test(breaker, the_first_answer_closes_it_although_older_questions_still_wait)
{
    ask(10000);
    look(11000);
    hear(12000);
    cr_assert(look(12000));
    cr_expect_eq(breaker.state, TALLY_BREAKER_CLOSED);
    cr_expect_eq(breaker.cause.status, TALLY_OK);
    cr_expect_eq(breaker.opened, 1);
}

Test(breaker, an_answer_without_a_connection_to_send_on_does_not_close_it)
{
    sight.connected = false;
    sight.failure = &refused;
    look(10000);
    hear(10500);
    cr_expect_not(look(10500));
    cr_expect(tally_breaker_refuses(&breaker));
}

Test(breaker, a_slow_link_is_given_twice_the_time_of_its_last_probe_and_a_quick_one_no_more)
{
    tally_breaker_measured(&breaker, 2000 * MS);
    ask(10000);
    cr_expect_not(look(13999));
    cr_assert(look(14000));
    hear(14100);
    look(14100);
    tally_breaker_measured(&breaker, 1 * MS);
    cr_expect_not(look(14100 + PATIENCE_MS - 1));
    cr_assert(look(14100 + PATIENCE_MS));
    cr_expect_eq(breaker.opened, 2);
}

Test(breaker, the_patience_never_outgrows_its_bound)
{
    tally_breaker_measured(&breaker, INT64_C(60000) * MS);
    ask(10000);
    cr_expect_not(look(10000 + PATIENCE_MOST_MS - 1));
    cr_assert(look(10000 + PATIENCE_MOST_MS));
}
