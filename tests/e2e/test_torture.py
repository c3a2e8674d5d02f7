"""tallyctl torture: what it finds right, what it finds wrong, and that it never breaks what it may not."""
import json
import os
import signal
import subprocess
import time

import pytest

from support.wait import until

FINE, DIFFERENT, USAGE, FAILED = 0, 1, 2, 3


class Torture:
    """A run against a stack of its own, whose services are started again when they end, as systemd would."""

    def __init__(self, stack):
        self.stack = stack
        self.file = os.path.join(stack.folder, "faults")
        self.lines = []
        self.process = None
        self.nowhere = {}
        self.keep_pids()

    def pid_file(self, service):
        return os.path.join(self.stack.folder, f"{service.name}.pid")

    def keep_pids(self):
        for service in self.stack.services:
            if not service.runs():
                service.spawn()
            with open(self.pid_file(service), "w", encoding="ascii") as file:
                file.write(str(service.pid))

    def fault(self, name, inject, **more):
        self.lines += [f"[{name}]", f"inject = {inject}", *(f"{key} = {value}" for key, value in more.items())]

    def signal_fault(self, name, number, service, **more):
        self.fault(name, f"kill -{number} $(cat {self.pid_file(service)})", **more)

    def settings(self):
        own = self.stack.settings_of("ctl")
        for service in self.stack.services:
            own[f"TALLY_{service.kind.upper()}_ADMIN"] = service.admin
            if service.api:
                own[f"TALLY_{service.kind.upper()}_LISTEN"] = service.api
        return {**own, **self.nowhere}

    def start(self, *arguments):
        with open(self.file, "w", encoding="utf-8") as file:
            file.write("\n".join(self.lines) + "\n")
        self.process = subprocess.Popen(
            [self.stack.program("tallyctl"), "torture", "--faults", self.file, "--users", "40", "--rate", "200",
             "--connections", "8", "--pause-between", "200ms", "--json", *arguments],
            env=self.stack.environment(self.settings()), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)

    def until_told(self, words, seconds=300):
        """Reads what is told meanwhile up to a line with these words."""
        deadline = time.monotonic() + seconds
        told = []
        while time.monotonic() < deadline:
            line = self.process.stderr.readline()
            told.append(line)
            if words in line:
                return
            assert line, f"it ended without {words!r}: {told}"
        raise AssertionError(f"{words!r} was not told: {told}")

    def finish(self, seconds=600):
        """Its exit code, its report, and what it told."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            # The main thread alone may start processes; the pipes hold more than is told meanwhile.
            self.keep_pids()
            time.sleep(0.05)
        stdout, stderr = self.process.communicate(timeout=120)
        return self.process.returncode, stdout and json.loads(stdout), stderr

    def run(self, *arguments):
        self.start("--yes-break-it", *arguments)
        return self.finish()


@pytest.fixture(scope="module")
def broken_stack(make_stack):
    """Whole again after each of these tests but the last one."""
    with make_stack("torture") as made:
        yield made


@pytest.fixture
def torture(broken_stack):
    made = Torture(broken_stack)
    for service in broken_stack.services:
        service.until_ready()
    until("the stack is well", lambda: broken_stack.ctl("status", check=FINE))
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.communicate(timeout=30)


def test_services_that_are_killed_and_paused_lose_nothing_and_torture_says_so(torture):
    stack = torture.stack
    before = stack.recount()
    torture.signal_fault("command-kill", "KILL", stack.command)
    torture.signal_fault("projector-kill", "KILL", stack.projector)
    torture.signal_fault("query-kill", "KILL", stack.query)
    torture.signal_fault("projector-pause", "STOP", stack.projector, lasts="500ms-1s",
                         heal=f"kill -CONT $(cat {torture.pid_file(stack.projector)})")
    code, report, told = torture.run("--rounds", "2", "--seed", "42")
    assert code == FINE, (report, told)
    assert report["violations"] == 0 and report["compared"] and report["seed"] == 42
    assert {fault["fault"]: fault["count"] for fault in report["faults"]} == dict.fromkeys(
        ("command-kill", "projector-kill", "query-kill", "projector-pause"), 2)
    assert all(fault["recovery"]["maxMs"] > 0 for fault in report["faults"]), report
    assert report["writes"]["acknowledged"] > 100 and report["writes"]["attemptsRepeated"] > 0, report
    assert report["writes"]["unknown"] == 0 and report["reads"]["shown"] > 0, report
    assert report["writes"]["sentTwiceAtOnce"] > 0 and report["writes"]["readBack"] > 0, report
    # The users that it made: their rows are what it says they are.
    counted = {user: row for user, row in stack.until_equal().items() if user not in before}
    assert report["inPostgresql"] == {"posts": sum(row[1] for row in counted.values()),
                                      "comments": sum(row[2] for row in counted.values())}
    assert sum(row[0] - 1 for row in counted.values()) == report["writes"]["acknowledged"]


def test_a_count_that_was_changed_in_the_read_model_is_found_with_its_user(torture):
    stack = torture.stack
    bystander = stack.new_user()
    stack.until_equal()
    torture.fault("planted", f"redis-cli -u {stack.redis.url} HINCRBY '{stack.user_key(bystander)}' posts 1")
    code, report, told = torture.run("--rounds", "1")
    assert code == DIFFERENT, (report, told)
    assert (bystander, "verify") in [(found["user"], found["kind"]) for found in report["listed"]], report
    stack.redis.call("HINCRBY", stack.user_key(bystander), "posts", "-1")


def test_nothing_is_broken_unless_it_was_said_that_it_may_be(torture):
    stack = torture.stack
    before = stack.recount()
    torture.fault("never", f"touch {stack.folder}/broken")
    torture.start("--rounds", "1")
    code, _, told = torture.finish()
    assert code == USAGE and "--yes-break-it" in told
    assert not os.path.exists(f"{stack.folder}/broken") and stack.recount() == before


def test_a_stack_that_is_not_well_is_left_alone(torture):
    stack = torture.stack
    torture.fault("never", f"touch {stack.folder}/broken")
    user = stack.new_user()
    stack.until_equal()
    stack.redis.call("HINCRBY", stack.user_key(user), "posts", "1")
    code, report, told = torture.run("--rounds", "1")
    assert code == DIFFERENT and user in told, (report, told)
    stack.redis.call("HINCRBY", stack.user_key(user), "posts", "-1")
    before = stack.recount()
    torture.nowhere["TALLY_QUERY_ADMIN"] = "127.0.0.1:9"
    code, report, told = torture.run("--rounds", "1")
    assert code == FAILED and "tally-query is down" in told, (report, told)
    assert not os.path.exists(f"{stack.folder}/broken") and stack.recount() == before


def test_a_run_that_is_interrupted_heals_and_reports(torture):
    stack = torture.stack
    torture.signal_fault("projector-pause", "STOP", stack.projector, lasts="10m",
                         heal=f"kill -CONT $(cat {torture.pid_file(stack.projector)})")
    torture.start("--rounds", "1", "--yes-break-it")
    torture.until_told("projector-pause for")
    until("the projector is stopped", lambda: stack.projector._state() == "T")
    torture.process.send_signal(signal.SIGINT)
    code, report, told = torture.finish()
    assert stack.projector._state() != "T"
    assert code == FINE and report["interrupted"] and report["violations"] == 0, (report, told)


def test_a_faults_file_is_checked_without_touching_anything(stack, tmp_path):
    file = tmp_path / "faults"
    file.write_text("[one]\ninject = touch broken\n", encoding="utf-8")
    done = stack.ctl("torture", "--faults", str(file), "--check", check=FINE, TALLY_PG_DSN="postgresql://127.0.0.1:9/x")
    assert "one" in done.stdout
    file.write_text("[one]\nheal = true\n", encoding="utf-8")
    assert "[one] has no inject" in stack.ctl("torture", "--faults", str(file), "--check", check=USAGE).stderr
    for arguments in ([], ["--faults", "/nowhere"], ["--local", str(tmp_path)],
                      ["--faults", str(file), "--duration", "soon"],
                      ["--faults", str(file), "--rounds", "1", "--duration", "1s"]):
        stack.ctl("torture", *arguments, check=USAGE)


def test_the_command_that_the_stack_asks_for_is_named_and_with_mend_is_run(torture):
    stack = torture.stack
    here = os.path.dirname(__file__)
    torture.lines.append(f"logs = tail -n 100 {stack.projector.log}")
    # What was in the read model is gone, and Kafka has not kept it: only PostgreSQL has it all.
    torture.fault("all-lost", f"PYTHONPATH={here} python3 -c 'from support.kafka import delete_all; "
                  f"delete_all(\"{stack.brokers}\", \"{stack.topic}\", 8)' && redis-cli -u {stack.redis.url} FLUSHALL")
    # As long as it waits before it names the command, so long it waits for what the command has mended.
    code, report, told = torture.run("--rounds", "1", "--patience", "60s", "--mend")
    assert report["commandNamed"] == report["commandRun"] == "tallyctl rebuild", (report, told)
    assert code == FINE and report["violations"] == 0 and report["compared"], (report, told)


def test_an_acknowledged_write_that_is_gone_from_postgresql_is_found_with_its_user(torture):
    stack = torture.stack
    lost = os.path.join(stack.folder, "lost")
    # Of an author whose other posts stay, so that the read model and the recount go on to agree.
    statement = ("DELETE FROM posts WHERE id = (SELECT p.id FROM posts p WHERE NOT EXISTS "
                 "(SELECT FROM comments c WHERE c.post_id = p.id) ORDER BY p.id DESC LIMIT 1) RETURNING author_id")
    torture.fault("planted", f"psql -XqAt -d '{stack.dsn}' -c '{statement}' >{lost}")
    code, report, told = torture.run("--rounds", "1")
    assert code == DIFFERENT, (report, told)
    with open(lost, encoding="ascii") as file:
        author = file.read().strip()
    assert author in [found["user"] for found in report["listed"] if found["kind"] == "lost"], report
