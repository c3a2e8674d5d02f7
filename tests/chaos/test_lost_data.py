"""Faults of a Redis that lost what it had been told: its last second, its last thousands of events, everything."""
import os
import random
import shutil
import time

from support import topics
from support.failover import Pair
from support.load import Load
from support.oracle import assert_diff_0, until_equal
from support.readers import Readers, users_of
from support.scale import scaled
from support.stack import Stack
from support.wait import until

FINE = 0
READS_LEAST = 100


def until_more_is_applied(stack, events):
    """Also where Redis goes back meanwhile: counted from the lowest that was seen."""
    seen = until("there is a read model", lambda: [stack.applied()])[0]

    def more():
        nonlocal seen
        now = stack.applied()
        seen = min(seen, now)
        return now >= seen + events
    until(f"{events} more events are applied", more)


def until_read_again(readers):
    """Until so many more reads are answered as say something of what is answered."""
    least = readers.read + READS_LEAST
    until("it is read again", lambda: readers.read > least)


def assert_nothing_wrong(figures, name, readers):
    figures.told(f"{name} reads answered", readers.read)
    figures.told(f"{name} reads by their answers", dict(readers.answers))
    assert readers.read > READS_LEAST, readers.answers
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


def refusals_by(replica):
    """How often it was written to and refused, by its own count. What a replica refuses is no news to the log twice."""
    said = dict(line.split(":", 1) for line in replica.call("INFO", "errorstats").splitlines() if ":" in line)
    return int(said.get("errorstat_READONLY", "count=0").removeprefix("count="))


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
        figures.at_least("F5 refusals of the old primary's writer", refusals_by(pair.replica), 1)
        assert_nothing_wrong(figures, "F5", readers)
        assert_diff_0(figures, "F5", stack, [load])
    finally:
        stack.stop()
        pair.stop()


def flushes_of(redis):
    """By its own count."""
    said = dict(line.split(":", 1) for line in redis.call("INFO", "commandstats").splitlines() if ":" in line)
    return int(said["cmdstat_flushall"].split(",")[0].removeprefix("calls="))


def test_f11_flushall_under_load_shows_no_number_too_low_and_fills_again_from_a_log_that_is_whole(own_stack, figures):
    stack, flushes = own_stack, scaled(10, 3)
    with Load(stack) as load:
        with Readers(stack, users_of(load)) as readers:
            generations = {stack.redis.call("GET", "tally:generation")}
            for _ in range(flushes):
                until_more_is_applied(stack, 100)
                before = stack.redis.call("GET", "tally:generation")
                stack.redis.call("FLUSHALL")
                until("another generation is live",
                      lambda: stack.redis.call("GET", "tally:generation") not in ("", before))
                until("it can be read", lambda: stack.read.get("/v1/stats").status == 200)
                generations.add(stack.redis.call("GET", "tally:generation"))
    figures.load("F11 load", load.per_second)
    figures.exactly("F11 flushes", flushes_of(stack.redis), flushes)
    figures.at_least("F11 generations that were begun anew", len(generations) - 1, flushes)
    figures.time("F11 longest time without a read", readers.unavailable_s, 60)
    assert_nothing_wrong(figures, "F11", readers)
    assert_diff_0(figures, "F11", stack, [load])


def test_f11_flushall_at_every_moment_of_a_generations_beginning_leaves_one_that_is_whole(own_stack, figures):
    stack, flushes, chance = own_stack, scaled(200, 20), random.Random(11)
    with Load(stack) as load:
        with Readers(stack, users_of(load)) as readers:
            until_more_is_applied(stack, 100)
            for _ in range(flushes):
                stack.redis.call("FLUSHALL")
                # From before the projector has noticed to after it has begun another one.
                time.sleep(chance.uniform(0, 0.7))
            until_more_is_applied(stack, 100)
            until_read_again(readers)
    figures.load("F11 flushed while it begins: load", load.per_second)
    figures.exactly("F11 flushes while a generation begins", flushes_of(stack.redis), flushes)
    assert_nothing_wrong(figures, "F11 flushed while it begins:", readers)
    assert stack.projector.runs(), stack.projector.log_tail()
    assert_diff_0(figures, "F11 flushed while it begins", stack, [load])


def test_f11_flushall_where_the_log_is_not_whole_is_mended_by_the_one_command_that_is_named(own_stack, figures):
    stack = own_stack
    with Load(stack) as load:
        with Readers(stack, users_of(load)) as readers:
            until_more_is_applied(stack, scaled(2000, 300))
            # Or it would stop for the records that it has not yet seen.
            stack.projector.pause()
            topics.drop_records(stack)
            stack.redis.call("FLUSHALL")
            stack.projector.resume()
            assert_ends_naming_rebuild(stack, figures, "F11")
            # Nobody knows what is missing: every read says so until the command has been run.
            assert stack.read.get("/v1/stats").status == 503
            load.until_more(100)
            rebuild(stack)
            until_read_again(readers)
            load.until_more(100)
    figures.load("F11 not whole: load", load.per_second)
    assert_nothing_wrong(figures, "F11 not whole", readers)
    assert_diff_0(figures, "F11 not whole", stack, [load])


def test_f11_flushall_after_the_topic_was_made_anew_builds_nothing_from_a_log_without_a_past(own_stack, figures):
    stack = own_stack
    with Load(stack) as load:
        users = users_of(load)
        load.until_more(scaled(2000, 300))
        topics.recreate(stack)
        assert stack.projector.wait() != 0
        rebuild(stack)
        with Readers(stack, users) as readers:
            until_more_is_applied(stack, 100)
            # Its offsets begin at 0, and that is all that tells of a log that is whole.
            stack.redis.call("FLUSHALL")
            assert_ends_naming_rebuild(stack, figures, "F11 log without a past")
            rebuild(stack)
            until_read_again(readers)
            load.until_more(100)
    figures.load("F11 log without a past: load", load.per_second)
    assert_nothing_wrong(figures, "F11 log without a past", readers)
    assert_diff_0(figures, "F11 log without a past", stack, [load])


def assert_ends_naming_rebuild(stack, figures, name):
    assert stack.projector.wait() != 0
    said = stack.projector.failures()[-1]
    figures.told(f"{name}: said", said)
    assert "`tallyctl rebuild`" in said


def rebuild(stack):
    stack.ctl("rebuild", check=FINE, timeout=600)
    stack.projector.start()


def test_users_who_are_evicted_are_flagged_when_they_are_written_and_one_command_restores_them(own_stack, figures):
    stack, evicted = own_stack, scaled(100, 10)
    with Load(stack) as load:
        users = users_of(load, evicted)
        load.until_more(scaled(2000, 300))
        for user in users:
            until("the user is there", lambda user=user: stack.redis.call("DEL", stack.user_key(user)) == "1")
        until("the projector has noticed", lambda: stack.projector.metrics()["tally_projector_lost_users_total"] > 0)
        told = until("it says so", lambda: [line["reason"] for line in stack.projector.log_lines()
                                            if line["event"] == "projector.users_lost"])[0]
        figures.told("one evicted key: said", told)
        assert "`tallyctl repair --all-differing`" in told
        load.until_more(scaled(500, 100))
        stack.ctl("repair", "--all-differing", check=FINE, timeout=600)
        load.until_more(100)
    assert_diff_0(figures, "one evicted key:", stack, [load])


def test_evicted_totals_come_back_by_themselves_and_are_never_shown_too_low(own_stack, figures):
    stack, evicted = own_stack, scaled(100, 20)
    with Load(stack) as load:
        with Readers(stack, users_of(load)) as readers:
            until_more_is_applied(stack, 100)
            generation = stack.redis.call("GET", "tally:generation")
            for number in range(evicted):
                key = f"tally:{generation}:{{{number % stack.partitions}}}:totals"
                stack.redis.call("DEL", key)
                until("the totals are back", lambda key=key: stack.redis.call("EXISTS", key) == "1")
    assert_nothing_wrong(figures, "evicted totals:", readers)
    assert_diff_0(figures, "evicted totals:", stack, [load])


def test_an_evicted_position_ends_the_projector_by_name_and_one_command_mends_it(own_stack, figures):
    stack = own_stack
    with Load(stack) as load:
        with Readers(stack, users_of(load)) as readers:
            until_more_is_applied(stack, 100)
            generation = stack.redis.call("GET", "tally:generation")
            stack.redis.call("DEL", f"tally:{generation}:{{3}}:position")
            assert_ends_naming_rebuild(stack, figures, "evicted position")
            rebuild(stack)
            load.until_more(100)
    assert_nothing_wrong(figures, "evicted position:", readers)
    assert_diff_0(figures, "evicted position:", stack, [load])
