"""tallyctl explain: the events that make up a user's number, and where each of them stands."""
import json

import pytest

from support.api import assert_success
from support.kafka import consume, produce
from support.murmur2 import partition_of
from support.stack import PARTITIONS
from support.wait import until
from support.writers import Writers

FINE, DIFFERENT, USAGE, FAILED = 0, 1, 2, 3


def explain(stack, user, *more, check=FINE):
    return json.loads(stack.ctl("explain", user, "--json", *more, check=check).stdout)


def busy_user(stack):
    """A user with 3 posts and 1 comment after 8 events."""
    user = stack.new_user()
    posts = [stack.new_post(user) for _ in range(4)]
    stack.new_comment(posts[0], user)
    comment = stack.new_comment(posts[0], user)
    assert_success(stack.write.delete(f"/v1/comments/{comment}"), 200)
    assert_success(stack.write.delete(f"/v1/posts/{posts[3]}"), 200)
    stack.user_at(user, 9)
    return user


def test_the_events_add_up_to_the_number_and_each_stands_in_the_log_where_explain_says(stack):
    user = busy_user(stack)
    found = explain(stack, user)
    assert found["explained"] and found["kafka"]["complete"], found
    events = found["events"]
    assert [event["version"] for event in events] == list(range(1, 10))
    assert sum(event["posts"] for event in events) == found["readModel"]["posts"] == 3
    assert sum(event["comments"] for event in events) == found["readModel"]["comments"] == 1
    assert all(event["published"] and event["applied"] for event in events)
    records = {(record.partition, record.offset): record for record in consume(stack.brokers, stack.topic)}
    for event in events:
        assert event["kafka"]["copies"] == len(event["kafka"]["offsets"]) == 1
        record = records[event["kafka"]["partition"], event["kafka"]["offsets"][0]]
        assert record.key == user and record.headers["ce_id"] == f"{user}-{event['version']}"
    text = stack.ctl("explain", user, check=FINE).stdout
    assert "version 9 of 9" in text and "post.deleted" in text, text


def test_an_event_that_is_twice_in_the_log_is_shown_with_both_places(stack):
    user = busy_user(stack)
    record = next(record for record in consume(stack.brokers, stack.topic)
                  if record.key == user and record.headers["ce_sequence"] == "2")
    produce(stack.brokers, stack.topic, user, record.value, record.headers.items(), record.partition)
    event = explain(stack, user)["events"][1]
    assert event["kafka"]["copies"] == 2 and len(event["kafka"]["offsets"]) == 2
    assert "and 1 more" in stack.ctl("explain", user, check=FINE).stdout


def test_a_read_model_that_stands_still_is_explained_by_what_has_not_arrived(own_stack):
    stack = own_stack
    user = busy_user(stack)
    stack.projector.terminate()
    for _ in range(2):
        stack.new_post(user)

    def published():
        found = explain(stack, user)
        return "version 9 of 11: versions 10-11 are published and not applied yet" in found["verdict"] and found
    found = until("the relay has published", published)
    assert [event["applied"] for event in found["events"]] == [True] * 9 + [False] * 2
    stack.projector.start()
    stack.until_equal()
    assert "version 11 of 11" in explain(stack, user)["verdict"]


def test_a_number_that_is_not_the_sum_of_its_events_ends_with_1(stack):
    user = busy_user(stack)
    key = stack.user_key(user)
    for field in ("posts", "comments"):
        right = stack.redis.hash(key)[field]
        stack.redis.call("HSET", key, field, str(int(right) + 1))
        found = explain(stack, user, check=DIFFERENT)
        assert not found["explained"] and "add up to" in found["verdict"]
        stack.redis.call("HSET", key, field, right)
    explain(stack, user)


def test_events_past_their_retention_are_told_and_the_sum_starts_after_them(stack):
    user = busy_user(stack)
    stack.sql(f"DELETE FROM events WHERE user_id = {user} AND version <= 4")
    found = explain(stack, user)
    assert found["sum"] == {"fromVersion": 5, "basePosts": 3, "baseComments": 0, "posts": 3, "comments": 1}
    assert [event["version"] for event in found["events"]] == [5, 6, 7, 8, 9]
    assert "known from version 5 on" in stack.ctl("explain", user, check=FINE).stdout
    stack.sql(f"DELETE FROM events WHERE user_id = {user} AND version = 7")
    assert "hole" in explain(stack, user, check=DIFFERENT)["verdict"]
    stack.sql(f"DELETE FROM events WHERE user_id = {user}")
    assert "No event of the user is kept" in stack.ctl("explain", user, check=FINE).stdout


def test_a_deleted_user_and_one_that_never_was(stack):
    user = busy_user(stack)
    assert_success(stack.write.delete(f"/v1/users/{user}"), 202)
    until("the deletion is applied", lambda: explain(stack, user)["readModel"]["deleted"])
    assert "was deleted by version 10" in explain(stack, user)["verdict"]
    assert "there is no user" in stack.ctl("explain", "1234567", check=DIFFERENT).stdout


def test_for_every_user_the_sum_of_the_deltas_is_the_count_shown_also_while_they_write(own_stack):
    stack = own_stack
    stack.ctl("load", "--users", "500", "--commands", "5000", "--connections", "16", "--mix",
              "post=40,comment=40,delete-post=10,delete-comment=10", check=FINE)
    found = json.loads(stack.ctl("explain", "--sample", "10000", "--json", check=FINE).stdout)
    assert found["usersExplained"] == found["usersSampled"] == 500, found
    with Writers([stack.command.api], [row[0] for row in stack.sql("SELECT id FROM users")]) as writers:
        until("100 writes are acknowledged", lambda: writers.reached(100))
        found = json.loads(stack.ctl("explain", "--sample", "10000", "--json", check=FINE).stdout)
        seen = writers.acknowledged
        until("100 more writes are acknowledged", lambda: writers.reached(seen + 100))
    assert found["usersExplained"] == found["usersSampled"] == 500, found
    user = stack.sql("SELECT id FROM users ORDER BY version DESC LIMIT 1")[0][0]
    stack.until_equal()
    stack.redis.call("HINCRBY", stack.user_key(user), "posts", "1")
    found = json.loads(stack.ctl("explain", "--sample", "10000", "--json", check=DIFFERENT).stdout)
    assert [row["user"] for row in found["unexplained"]] == [user]


def test_explain_without_kafka_says_why_and_still_adds_up(stack):
    user = busy_user(stack)
    found = json.loads(stack.ctl("explain", user, "--json", check=FINE, TALLY_KAFKA_BROKERS="127.0.0.1:9").stdout)
    assert found["explained"] and found["kafka"]["trouble"]
    assert explain(stack, user, "--no-kafka")["kafka"] is None
    assert partition_of(user, PARTITIONS) == found["readModel"]["partition"]


@pytest.mark.parametrize("arguments", [[], ["nobody"], ["1", "2"], ["1", "--sample", "3"], ["1", "--events", "-1"]])
def test_explain_is_asked_for_one_user(stack, arguments):
    assert stack.ctl("explain", *arguments).returncode == USAGE
