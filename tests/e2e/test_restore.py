"""PostgreSQL goes back to an earlier moment by deploy/backup/restore; then deploy/runbooks/restore.md is followed."""
import json
import os
import signal
import socket
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from support.api import Client
from support.postgres import Postgres
from support.repeating import Repeating
from support.stack import Stack, psql
from support.wait import until
from support.writers import Writers

FINE, DIFFERENT, FAILED = 0, 1, 3
USERS = 24


@pytest.fixture
def postgres(log_folder, request):
    """A PostgreSQL whose log is kept."""
    made = Postgres(os.path.join(log_folder, f"{request.node.name}-postgres"))
    try:
        made.start()
        made.keep_log()
        yield made
    finally:
        made.remove()


@pytest.fixture
def stack(log_folder, request, postgres):
    """A stack on a PostgreSQL of its own."""
    made = Stack(os.path.join(log_folder, request.node.name))
    made.postgres = postgres
    made.server_dsn = postgres.dsn
    made.dsn = urlunsplit(urlsplit(postgres.dsn)._replace(path=f"/{made.database}"))
    try:
        yield made.start()
    finally:
        if not postgres.runs():
            postgres.start()
        made.stop()


def write(stack, users, most=120):
    with Writers([stack.command.api], users, most=most) as writers:
        pass
    return writers


class Lost:
    """Writes that a restore takes away; all of them are in Kafka and in the read model."""

    def __init__(self, stack):
        self.users = [stack.new_user() for _ in range(USERS)]
        write(stack, self.users)
        stack.postgres.tool("backup", "--dsn", stack.postgres.dsn, "--keep", "1")
        write(stack, self.users)
        self.doomed = stack.new_user()
        stack.new_post(self.doomed)
        self.kept = stack.until_equal()
        self.moment = stack.postgres.now()
        write(stack, self.users)
        self.born = stack.new_user()
        stack.new_post(self.born)
        for user in self.users:
            stack.new_post(user)
        assert stack.write.delete(f"/v1/users/{self.doomed}").status == 202
        self.shown = stack.until_equal()
        assert all(self.shown[user][0] > self.kept[user][0] for user in self.users)

    def restore(self, stack):
        """Steps 1 to 3 of the runbook: writes are stopped, the database that is left is taken back, and started."""
        assert stack.command.terminate() == 0
        stack.postgres.stop(signal.SIGQUIT)
        said = stack.postgres.tool("restore", "--to", self.moment, "--data", stack.postgres.data, "--replace", "--stop")
        assert "tallyctl rebuild --after-restore" in said
        stack.postgres.start()
        assert stack.recount() == self.kept

    def assert_gone(self, stack):
        """No read shows anything of what was lost, from users that nobody has written to since."""
        assert stack.read_model([*self.kept, self.born]) == self.kept
        assert stack.read.get(f"/v1/users/{self.born}").status == 404


class Reading(Repeating):
    """Reads everybody without pause during the block. Whoever was read as the restored database has it is never again
    read as anything else, and no read fails."""

    def __init__(self, stack, lost):
        self._client = Client(stack.query.api)
        self._lost = lost
        self._faults = []
        self._followed = set()
        self._passes = 0
        super().__init__(self._read)

    def __exit__(self, failed, *rest):
        super().__exit__(failed, *rest)
        if failed is None:
            assert not self._faults, self._faults[:5]
            assert self._followed == {*self._lost.kept, self._lost.born}

    def _read(self):
        for user in [*self._lost.kept, self._lost.born]:
            self._look(user, self._client.get(f"/v1/users/{user}"))
        self._passes += 1

    def until_read_again(self):
        """Until everybody has been read after this was called."""
        passes = self._passes
        until("everybody is read again", lambda: self._passes >= passes + 2)

    def _look(self, user, answer):
        if answer.status not in (200, 404):
            self._faults.append(answer)
            return
        seen = answer.status == 200 and (answer.json["version"], answer.json["postCount"], answer.json["commentCount"])
        if seen == self._lost.kept.get(user, False):
            self._followed.add(user)
        elif user in self._followed:
            self._faults.append((user, seen))


def rebuild(stack, *arguments, check=FINE):
    # A difference that is there for good need not be waited for; one that is in flight must be.
    grace = "60" if check == FINE else "2"
    return json.loads(stack.ctl("rebuild", "--json", "--grace", grace, *arguments, check=check).stdout)


@contextmanager
def more_writes(stack, lost):
    """Writes to what is left, during the block, and counts them afterwards."""
    with Writers([stack.command.api], lost.users) as writers:
        yield writers
        seen = writers.acknowledged
        until("100 more writes are acknowledged", lambda: writers.reached(seen + 100))
    counted = stack.until_equal()
    for user in lost.users:
        assert counted[user][1:] == (lost.kept[user][1] + writers.posts[user],
                                     lost.kept[user][2] + writers.comments[user])
    assert counted[lost.doomed] == lost.kept[lost.doomed] and lost.born not in counted


def test_after_a_restore_one_command_takes_the_lost_writes_out_of_every_answer_for_good(stack):
    lost = Lost(stack)
    lost.restore(stack)
    # What is mended: everybody who lost something is ahead of the source.
    assert "differ" in stack.ctl("verify", "--grace", "1", check=DIFFERENT).stdout
    with Reading(stack, lost) as reading:
        done = rebuild(stack, "--after-restore")
        assert done["switched"] and done["recordsForgotten"] > 0
        until("reads have followed", lambda: lost.assert_gone(stack) or True)
        reading.until_read_again()
    stack.ctl("verify", check=FINE)
    stack.command.start()
    with more_writes(stack, lost):
        pass
    stack.ctl("explain", lost.users[0], check=FINE)
    # Nothing that is kept leads back: neither the generation before, nor the log, not even to a projector that finds
    # an empty Redis.
    assert stack.ctl("generations", "rollback").returncode == FAILED
    assert "--from database" in stack.ctl("rebuild", "--from", "log", check=FAILED).stderr
    stack.redis.call("FLUSHALL")
    assert stack.projector.wait() != 0
    assert "tallyctl rebuild" in stack.projector.log_text()
    rebuild(stack)
    stack.projector.start()
    counted = stack.until_equal()
    assert counted[lost.doomed] == lost.kept[lost.doomed] and lost.born not in counted


def test_writes_may_go_on_before_the_read_model_has_followed_a_restore(stack):
    lost = Lost(stack)
    lost.restore(stack)
    stack.command.start()
    user = lost.users[0]
    stack.new_post(user)
    lost.kept[user] = (lost.kept[user][0] + 1, lost.kept[user][1] + 1, lost.kept[user][2])
    until("a version that came twice is told", lambda: stack.read.get(f"/v1/users/{user}").json.get("degraded"))
    # The log has two histories, and is no source: the one that the database went on with is found to differ.
    refused = rebuild(stack, "--from", "log", "--limit-differences", "1000", check=DIFFERENT)
    assert not refused["switched"] and {lost.users[1], lost.born} <= {row["user"] for row in refused["listed"]}
    with more_writes(stack, lost):
        assert rebuild(stack, "--after-restore")["switched"]
    assert lost.born not in stack.read_model([lost.born])


def test_a_restore_touches_nothing_before_it_is_sure(postgres):
    first = postgres.now()
    postgres.tool("backup", "--dsn", postgres.dsn)
    postgres.tool("backup", "--dsn", postgres.dsn, "--keep", "1")
    assert len([name for name in os.listdir(os.path.join(postgres.backups, "base")) if name[0] != "."]) == 1
    other = os.path.join(postgres.home, "other")
    assert "runs in" in postgres.tool("restore", "--to", "latest", "--data", postgres.data, "--replace", check=1)
    assert "no base backup is as old" in postgres.tool("restore", "--to", first, "--data", other, check=1)
    assert "is no time" in postgres.tool("restore", "--to", "half past", "--data", other, check=1)
    assert not os.path.exists(other)
    postgres.stop()
    assert "is not empty" in postgres.tool("restore", "--to", "latest", "--data", postgres.data, check=1)
    os.mkdir(other)
    with open(os.path.join(other, "letters"), "w", encoding="ascii") as file:
        file.write("of somebody else")
    said = postgres.tool("restore", "--to", "latest", "--data", other, "--replace", check=1)
    assert "no PostgreSQL" in said and os.listdir(other) == ["letters"]


def test_a_restore_says_how_far_the_kept_log_goes_and_each_has_a_timeline_of_its_own(postgres):
    postgres.tool("backup", "--dsn", postgres.dsn)
    psql(postgres.dsn, "CREATE TABLE kept (number integer)")
    psql(postgres.dsn, "INSERT INTO kept VALUES (1)")
    postgres.stop(signal.SIGQUIT)
    other = os.path.join(postgres.home, "other")
    said = postgres.tool("restore", "--to", "2100-01-01T00:00:00Z", "--data", other, check=1)
    assert "ends before 2100" in said and "--to latest" in said
    # What the archive has not got yet is in the folder of the server that was lost.
    for timeline in (2, 3):
        said = postgres.tool("restore", "--to", "latest", "--data", postgres.data, "--replace", "--stop")
        assert f"timeline {timeline}" in said
    postgres.start()
    assert psql(postgres.dsn, "SELECT number FROM kept") == [["1"]]


def numbers(postgres):
    """What is in the table `kept` of a server that is started for it."""
    postgres.start()
    rows = psql(postgres.dsn, "SELECT number FROM kept ORDER BY 1")
    postgres.stop(signal.SIGQUIT)
    return [int(row[0]) for row in rows]


def add(postgres, number):
    psql(postgres.dsn, f"INSERT INTO kept VALUES ({number})")


def test_a_base_backup_that_an_earlier_restore_has_left_behind_is_taken_only_for_its_own_timeline(postgres):
    psql(postgres.dsn, "CREATE TABLE kept (number integer)")
    postgres.tool("backup", "--dsn", postgres.dsn)
    add(postgres, 1)
    moment = postgres.now()
    add(postgres, 2)
    postgres.tool("backup", "--dsn", postgres.dsn)
    left_behind = postgres.now()
    to_data = ["--data", postgres.data, "--replace", "--stop"]
    postgres.stop(signal.SIGQUIT)
    postgres.tool("restore", "--to", moment, *to_data)
    postgres.start()
    add(postgres, 3)
    postgres.stop(signal.SIGQUIT)
    # The newest base backup is of what was given up.
    assert "timeline 3" in postgres.tool("restore", "--to", "latest", *to_data)
    assert numbers(postgres) == [1, 3]
    assert "timeline 4" in postgres.tool("restore", "--to", "latest", "--timeline", "1", *to_data)
    assert numbers(postgres) == [1, 2]
    bases = os.path.join(postgres.backups, "base")
    oldest = min(name for name in os.listdir(bases) if name[0] == "2")
    os.rename(os.path.join(bases, oldest), os.path.join(bases, ".gone"))
    said = postgres.tool("restore", "--to", left_behind, "--timeline", "2", *to_data, check=1)
    assert "on the way to timeline 2" in said and "--timeline 1" in said


def replaced(postgres):
    return [name for name in os.listdir(postgres.home) if ".replaced-" in name]


def test_a_restore_that_did_not_come_to_its_end_is_run_again_and_loses_nothing(postgres):
    psql(postgres.dsn, "CREATE TABLE kept (number integer)")
    postgres.tool("backup", "--dsn", postgres.dsn)
    add(postgres, 1)
    # What was acknowledged last is in no archive.
    postgres.stop(signal.SIGQUIT)
    again = ["restore", "--to", "latest", "--data", postgres.data, "--replace", "--stop"]
    config = os.path.join(postgres.home, "wrong.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write("port = many\n")
    os.chmod(config, 0o644)
    assert "configuration" in postgres.tool(*again, "--config", config, check=1)
    assert not replaced(postgres)
    with socket.create_server(("127.0.0.1", postgres.port)):
        postgres.tool(*again, check=1)
    original = replaced(postgres)
    assert len(original) == 1
    said = postgres.tool(*again)
    assert "earlier attempt" in said and replaced(postgres) == original
    assert numbers(postgres) == [1]
