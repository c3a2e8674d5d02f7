"""Faults of the projector."""
import time

from support.figures import percentile
from support.load import Load
from support.oracle import assert_diff_0, assert_published
from support.scale import scaled
from support.wait import until

KILLS = scaled(50, 3)


def until_more_is_applied(stack, events=1):
    seen = stack.applied()
    until("more events are applied", lambda: stack.applied() >= seen + events, pause_s=0.005)


def test_f1_a_projector_killed_again_and_again_loses_and_doubles_nothing_and_is_soon_back_at_work(own_stack, figures):
    stack = own_stack
    back_s = []
    with Load(stack) as load:
        for _ in range(KILLS):
            load.until_more(scaled(500, 50))
            stack.projector.kill()
            killed = time.monotonic()
            stack.projector.spawn()
            until_more_is_applied(stack)
            back_s.append(time.monotonic() - killed)
    figures.load("F1 load", load.per_second)
    figures.exactly("F1 kills", len(back_s), KILLS)
    figures.time("F1 p95 back at work", percentile(back_s, 95), 5)
    assert_diff_0(figures, "F1", stack, [load])
    log = assert_published(figures, "F1", stack)
    figures.told("F1 events in Kafka", log.records)
