"""Faults of the projector: killed, asleep, many and few."""
import time

from support.figures import percentile
from support.load import Load
from support.oracle import assert_diff_0, assert_published
from support.scale import scaled
from support.stack import PARTITIONS
from support.wait import until

KILLS = scaled(50, 3)
ZOMBIES = scaled(100, 1)
SCALINGS = scaled(30, 2)
# One zombie sleeps as long as GATES.md says; the others until they have been replaced.
LONG_SLEEP_S = scaled(60, 0)
HELD_UP_S = 0.4
ZOMBIE_USERS = scaled(10000, 1500)


def owned(service):
    return int(service.metrics()["tally_projector_owned_partitions"])


def refusals(service):
    return int(service.metrics()["tally_projector_refusals_total"])


def applied_by(service):
    return int(service.metrics()['tally_projector_events_total{outcome="applied"}'])


def until_more_is_applied(stack, events=1):
    seen = stack.applied()
    until("more events are applied", lambda: stack.applied() >= seen + events, pause_s=0.005)


def until_all_share(services):
    """Each has partitions, and together they have all."""
    def shared():
        shares = [owned(service) for service in services]
        assert sum(shares) == PARTITIONS and min(shares) > 0, shares
        return True
    until(f"{len(services)} projectors share the partitions", shared)


def test_f1_a_projector_killed_again_and_again_loses_and_doubles_nothing_and_is_soon_back_at_work(own_stack, figures):
    stack = own_stack
    kills, back_s = 0, []
    with Load(stack) as load:
        for _ in range(KILLS):
            load.until_more(scaled(500, 50))
            kills += stack.projector.kill()
            killed = time.monotonic()
            stack.projector.spawn()
            until_more_is_applied(stack)
            back_s.append(time.monotonic() - killed)
    figures.load("F1 load", load.per_second)
    figures.exactly("F1 kills", kills, KILLS)
    figures.time("F1 p95 back at work", percentile(back_s, 95), 5)
    assert_diff_0(figures, "F1", stack, [load])
    log = assert_published(figures, "F1", stack)
    figures.told("F1 events in Kafka", log.records)


def sleep_through_a_replacement(stack, sleeper, other, seconds):
    """How many writes of the sleeper were refused when it woke."""
    until_all_share([sleeper, other])
    before = refusals(sleeper)
    applied = applied_by(sleeper)
    until("the sleeper is at work", lambda: applied_by(sleeper) >= applied + 10, pause_s=0.005)
    # It takes an event, asks the stopped Redis for the user, and so falls asleep with the event in its hands.
    stack.redis.pause()
    time.sleep(HELD_UP_S)
    sleeper.pause()
    stack.redis.resume()
    asleep = time.monotonic()
    until("the other owns all partitions", lambda: owned(other) == PARTITIONS)
    until_more_is_applied(stack, scaled(500, 50))
    # The promise is about a sleep of this length; there is nothing else to wait for.
    time.sleep(max(0, seconds - (time.monotonic() - asleep)))
    sleeper.resume()
    until_all_share([sleeper, other])
    return refusals(sleeper) - before


def test_f9_a_projector_that_slept_through_its_replacement_is_refused_and_counts_nothing_twice(own_stack, figures):
    stack = own_stack
    other = stack.projector
    # Event by event, each of a user whom it has hardly ever met since it owns the partition.
    sleeper = stack.add("projector", TALLY_PROJECTOR_BATCH_EVENTS="1", TALLY_PROJECTOR_CACHE_USERS="1000").start()
    refused = []
    with Load(stack, users=ZOMBIE_USERS, more=("--distribution", "uniform")) as load:
        # A sleeper that had nothing in its hands has nothing to be refused: such a round is run again.
        for number in range(4 * ZOMBIES + 4):
            seconds = LONG_SLEEP_S if not refused else 0
            count = sleep_through_a_replacement(stack, sleeper, other, seconds)
            if count > 0:
                refused.append(count)
            if len(refused) == ZOMBIES:
                break
    figures.load("F9 load", load.per_second)
    figures.exactly("F9 zombies that were refused", len(refused), ZOMBIES)
    figures.told("F9 rounds without anything to refuse", number + 1 - len(refused))
    figures.told("F9 writes that were refused", sum(refused))
    assert '"projector.refused"' in sleeper.log_text(), "the log does not say that it was refused"
    assert_diff_0(figures, "F9", stack, [load])
    assert_published(figures, "F9", stack)


def test_f10_projectors_that_come_and_go_lose_and_double_nothing(own_stack, figures):
    stack = own_stack
    others = [stack.add("projector") for _ in range(3)]
    scaled_up, in_order, killed = 0, 0, 0
    with Load(stack) as load:
        for number in range(SCALINGS):
            for service in others:
                service.spawn()
            until_all_share([stack.projector, *others])
            scaled_up += 1
            until_more_is_applied(stack, scaled(500, 50))
            for service in others:
                # Gone in order or by surprise, in turns.
                if number % 2:
                    killed += service.kill()
                else:
                    assert service.terminate() == 0, service.log_tail()
                    in_order += 1
            until("the first owns all partitions", lambda: owned(stack.projector) == PARTITIONS)
            until_more_is_applied(stack, scaled(500, 50))
    figures.load("F10 load", load.per_second)
    figures.exactly("F10 times 1 to 4 to 1 projectors", scaled_up, SCALINGS)
    figures.exactly("F10 projectors that ended in order", in_order, len(others) * (SCALINGS - SCALINGS // 2))
    figures.exactly("F10 projectors that were killed", killed, len(others) * (SCALINGS // 2))
    assert_diff_0(figures, "F10", stack, [load])
    assert_published(figures, "F10", stack)
