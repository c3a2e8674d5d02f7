"""A private Redis, configured as Tally asks for, whose data a test may lose."""
import os
import shutil
import subprocess

from support.process import Process, free_port
from support.wait import until


class Redis(Process):
    # What a killed Redis has written is kept all the same, and it never waits for a slow disk, as it would with everysec.
    appendfsync = "no"

    def __init__(self, folder, log):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.data = os.path.join(folder, "redis")
        os.makedirs(self.data, exist_ok=True)
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", self.data,
                   "--loglevel", "warning", "--save", "", "--appendonly", "yes", "--appendfsync", self.appendfsync,
                   # What a test copies from the folder, or cuts off there, is not written anew meanwhile.
                   "--auto-aof-rewrite-percentage", "0", "--maxmemory-policy", "noeviction"]
        super().__init__("redis", command, dict(os.environ), log, folder)

    def start(self):
        self.spawn()
        until("Redis answers", self._answers)

    def _answers(self):
        self.spawn_again_where_its_port_was_taken()
        return self.call("PING") == "PONG"

    def call(self, *words):
        """One command by redis-cli; the reply as its raw text."""
        done = subprocess.run(["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), "--raw", *words],
                              capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise OSError(f"redis-cli {words}: {done.stdout}{done.stderr}")
        return done.stdout.rstrip("\n")

    def hash(self, key):
        words = self.call("HGETALL", key).split("\n")
        return dict(zip(words[0::2], words[1::2]))

    def forget_the_newest(self, share):
        """While it is down: cuts off the last `share` of what was written since the start, as a power cut does
        to the part that was not yet on disk."""
        folder = os.path.join(self.data, "appendonlydir")
        newest = max((name for name in os.listdir(folder) if name.endswith(".incr.aof")),
                     key=lambda name: int(name.split(".")[-3]))
        path = os.path.join(folder, newest)
        size = os.path.getsize(path)
        assert size > 0, "nothing was written to the append-only file"
        os.truncate(path, int(size * (1 - share)))

    def forget_all(self):
        """While it is down."""
        shutil.rmtree(self.data)
        os.makedirs(self.data)
