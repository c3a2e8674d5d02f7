"""The independent recount: SQL and clients of the tests' own against what Redis and Kafka hold."""
import os
import subprocess
from collections import Counter

from support.murmur2 import partition_of
from support.resp import Resp
from support.wait import until

RECOUNT = """
WITH p AS (SELECT author_id, count(*) AS n FROM posts WHERE deleted_at IS NULL GROUP BY 1),
     c AS (SELECT author_id, count(*) AS n FROM comments GROUP BY 1)
SELECT u.id, u.version, coalesce(p.n, 0), coalesce(c.n, 0), u.name, u.email, coalesce(u.avatar, '')
FROM users u LEFT JOIN p ON p.author_id = u.id LEFT JOIN c ON c.author_id = u.id WHERE u.deleted_at IS NULL
"""


def rows_of(stack, statement):
    """Rows of text, one at a time: there may be millions."""
    with subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", stack.dsn,
                           "-c", statement], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            yield line.rstrip("\n").split("\t")
    if process.returncode != 0:
        raise OSError(f"psql ended with {process.returncode}: {statement}")


def recount(stack):
    """{user: (version, posts, comments, name, email, avatar)}"""
    return {row[0]: (int(row[1]), int(row[2]), int(row[3]), *row[4:]) for row in rows_of(stack, RECOUNT)}


class Model:
    """The live generation, all of it."""

    def __init__(self, stack):
        self.users = {}
        self.flagged = set()
        self.misplaced = []
        totals = Counter()
        with Resp(stack.redis.port) as redis:
            generation = redis.call("GET", "tally:generation")
            for key, fields in redis.hashes(redis.scan(f"tally:{generation}:{{*}}:user:*")):
                user = key.rsplit(":", 1)[1]
                if f"{{{partition_of(user, stack.partitions)}}}" not in key:
                    self.misplaced.append(key)
                if "flagged" in fields:
                    self.flagged.add(user)
                if "deleted" not in fields:
                    self.users[user] = (int(fields["v"]), int(fields["posts"]), int(fields["comments"]),
                                        fields.get("name"), fields.get("email"), fields.get("avatar", ""))
            for _, fields in redis.hashes([f"tally:{generation}:{{{p}}}:totals" for p in range(stack.partitions)]):
                totals.update({name: int(value) for name, value in fields.items()})
        self.totals = tuple(totals[name] for name in ("users", "posts", "comments"))


def differences(source, model):
    """Users whose document is not what the recount says; also those that only one of the two knows."""
    return sorted(user for user in source.keys() | model.users.keys() if source.get(user) != model.users.get(user))


def totals_of(source):
    return len(source), sum(row[1] for row in source.values()), sum(row[2] for row in source.values())


def until_equal(stack, seconds=120, flagged=()):
    """Waits, while nobody writes, until every user's document and the totals equal the recount, which is returned."""
    stack.until_swept(seconds)
    source = recount(stack)

    def equal():
        model = Model(stack)
        different = differences(source, model)
        assert not different, (f"{len(different)} of {len(source)} users differ; (user, recount, Redis): "
                               f"{[(user, source.get(user), model.users.get(user)) for user in different[:5]]}")
        assert model.totals == totals_of(source), f"totals {model.totals}, recount {totals_of(source)}"
        assert not model.misplaced, model.misplaced[:5]
        assert model.flagged == set(flagged), sorted(model.flagged)[:5]
        return True
    until("the read model equals the recount", equal, seconds, pause_s=0.2)
    return source


def assert_diff_0(figures, name, stack, loads=(), seconds=120, verify=True):
    """"diff 0" of GATES.md: documents and totals equal the recount, the rows are the acknowledged writes."""
    source = until_equal(stack, seconds)
    figures.exactly(f"{name} users that differ from the recount", len(differences(source, Model(stack))))
    if loads:
        lost, twice = books(stack, loads)
        figures.exactly(f"{name} acknowledged writes lost", lost)
        figures.exactly(f"{name} writes there that nobody was told of, or twice", twice)
    if verify:
        stack.ctl("verify", check=0, timeout=600)
    return source


def books(stack, loads):
    """(lost, twice) of loads that were the only writers, and have ended: every command of theirs is in a ledger."""
    made = {"user": Counter(), "post": Counter(), "comment": Counter()}
    removed = {"post": set(), "comment": set()}
    post_of, versions = {}, Counter()
    for load in loads:
        for entry in load.ledger():
            if entry.version:
                versions[entry.user, entry.version] += 1
            if entry.kind.startswith("delete-"):
                removed[entry.kind.removeprefix("delete-")].add(entry.id)
                continue
            # A later load with the same seed finds the users of an earlier one again.
            made[entry.kind][entry.id] += 1
            if entry.kind == "comment":
                post_of[entry.id] = entry.post
    expected = {
        "user": set(made["user"]),
        "post": set(made["post"]) - removed["post"],
        "comment": {comment for comment in made["comment"]
                    if comment not in removed["comment"] and post_of[comment] not in removed["post"]},
    }
    found = {
        "user": {int(row[0]) for row in rows_of(stack, "SELECT id FROM users WHERE deleted_at IS NULL")},
        "post": {int(row[0]) for row in rows_of(stack, "SELECT id FROM posts WHERE deleted_at IS NULL")},
        "comment": {int(row[0]) for row in rows_of(stack, "SELECT id FROM comments")},
    }
    lost = sum(len(expected[kind] - found[kind]) for kind in expected)
    twice = sum(len(found[kind] - expected[kind]) for kind in expected)
    # Two acknowledgements of one id are one write told twice as if it were two.
    twice += sum(count - 1 for kind in ("post", "comment") for count in made[kind].values())
    twice += sum(count - 1 for (_, version), count in versions.items() if version > 1)
    return lost, twice


class Log:
    """The topic, as kcat reads it: each user's versions in the order they were published."""

    def __init__(self, stack):
        self.records = 0
        self.duplicates = 0
        self.gaps = []
        self.last = {}
        command = ["kcat", "-b", stack.brokers, "-C", "-t", stack.topic, "-o", "beginning", "-e", "-q",
                   "-f", "%k %h\n", "-X", "check.crcs=false"]
        environment = {**os.environ, "LC_ALL": "C"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            for line in process.stdout:
                self._take(line)
        assert process.returncode == 0, f"kcat ended with {process.returncode}"

    def _take(self, line):
        user, headers = line.split(" ", 1)
        at = headers.index("ce_sequence=") + len("ce_sequence=")
        version = int(headers[at:].split(",", 1)[0])
        last = self.last.get(user, 0)
        self.records += 1
        if version <= last:
            self.duplicates += 1
            return
        if version != last + 1:
            self.gaps.append((user, last, version))
        self.last[user] = version


def assert_published(figures, name, stack, seconds=120):
    """Every event of every user is in Kafka, in order, once duplicates are dropped; returns the Log."""
    expected = {row[0]: int(row[1]) for row in rows_of(stack, "SELECT id, version FROM users")}
    log = until("all events are published", lambda: _log_of(stack, expected), seconds, pause_s=0.5)
    figures.exactly(f"{name} events skipped or out of order", len(log.gaps))
    return log


def _log_of(stack, expected):
    log = Log(stack)
    behind = [(user, version, log.last.get(user)) for user, version in expected.items()
              if log.last.get(user) != version]
    assert not behind, f"{len(behind)} users have events that are not in Kafka; (user, PostgreSQL, Kafka): {behind[:5]}"
    return log
