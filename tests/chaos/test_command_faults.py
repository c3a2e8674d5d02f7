"""Faults of tally-command: of the write API and of the relay in it."""
from collections import Counter

from support.api import NO_ANSWER, Client
from support.load import Load
from support.oracle import assert_diff_0, assert_published
from support.relay import HeldPosition
from support.repeating import Repeating
from support.scale import scaled
from support.wait import until

KILLS = scaled(50, 3)
RESTARTS = scaled(30, 2)
APART = scaled(500, 50)
# Nobody listened any more, or the connection ended before an answer: of the latter there must be none.
RETRIED_RIGHTLY = {"unavailable", "input-output"}


def test_f2_a_command_service_killed_again_and_again_keeps_every_acknowledged_write_once(own_stack, figures):
    stack = own_stack
    with Load(stack) as load:
        kills = 0
        for _ in range(KILLS):
            load.until_more(APART)
            kills += stack.command.kill()
            stack.command.start()
        load.until_more(APART)
    figures.load("F2 load", load.per_second)
    figures.exactly("F2 kills", kills, KILLS)
    figures.at_least("F2 attempts repeated with the same key", load.report["retries"], KILLS)
    assert_diff_0(figures, "F2", stack, [load])
    assert_published(figures, "F2", stack)


def test_f3_a_relay_killed_between_acknowledgement_and_position_repeats_and_loses_nothing(own_stack, figures):
    stack = own_stack
    with Load(stack) as load:
        kills = 0
        for _ in range(KILLS):
            load.until_more(APART)
            with HeldPosition(stack) as position:
                position.until_relay_waits()
                kills += stack.command.kill()
                position.drop_what_waits()
            stack.command.start()
        load.until_more(APART)
    figures.load("F3 load", load.per_second)
    figures.exactly("F3 kills", kills, KILLS)
    assert_diff_0(figures, "F3", stack, [load])
    log = assert_published(figures, "F3", stack)
    figures.at_least("F3 events that are in Kafka twice", log.duplicates, KILLS)
    until("the whole log is applied", lambda: stack.applied() >= log.records)

    def counted():
        return int(stack.projector.metrics()['tally_projector_events_total{outcome="duplicate"}'])
    until("every repeat is counted", lambda: counted() >= log.duplicates)
    # Or more: what the projector reads twice is a repeat to it as well.
    figures.at_least("F3 repeats counted by the projector", counted(), log.duplicates)


class Reader(Repeating):
    """Reads these users all the time through whichever of two services answers, as a proxy in front would."""

    def __init__(self, services, users):
        self.reads = 0
        self.failed = []
        self.turned = 0
        self.cut_off = []
        self._clients = [Client(service.api) for service in services]
        self._users = users
        self._at = 0
        # A pause, so that the load has its share of the machine.
        super().__init__(self._read, pause_s=0.002)

    def _read(self):
        path = f"/v1/users/{self._users[self.reads % len(self._users)]}"
        try:
            answer = self._clients[self._at].get(path)
        except NO_ANSWER as error:
            # Nobody listened: sent to the other one, as a proxy does. Whoever was listened to is to be answered.
            if not isinstance(error, ConnectionRefusedError):
                self.cut_off.append(error)
            self._at = 1 - self._at
            self.turned += 1
            try:
                answer = self._clients[self._at].get(path)
            except NO_ANSWER as error:
                answer = error
        self.reads += 1
        if getattr(answer, "status", 0) != 200:
            self.failed.append(answer)


def restart(service):
    """How often it was, once: whether another process is at work."""
    before = service.pid
    # Its code is 0 only where all that had begun was answered.
    assert service.terminate() == 0, service.log_tail()
    service.start()
    return service.pid != before


def test_f18_rolling_restarts_of_both_apis_under_load_fail_no_request(own_stack, figures):
    stack = own_stack
    commands = [stack.command, stack.add("command").start()]
    queries = [stack.query, stack.add("query").start()]
    with Load(stack, more=["--also", commands[1].api]) as load:
        users = [str(entry.id) for entry in load.ledger() if entry.kind == "user"][:50]
        until("every user is read", lambda: len(stack.read_model(users)) == len(users))
        with Reader(queries, users) as first, Reader(queries[::-1], users) as second:
            restarts = Counter()
            for _ in range(RESTARTS):
                # A rolling restart is one of each instance, one after the other.
                for service in [service for both in zip(commands, queries) for service in both]:
                    load.until_more(APART)
                    restarts[service.name] += restart(service)
            load.until_more(APART)
    figures.load("F18 load", load.per_second)
    for kind, both in (("write", commands), ("read", queries)):
        figures.exactly(f"F18 rolling restarts of the {kind} API", min(restarts[service.name] for service in both), RESTARTS)
    # "failed" is 0 or the load would have complained; here, that no repeat was asked for by an answer.
    refused = {cause: count for cause, count in load.report["retryCauses"].items() if cause not in RETRIED_RIGHTLY}
    assert not refused, refused
    figures.exactly("F18 writes that failed", load.report["failed"] + sum(refused.values()))
    assert not first.failed + second.failed, (first.failed + second.failed)[:3]
    figures.exactly("F18 reads that failed", len(first.failed + second.failed))
    figures.told("F18 reads", first.reads + second.reads)
    figures.told("F18 writes that found nobody listening, sent to the other instance",
                 load.report["retryCauses"].get("unavailable", 0))
    figures.exactly("F18 writes whose connection ended under them",
                    load.report["retryCauses"].get("input-output", 0))
    figures.told("F18 reads that found nobody listening, sent to the other instance", first.turned + second.turned)
    cut_off = first.cut_off + second.cut_off
    assert not cut_off, cut_off[:3]
    figures.exactly("F18 reads whose connection ended under them", len(cut_off))
    assert_diff_0(figures, "F18", stack, [load])
