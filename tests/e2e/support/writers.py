"""Writers: threads that write through the API as careful clients do, and keep the books of what was acknowledged."""
import random
import threading
import time
import uuid
from collections import Counter

from support.api import NO_ANSWER, Client


class Writers:
    """Posts, comments and deletions of comments by `users`, until the `with` block ends.

    Every write is repeated until it is acknowledged: POSTs under one Idempotency-Key, so that a repeat is the same
    write, and a DELETE that got no answer takes 404 for done. Addresses are tried in turn.
    """

    PATIENCE_S = 90

    def __init__(self, addresses, users, threads=6, most=None):
        self.users = users
        self.most = most
        self.acknowledged = 0
        self.repeated = 0
        self.unexpected = []
        self.posts = Counter()
        self.comments = Counter()
        self._clients = [Client(address) for address in addresses]
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, failed, *_):
        if self.most is not None and failed is None:
            self.join()
        self._ended.set()
        self.join()
        if failed is None:
            assert not self.unexpected, self.unexpected[:5]
            assert self.acknowledged > 0, "nothing was acknowledged"

    def join(self):
        for thread in self._threads:
            thread.join(timeout=self.PATIENCE_S + 60)
            assert not thread.is_alive(), "a writer does not end"

    def reached(self, count):
        """A condition for until()."""
        assert not self.unexpected, self.unexpected[:5]
        assert self.acknowledged >= count, f"{self.acknowledged} writes of {count}"
        return True

    def assert_counted(self, counted):
        """`counted`: {user: (version, posts, comments)}. Each acknowledged write is in it once."""
        expected = {user: (self.posts[user], self.comments[user]) for user in self.users}
        found = {user: tuple(counted[user][1:]) for user in self.users}
        different = {user: (expected[user], found[user]) for user in self.users if expected[user] != found[user]}
        assert not different, f"(posts, comments) acknowledged and counted: {dict(list(different.items())[:5])}"

    def _run(self, number):
        chance = random.Random(number)
        posts, comments = [], []
        while not self._ended.is_set():
            with self._lock:
                if self.most is not None and self.acknowledged >= self.most or self.unexpected:
                    return
            user = chance.choice(self.users)
            kind = chance.random()
            if comments and kind < 0.1:
                comment, author = comments.pop(chance.randrange(len(comments)))
                if self._delete(f"/v1/comments/{comment}", chance):
                    self._book(self.comments, author, -1)
            elif posts and kind < 0.5:
                made = self._post(f"/v1/posts/{chance.choice(posts)}/comments",
                                  {"authorId": user, "body": "A comment"}, chance)
                if made:
                    comments.append((made, user))
                    self._book(self.comments, user, 1)
            else:
                made = self._post("/v1/posts", {"authorId": user, "body": "A post"}, chance)
                if made:
                    posts.append(made)
                    self._book(self.posts, user, 1)

    def _book(self, ledger, user, amount):
        with self._lock:
            ledger[user] += amount
            self.acknowledged += 1

    def _post(self, path, body, chance):
        answer, _ = self._until_answered("POST", path, body, {"Idempotency-Key": str(uuid.uuid4())}, chance)
        if answer is not None and answer.status == 201:
            return answer.json["id"]
        return self._complain(f"POST {path}", answer)

    def _delete(self, path, chance):
        answer, repeated = self._until_answered("DELETE", path, None, {}, chance)
        if answer is not None and (answer.status == 200 or repeated and answer.status == 404):
            return True
        return self._complain(f"DELETE {path}", answer)

    def _complain(self, what, answer):
        with self._lock:
            self.unexpected.append((what, answer))

    def _until_answered(self, method, path, body, headers, chance):
        """The first answer that is neither 503 nor 409, and whether it took more than one attempt."""
        deadline = time.monotonic() + self.PATIENCE_S
        repeated = False
        at = chance.randrange(len(self._clients))
        while time.monotonic() < deadline:
            try:
                answer = self._clients[at].request(method, path, body, headers, timeout=20)
                if answer.status not in (409, 503):
                    return answer, repeated
            except NO_ANSWER:
                answer = None
            repeated = True
            with self._lock:
                self.repeated += 1
            at = (at + 1) % len(self._clients)
            time.sleep(chance.uniform(0.02, 0.1))
        return answer, repeated
