"""What the projector makes of events as they should not come: twice, with a hole, too late, unreadable.

The events are put on the topic by another producer, in the event contract's own form.
"""
import json

import pytest

from support.api import assert_problem, assert_success
from support.kafka import consume, produce
from support.murmur2 import partition_of
from support.stack import PARTITIONS
from support.wait import until


@pytest.fixture(scope="module")
def stack(make_stack):
    """Its read model differs from its write model at the end: not to be shared."""
    with make_stack("projection") as made:
        yield made


def say(stack, user, version, kind, value, timeline=None):
    timeline = timeline or stack.sql("SELECT timeline_id FROM pg_control_checkpoint()")[0][0]
    produce(stack.brokers, stack.topic, user, None if value is None else json.dumps(value), [
        ("ce_specversion", "1.0"), ("ce_id", f"{user}-{version}"), ("ce_type", kind), ("ce_source", "/elsewhere"),
        ("ce_subject", user), ("ce_time", "2026-01-01T00:00:00Z"), ("ce_sequence", str(version)),
        ("ce_timeline", str(timeline)), ("content-type", "application/json")], partition_of(user, PARTITIONS))


def until_all_is_applied(stack):
    records = len(consume(stack.brokers, stack.topic))
    until(f"all {records} records are applied", lambda: stack.applied() >= records)


def shown(stack, user):
    answer = stack.read.get(f"/v1/users/{user}")
    assert answer.status == 200, answer
    document = answer.json
    return document["version"], document["postCount"], document["commentCount"], document.get("degraded", False)


def test_an_event_that_comes_again_changes_nothing(stack):
    user = stack.new_user()
    post = stack.new_post(user)
    stack.new_comment(post, user)
    stack.user_at(user, 3)
    for _ in range(3):
        say(stack, user, 2, "post.created", {"postId": post})
        say(stack, user, 3, "comment.created", {"commentId": "77", "postId": post})
        say(stack, user, 1, "user.created", {"name": "Old", "email": "old@example.org", "avatar": None})
    until_all_is_applied(stack)
    assert shown(stack, user) == (3, 1, 1, False)
    assert stack.read.get(f"/v1/users/{user}").json["user"]["name"] != "Old"
    stack.ctl("verify", check=0)


def test_a_late_event_does_not_bring_a_deleted_user_back(stack):
    user = stack.new_user()
    stack.new_post(user)
    assert_success(stack.write.delete(f"/v1/users/{user}"), 202)
    stack.until_equal()
    say(stack, user, 1, "user.created", {"name": "Ghost", "email": "ghost@example.org", "avatar": None})
    say(stack, user, 2, "post.created", {"postId": "77"})
    until_all_is_applied(stack)
    assert_problem(stack.read.get(f"/v1/users/{user}"), 404, "user-not-found")
    assert "Ghost" not in json.dumps(stack.redis.hash(stack.user_key(user)))
    stack.until_equal()


def test_a_missing_event_degrades_its_user_whose_later_events_still_count(stack):
    user = stack.new_user()
    stack.user_at(user, 1)
    say(stack, user, 3, "post.created", {"postId": "77"})
    until_all_is_applied(stack)
    assert shown(stack, user) == (3, 1, 0, True)


def test_a_version_given_out_twice_on_another_timeline_degrades_its_user(stack):
    user = stack.new_user()
    post = stack.new_post(user)
    stack.user_at(user, 2)
    timeline = int(stack.sql("SELECT timeline_id FROM pg_control_checkpoint()")[0][0])
    say(stack, user, 2, "comment.created", {"commentId": "77", "postId": post}, timeline + 1)
    until("the user is degraded", lambda: shown(stack, user)[3])


@pytest.mark.parametrize("what, kind, value", [
    ("an unknown type", "planet.created", "{}"), ("a profile that is no JSON", "user.updated", "no json {"),
    ("a profile without a name", "user.updated", '{"email":"a@example.org","avatar":null}')])
def test_an_event_that_cannot_be_read_is_put_aside_and_its_partition_goes_on(stack, what, kind, value):
    user = stack.new_user()
    neighbour = stack.new_user()
    while partition_of(neighbour, PARTITIONS) != partition_of(user, PARTITIONS):
        neighbour = stack.new_user()
    stack.user_at(user, 1)
    produce(stack.brokers, stack.topic, user, value, [
        ("ce_specversion", "1.0"), ("ce_id", f"{user}-2"), ("ce_type", kind), ("ce_source", "/elsewhere"),
        ("ce_subject", user), ("ce_time", "2026-01-01T00:00:00Z"), ("ce_sequence", "2"), ("ce_timeline", "1"),
        ("content-type", "application/json")], partition_of(user, PARTITIONS))

    until("the user is degraded", lambda: shown(stack, user)[3])
    version = assert_success(stack.write.post("/v1/posts", {"authorId": neighbour, "body": "A post"}), 201)["version"]
    assert "degraded" not in stack.user_at(neighbour, version).json
    letter = consume(stack.brokers, stack.dlq_topic)
    letter = [record for record in letter if record.key == user]
    assert len(letter) == 1 and letter[0].value == value
    headers = letter[0].headers
    assert headers["ce_type"] == kind and headers["ce_sequence"] == "2"
    added = {name: text for name, text in headers.items() if not name.startswith("ce_") and name != "content-type"}
    position = next(str(record.offset) for record in consume(stack.brokers, stack.topic)
                    if record.key == user and record.headers["ce_source"] == "/elsewhere")
    assert position in added.values() and stack.topic in added.values(), added
    assert any("reason" in name and text for name, text in added.items()), added
