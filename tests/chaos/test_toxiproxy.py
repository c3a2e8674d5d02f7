"""F17: toxiproxy between each service and each server that it talks to."""
import os
import time
from collections import namedtuple
from urllib.parse import urlsplit, urlunsplit

import pytest

from support.api import Client, assert_problem
from support.figures import percentile
from support.load import Load
from support.oracle import assert_diff_0
from support.scale import scaled
from support.stack import Stack, required
from support.toxiproxy import Toxiproxy
from support.wait import until
from support.watch import Breaker, Memory, Requests, breaker_states, resident_mib

Toxic = namedtuple("Toxic", "name kind streams attributes")
BOTH = ("downstream", "upstream")
TOXICS = [
    Toxic("2 s latency", "latency", ["downstream"], {"latency": 2000}),
    Toxic("resets", "reset_peer", ["downstream"], {"timeout": 0}),
    # What is sent arrives and is done; what comes back is lost.
    Toxic("answers lost", "timeout", ["downstream"], {"timeout": 0}),
    Toxic("silence", "timeout", BOTH, {"timeout": 0}),
    Toxic("narrow bandwidth", "bandwidth", BOTH, {"rate": scaled(64, 16)}),
]
DEAD = ("resets", "answers lost", "silence")
HOLD_S = scaled(30, 3)
STALL_MS = 6000
REFUSALS = 20
# A write that makes nothing, through a batch all the same.
WRITE = ("DELETE", "/v1/comments/1")
# Kafka may be silent for so long before anybody calls that a fault.
PATIENCE_S = {"relay-kafka": 15, "projector-kafka": 15}
GROWTH_MOST_MIB = 256
# A service may say again what still holds, but not for each request.
LINES_MOST = 10
LINES_MOST_S = 3


class ProxiedStack(Stack):
    """Each link of each service goes through a proxy of its own, which is named after it."""

    def __init__(self, folder):
        super().__init__(folder, impatient=("command", "projector", "query", "ctl"))
        self.proxy = Toxiproxy(self.folder)

    def start(self):
        self.proxy.start()
        self.prepare()
        dsn = urlsplit(self.dsn)
        port = self.proxy.add("command-postgresql", dsn.port)
        redis = {kind: f"redis://127.0.0.1:{self.proxy.add(f'{kind}-redis', self.redis.port)}/0"
                 for kind in ("projector", "query")}
        brokers = {name: f"127.0.0.1:{self.proxy.add(f'{name}-kafka', *ports)}" for name, ports in kafka_listeners().items()}
        self.add("command", TALLY_KAFKA_BROKERS=brokers["relay"], TALLY_PG_DSN=urlunsplit(
            dsn._replace(netloc=dsn.netloc.replace(f":{dsn.port}", f":{port}"))))
        self.add("projector", TALLY_KAFKA_BROKERS=brokers["projector"], TALLY_REDIS_URL=redis["projector"],
                 TALLY_PROJECTOR_STALL_MS=str(STALL_MS))
        self.add("query", TALLY_REDIS_URL=redis["query"])
        for service in self.services:
            service.spawn()
        for service in self.services:
            service.until_ready()
        return self


def kafka_listeners():
    """{client: (port, port of its proxy)}. Kafka tells its clients where it is: for each proxy it has a listener that
    advertises the proxy."""
    listeners = [entry.split("=") for entry in required("TALLY_LOCAL_KAFKA_LISTENERS").split()]
    return {name.lower(): (int(port), int(advertised)) for name, port, advertised in listeners}


@pytest.fixture
def proxied(log_folder, request):
    made = ProxiedStack(os.path.join(log_folder, f"toxic-{request.node.callspec.params['link']}"))
    try:
        yield made.start()
    finally:
        made.stop()
        made.proxy.kill()


def complaints(service):
    return [line for line in service.log_lines() if line["level"] in ("warning", "error")]


def until_well(stack, load):
    """Everything works again, and nobody did anything for it."""
    began = time.monotonic()
    for service in stack.services:
        service.until_ready()
    for service in (stack.command, stack.query):
        until(f"the breaker of {service.name} is closed", lambda made=service: not any(breaker_states(made)))
    load.until_more(50)
    applied = stack.applied()
    until("events are applied", lambda: stack.applied() > applied)
    return time.monotonic() - began


def assert_refuses(figures, name, service, request):
    """While its breaker is open it answers at once, says when to come back, and that it is not ready."""
    until(f"the breaker of {service.name} is open", lambda: all(breaker_states(service)))
    client = Client(service.api)
    took_s = []
    for _ in range(REFUSALS):
        began = time.monotonic()
        answer = client.request(*request)
        took_s.append(time.monotonic() - began)
        assert_problem(answer, 503, "unavailable")
        assert int(answer.header("Retry-After")) >= 1, answer
    until(f"{service.name} says that it is not ready", lambda: not service.ready())
    figures.time(f"{name} median refusal", percentile(took_s, 50), 0.05)


def guilty_of(stack, link):
    """The service at this end of the link."""
    return next(service for service in stack.services if service.kind == link.split("-")[0].replace("relay", "command"))


def endure(stack, figures, load, link, toxic, user, said_before):
    """Holds a link under a toxic while clients write and read, and tells what they and the log saw. `said_before`: the
    lines of the log before the first toxic."""
    name = f"F17 {link}, {toxic.name}:"
    guarded = {"command-postgresql": stack.command, "query-redis": stack.query}.get(link)
    guilty = guilty_of(stack, link)
    pids = [service.pid for service in stack.services]
    said = len(complaints(guilty))
    read = ("GET", f"/v1/users/{user}")
    request = WRITE if guarded is stack.command else read
    with Memory(stack.services) as memory, \
         Requests(stack.command.api, *WRITE, 404) as writes, \
         Requests(stack.query.api, *read, 200) as reads, \
         Breaker(guarded or stack.command) as breaker:
        before = {service.name: resident_mib(service.pid) for service in stack.services}
        breaker.begin()
        with stack.proxy.poisoned(link, toxic.kind, toxic.streams, **toxic.attributes):
            if toxic.name in DEAD and guarded is not None:
                assert_refuses(figures, name, guarded, request)
                until("the breaker was seen open", lambda: breaker.opened_s is not None)
            time.sleep(HOLD_S)
        well_s = until_well(stack, load)
    assert [service.pid for service in stack.services] == pids and all(service.runs() for service in stack.services)
    grown = max(memory.most[service] - before[service] for service in before)
    lines = complaints(guilty)[said:]
    figures.told(f"{name} writes, reads", f"{dict(writes.statuses)}, {dict(reads.statuses)}")
    figures.at_most(f"{name} most memory gained (MiB)", round(grown), GROWTH_MOST_MIB)
    figures.told(f"{name} log lines", len(lines))
    figures.told(f"{name} seconds until all was well", round(well_s, 1))
    assert len(lines) <= LINES_MOST + LINES_MOST_S * (HOLD_S + well_s), (name, len(lines), lines[-5:])
    if toxic.name in DEAD and HOLD_S > PATIENCE_S.get(link, 0):
        # A cause that still holds is not told again for a while, though the toxic is another one.
        told = complaints(guilty)[said_before:]
        assert any(line.get("cause") or line.get("reason") for line in told), (name, told)
    if toxic.name in DEAD and guarded is not None:
        figures.time(f"{name} breaker opens", breaker.opened_s, 1)


@pytest.mark.parametrize("link", ["command-postgresql", "relay-kafka", "projector-kafka", "projector-redis", "query-redis"])
def test_f17_a_link_that_is_slow_deaf_dead_or_narrow_costs_answers_but_no_write_and_mends_by_itself(proxied, figures, link):
    with Load(proxied, retry_for_s=300) as load:
        user = proxied.sql("SELECT max(id) FROM users")[0][0]
        proxied.user_at(user, 1)
        said_before = len(complaints(guilty_of(proxied, link)))
        for toxic in TOXICS:
            endure(proxied, figures, load, link, toxic, user, said_before)
    figures.load(f"F17 {link}: load", load.per_second)
    assert_diff_0(figures, f"F17 {link}:", proxied, [load])
