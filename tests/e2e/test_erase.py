"""tallyctl erase: the personal data of a user is gone from every disk, and nobody else is touched."""
import json
import os
import secrets
import subprocess
import time
from datetime import datetime, timezone

import pytest

from support.api import assert_problem, assert_success
from support.kafka import alter_topic, consume, produce
from support.murmur2 import partition_of
from support.stack import PARTITIONS, Lock
from support.traces import file_of_relation, found, until_expired
from support.wait import until

FINE, DIFFERENT, USAGE, FAILED = 0, 1, 2, 3
MINUTE_MS = 60 * 1000


class Person:
    """A user who has left texts that occur nowhere else, in every field there is."""

    def __init__(self, stack):
        self.stack = stack
        token = secrets.token_hex(8)
        self.texts = {name: f"{name}{token}" for name in (
            "name", "email", "avatar", "oldname", "oldemail", "key", "title", "post", "longpost", "comment", "letter",
            "reason")}
        text = self.texts
        write = stack.write
        self.id = assert_success(write.post("/v1/users", {
            "name": text["oldname"], "email": f"{text['oldemail']}@example.org",
            "avatar": f"https://example.org/{text['avatar']}"}, {"Idempotency-Key": text["key"]}), 201)["id"]
        assert_success(write.patch(f"/v1/users/{self.id}", {
            "name": text["name"], "email": f"{text['email']}@example.org"}), 200)
        self.post = assert_success(write.post("/v1/posts", {
            "authorId": self.id, "title": text["title"], "body": text["post"]}), 201)["id"]
        # Too large for its row: it lies in the table beside.
        assert_success(write.post("/v1/posts", {
            "authorId": self.id, "body": secrets.token_hex(10000) + text["longpost"]}), 201)

    def comment_on(self, post):
        return assert_success(self.stack.write.post(f"/v1/posts/{post}/comments", {
            "authorId": self.id, "body": self.texts["comment"]}), 201)["id"]

    def poison(self):
        """An event about the user that nobody can read, and a dead letter of it that an operator has closed."""
        produce(self.stack.brokers, self.stack.topic, self.id, self.texts["letter"], [
            ("ce_specversion", "1.0"), ("ce_id", f"{self.id}-9"), ("ce_type", "planet.created"),
            ("ce_source", "/elsewhere"), ("ce_subject", self.id), ("ce_time", "2026-01-01T00:00:00Z"),
            ("ce_sequence", "9"), ("ce_timeline", "1")], partition_of(self.id, PARTITIONS))
        until("the letter is there", lambda: consume(self.stack.brokers, self.stack.dlq_topic))
        self.stack.ctl("dlq", "discard", "--all", "--reason", self.texts["reason"], check=FINE)


def erase(stack, user, *more, check=FINE, **settings):
    return json.loads(stack.ctl("erase", user, "--receipt", "-", *more, check=check, **settings).stdout)


def erase_until(stack, user, are_pending):
    """The receipt of a short attempt that has left these parts; on a busy machine an attempt leaves more."""
    def attempt():
        receipt = erase(stack, user, "--wait", "3", check=DIFFERENT)
        assert are_pending(set(pending(receipt))), pending(receipt)
        return receipt
    return until("no more than what has to wait is left", attempt)


def pending(receipt):
    return {row["part"]: row["why"] for row in receipt["pending"]}


def moment_ms(text):
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp() * 1000


@pytest.fixture
def plain_stack(make_stack, request):
    """Events are not compressed, so that their bytes can be found."""
    with make_stack(request.node.name) as made:
        made.command.terminate()
        made.command.environment["TALLY_KAFKA_COMPRESSION"] = "none"
        made.command.start()
        yield made


def test_nothing_of_an_erased_user_is_left_on_any_disk_and_nobody_else_is_touched(plain_stack):
    stack = plain_stack
    others = [stack.new_user() for _ in range(5)]
    others_post = stack.new_post(others[0])
    person = Person(stack)
    person.comment_on(others_post)
    for other in others:
        stack.new_comment(person.post, other)
        stack.new_comment(others_post, other)
    stack.until_equal()
    person.poison()
    # A generation of the read model that is kept for a rollback, beside the live one.
    stack.ctl("rebuild", "--from", "database", check=FINE)
    source = stack.until_equal()

    # The scans find what is there; what is not looked for rightly would never be found.
    before = found(stack, person.texts)
    in_events = {"name", "email", "avatar", "oldname", "oldemail"}
    written = {"key", "title", "post", "longpost", "comment", "reason"}
    assert before["a dump of PostgreSQL"] == in_events | written
    assert before["the files of PostgreSQL"] == in_events | written
    assert before["the segments of the events"] == in_events | {"letter"}
    assert before["the segments of the dead letters"] == {"letter"}
    assert before["the files of Redis"] >= {"name", "email", "avatar"}

    receipt = erase(stack, person.id, "--vacuum=full")
    assert receipt["complete"] and receipt["user"] == person.id and receipt["pending"] == []
    removed = receipt["removed"]["postgresql"]
    assert (removed["posts"], removed["comments"], removed["eventProfiles"]) == (2, 1, 2)
    assert removed["idempotencyKeys"] == 1 and removed["deadLetterReasons"] == 1 and removed["vacuumedAt"]
    roles = {row["role"]: row["state"] for row in receipt["removed"]["readModel"]["generations"]}
    assert roles == {"live": "deleted", "kept": "removed"}
    remains = {row["where"]: row for row in receipt["remains"]}
    for topic in (stack.topic, stack.dlq_topic):
        assert moment_ms(remains[f"Kafka topic {topic}"]["expiresAt"]) > time.time() * 1000

    nowhere = {"a dump of PostgreSQL": set(), "the files of PostgreSQL": set(), "the files of Redis": set()}
    assert found(stack, person.texts, tuple(nowhere)) == nowhere
    stack.ctl("rebuild", "--from", "database", check=FINE)
    after = stack.until_equal()
    assert person.id not in after
    assert_problem(stack.read.get(f"/v1/users/{person.id}"), 404, "user-not-found")
    assert {user: row[1] for user, row in after.items()} == {
        user: source[user][1] for user in after}, "posts of the others"
    # Each of the others loses the comment on the erased user's post, and no other.
    assert {user: source[user][2] - row[2] for user, row in after.items()} == {user: 1 for user in others}

    for topic in (stack.topic, stack.dlq_topic):
        until_expired(stack, topic)
    assert found(stack, person.texts) == {place: set() for place in before}
    stack.ctl("verify", check=FINE)
    assert [row for row in erase(stack, person.id)["remains"]] == [], "the receipt sees that the log has let go of it"
    stack.new_post(others[1])
    stack.until_equal()


def test_what_an_erased_user_did_can_still_be_explained_and_published_again(own_stack):
    stack = own_stack
    person, other = Person(stack), stack.new_user()
    person.comment_on(stack.new_post(other))
    stack.until_equal()
    versions = stack.sql(f"SELECT seq, xid, version, type, at FROM events WHERE user_id = {person.id} ORDER BY 1")
    erase(stack, person.id)
    kept = stack.sql(f"SELECT seq, xid, version, type, at FROM events WHERE user_id = {person.id} ORDER BY 1")
    assert kept[:len(versions)] == versions and kept[len(versions)][3] == "user.deleted"
    assert stack.ctl("explain", person.id).returncode == FINE
    stack.ctl("refill", "--yes", check=FINE)
    again = {}
    for record in consume(stack.brokers, stack.topic):
        if record.key == person.id and record.headers["ce_type"].startswith("user."):
            again[record.headers["ce_id"]] = record.value
    assert not any(text in str(again) for text in person.texts.values()), again
    assert sorted(again) == [f"{person.id}-1", f"{person.id}-2", f"{person.id}-{kept[-1][2]}"]
    stack.until_equal()
    # And the log, which holds both copies, still makes the same read model.
    stack.ctl("rebuild", "--from", "log", check=FINE)
    stack.until_equal()


def test_erasing_again_changes_nothing_and_gives_the_same_receipt(stack):
    person = Person(stack)
    stack.until_equal()
    first = erase(stack, person.id)
    path = os.path.join(stack.folder, "receipt.json")
    text = stack.ctl("erase", person.id, "--receipt", path, check=FINE).stdout
    assert person.id in text and "erased" in text and "not covered" in text
    with open(path, encoding="utf-8") as file:
        second = json.load(file)
    assert os.stat(path).st_mode & 0o077 == 0
    assert second == first
    assert not any(word in json.dumps(second) for word in person.texts.values())


# Users whose addresses lie among those of the test's own, in any order.
CROWD_SQL = """
WITH made AS (INSERT INTO users (id, name, email, version)
    SELECT next_id(0::smallint), 'One of many', 'person' || md5(random()::text) || '@example.org', 1 FROM generate_series(1, {count})
    RETURNING id, name, email, avatar)
INSERT INTO events (user_id, version, type, data, timeline)
SELECT id, 1, 'user.created', profile_json(name, email, avatar), (current_batch_context()).timeline FROM made
"""


def test_the_index_of_addresses_gives_one_of_very_many_up_too(own_stack):
    stack = own_stack
    stack.sql(CROWD_SQL.format(count=12000))
    emails = {}
    for _ in range(4):
        email = f"person{secrets.token_hex(16)}@example.org"
        emails[assert_success(stack.write.post("/v1/users", {"name": "A person", "email": email}), 201)["id"]] = email
    # Entries that came later move over the place of one that goes, where its bytes would stay in a page's free space.
    stack.sql(CROWD_SQL.format(count=6000))
    stack.until_equal()
    index = file_of_relation(stack, "users_email")
    # One that PostgreSQL has not also made a signpost between two pages, which stays.
    user, email = next((user, email) for user, email in emails.items() if index.count(email.encode()) == 1)
    assert erase(stack, user)["complete"]
    left = file_of_relation(stack, "users_email").count(email.encode())
    assert left == 0


def test_a_receipt_claims_no_more_than_was_done(own_stack):
    stack = own_stack
    person = Person(stack)
    stack.until_equal()
    stack.redis.call("ACL", "SETUSER", "default", "-config", "-bgrewriteaof", "-bgsave")
    receipt = erase(stack, person.id)
    assert receipt["complete"] and receipt["removed"]["readModel"]["filesWrittenAnew"] is False
    in_redis = " ".join(row["what"] for row in receipt["remains"] if row["where"] == "Redis")
    assert "append-only" in in_redis and "snapshot" in in_redis
    stack.redis.call("ACL", "SETUSER", "default", "+@all")
    # Writing tables anew waits for everybody who reads them; a plain vacuum has come before.
    session = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-d", stack.dsn], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    session.stdin.write("BEGIN; LOCK TABLE users IN ACCESS SHARE MODE; SELECT 1;\n")
    session.stdin.flush()
    assert session.stdout.readline() == "1\n"
    receipt = erase(stack, person.id, "--vacuum=full", "--wait", "2", check=DIFFERENT)
    session.communicate("ROLLBACK;\n", timeout=30)
    assert set(pending(receipt)) == {"vacuum"}
    assert receipt["removed"]["postgresql"]["vacuumedAt"]
    assert receipt["removed"]["postgresql"]["tablesWrittenAnew"] is False
    assert "free space" in " ".join(receipt["notCovered"])
    assert receipt["removed"]["readModel"]["filesWrittenAnew"] is True
    assert not [row for row in receipt["remains"] if row["where"] == "Redis"]
    for more in (["--vacuum=full"], []):
        receipt = erase(stack, person.id, *more)
        assert receipt["removed"]["postgresql"]["tablesWrittenAnew"] is True
        assert "free space" not in " ".join(receipt["notCovered"])


def test_a_user_who_was_deleted_before_is_erased_too(stack):
    person = Person(stack)
    assert_success(stack.write.delete(f"/v1/users/{person.id}"), 202)
    receipt = erase(stack, person.id)
    removed = receipt["removed"]["postgresql"]
    assert removed["posts"] is None and removed["eventProfiles"] == 2 and receipt["complete"]
    stack.until_equal()


def test_a_user_who_never_was_is_an_error_of_its_own(stack):
    missing = stack.ctl("erase", "4611686018427387904", "--json", check=USAGE)
    assert "never was" in missing.stderr and json.loads(missing.stdout)["error"]["code"] == "user-not-found"
    for arguments in ([], ["x"], ["1", "2"], ["1", "--vacuum=some"], ["1", "--wait", "x"],
                      ["1", "--receipt", "/nowhere/at/all"]):
        assert stack.ctl("erase", *arguments).returncode == USAGE, arguments
    assert stack.sql("SELECT count(*) FROM erasures WHERE user_id = 1") == [["0"]]


def test_parts_that_wait_are_named_and_the_same_command_goes_on_later(own_stack):
    stack = own_stack
    person = Person(stack)
    stack.until_equal()
    stack.ctl("pause", "projector", check=FINE)
    stack.ctl("pause", "relay", check=FINE)
    until("the relay is paused", lambda: stack.command.metrics()["tally_relay_paused"] == 1)
    waiting = {"relay", "read-model", "redis-files"}
    receipt = erase_until(stack, person.id, lambda parts: waiting <= parts and "rows" not in parts)
    assert not receipt["complete"] and receipt["completedAt"] is None
    assert "tallyctl resume relay" in pending(receipt)["relay"]
    assert receipt["runAgain"].startswith(f"tallyctl erase {person.id}")
    # What needs nobody else is done.
    assert receipt["removed"]["postgresql"]["eventProfiles"] == 2
    assert found(stack, person.texts, ["a dump of PostgreSQL"]) == {"a dump of PostgreSQL": set()}
    stack.ctl("resume", "relay", check=FINE)
    until("all is published", lambda: "backlog 0" in stack.ctl("status").stdout)
    erase_until(stack, person.id, lambda parts: parts == {"read-model", "redis-files"})
    stack.ctl("resume", "projector", check=FINE)
    receipt = erase(stack, person.id)
    assert receipt["complete"] and receipt["removed"]["postgresql"]["posts"] == 2
    stack.until_equal()


def test_a_transaction_that_still_sees_the_data_is_named(stack):
    person = Person(stack)
    stack.until_equal()
    session = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-d", stack.dsn], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    session.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM posts;\n")
    session.stdin.flush()
    assert int(session.stdout.readline()) >= 2
    receipt = erase_until(stack, person.id, lambda parts: parts == {"vacuum"})
    assert "session" in pending(receipt)["vacuum"]
    session.communicate("ROLLBACK;\n", timeout=30)
    assert erase(stack, person.id)["complete"]


def start_erasing(stack, user):
    return subprocess.Popen([stack.program("tallyctl"), "erase", user],
                            env=stack.environment(stack.settings_of("ctl")),
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_an_erasure_that_is_killed_anywhere_goes_on_where_it_was(stack):
    people = [Person(stack) for _ in range(8)]
    stack.until_equal()
    # Before its first step, and between the first and the next one.
    places = (lambda user: f"SELECT id FROM users WHERE id = {user} FOR UPDATE",
              lambda user: f"SELECT version FROM events WHERE user_id = {user} AND version = 1 FOR UPDATE")
    for person, place in zip(people, places):
        with Lock(stack, place(person.id)) as lock:
            process = start_erasing(stack, person.id)
            lock.until_awaited()
            assert process.poll() is None
            process.kill()
            process.wait(timeout=120)
    assert stack.sql(f"SELECT completed_at IS NULL FROM erasures WHERE user_id = {people[1].id}") == [["t"]]
    began = time.monotonic()
    start_erasing(stack, people[2].id).wait(timeout=300)
    whole_s = time.monotonic() - began
    midway = 0
    for number, person in enumerate(people[3:]):
        process = start_erasing(stack, person.id)
        time.sleep(whole_s * number / len(people[3:]))
        midway += process.poll() is None
        process.kill()
        process.wait(timeout=120)
    assert midway > 0, "none was killed"
    for number, person in enumerate(people):
        receipt = erase(stack, person.id)
        assert receipt["complete"] and receipt["removed"]["postgresql"]["eventProfiles"] == 2, (number, receipt)
    texts = {f"{number} {name}": text for number, person in enumerate(people) for name, text in person.texts.items()}
    assert found(stack, texts, ["a dump of PostgreSQL"]) == {"a dump of PostgreSQL": set()}
    stack.until_equal()


def test_the_receipt_says_when_kafka_has_let_go_by_the_topics_own_settings(own_stack):
    stack = own_stack
    alter_topic(stack.brokers, stack.topic, {"retention.ms": 60 * MINUTE_MS, "segment.ms": 10 * MINUTE_MS,
                                             "file.delete.delay.ms": MINUTE_MS})
    person = Person(stack)
    stack.until_equal()
    began = time.time() * 1000
    receipt = erase(stack, person.id)
    expires = moment_ms(receipt["remains"][0]["expiresAt"])
    # segment, retention, the broker's next look, the file's removal
    assert began <= expires - (10 + 60 + 5 + 1) * MINUTE_MS <= time.time() * 1000

    # A log that never lets go, or is compacted, is no complete erasure.
    lasting = {"retention.ms": 60 * MINUTE_MS, "cleanup.policy": "delete"}
    for bad in ({"retention.ms": -1}, {"cleanup.policy": "compact"}, {"cleanup.policy": "compact,delete"}):
        person = Person(stack)
        stack.until_equal()
        alter_topic(stack.brokers, stack.topic, {**lasting, **bad})
        receipt = erase(stack, person.id, check=DIFFERENT)
        assert set(pending(receipt)) == {"log"} and "cleanup.policy=delete" in pending(receipt)["log"], bad
        assert (receipt["remains"][0]["expiresAt"] is None) == (bad != {"cleanup.policy": "compact,delete"}), bad
        compacts = "cleanup.policy" in bad
        status = stack.ctl("topics", "status", check=DIFFERENT if compacts else FINE)
        assert ("compaction" in status.stdout) == compacts
        alter_topic(stack.brokers, stack.topic, lasting)
        assert erase(stack, person.id)["complete"]
        stack.ctl("topics", "status", check=FINE)
