"""tallyctl pause and resume: an operator's halt, which is no failure and is seen everywhere."""
import json

import pytest

from support.kafka import consume
from support.wait import until

FINE, DIFFERENT, USAGE, FAILED = 0, 1, 2, 3
METRIC = {"relay": "tally_relay_paused", "projector": "tally_projector_paused"}


def component(stack, name, check=FINE):
    document = json.loads(stack.ctl("status", "--json", check=check).stdout)
    return next(row for row in document["components"] if row["component"] == name)


def service_of(stack, part):
    return stack.command if part == "relay" else stack.projector


def until_paused(stack, part, value=1):
    until(f"{part} has followed", lambda: service_of(stack, part).metrics()[METRIC[part]] == value)


@pytest.mark.parametrize("part", ["relay", "projector"])
def test_a_pause_holds_back_what_is_written_until_it_ends_and_is_no_failure(own_stack, part):
    stack = own_stack
    user = stack.new_user()
    stack.user_at(user, 1)
    stack.ctl("pause", part, "--reason", "a test of pausing", check=FINE)
    until_paused(stack, part)
    log, applied = len(consume(stack.brokers, stack.topic)), stack.applied()
    for _ in range(20):
        stack.new_post(user)
    until("the status says so", lambda: component(stack, part)["state"] == "paused"
          and component(stack, part)["paused"]["reason"] == "a test of pausing")
    until("it says so in words", lambda: "a test of pausing" in stack.ctl("status", check=FINE).stdout)

    def is_ready():
        ready = service_of(stack, part).look("/readyz?verbose")
        return ready.status == 200 and b"a test of pausing" in ready.body
    until("it is ready, and says why it does nothing", is_ready)
    if part == "relay":
        assert len(consume(stack.brokers, stack.topic)) == log
    else:
        until("the events are in the log", lambda: len(consume(stack.brokers, stack.topic)) == log + 20)
    assert stack.applied() == applied
    assert stack.read.get(f"/v1/users/{user}").json["version"] == 1
    stack.ctl("resume", part, check=FINE)
    stack.user_at(user, 21)
    until_paused(stack, part, 0)
    until("the status says so", lambda: component(stack, part)["paused"] is None)
    stack.until_equal()


@pytest.mark.parametrize("part", ["relay", "projector"])
def test_a_service_that_starts_during_a_pause_is_paused_too(own_stack, part):
    stack = own_stack
    user = stack.new_user()
    stack.user_at(user, 1)
    stack.ctl("pause", part, check=FINE)
    until_paused(stack, part)
    service = service_of(stack, part)
    if part == "projector":
        for _ in range(5):
            stack.new_post(user)
    assert service.terminate() == 0
    service.start()
    until_paused(stack, part)
    applied = stack.applied()
    stack.new_post(user)
    # What holds it back is the pause: it has come as far as it can.
    if part == "projector":
        until("the event is in the log", lambda: len(consume(stack.brokers, stack.topic)) == 1 + 5 + 1)
        until("it is seen", lambda: service.metrics()["tally_projector_lag_seconds"] > 0)
    else:
        until("the event waits", lambda: component(stack, "relay")["backlogEvents"] == 1)
        assert len(consume(stack.brokers, stack.topic)) == 1
    assert stack.applied() == applied and stack.read.get(f"/v1/users/{user}").json["version"] == 1
    stack.ctl("resume", part, check=FINE)
    stack.until_equal()


def test_a_paused_projector_keeps_its_partitions_and_stays_ready_however_long(own_stack):
    stack = own_stack
    user = stack.new_user()
    stack.projector.terminate()
    stack.projector.environment["TALLY_PROJECTOR_STALL_MS"] = "1000"
    stack.projector.start()
    stack.user_at(user, 1)
    restarts = stack.projector.metrics()["tally_projector_consumer_restarts_total"]
    stack.ctl("pause", "projector", check=FINE)
    until_paused(stack, "projector")
    stack.new_post(user)
    until("the lag in seconds shows that it stands", lambda: stack.projector.metrics()["tally_projector_lag_seconds"] > 3)
    assert stack.projector.ready()
    assert stack.projector.metrics()["tally_projector_owned_partitions"] == 8
    assert stack.projector.metrics()["tally_projector_consumer_restarts_total"] == restarts
    stack.ctl("resume", "projector", check=FINE)
    stack.until_equal()


def test_a_paused_relay_can_be_refilled_and_begins_when_it_is_resumed(own_stack):
    stack = own_stack
    user = stack.new_user()
    stack.user_at(user, 1)
    stack.ctl("pause", "relay", check=FINE)
    until_paused(stack, "relay")
    stack.ctl("refill", "--yes", "--wait", "1", check=DIFFERENT)
    stack.ctl("resume", "relay", check=FINE)
    until("it is published twice", lambda: len(consume(stack.brokers, stack.topic)) == 2)
    stack.until_equal()


def test_resuming_what_is_not_paused_does_nothing(stack):
    for part in METRIC:
        stack.ctl("resume", part, check=FINE)
    for arguments in (["pause"], ["pause", "query"], ["resume", "relay", "relay"], ["pause", "relay", "--reason", "x" * 201]):
        assert stack.ctl(*arguments).returncode == USAGE, arguments
