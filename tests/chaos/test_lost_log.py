"""Faults of a Kafka that is no longer the one that the read model was built from: each ends the projector with a
message that names what to run, and running just that mends it."""
import json
import re
import time
from datetime import datetime, timezone

from support import topics
from support.load import Load
from support.oracle import assert_diff_0
from support.scale import scaled
from support.stack import PARTITIONS
from support.wait import until

FINE = 0
NAMED_WITHIN_S = 10
RUN = re.compile(r"`tallyctl ([a-z]+)`")


def test_f14_a_topic_made_anew_is_named_and_mended_by_the_command_that_is_named(own_stack, figures):
    def made_anew(stack):
        began = time.time()
        topics.recreate(stack)
        return began
    stop_and_mend(own_stack, figures, "F14 topic made anew", made_anew)


def test_f14_a_topic_made_anew_and_filled_again_beyond_the_position_is_named_too(own_stack, figures):
    stack = own_stack

    def recreated_and_refilled(stack):
        stack.projector.pause()
        topics.recreate(stack)
        stack.ctl("refill", "--yes", check=FINE)
        stack.ctl("refill", "--yes", check=FINE)
        # Nobody sees it before.
        began = time.time()
        stack.projector.resume()
        return began
    stop_and_mend(stack, figures, "F14 topic made anew and filled", recreated_and_refilled)


def test_f14_a_topic_that_is_gone_is_named_and_mended_once_it_is_there_again(own_stack, figures):
    stack = own_stack
    with Load(stack) as load:
        load.until_more(scaled(2000, 300))
        began = time.time()
        topics.delete(stack)
        said = until_named(stack, figures, "F14 topic gone", began)
        assert "`tallyctl topics create`" in said, said
    stack.make_topics()
    stack.projector.spawn()
    mend(stack, figures, "F14 topic gone, then there", load)


def test_f14_records_that_retention_dropped_before_they_were_applied_are_named_and_mended(own_stack, figures):
    projector = own_stack.projector
    stop_and_mend(own_stack, figures, "F14 retention passed",
                  lambda stack: drop_what_waits(stack, projector.kill, projector.spawn))


def test_f14_records_dropped_under_a_live_projector_that_stands_still_are_named_and_mended(own_stack, figures):
    projector = own_stack.projector
    stop_and_mend(own_stack, figures, "F14 retention passed, live",
                  lambda stack: drop_what_waits(stack, projector.pause, projector.resume))


def drop_what_waits(stack, stop, start):
    stop()
    # More than it may have fetched already.
    seen = published(stack)
    until("events wait to be applied", lambda: published(stack) > seen + 100)
    topics.drop_records(stack)
    # Nobody sees it before.
    began = time.time()
    start()
    return began


def test_f14_added_partitions_are_named_and_mended_under_load_by_the_command_that_is_named(own_stack, figures):
    stack, name = own_stack, "F14 partitions added"
    with Load(stack) as load:
        load.until_more(scaled(2000, 300))
        began = time.time()
        topics.add_partitions(stack, PARTITIONS + 1)
        until_named(stack, figures, name, began)
        run_named(stack)
        stack.projector.start()
        load.until_more(scaled(2000, 100))
    figures.load(f"{name}: load", load.per_second)
    assert_diff_0(figures, name, stack, [load])
    letters = json.loads(stack.ctl("dlq", "list", "--json").stdout)
    figures.exactly(f"{name}: dead letters", letters["open"])


def stop_and_mend(stack, figures, name, fault):
    """`fault` returns when it began."""
    with Load(stack) as load:
        load.until_more(scaled(2000, 300))
        began = fault(stack)
        load.until_more(scaled(500, 50))
        until_named(stack, figures, name, began)
    mend(stack, figures, name, load)


def until_named(stack, figures, name, began):
    """Until the projector has said why it ends, which is returned, and has ended."""
    said = until("the projector names the error", lambda: stack.projector.failures()[-1])
    named = [line["time"] for line in stack.projector.log_lines() if line["event"] == "service.failed"][0]
    named = datetime.strptime(named, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp()
    figures.time(f"{name}: named after", named - began, NAMED_WITHIN_S)
    figures.told(f"{name}: said", said)
    # Later than it is said, where librdkafka hangs on a topic that is gone.
    assert stack.projector.wait() != 0
    return said


def mend(stack, figures, name, load):
    """Runs what the message names, in its order, and nothing else."""
    if stack.projector.runs():
        assert stack.projector.wait() != 0
    run_named(stack)
    stack.projector.start()
    with Load(stack) as after:
        after.until_more(scaled(2000, 100))
    figures.load(f"{name}: load", load.per_second)
    assert_diff_0(figures, name, stack, [load, after])


def run_named(stack):
    """What the projector's last message names, in its order."""
    said = stack.projector.failures()[-1]
    named = RUN.findall(said)
    assert named, said
    for command in named:
        stack.ctl(command, *(["--yes"] if command == "refill" else []), check=FINE, timeout=600)


def published(stack):
    return stack.command.metrics()["tally_relay_published_total"]
