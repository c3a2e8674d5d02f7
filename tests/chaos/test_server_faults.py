"""Faults of PostgreSQL and Kafka."""
import time

from support.load import RATE_S, Load
from support.oracle import assert_diff_0, assert_published
from support.scale import scaled
from support.wait import until

STOPS = scaled(20, 2)
KILLS = scaled(20, 1)  # a broker takes its time to come back
APART = scaled(2000, 100)
WHILE_AWAY = scaled(500, 50)


def published(stack):
    return stack.command.metrics()["tally_relay_published_total"]


def test_f7_a_postgresql_stopped_at_once_again_and_again_keeps_every_acknowledged_write(own_stack, figures, postgres):
    stack, apart = own_stack, scaled(8000, 200)
    # Without PostgreSQL no write is acknowledged: the rate is so much higher, and the stops so far apart, that the mean
    # of all keeps the limit.
    with Load(stack, rate_s=RATE_S * 3 // 2) as load:
        pids = {postgres.pid()}
        for _ in range(STOPS):
            load.until_more(apart)
            postgres.stop_immediately()
            postgres.start()
            pids.add(postgres.pid())
        load.until_more(apart)
    figures.load("F7 load", load.per_second)
    figures.exactly("F7 immediate stops of PostgreSQL", len(pids) - 1, STOPS)
    assert_diff_0(figures, "F7", stack, [load])
    assert_published(figures, "F7", stack)


def test_f8_a_kafka_killed_again_and_again_loses_nothing_and_publishing_soon_resumes(own_stack, figures, kafka_server):
    stack = own_stack
    resumed_s = []
    with Load(stack) as load:
        for _ in range(KILLS):
            load.until_more(APART)
            kafka_server.kill()
            load.until_more(WHILE_AWAY)
            before = published(stack)
            started = time.monotonic()
            kafka_server.start()
            until("publishing resumes", lambda: published(stack) > before, 150)
            resumed_s.append(time.monotonic() - started)
        load.until_more(APART)
    figures.load("F8 load", load.per_second)
    figures.exactly("F8 kills of Kafka", len(resumed_s), KILLS)
    # Kafka's own start is in it.
    figures.time("F8 longest from the start of Kafka until publishing resumed", max(resumed_s), 15)
    assert_diff_0(figures, "F8", stack, [load])
    assert_published(figures, "F8", stack)
