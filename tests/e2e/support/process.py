"""Processes of a stack: started with a log of their own, stopped however a test likes, gone at the end."""
import json
import os
import random
import signal
import socket
import subprocess

from support.wait import until


def free_port():
    """A port nobody listens on, from below the range that the kernel gives to outgoing connections."""
    for _ in range(200):
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port between 20000 and 32000")


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

    @property
    def pid(self):
        return self._popen.pid

    def runs(self):
        return self._popen is not None and self._popen.poll() is None

    def spawn(self):
        assert not self.runs(), f"{self.name} runs already"
        with open(self.log, "ab") as log:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command], env=self.environment, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def signal(self, number):
        if self.runs():
            self._popen.send_signal(number)

    def kill(self):
        """SIGKILL, and waits for the end."""
        self.signal(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(timeout=30)

    def pause(self):
        self.signal(signal.SIGSTOP)
        until(f"{self.name} is stopped", lambda: self._state() == "T")

    def resume(self):
        self.signal(signal.SIGCONT)

    def terminate(self, seconds=60):
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self._popen.wait(timeout=seconds)

    def wait(self, seconds=60):
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
