"""S1 to S3: the read API over a read model that is filled directly in Redis."""

import json
import os
import subprocess
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from harness import (Children, Sample, Side, SideFailed, compared, free_port, interleave, run, say, server_pids,
                     settle, wait_until_ready, wrk_side)

USERS = 1_000_000
HOT_USERS = 1_000
CONNECTIONS = 64
THREADS = 2  # of every server: tally-query's default, and Webdis's in Debian
FIRST_ID = "300000000000000000"
ID_PREFIX = FIRST_ID[:-6]
DATABASE = 1  # beside the one that a projector may write


class ReadModel:
    """The servers' addresses, and 1,000,000 users in Redis."""

    def __init__(self):
        self.redis_port = os.environ["TALLY_REDIS_URL"].rsplit(":", 1)[1].split("/")[0]
        self.redis_pid = server_pids()["redis"]
        self.partition_file = Path(os.environ["TALLY_LOCAL_DIR"], "bench-partitions").resolve()
        self.redis_cli = ["redis-cli", "-h", "127.0.0.1", "-p", self.redis_port, "-n", str(DATABASE)]

    def fill(self):
        filled = int(run([*self.redis_cli, "DBSIZE"]).split()[-1])
        if filled >= USERS and self.partition_file.exists():
            return
        say(f"  filling Redis with {USERS:,} users")
        fill = subprocess.Popen(
            [os.environ["TALLY_BENCH_DIR"] + "/bench_fill_users", "--first", FIRST_ID, "--count", str(USERS),
             "--partition-file", str(self.partition_file)], stdout=subprocess.PIPE)
        out = run([*self.redis_cli, "--pipe"], seconds=300, stdin=fill.stdout)
        fill.stdout.close()
        if fill.wait() != 0 or "errors: 0" not in out:
            raise SideFailed(f"filling Redis: {out.strip()[-300:]}")
        settle({"redis": self.redis_pid})


def start_query(children, model):
    port, admin_port = free_port(), free_port()
    pid = children.start("query", [os.environ["TALLY_BIN_DIR"] + "/tally-query"], port, {
        "TALLY_QUERY_LISTEN": f"127.0.0.1:{port}",
        "TALLY_ADMIN_LISTEN": f"127.0.0.1:{admin_port}",
        "TALLY_REDIS_URL": f"redis://127.0.0.1:{model.redis_port}/{DATABASE}",
        "TALLY_QUERY_THREADS": str(THREADS),
        "TALLY_LOG_LEVEL": "warning",
    })
    wait_until_ready(f"http://127.0.0.1:{admin_port}/readyz")
    return port, pid


def sample_answer(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/users/{FIRST_ID}", timeout=10) as answer:
        body = answer.read().decode()
        if json.loads(body)["user"]["id"] != FIRST_ID:
            raise SideFailed(f"tally-query answered {body}")
        return answer.headers, body


@contextmanager
def query_on_full_model():
    model = ReadModel()
    model.fill()
    with Children(os.environ["TALLY_LOCAL_DIR"] + "/log") as children:
        port, pid = start_query(children, model)
        headers, body = sample_answer(port)
        yield model, children, port, pid, headers, body


def hot_set(rounds, seconds):
    with query_on_full_model() as (model, children, port, pid, headers, body):
        constant_port = free_port()
        command = [os.environ["TALLY_BENCH_DIR"] + "/bench_constant_server", "--listen",
                   f"127.0.0.1:{constant_port}", "--threads", THREADS, "--body", body]
        # These are the layer's own, and the same on both sides.
        for name, value in headers.items():
            if name.lower() not in ("date", "content-length", "connection", "content-type"):
                command += ["--header", f"{name}: {value}"]
        constant_pid = children.start("constant", command, constant_port)
        arguments = [ID_PREFIX, HOT_USERS]
        samples = interleave([
            wrk_side("tally-query", "read_users.lua", port, CONNECTIONS, arguments,
                     {"tally-query": pid, "redis": model.redis_pid}),
            wrk_side("constant", "read_users.lua", constant_port, CONNECTIONS, arguments, {"constant": constant_pid}),
        ], rounds, seconds)
    return [compared(
        "S1", f"GET /v1/users/{{id}}, hot set of {HOT_USERS:,}, {CONNECTIONS} connections", samples, "tally-query",
        "constant", f"the bare HTTP layer, constant answer of the same size, {THREADS} threads", 0.90)]


def redis_benchmark(model, rate_guess):
    """GET without pipelining of one value about as large as a user's fields; -n from the rate of the last run."""
    known = {"rate": rate_guess}

    def measure(seconds):
        operations = max(int(known["rate"] * seconds), 1000)
        out = run(["redis-benchmark", "-h", "127.0.0.1", "-p", model.redis_port, "--dbnum", DATABASE, "-t", "get",
                   "-P", 1, "-c", CONNECTIONS, "-n", operations, "--csv"])
        # "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max…"
        fields = out.strip().splitlines()[-1].replace('"', "").split(",")
        known["rate"] = float(fields[1])
        return Sample(known["rate"], float(fields[4]), float(fields[6])), operations

    run(["redis-benchmark", "-h", "127.0.0.1", "-p", model.redis_port, "--dbnum", DATABASE, "-t", "set", "-d", 120,
         "-n", 1000, "-q"])
    return Side("redis-benchmark", measure, {"redis": model.redis_pid})


def all_users(rounds, seconds):
    with query_on_full_model() as (model, _, port, pid, _, _):
        samples = interleave([
            wrk_side("tally-query", "read_users.lua", port, CONNECTIONS, [ID_PREFIX, USERS],
                     {"tally-query": pid, "redis": model.redis_pid}),
            redis_benchmark(model, 50_000),
        ], rounds, seconds)
    return [compared("S2", f"GET /v1/users/{{id}}, {USERS:,} users uniformly, {CONNECTIONS} connections", samples,
                     "tally-query", "redis-benchmark", "redis-benchmark -t get -P 1", 1.0)]


def start_webdis(children, model):
    port = free_port()
    config = Path(os.environ["TALLY_LOCAL_DIR"], "bench-webdis.json")
    config.write_text(json.dumps({
        "redis_host": "127.0.0.1", "redis_port": int(model.redis_port), "redis_auth": None,
        "http_host": "127.0.0.1", "http_port": port, "threads": THREADS, "daemonize": False, "database": DATABASE,
        "acl": [], "verbosity": 1, "logfile": str(Path(os.environ["TALLY_LOCAL_DIR"], "log/webdis.log").resolve()),
    }))
    return port, children.start("webdis", ["webdis", config], port)


def against_webdis(rounds, seconds):
    with query_on_full_model() as (model, children, port, pid, _, _):
        webdis_port, webdis_pid = start_webdis(children, model)
        key = f"tally:1:%7B{model.partition_file.read_text()[0]}%7D:user:{FIRST_ID}"
        with urllib.request.urlopen(f"http://127.0.0.1:{webdis_port}/HGETALL/{key}", timeout=10) as answer:
            if "posts" not in json.loads(answer.read())["HGETALL"]:
                raise SideFailed("Webdis does not find the users")
        samples = interleave([
            wrk_side("tally-query", "read_users.lua", port, CONNECTIONS, [ID_PREFIX, USERS],
                     {"tally-query": pid, "redis": model.redis_pid}),
            wrk_side("webdis", "read_users.lua", webdis_port, CONNECTIONS,
                     [ID_PREFIX, USERS, model.partition_file], {"webdis": webdis_pid, "redis": model.redis_pid}),
        ], rounds, seconds)
    return [compared("S3", f"GET /v1/users/{{id}}, {USERS:,} users uniformly, {CONNECTIONS} connections", samples,
                     "tally-query", "webdis", f"Webdis HGETALL, {THREADS} threads", 2.0)]
