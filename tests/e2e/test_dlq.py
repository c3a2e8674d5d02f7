"""tallyctl dlq: what could not be applied is seen, and stays open until somebody has dealt with it."""
import json

import pytest

from support.kafka import consume, produce
from support.murmur2 import partition_of
from support.stack import PARTITIONS
from support.wait import until

FINE, DIFFERENT, USAGE, FAILED = 0, 1, 2, 3


@pytest.fixture(scope="module")
def stack(make_stack):
    """It has dead letters, so its status is never well: not to be shared."""
    with make_stack("dlq") as made:
        yield made


def dlq(stack, *arguments, check=FINE):
    return json.loads(stack.ctl("dlq", *arguments, "--json", check=check).stdout)


def poison(stack, user, partition=None):
    """Puts an event of an unknown type on the topic; returns its letter."""
    produce(stack.brokers, stack.topic, user, "{}", [
        ("ce_specversion", "1.0"), ("ce_id", f"{user}-2"), ("ce_type", "planet.created"), ("ce_source", "/elsewhere"),
        ("ce_subject", user), ("ce_time", "2026-01-01T00:00:00Z"), ("ce_sequence", "2"), ("ce_timeline", "1")],
        partition_of(user, PARTITIONS) if partition is None else partition)
    return until("the letter is there", lambda: of_user(stack, user))[-1]


def of_user(stack, user):
    found = stack.ctl("dlq", "list", "--done", "--limit", "1000", "--json")
    assert found.returncode in (FINE, DIFFERENT), found
    return [letter for letter in json.loads(found.stdout)["letters"] if letter["user"] == user]


def place(letter):
    return f"{letter['partition']}:{letter['offset']}"


def new_user(stack):
    user = stack.new_user()
    stack.user_at(user, 1)
    return user


def test_a_letter_tells_what_it_is_and_where_it_came_from(stack):
    user = new_user(stack)
    letter = poison(stack, user)
    source = next(record for record in consume(stack.brokers, stack.topic)
                  if record.key == user and record.headers["ce_type"] == "planet.created")
    assert letter["source"] == {"topic": stack.topic, "partition": source.partition, "offset": source.offset}
    assert letter["state"] == "open" and letter["type"] == "planet.created" and letter["version"] == 2
    assert letter["reason"] and 0 <= letter["ageSeconds"] < 600
    shown = dlq(stack, "show", place(letter))
    assert shown["key"] == user and shown["value"] == "{}" and shown["headers"]["ce_id"] == f"{user}-2"
    text = stack.ctl("dlq", "list", check=DIFFERENT).stdout
    assert user in text and "planet.created" in text
    assert stack.projector.metrics()['tally_projector_events_total{outcome="poison"}'] >= 1


def test_an_open_letter_makes_the_status_unwell_and_discarding_it_needs_a_reason_that_is_kept(stack):
    letter = poison(stack, new_user(stack))

    def open_letters(check):
        document = json.loads(stack.ctl("status", "--json", check=check).stdout)
        return next(row for row in document["components"] if row["component"] == "dead-letters")["open"]
    assert open_letters(DIFFERENT) >= 1
    stack.ctl("dlq", "discard", place(letter), check=USAGE)
    assert dlq(stack, "discard", place(letter), "--reason", "sent by a test")["closed"] == 1
    again = dlq(stack, "show", place(letter))
    assert again["state"] == "discarded" and again["closedReason"] == "sent by a test" and again["closedAt"]
    dlq(stack, "discard", "--all", "--reason", "the rest")
    found = dlq(stack, "list")
    assert found["open"] == 0 and found["letters"] == [] and found["done"] >= 1
    assert dlq(stack, "show", place(letter))["closedReason"] == "sent by a test"
    until("the status is well", lambda: open_letters(FINE) == 0)


def test_a_retried_letter_restores_its_user_and_is_done(stack):
    dlq(stack, "discard", "--all", "--reason", "of the tests before")
    user = new_user(stack)
    letter = poison(stack, user)
    other = new_user(stack)
    poison(stack, other)
    for one in (user, other):
        until("the user is degraded", lambda one=one: stack.redis.hash(stack.user_key(one)).get("flagged"))
    assert dlq(stack, "retry", place(letter)) == {"closed": 1, "open": 0, "waiting": []}
    until("the user is whole again", lambda: "degraded" not in stack.read.get(f"/v1/users/{user}").json)
    assert stack.redis.hash(stack.user_key(other))["flagged"] == "1", "only the letter's own user is restored"
    assert of_user(stack, user)[0]["state"] == "retried"
    assert dlq(stack, "retry", "--all")["closed"] == 1
    assert dlq(stack, "list")["open"] == 0
    stack.ctl("verify", check=FINE)


def test_a_record_written_to_the_letters_again_is_the_same_letter_and_stays_done_with_it(stack):
    dlq(stack, "discard", "--all", "--reason", "of the tests before")
    user = new_user(stack)
    letter = poison(stack, user)
    record = next(record for record in consume(stack.brokers, stack.dlq_topic)
                  if (record.partition, record.offset) == (letter["partition"], letter["offset"]))

    def again():
        before = dlq(stack, "list", "--done", "--limit", "0", check=None)["repeats"]
        produce(stack.brokers, stack.dlq_topic, record.key, record.value, record.headers.items(), record.partition)
        until("the repeat is there",
              lambda: dlq(stack, "list", "--limit", "0", check=None)["repeats"] == before + 1)

    def counts():
        found = dlq(stack, "list", check=None)

        def said_by_status():
            document = json.loads(stack.ctl("status", "--json").stdout)
            return next(row for row in document["components"]
                        if row["component"] == "dead-letters" and row["state"] != "down")
        status = until("the status of the letters is known", said_by_status)
        assert (status["open"], status["repeats"]) == (found["open"], found["repeats"])
        return found["open"], len(found["letters"])
    again()
    assert counts() == (1, 1)
    last = f"{record.partition}:{consume(stack.brokers, stack.dlq_topic)[-1].offset}"
    assert dlq(stack, "show", last)["repeatOf"] == place(letter)
    assert dlq(stack, "discard", last, "--reason", "seen")["closed"] == 1
    assert counts() == (0, 0)
    again()
    assert counts() == (0, 0), "a letter that is done came back as open"
    assert dlq(stack, "show", place(letter))["closedReason"] == "seen"


def test_a_letter_whose_key_names_nobody_can_only_be_discarded(stack):
    produce(stack.brokers, stack.topic, "nobody", "{}", [("ce_type", "planet.created")], 0)

    def nobodys():
        return [found for found in dlq(stack, "list", check=DIFFERENT)["letters"] if found["user"] is None]
    letters = until("the letter is there", nobodys)
    # A letter may be written twice; it is of one event all the same.
    assert len({(found["source"]["partition"], found["source"]["offset"]) for found in letters}) == 1, letters
    letter = letters[0]
    assert letter["user"] is None
    assert "discard" in dlq(stack, "retry", place(letter), check=DIFFERENT)["waiting"][0]["waitsFor"]
    dlq(stack, "discard", place(letter), "--reason", "nobody's")
    dlq(stack, "list", check=FINE)


def test_what_is_no_letter_is_said(stack):
    assert stack.ctl("dlq", "show", "0:99999999").returncode == DIFFERENT
    for arguments in ([], ["burn"], ["show"], ["show", "x"], ["retry"], ["retry", "1", "--all"], ["list", "1"],
                      ["discard", "1", "--reason", ""]):
        assert stack.ctl("dlq", *arguments).returncode == USAGE, arguments
    missing = stack.ctl("dlq", "list", TALLY_DLQ_TOPIC=f"{stack.dlq_topic}.missing")
    assert missing.returncode == FAILED and "topics create" in missing.stderr
