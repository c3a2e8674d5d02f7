"""tallyctl: what an operator types, what it says, and its exit codes."""
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.kafka import alter_topic
from support.stack import PARTITIONS, psql
from support.wait import until

FINE, DIFFERENT, USAGE, FAILED = 0, 1, 2, 3
NOWHERE = {"TALLY_PG_DSN": "postgresql://tally@127.0.0.1:9/tally?connect_timeout=3",
           "TALLY_REDIS_URL": "redis://127.0.0.1:9/0", "TALLY_KAFKA_BROKERS": "127.0.0.1:9"}


def test_a_schema_that_is_up_to_date_is_left_alone(stack):
    before = stack.sql("SELECT * FROM schema_migrations ORDER BY 1")
    done = stack.ctl("migrate", check=FINE)
    assert "nothing to do" in done.stdout.lower(), done
    assert json.loads(stack.ctl("migrate", "--json", check=FINE).stdout)["applied"] == []
    assert stack.sql("SELECT * FROM schema_migrations ORDER BY 1") == before
    status = json.loads(stack.ctl("migrate", "status", "--json", check=FINE).stdout)
    assert len(status["migrations"]) == len(before)
    assert {row["state"] for row in status["migrations"]} == {"applied"}


def test_an_empty_database_has_all_migrations_pending_and_two_migrates_at_once_apply_each_once(stack):
    name = f"{stack.database}_empty"
    stack.server_sql(f"CREATE DATABASE {name}")
    try:
        empty = {"TALLY_PG_DSN": stack.dsn.replace(stack.database, name)}
        status = json.loads(stack.ctl("migrate", "status", "--json", check=DIFFERENT, **empty).stdout)
        assert {row["state"] for row in status["migrations"]} == {"pending"}
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(lambda _: stack.ctl("migrate", "--json", check=FINE, **empty), range(3)))
        applied = sorted(row["version"] for one in done for row in json.loads(one.stdout)["applied"])
        assert applied == sorted(row["version"] for row in status["migrations"])
        stack.ctl("migrate", "status", check=FINE, **empty)
    finally:
        stack.server_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_migration_that_was_changed_after_it_was_applied_is_found(stack):
    name = f"{stack.database}_changed"
    stack.server_sql(f"CREATE DATABASE {name}")
    try:
        changed = {"TALLY_PG_DSN": stack.dsn.replace(stack.database, name)}
        stack.ctl("migrate", check=FINE, **changed)
        psql(changed["TALLY_PG_DSN"], "UPDATE schema_migrations SET checksum = (SELECT checksum FROM schema_migrations "
             "ORDER BY version DESC LIMIT 1) WHERE version = 1")
        stack.ctl("migrate", "status", check=DIFFERENT, **changed)
        assert stack.ctl("migrate", **changed).returncode not in (FINE, USAGE)
    finally:
        stack.server_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_topics_that_exist_are_left_alone_and_another_partition_count_is_refused(stack):
    for _ in range(2):
        stack.ctl("topics", "create", "--partitions", str(PARTITIONS), check=FINE)
    assert stack.ctl("topics", "create", "--partitions", str(PARTITIONS + 1)).returncode == DIFFERENT
    topics = json.loads(stack.ctl("topics", "status", "--json", check=FINE).stdout)["topics"]
    assert {topic["topic"]: topic["exists"] for topic in topics} == {stack.topic: True, stack.dlq_topic: True}
    assert topics[0]["partitions"] == PARTITIONS
    events, letters = (int(topic["configs"]["max.message.bytes"]) for topic in topics)
    assert letters > events
    try:
        alter_topic(stack.brokers, stack.dlq_topic, {"max.message.bytes": events})
        assert "a dead letter is larger" in stack.ctl("topics", "status", check=DIFFERENT).stdout
    finally:
        alter_topic(stack.brokers, stack.dlq_topic, {"max.message.bytes": letters})
    missing = stack.ctl("topics", "status", check=DIFFERENT, TALLY_TOPIC=f"{stack.topic}.missing")
    assert "missing" in missing.stdout


def test_status_shows_every_component_and_that_all_is_well(stack):
    stack.until_equal()
    text = until("all is well", lambda: stack.ctl("status", check=FINE)).stdout.lower()
    for component in ("postgresql", "kafka", "redis", "relay", "command", "projector", "query"):
        assert component in text, f"no {component} in:\n{text}"
    document = json.loads(until("all is well", lambda: stack.ctl("status", "--json", check=FINE)).stdout)
    assert document["healthy"] is True
    shown = " ".join(component["component"] for component in document["components"])
    for component in ("postgresql", "kafka", "redis", "relay", "command", "projector", "query"):
        assert component in shown.lower(), f"no {component} in {shown}"


def test_status_finds_a_service_that_is_down(stack):
    nobody = "127.0.0.1:9"
    for name in ("TALLY_COMMAND_ADMIN", "TALLY_PROJECTOR_ADMIN", "TALLY_QUERY_ADMIN"):
        until("all else is well", lambda: stack.ctl("status", check=FINE))
        stack.ctl("status", check=DIFFERENT, **{name: nobody})
        document = json.loads(stack.ctl("status", "--json", check=DIFFERENT, **{name: nobody}).stdout)
        assert document["healthy"] is False
        down = [component for component in document["components"] if nobody in json.dumps(component)]
        assert len(down) == 1 and down[0]["state"] != "ok", document


def test_status_shows_the_lag_of_a_read_model_that_stands_still(own_stack):
    stack = own_stack
    user = stack.new_user()
    stack.user_at(user, 1)
    stack.projector.pause()
    for _ in range(25):
        stack.new_post(user)
    until("the lag is shown", lambda: "25 events behind" in stack.ctl("status", TALLY_REDIS_TIMEOUT_MS="500").stdout)
    stack.projector.resume()
    stack.until_equal()


def test_verify_finds_a_wrong_count_a_wrong_name_a_lost_user_and_a_ghost(stack):
    users = [stack.new_user() for _ in range(3)]
    for user in users:
        stack.new_post(user)
    stack.until_equal()
    call, key = stack.redis.call, stack.user_key(users[0])

    def found():
        done = stack.ctl("verify", "--json", "--grace", "1", check=DIFFERENT)
        assert users[0] in stack.ctl("verify", "--grace", "1", check=DIFFERENT).stdout
        return json.loads(done.stdout)
    for field, wrong in (("posts", "2"), ("comments", "1"), ("name", "Somebody else"), ("email", "else@example.org")):
        right = stack.redis.hash(key)[field]
        call("HSET", key, field, wrong)
        assert field in json.dumps(found())
        call("HSET", key, field, right)
        stack.ctl("verify", check=FINE)
    whole = stack.redis.hash(key)
    call("DEL", key)
    found()
    call("HSET", key, *[word for pair in whole.items() for word in pair])
    stack.ctl("verify", check=FINE)

    ghost = stack.user_key("1234567")
    call("HSET", ghost, "v", "1", "posts", "0", "comments", "0", "name", "Ghost", "email", "ghost@example.org")
    assert "1234567" in stack.ctl("verify", "--grace", "1", check=DIFFERENT).stdout
    call("DEL", ghost)
    stack.ctl("verify", check=FINE)


def test_verify_finds_wrong_totals(stack):
    stack.until_equal()
    totals = stack.user_key(stack.new_user()).rsplit(":user:", 1)[0] + ":totals"
    stack.until_equal()
    stack.redis.call("HINCRBY", totals, "posts", "1")
    stack.ctl("verify", "--grace", "1", check=DIFFERENT)
    stack.redis.call("HINCRBY", totals, "posts", "-1")
    stack.ctl("verify", check=FINE)


def test_load_leaves_in_the_database_what_it_says_was_acknowledged(stack):
    before = stack.until_equal()
    # Without the deletion of posts, which takes along comments that the report does not count as deleted.
    done = stack.ctl("load", "--users", "200", "--commands", "2000", "--connections", "16", "--mix",
                     "post=45,comment=45,delete-comment=10", "--sample-visibility", "0.2", "--json", check=FINE)
    report = json.loads(done.stdout)
    after = stack.until_equal()
    made = report["acknowledged"]
    assert len(after) - len(before) == made["users"] == 200
    gained = [sum(row[at] for row in after.values()) - sum(row[at] for row in before.values()) for at in (1, 2)]
    assert gained == [made["posts"], made["comments"] - made["commentsDeleted"]] and all(gained), report
    ended = [made["posts"], made["comments"], made["commentsDeleted"], report["refused"], report["gone"]]
    assert sum(ended) == 2000, report
    assert report["failed"] == 0 and report["perSecond"] > 0
    assert report["latency"]["count"] > 0
    assert 0 < report["latency"]["p50Ms"] <= report["latency"]["p95Ms"] <= report["latency"]["p99Ms"], report
    seen = report["visibility"]
    assert seen["stale"] == seen["failed"] == 0 and seen["latency"]["count"] > 0, report


def test_loads_ledger_names_every_row_that_it_made_and_a_silent_address_sends_it_to_the_other(stack, tmp_path):
    ledger = tmp_path / "ledger.tsv"
    # Port 9, discard: nobody listens there.
    done = stack.ctl("load", "--users", "20", "--commands", "500", "--connections", "4", "--ledger", str(ledger),
                     "--also", stack.command.api, "--json", check=FINE, TALLY_COMMAND_LISTEN="127.0.0.1:9")
    report = json.loads(done.stdout)
    rows = [line.split("\t") for line in ledger.read_text().splitlines()]
    made = {kind: [row[1] for row in rows if row[0] == kind] for kind, *_ in rows}
    told = report["acknowledged"]
    assert [len(made.get(kind, [])) for kind in ("user", "post", "comment", "delete-post", "delete-comment")] == \
           [told[name] for name in ("users", "posts", "comments", "postsDeleted", "commentsDeleted")]
    alive = set(made["post"]) - set(made.get("delete-post", []))
    authors = ",".join(made["user"])
    assert alive == {row[0] for row in stack.sql(f"SELECT id FROM posts WHERE author_id IN ({authors})"
                                                 " AND deleted_at IS NULL")}
    assert {row[4] for row in rows if row[0] == "comment"} <= set(made["post"])
    assert {row[4] for row in rows if row[0] != "comment"} == {"0"}
    assert report["retries"] == report["retryCauses"]["unavailable"] > 0
    stack.ctl("load", "--ledger", "/nowhere/ledger", "--users", "1", check=FAILED)


def test_load_that_deletes_everything_it_can_ends_with_no_difference(stack):
    before = stack.until_equal()
    made = json.loads(stack.ctl("load", "--users", "50", "--commands", "1500", "--connections", "16", "--mix",
                                "post=30,comment=40,delete-post=20,delete-comment=10", "--distribution", "uniform",
                                "--json", check=FINE).stdout)["acknowledged"]
    after = stack.until_equal()
    posts = sum(row[1] for row in after.values()) - sum(row[1] for row in before.values())
    assert made["postsDeleted"] > 0 and made["commentsDeleted"] > 0
    assert posts == made["posts"] - made["postsDeleted"] == made["postsAlive"]


def test_load_that_keeps_commented_posts_says_how_many_posts_and_comments_are_alive(stack):
    before = stack.until_equal()
    made = json.loads(stack.ctl("load", "--users", "50", "--commands", "1500", "--connections", "16",
                                "--keep-commented", "--json", check=FINE).stdout)["acknowledged"]
    after = stack.until_equal()
    gained = [sum(row[at] for row in after.values()) - sum(row[at] for row in before.values()) for at in (1, 2)]
    assert made["postsDeleted"] > 0 and made["commentsDeleted"] > 0
    assert gained == [made["postsAlive"], made["commentsAlive"]]


@pytest.mark.parametrize("arguments", [["verify"], ["migrate"], ["topics", "create"], ["load", "--retry-for", "1"]])
def test_a_server_that_cannot_be_reached_is_an_error_of_its_own(stack, arguments):
    done = stack.ctl(*arguments, **NOWHERE, TALLY_COMMAND_LISTEN="127.0.0.1:9")
    assert done.returncode == FAILED, done
    assert done.stderr.strip()


def test_what_is_not_understood_is_a_usage_error(stack):
    for arguments in ([], ["nothing"], ["verify", "--no-such-flag"], ["topics"], ["topics", "destroy"],
                      ["migrate", "backwards"], ["load", "--users", "-1"], ["topics", "create", "--partitions", "0"]):
        done = stack.ctl(*arguments)
        assert done.returncode == USAGE, (arguments, done)
        assert done.stderr.strip(), arguments
    assert stack.ctl("verify", TALLY_REDIS_TIMEOUT_MS="soon").returncode == USAGE


def test_every_subcommand_explains_itself(stack):
    for arguments in ([], ["migrate"], ["topics"], ["status"], ["verify"], ["load"], ["rebuild"], ["generations"],
                      ["repair"], ["explain"], ["dlq"], ["refill"], ["pause"], ["resume"], ["torture"]):
        done = stack.ctl(*arguments, "--help", check=FINE)
        assert "exit codes" in done.stdout.lower(), arguments
