"""Watching a stack from threads while something is done to it: memory, breakers, and what clients see."""
import threading
import time
from collections import Counter

from support.api import NO_ANSWER, Client

PAUSE_S = 0.02


class Watch:
    """Calls `look` again and again in a thread of its own while its `with` block runs; an exception fails the block."""

    def __init__(self, look, pause_s=PAUSE_S):
        self._look = look
        self._pause_s = pause_s
        self._ended = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, failed, *_):
        self._ended.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), "a watch does not end"
        if failed is None and self._failure is not None:
            raise self._failure

    def _run(self):
        try:
            while not self._ended.is_set():
                self._look()
                time.sleep(self._pause_s)
        except BaseException as failure:  # pylint: disable=broad-except
            self._failure = failure


class Memory(Watch):
    """The most that each service has had in memory, in MiB."""

    def __init__(self, services):
        self.most = Counter()
        self._services = services
        super().__init__(self._sample)

    def _sample(self):
        for service in self._services:
            self.most[service.name] = max(self.most[service.name], resident_mib(service.pid))


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


class Requests(Watch):
    """Sends one request again and again. Each gets an answer of `right` or a 503 that says when to come back."""

    def __init__(self, address, method, path, right):
        self.statuses = Counter()
        self._client = Client(address)
        self._request = method, path
        self._right = right
        super().__init__(self._send)

    def _send(self):
        try:
            answer = self._client.request(*self._request, timeout=30)
        except NO_ANSWER as failure:
            raise AssertionError(f"{self._request}: {failure!r}") from failure
        self.statuses[answer.status] += 1
        if answer.status == 503:
            assert int(answer.header("Retry-After")) >= 1, answer
        else:
            assert answer.status == self._right, answer


class Breaker(Watch):
    """When the breaker of `service` was first seen open in all its threads, in seconds from begin()."""

    def __init__(self, service):
        self.opened_s = None
        self._began = None
        self._service = service
        super().__init__(self._sample)

    def begin(self):
        self._began = time.monotonic()

    def _sample(self):
        if self._began is not None and self.opened_s is None and all(state > 0 for state in breaker_states(self._service)):
            self.opened_s = time.monotonic() - self._began


def breaker_states(service):
    return [value for name, value in service.metrics().items() if name.startswith("tally_breaker_state{")]
