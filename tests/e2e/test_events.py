"""The events on the topic, read with other people's tools."""
import json
import os
import re
from datetime import datetime, timedelta

import jsonschema
import pytest

from support.api import assert_success
from support.kafka import batches, consume
from support.murmur2 import murmur2, partition_of
from support.stack import PARTITIONS
from support.wait import until

SCHEMAS = os.path.join(os.path.dirname(__file__), "..", "..", "schema", "events")
TYPES = {"user.created", "user.updated", "user.deleted", "post.created", "post.deleted", "comment.created",
         "comment.deleted"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def story(stack):
    """A user whose events are of every type, and what else was written on the way."""
    answer = stack.write.post("/v1/users", {**stack.new_profile(), "avatar": "https://example.org/a.png"},
                              {"traceparent": f"00-{TRACE}-{SPAN}-01"})
    user = assert_success(answer, 201)["id"]
    assert_success(stack.write.patch(f"/v1/users/{user}", {"name": "Renamed", "avatar": None}), 200)
    post = stack.new_post(user)
    comment = stack.new_comment(post, user)
    assert_success(stack.write.delete(f"/v1/comments/{comment}"), 200)
    # Comments that go with their post: many events of one moment, which make one large batch.
    for _ in range(60):
        stack.new_comment(post, user)
    assert_success(stack.write.delete(f"/v1/posts/{post}"), 200)
    assert_success(stack.write.delete(f"/v1/users/{user}"), 202)
    for _ in range(10):
        stack.new_user()  # for other partitions
    stack.until_equal()
    return user


@pytest.fixture(scope="module")
def records(stack, story):
    found = consume(stack.brokers, stack.topic)
    assert len(found) >= 127
    return found


def test_murmur2_of_this_suite_is_that_of_java():
    # From Kafka's own UtilsTest.testMurmur2.
    assert [murmur2(text) - (murmur2(text) >> 31 << 32) for text in
            (b"21", b"foobar", b"a-little-bit-long-string", b"a-little-bit-longer-string",
             b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", b"abc")] == [
        -973932308, -790332482, -985981536, -1486304829, -58897971, 479470107]


def test_every_event_is_a_cloudevent_with_all_its_attributes(stack, records):
    source = "/tally/" + stack.sql("SELECT system_identifier FROM pg_control_system()")[0][0]
    timeline = stack.sql("SELECT timeline_id FROM pg_control_checkpoint()")[0][0]
    for record in records:
        headers = record.headers
        assert headers["ce_specversion"] == "1.0", record
        assert headers["ce_type"] in TYPES, record
        assert headers["ce_source"] == source, record
        assert headers["ce_subject"] == record.key, record
        assert headers["ce_id"] == f"{record.key}-{headers['ce_sequence']}", record
        assert headers["ce_timeline"] == timeline, record
        at = datetime.fromisoformat(headers["ce_time"].replace("Z", "+00:00"))
        assert headers["ce_time"].endswith("Z") and at.utcoffset() == timedelta(0), record
        # Absent only from what was done in the background, for no request.
        trace = headers.get("traceparent")
        assert trace is None or re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", trace), record
        if record.value is not None:
            assert headers["content-type"] == "application/json", record


def test_an_events_partition_is_what_a_java_client_computes_from_its_key(records):
    assert {record.partition for record in records} <= set(range(PARTITIONS))
    assert len({record.partition for record in records}) > 1
    for record in records:
        assert record.key.isdigit() and record.partition == partition_of(record.key, PARTITIONS), record


def test_each_users_events_have_the_versions_from_one_without_a_hole_in_their_order(stack, records):
    reached = {}
    for record in records:
        version = int(record.headers["ce_sequence"])
        # A repeat is allowed, at least once being what the relay promises; a hole or a swap is not.
        assert version <= reached.get(record.key, 0) + 1, record
        reached[record.key] = max(version, reached.get(record.key, 0))
    written = {user: int(version) for user, version in stack.sql("SELECT id, version FROM users")}
    assert reached == written


def test_every_value_fits_its_schema(records):
    assert {record.headers["ce_type"] for record in records} == TYPES
    for record in records:
        if record.headers["ce_type"] == "user.deleted":
            continue
        with open(os.path.join(SCHEMAS, f"{record.headers['ce_type']}.v1.json"), encoding="utf-8") as file:
            jsonschema.Draft202012Validator(json.load(file)).validate(json.loads(record.value))


def test_a_users_events_tell_its_story(records, story):
    own = [record for record in records if record.key == story]
    types = [record.headers["ce_type"] for record in own]
    assert types == ["user.created", "user.updated", "post.created", "comment.created", "comment.deleted",
                     *["comment.created"] * 60, *["comment.deleted"] * 60, "post.deleted", "user.deleted"]
    created, updated = json.loads(own[0].value), json.loads(own[1].value)
    assert created["avatar"] == "https://example.org/a.png"
    assert updated == {"name": "Renamed", "email": created["email"], "avatar": None}
    post = json.loads(own[2].value)["postId"]
    assert {json.loads(record.value)["postId"] for record in own[2:-1]} == {post}


def test_a_deleted_users_last_event_is_a_tombstone(records, story):
    last = [record for record in records if record.key == story][-1]
    assert last.headers["ce_type"] == "user.deleted" and last.value is None


def test_batches_are_compressed_on_the_broker(stack, story):
    found = batches(stack.brokers, stack.topic, PARTITIONS)
    large = [batch for batch in found if batch.records >= 20]
    assert large, f"no batch of 20 records or more: {sorted(batch.records for batch in found)[-5:]}"
    assert {batch.codec for batch in large} == {"lz4"}
    # An uncompressed event is never smaller than its headers.
    assert all(batch.bytes < 150 * batch.records for batch in large), large


def test_the_trace_of_a_request_runs_through_the_event_to_the_projectors_log(stack, records, story):
    created = next(record for record in records if record.key == story)
    version, trace, span, _ = created.headers["traceparent"].split("-")
    assert (version, trace) == ("00", TRACE)
    assert re.fullmatch(r"[0-9a-f]{16}", span) and int(span, 16) != 0

    def logged(service):
        return any(TRACE in json.dumps(line) for line in service.log_lines())
    until("tally-command logs the trace", lambda: logged(stack.command))
    until("tally-projector logs the trace", lambda: logged(stack.projector))
