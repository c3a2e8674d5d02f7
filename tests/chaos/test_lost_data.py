"""Faults of a Redis that lost what it had been told: its last second, its last thousands of events, everything."""
import json
import os
import shutil
import time

from support.failover import Pair
from support.load import Load
from support.oracle import assert_diff_0, until_equal
from support.readers import Readers
from support.scale import scaled
from support.stack import Stack
from support.wait import until

FINE = 0


def users_of(load, most=200):
    """Users that the load has made."""
    found = []
    for entry in load.ledger():
        if entry.kind == "user" and entry.user not in found:
            found.append(entry.user)
        if len(found) == most:
            break
    return found


def until_more_is_applied(stack, events):
    """Also where Redis goes back meanwhile: counted from the lowest that was seen."""
    seen = stack.applied()

    def more():
        nonlocal seen
        now = stack.applied()
        seen = min(seen, now)
        return now >= seen + events
    until(f"{events} more events are applied", more)


def assert_nothing_wrong(figures, name, readers):
    figures.told(f"{name} reads answered", readers.read)
    figures.told(f"{name} reads refused", dict(readers.answers))
    assert readers.read > 100, readers.answers
    assert not readers.wrong, (len(readers.wrong), readers.wrong[:5])
    figures.exactly(f"{name} reads silently too low, or of a user said not to exist", len(readers.wrong))


def power_cut(stack, folder):
    """Redis as it was found on the disk a second ago: its process is gone, and with it what the disk had not got."""
    copy = os.path.join(stack.folder, "a-second-ago")
    shutil.rmtree(copy, ignore_errors=True)
    before = stack.applied()
    shutil.copytree(os.path.join(stack.redis.data, folder), copy)
    time.sleep(1)
    at_least = stack.applied()
    stack.redis.kill()
    shutil.rmtree(os.path.join(stack.redis.data, folder))
    shutil.move(copy, os.path.join(stack.redis.data, folder))
    stack.redis.start()
    return at_least - before


def test_f4_a_redis_killed_again_and_again_without_its_last_second_converges_untouched_by_hand(own_stack, figures):
    stack, kills, lost = own_stack, scaled(20, 3), []
    with Load(stack) as load:
        with Readers(stack, users_of(load)) as readers:
            for _ in range(kills):
                until_more_is_applied(stack, scaled(500, 100))
                lost.append(power_cut(stack, "appendonlydir"))
            until_more_is_applied(stack, 100)
    figures.load("F4 load", load.per_second)
    figures.exactly("F4 kills of Redis, each without its last second", len(lost), kills)
    figures.at_least("F4 events that Redis forgot", sum(lost), kills)
    assert_nothing_wrong(figures, "F4", readers)
    began = time.monotonic()
    until_equal(stack)
    figures.time("F4 from the end of the load to diff 0", time.monotonic() - began, 30)
    assert_diff_0(figures, "F4", stack, [load])


def test_f5_a_failover_to_a_replica_far_behind_converges_and_the_old_primarys_writer_is_refused(log_folder, figures):
    behind = scaled(5000, 1000)
    stack = Stack(os.path.join(log_folder, "f5"))
    pair = Pair(stack)
    try:
        pair.start()
        stack.redis.start = lambda: None  # it runs
        stack.start()
        del stack.redis.start
        with Load(stack) as load:
            with Readers(stack, users_of(load)) as readers:
                until_more_is_applied(stack, 100)
                pair.cut()
                position = stack.applied()
                until(f"the replica is {behind} events behind", lambda: stack.applied() >= position + behind, 120)
                connected = stack.projector.metrics()["tally_projector_redis_connects_total"]
                lost = stack.applied() - position
                pair.fail_over(stack)
                # It was never cut off from the old primary: only that one's refusal makes it look for the new one.
                until("the projector has found the new primary",
                      lambda: stack.projector.metrics()["tally_projector_redis_connects_total"] > connected)
                until_more_is_applied(stack, lost + 100)
        figures.load("F5 load", load.per_second)
        figures.at_least("F5 events that the replica was behind", lost, behind)
        refused = [line for line in stack.projector.log_lines()
                   if line["event"] == "projector.redis_lost" and "READONLY" in line["reason"]]
        figures.at_least("F5 refusals of the old primary's writer", len(refused), 1)
        assert_nothing_wrong(figures, "F5", readers)
        assert_diff_0(figures, "F5", stack, [load])
    finally:
        stack.stop()
        pair.stop()


def test_f11_flushall_under_load_shows_no_number_too_low_and_fills_again_from_a_log_that_is_whole(own_stack, figures):
    stack, flushes = own_stack, scaled(10, 3)
    with Load(stack) as load:
        with Readers(stack, users_of(load)) as readers:
            for _ in range(flushes):
                until_more_is_applied(stack, 100)
                before = stack.redis.call("GET", "tally:generation")
                stack.redis.call("FLUSHALL")
                until("another generation is live", lambda: stack.redis.call("GET", "tally:generation") not in ("", before))
                until("it can be read", lambda: stack.read.get("/v1/stats").status == 200)
    figures.load("F11 load", load.per_second)
    figures.exactly("F11 flushes", flushes, flushes)
    figures.time("F11 longest time without a read", readers.unavailable_s, 60)
    assert_nothing_wrong(figures, "F11", readers)
    assert_diff_0(figures, "F11", stack, [load])
