"""Watching a stack from threads while something is done to it: memory, breakers, and what clients see."""
import time
from collections import Counter

from support.api import NO_ANSWER, Client
from support.repeating import Repeating

PAUSE_S = 0.02


class Memory(Repeating):
    """The most that each service has had in memory, in MiB."""

    def __init__(self, services):
        self.most = Counter()
        self._services = services
        super().__init__(self._sample, pause_s=PAUSE_S)

    def _sample(self):
        for service in self._services:
            self.most[service.name] = max(self.most[service.name], resident_mib(service.pid))


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


class Requests(Repeating):
    """Sends one request again and again. Each gets an answer of `right` or a 503 that says when to come back."""

    def __init__(self, address, method, path, right):
        self.statuses = Counter()
        self._client = Client(address)
        self._request = method, path
        self._right = right
        super().__init__(self._send, pause_s=PAUSE_S)

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


class Breaker(Repeating):
    """When the breaker of `service` was first seen open in all its threads, in seconds from begin()."""

    def __init__(self, service):
        self.opened_s = None
        self._began = None
        self._service = service
        super().__init__(self._sample, pause_s=PAUSE_S)

    def begin(self):
        self._began = time.monotonic()

    def _sample(self):
        if self._began is not None and self.opened_s is None and all(state > 0 for state in breaker_states(self._service)):
            self.opened_s = time.monotonic() - self._began


def breaker_states(service):
    return [value for name, value in service.metrics().items() if name.startswith("tally_breaker_state{")]
