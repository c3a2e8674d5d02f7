"""PostgreSQL and Kafka of this run, which a test may kill: each starts again on its data and its port."""
import os
import signal
import subprocess

import pytest

from support.wait import until

PROCESS = os.path.join(os.path.dirname(__file__), "..", "..", "..", "deploy", "local", "process")


class Server:
    """`name`: postgres or kafka, of the stack in TALLY_LOCAL_DIR, which tests/run has started for this run alone."""

    def __init__(self, name):
        if not os.environ.get("TALLY_LOCAL_DIR"):
            pytest.skip(f"TALLY_LOCAL_DIR does not tell which {name} may be killed")
        self.name = name

    def kill(self):
        """SIGKILL to it and to its children."""
        self._act("kill")

    def stop_immediately(self):
        """PostgreSQL's immediate shutdown: no checkpoint, recovery at the next start."""
        os.kill(self.pid(), signal.SIGQUIT)
        until(f"{self.name} has ended", lambda: not self.runs(), pause_s=0.01)

    def pid(self):
        return int(self._act("pid"))

    def start(self):
        """Until it answers. Nothing where it runs."""
        self._act("start")

    def pause(self):
        self._act("pause")

    def resume(self):
        self._act("resume")

    def runs(self):
        return subprocess.run([PROCESS, "pid", self.name], capture_output=True, timeout=60, check=False).returncode == 0

    def _act(self, action):
        done = subprocess.run([PROCESS, action, self.name], capture_output=True, text=True, timeout=650, check=False)
        assert done.returncode == 0, f"deploy/local/process {action} {self.name}: {done.stdout}{done.stderr}"
        return done.stdout.strip()
