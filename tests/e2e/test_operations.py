"""Operations: health, metrics, logs, settings, and how a service stops."""
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.api import NO_ANSWER, assert_success
from support.notify import Notifications
from support.process import free_port
from support.raw import Connection
from support.stack import PARTITIONS, RowLock
from support.wait import until
from support.writers import Writers

KINDS = ("command", "projector", "query")
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*"'
                    r'(?:,[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*")*\})? (\S+)')


@pytest.fixture
def alone(stack):
    """The shared projector has all partitions again when the test ends, whatever projectors it has added."""
    yield
    until("the shared projector owns all partitions",
          lambda: stack.projector.metrics()["tally_projector_owned_partitions"] == PARTITIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_tells_that_it_lives_and_is_ready_and_what_it_needs(stack, kind):
    service = stack.service(kind)
    assert service.look("/livez").status == 200
    assert service.look("/readyz").status == 200
    health = service.look("/readyz?verbose").json
    assert health["ready"] is True and health["checks"]
    assert all(check["ok"] is True and check["name"] for check in health["checks"])
    assert service.look("/nothing").status == 404


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_prometheus_text_with_the_tally_prefix_and_no_user_in_it(stack, kind):
    user = stack.new_user()
    stack.user_at(user, 1)
    answer = stack.service(kind).look("/metrics")
    assert answer.status == 200
    assert answer.header("Content-Type").startswith("text/plain; version=0.0.4"), answer
    text = answer.body.decode()
    assert text.endswith("\n")
    types, helps, seen = {}, set(), set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind_of = line.split(" ")
            assert name not in types, f"{name} is declared twice"
            types[name] = kind_of
        elif line.startswith("# HELP "):
            helps.add(line.split(" ")[2])
        else:
            match = SAMPLE.fullmatch(line)
            assert match, f"no sample: {line!r}"
            assert (match[1], match[2]) not in seen, f"twice: {line!r}"
            seen.add((match[1], match[2]))
            base = match[1] if match[1] in types else re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert base in types and base in helps, f"neither TYPE nor HELP: {line!r}"
            float(match[3])
    assert types and all(name.startswith("tally_") for name in types)
    assert all(name.endswith("_total") == (kind_of == "counter") for name, kind_of in types.items()), types
    assert not re.search(r"_(ms|us|milliseconds|microseconds|kb|mb)\b", text)
    assert user not in text


def test_the_metrics_count_what_is_done(stack):
    before = {kind: stack.service(kind).metrics() for kind in KINDS}
    user = stack.new_user()
    for _ in range(10):
        stack.new_post(user)
    stack.user_at(user, 11)

    def rise(kind, prefix):
        now = stack.service(kind).metrics()
        return sum(value - before[kind].get(name, 0) for name, value in now.items() if name.startswith(prefix))
    until("requests are counted", lambda: rise("command", "tally_command_requests_total") >= 11)
    until("events are counted as published", lambda: rise("command", "tally_relay_published_total") >= 11)
    until("events are counted as applied", lambda: rise("projector", "tally_projector_events_total") >= 11)
    until("reads are counted", lambda: rise("query", "tally_query_requests_total") >= 1)
    buckets = [name for name in stack.query.metrics() if name.startswith("tally_query_request_seconds_bucket")]
    assert any('le="0.0001"' in name for name in buckets), buckets[:3]


def test_logs_are_json_lines_without_bodies_addresses_or_tokens(stack):
    marker = f"hidden{stack.id}"
    headers = {"Authorization": f"Bearer {marker}token", "Idempotency-Key": f"{marker}key"}
    profile = {"name": f"{marker}name", "email": f"{marker}@example.org", "avatar": f"https://example.org/{marker}"}
    user = assert_success(stack.write.post("/v1/users", profile, headers), 201)["id"]
    assert stack.write.post("/v1/users", profile).status == 409
    assert stack.write.post("/v1/users", f'{{"{marker}', {"Content-Type": "application/json"}).status == 400
    post = {"authorId": user, "title": f"{marker}title", "body": f"{marker}body"}
    assert stack.write.post("/v1/posts", post).status == 201
    stack.user_at(user, 2)
    assert stack.read.get(f"/v1/users/{user}", {"Authorization": f"Bearer {marker}token"}).status == 200
    assert stack.write.delete(f"/v1/users/{user}").status == 202
    stack.until_equal()
    password = re.search(r"//[^:/@]+:([^@]+)@", stack.dsn)
    for service in stack.services:
        lines = service.log_lines()
        assert lines, f"{service.name} logs nothing"
        for line in lines:
            assert {"time", "level", "service", "event"} <= set(line), line
            assert line["service"] == f"tally-{service.kind}", line
            assert line["level"] in ("debug", "info", "warning", "error"), line
        text = service.log_text()
        assert marker not in text, [line for line in text.splitlines() if marker in line][:3]
        assert password is None or password[1] not in text


def test_a_write_in_flight_is_answered_before_a_command_service_that_was_told_to_stop_exits(stack):
    user = stack.new_user()
    service = stack.add("command", TALLY_DRAIN_MS="60000", TALLY_COMMAND_TIMEOUT_MS="60000").start()
    with ThreadPoolExecutor(1) as pool, RowLock(stack, user) as lock:
        write = pool.submit(service.client.post, "/v1/posts", {"authorId": user, "body": "A post"})
        lock.until_awaited()
        service.signal(signal.SIGTERM)
        until("the service is unready", lambda: not service.ready())
        assert service.runs()
        lock.release()
        answer = write.result()
    assert_success(answer, 201)
    assert service.wait() == 0, service.log_tail()
    assert stack.user_at(user, 2).json["postCount"] == 1


def test_a_read_in_flight_is_answered_before_a_query_service_that_was_told_to_stop_exits(stack):
    user = stack.new_user()
    stack.user_at(user, 1)
    service = stack.add("query").start()
    ended = []

    def waits():
        # 10 s is the longest that a read may wait; one that was not seen in that time is asked again.
        while not ended:
            answer = service.client.get(f"/v1/users/{user}", {"Prefer": "wait=10"}, {"minVersion": 1000})
        return answer
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(waits)
        until("the read waits", lambda: sum(value for name, value in service.metrics().items()
                                            if name.startswith("tally_query_waiters")) == 1)
        ended.append(True)
        service.signal(signal.SIGTERM)
        answer = read.result()
    assert answer.status == 503 and answer.header("Retry-After"), answer
    assert service.wait() == 0, service.log_tail()


@pytest.mark.parametrize("kind", ["command", "query"])
def test_a_client_that_never_ends_its_request_does_not_spoil_a_clean_stop(stack, kind):
    service = stack.add(kind, TALLY_DRAIN_MS="1000").start()
    begun = (b"POST /v1/posts HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
             if kind == "command" else b"GET /v1/stats HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    with Connection(service.api) as client:
        # In one piece with a request that is answered, so that the service has the beginning of the other one.
        client.send(b"GET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n" + begun)
        assert client.answer().status == 404
        service.signal(signal.SIGTERM)
        assert service.wait() == 0, service.log_tail()


def test_a_command_service_takes_writes_without_kafka_and_says_what_is_missing(stack):
    user = stack.new_user()
    # Port 9, discard: nobody listens there.
    service = stack.add("command", TALLY_KAFKA_BROKERS="127.0.0.1:9", TALLY_DRAIN_MS="5000").start()
    assert_success(service.client.post("/v1/posts", {"authorId": user, "body": "A post"}), 201)

    def named():
        checks = {check["name"]: check for check in service.look("/readyz?verbose").json["checks"]}
        return not checks["relay"]["ok"] and "Kafka" in checks["relay"]["reason"]
    until("the relay says that Kafka is missing", named)
    assert service.look("/readyz").status == 200
    assert service.terminate() == 0, service.log_tail()


def test_a_stopped_service_refuses_nobody_that_it_took_in(stack):
    """Clients that write and read without pause see whole answers, then a closed connection or a refused one."""
    user = stack.new_user()
    for kind, method, path, body in (("command", "POST", "/v1/posts", {"authorId": user, "body": "A post"}),
                                     ("query", "GET", f"/v1/users/{user}", None)):
        service = stack.add(kind).start()
        statuses = []

        def ask_until_gone():
            try:
                while True:
                    statuses.append(service.client.request(method, path, body).status)
            except NO_ANSWER:
                pass
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(ask_until_gone) for _ in range(4)]
            until("requests are answered", lambda: len(statuses) > 50)
            assert service.terminate() == 0, service.log_tail()
            for run in runs:
                run.result()
        assert set(statuses) <= {200, 201, 503}, set(statuses)
    stack.until_equal()


def test_a_projector_that_was_told_to_stop_exits_and_its_successor_goes_on_where_it_was(own_stack):
    stack = own_stack
    with Writers([stack.command.api], [stack.new_user() for _ in range(20)]) as writers:
        for _ in range(2):
            seen = stack.applied()
            until("100 more events are applied", lambda: stack.applied() >= seen + 100)
            assert stack.projector.terminate() == 0, stack.projector.log_tail()
            stack.projector.start()
    writers.assert_counted(stack.until_equal())


def test_a_projector_does_not_start_on_a_redis_that_may_evict_and_says_why(own_stack):
    stack = own_stack
    assert stack.projector.terminate() == 0
    stack.redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    service = stack.add("projector")
    service.spawn()
    assert service.wait() != 0
    assert "noeviction" in service.log_text()


def run_service(stack, kind, *flags, **settings):
    """Runs a service that is expected to end by itself."""
    service = stack.add(kind, **settings)
    stack.services.remove(service)
    return subprocess.run([*service.command, *flags], env=service.environment, cwd=stack.folder,
                          capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_can_be_checked_without_starting(stack, kind):
    assert run_service(stack, kind, "--check-config").returncode == 0
    done = run_service(stack, kind, "--check-config", TALLY_DRAIN_MS="soon")
    assert done.returncode != 0
    assert "TALLY_DRAIN_MS" in done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name, value", [
    ("TALLY_LOG_LEVEL", "loud"), ("TALLY_DRAIN_MS", "600001"), ("TALLY_DRAIN_MS", "-1"), ("TALLY_DRAIN_MS", "5s"),
    ("TALLY_ADMIN_LISTEN", "9080"), ("TALLY_ADMIN_LISTEN", "127.0.0.1:65536")])
def test_a_bad_setting_is_named_and_the_service_does_not_start(stack, kind, name, value):
    done = run_service(stack, kind, **{name: value})
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert value in said and (name in said or "host:port" in said), said


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_flag_or_setting_is_refused(stack, kind, tmp_path):
    done = run_service(stack, kind, "--no-such-flag")
    assert done.returncode != 0 and "no-such-flag" in done.stderr
    settings = tmp_path / "settings"
    settings.write_text("# a slip\nTALLY_LOG_LEVLE=info\n")
    done = run_service(stack, kind, "--config", str(settings))
    assert done.returncode != 0 and "TALLY_LOG_LEVLE" in done.stdout + done.stderr


@pytest.mark.parametrize("kind", ("command", "query"))
def test_an_api_without_authentication_is_not_offered_to_other_machines(stack, kind):
    for host in ("0.0.0.0", "[::]"):
        listen = f"{host}:{free_port()}"
        done = run_service(stack, kind, **{f"TALLY_{kind.upper()}_LISTEN": listen, "TALLY_AUTH": "off"})
        assert done.returncode != 0
        assert "loopback" in done.stdout + done.stderr, done


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_whose_port_is_taken_says_so_and_ends(stack, kind):
    done = run_service(stack, kind, TALLY_ADMIN_LISTEN=stack.service(kind).admin)
    assert done.returncode != 0
    assert stack.service(kind).admin in done.stdout + done.stderr, done


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_taken_over_on_sighup_and_bad_ones_leave_those_in_force(stack, kind, tmp_path):
    settings = tmp_path / "settings"
    settings.write_text("TALLY_LOG_LEVEL=error\n")
    service = stack.add(kind)
    del service.environment["TALLY_LOG_LEVEL"]
    service.command += ["--config", str(settings)]
    service.start()
    assert '"level":"info"' not in service.log_text()

    settings.write_text("TALLY_LOG_LEVEL=info\n")
    service.signal(signal.SIGHUP)
    until("the new level is in force", lambda: '"level":"info"' in service.log_text())
    settings.write_text("TALLY_LOG_LEVEL=loud\n")
    service.signal(signal.SIGHUP)
    until("the bad level is named", lambda: any("loud" in str(line) for line in service.log_lines()))
    until("it is ready", service.ready)
    assert service.terminate() == 0
    # Still at info, at which a stop is told.
    assert service.log_lines()[-1]["level"] == "info"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", KINDS)
def test_systemd_is_told_when_a_service_is_ready_that_it_lives_and_when_it_stops(stack, kind, tmp_path):
    with Notifications(tmp_path) as notifications:
        service = stack.add(kind)
        service.environment.update(NOTIFY_SOCKET=notifications.address, WATCHDOG_USEC="400000")
        service.start()
        until("READY=1 and WATCHDOG=1 are told", lambda: {"READY=1", "WATCHDOG=1"} <= notifications.told)
        assert "STOPPING=1" not in notifications.told
        service.signal(signal.SIGTERM)
        until("STOPPING=1 is told", lambda: "STOPPING=1" in notifications.told)
        assert service.wait() == 0
