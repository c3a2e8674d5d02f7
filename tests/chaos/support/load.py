"""The load: `tallyctl load` at a constant rate, and its ledger of what was acknowledged."""
import json
import os
import signal
import subprocess
from collections import namedtuple

from support.scale import scaled
from support.wait import until

# A little over the limit, which the time in which the load starts and ends would take it below.
RATE_S = scaled(2100, 300)
USERS = scaled(10000, 300)
CONNECTIONS = scaled(64, 16)

Entry = namedtuple("Entry", "kind id user version post")


class Load:
    """Runs while its `with` block does. Every command is repeated until its outcome is known; none may fail."""

    def __init__(self, stack, address=None, rate_s=RATE_S, users=USERS, connections=CONNECTIONS, retry_for_s=120,
                 more=()):
        self._stack = stack
        number = 1 + sum(name.startswith("ledger-") for name in os.listdir(stack.folder))
        self.ledger_path = os.path.join(stack.folder, f"ledger-{number}.tsv")
        open(self.ledger_path, "w", encoding="ascii").close()
        self.rate_s = rate_s
        self.users = users
        self._read_to = self._lines = 0
        self.report = None
        self._log = os.path.join(stack.folder, f"load-{number}.log")
        settings = stack.settings_of("ctl")
        settings["TALLY_COMMAND_LISTEN"] = address or stack.command.api
        if any(service.kind == "query" for service in stack.services):
            settings["TALLY_QUERY_LISTEN"] = stack.query.api
        self._environment = stack.environment(settings)
        # As long as the test likes: a signal ends it.
        self._command = [stack.program("tallyctl"), "load", "--json", "--users", str(users), "--rate", str(rate_s),
                         "--connections", str(connections), "--retry-for", str(retry_for_s), "--duration", "1000000",
                         "--ledger", self.ledger_path, *more]

    def __enter__(self):
        with open(self._log, "wb") as log:
            # Gone when pytest is; start from the main thread only (see Process).
            self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self._command], stderr=log,
                                             stdout=subprocess.PIPE, env=self._environment, cwd=self._stack.folder)
        until("the users of the load are made", lambda: self.acknowledged() > self.users, 120)
        return self

    def __exit__(self, failed, *_):
        if failed is not None:
            self._process.kill()
            self._process.communicate(timeout=60)
            return
        self.end()

    def end(self):
        """Lets every command that is in flight end, and takes the report."""
        if self.report is not None:
            return
        self._process.send_signal(signal.SIGINT)
        out, _ = self._process.communicate(timeout=300)
        assert out, f"tallyctl load ended with {self._process.returncode}: {self.log_text()}"
        self.report = json.loads(out)
        assert self.report["failed"] == 0 and self._process.returncode == 0, (self.report, self.log_text())

    def log_text(self):
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()

    @property
    def per_second(self):
        """Of the whole run, with the time in which faults held it up."""
        return self.report["perSecond"]

    def acknowledged(self):
        """How many commands are acknowledged, by now or in all; the making of users among them."""
        assert self.report is not None or self._process.poll() is None, f"tallyctl load ended: {self.log_text()}"
        with open(self.ledger_path, "rb") as file:
            file.seek(self._read_to)
            fresh = file.read()
        self._read_to += len(fresh)
        self._lines += fresh.count(b"\n")
        return self._lines

    def until_more(self, commands=100, seconds=60):
        """Until so many more are acknowledged than when this was called."""
        target = self.acknowledged() + commands
        until(f"{commands} more writes are acknowledged", lambda: self.acknowledged() >= target, seconds)

    def ledger(self):
        """What is in it by now, or all where the load has ended."""
        with open(self.ledger_path, encoding="ascii") as file:
            for line in file:
                if not line.endswith("\n"):
                    return
                kind, thing, user, version, post = line.rstrip("\n").split("\t")
                yield Entry(kind, int(thing), int(user), int(version), int(post))
