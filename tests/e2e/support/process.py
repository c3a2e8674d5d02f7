"""Processes of a stack: started with a log of their own, stopped however a test likes, gone at the end."""
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
from collections import deque

from support.wait import until


# As deploy/local reserves ports (port_reserve in its lib/state.sh): whoever holds the lock on the file of a port may use it.
PORTS_FOLDER = os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/tmp", f"tally-ports-{os.geteuid()}")
ADDRESS_IN_USE = b"Address already in use"
_given = set()
# No more than these stay locked: select() takes no descriptor beyond 1,023. Whatever was given a port before them is gone
# by now, or listens on it.
_held = deque()
HELD_MOST = 256


def free_port():
    """A port that nobody listens on and that nobody else is given meanwhile, from below the range that the kernel gives to
    outgoing connections."""
    os.makedirs(PORTS_FOLDER, mode=0o700, exist_ok=True)
    for _ in range(1000):
        port = random.randint(15000, 31999)
        if port not in _given and _reserve(port):
            _given.add(port)
            return port
    raise AssertionError("no free port between 15000 and 31999")


def _reserve(port):
    descriptor = os.open(os.path.join(PORTS_FOLDER, str(port)), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        os.close(descriptor)
        return False
    _held.append(descriptor)
    if len(_held) > HELD_MOST:
        os.close(_held.popleft())
    return True


class Process:
    """One program; `start` may be called again after its end and appends to the same log.

    Start from the main thread only: the kernel kills the program when the thread that started it ends, which is
    how nothing is left running when pytest itself is killed.
    """

    def __init__(self, name, command, environment, log, folder):
        self.name = name
        self.command = command
        self.environment = environment
        self.log = log
        self.folder = folder
        self._popen = None
        self._log_before = 0

    @property
    def pid(self):
        return self._popen.pid

    def runs(self):
        return self._popen is not None and self._popen.poll() is None

    def spawn(self):
        assert not self.runs(), f"{self.name} runs already"
        with open(self.log, "ab") as log:
            self._log_before = log.tell()
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command], env=self.environment, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def spawn_again_where_its_port_was_taken(self):
        """For a condition that waits for a start. A port that is free when it is chosen may be taken for a moment when it
        is needed, by somebody who looks for a free one."""
        if self._popen is None or self.runs():
            return
        with open(self.log, "rb") as log:
            log.seek(self._log_before)
            taken = ADDRESS_IN_USE in log.read()
        if taken:
            self.spawn()

    def signal(self, number):
        if self.runs():
            self._popen.send_signal(number)

    def kill(self):
        """SIGKILL, and waits for the end. Whether that is what ended it."""
        self.signal(signal.SIGKILL)
        return self._popen is not None and self._popen.wait(timeout=120) == -signal.SIGKILL

    def pause(self):
        self.signal(signal.SIGSTOP)
        until(f"{self.name} is stopped", lambda: self._state() == "T")

    def resume(self):
        self.signal(signal.SIGCONT)

    def terminate(self, seconds=120):
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self._popen.wait(timeout=seconds)

    def wait(self, seconds=120):
        return self._popen.wait(timeout=seconds)

    def _state(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0]

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def log_lines(self):
        """Every line of the log as an object; a line that is no JSON fails the caller."""
        lines = []
        # The last line may still be on its way to the file.
        for line in self.log_text().split("\n")[:-1]:
            try:
                lines.append(json.loads(line))
            except ValueError:
                raise AssertionError(f"{self.name} logged a line that is no JSON: {line!r}") from None
        return lines

    def failures(self):
        """The causes that it has ended for, the last one last."""
        return [line["cause"] for line in self.log_lines() if line["event"] == "service.failed"]

    def log_tail(self, lines=40):
        if not os.path.exists(self.log):
            return "(no log)"
        told = [line for line in self.log_text().splitlines() if '"level":"debug"' not in line]
        return "\n".join(told[-lines:])
