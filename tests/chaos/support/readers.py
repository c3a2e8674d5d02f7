"""Readers: threads that read users and totals all the time, and keep every answer that no client should ever see.

An answer is the truth of some moment that is not before one already told, or it says that it is none: 503 with the
problem type read-model-incomplete or unavailable. So a version or a number of users that goes down, two counts of one
version of a user, a 404 of a user who exists, and any other status are kept as wrong.
"""
import random
import threading
import time
from collections import Counter
from functools import partial
from itertools import islice

from support.api import NO_ANSWER, Client
from support.repeating import Repeating
from support.wait import until


def users_of(load, most=200):
    """The first users that the load has made."""
    made = (str(entry.user) for entry in load.ledger() if entry.kind == "user")
    return list(islice(made, most))


# Between two reads of a thread: without it, three threads of Python take the time of a core from the load.
PAUSE_S = 0.003


class Reader:
    """What one thread goes by."""

    def __init__(self, address, number):
        self.client = Client(address)
        self.chance = random.Random(number)
        self.seen = {}
        self.refused_since = None


class Readers(Repeating):
    def __init__(self, stack, users, threads=3, stats=True):
        self.answers = Counter()
        self.wrong = []
        self.unavailable_s = 0.0  # the longest time in which a thread got nothing but 503
        self._counts = {}  # of each version of each user, as it was told first
        self._address = stack.query.api
        self._users = users
        self._stats = stats
        self._lock = threading.Lock()
        super().__init__(*(partial(self._read, Reader(self._address, number)) for number in range(threads)),
                         pause_s=PAUSE_S)

    def __enter__(self):
        client = Client(self._address)
        for user in self._users:
            # A user who was made a moment ago is unknown with reason.
            path = f"/v1/users/{user}"
            until(f"user {user} is read", lambda path=path: client.get(path).status == 200, pause_s=0.005)
        return super().__enter__()

    @property
    def read(self):
        return self.answers["200"]

    @property
    def refused(self):
        return sum(count for kind, count in self.answers.items() if kind != "200")

    def _read(self, reader):
        user = reader.chance.choice(self._users)
        if self._stats and reader.chance.random() < 0.1:
            user = None
        try:
            answer = reader.client.get("/v1/stats" if user is None else f"/v1/users/{user}", timeout=20)
        except NO_ANSWER as error:
            self._keep(("no answer", user, repr(error)))
            return
        kind = self._judge(answer, user, reader.seen)
        now = time.monotonic()
        reader.refused_since = None if kind == "200" else reader.refused_since or now
        with self._lock:
            self.answers[kind] += 1
            if reader.refused_since is not None:
                self.unavailable_s = max(self.unavailable_s, now - reader.refused_since)
        if kind != "200":
            time.sleep(0.005)

    def _judge(self, answer, user, seen):
        """What kind of answer it is; keeps what is wrong with it."""
        if answer.status == 503:
            kind = answer.json.get("type", "").rsplit("/", 1)[-1].rsplit(":", 1)[-1].rsplit("#", 1)[-1]
            if kind not in ("read-model-incomplete", "unavailable"):
                self._keep(("503 of another type", user, answer))
            return kind or "503"
        if answer.status != 200:
            self._keep((f"answered {answer.status}", user, answer))
            return str(answer.status)
        document = answer.json
        # Only the number of users never goes down while the load deletes posts and comments.
        now = document["users"] if user is None else document["version"]
        if now < seen.get(user, 0):
            self._keep(("went down", user, seen[user], document))
        seen[user] = max(now, seen.get(user, 0))
        if user is not None:
            counts = document["postCount"], document["commentCount"]
            told = self._counts.setdefault((user, now), counts)
            if told != counts:
                self._keep(("another count of the same version", user, told, document))
        return "200"

    def _keep(self, what):
        with self._lock:
            self.wrong.append(what)
