"""S4 and S8: the write API on the whole path, with the relay and the projector at work."""

import json
import os
import secrets
import time
from urllib.parse import urlsplit

from harness import (HERE, Figure, Sample, Side, SideFailed, compared, describe_cpu, describe_others, interleave,
                     median, middle, run, server_pids, settle, wrk, wrk_side)

POSTGRES_BIN = "/usr/lib/postgresql/15/bin/"
CONNECTIONS = 64
PGBENCH_CLIENTS = (1, 4, 16, 64)
AUTHORS = 10_000
FIRST_AUTHOR = "100000000000000000"
AUTHOR_PREFIX = FIRST_AUTHOR[:-5]
TITLE = "A title of some forty characters, or so"
BODY = ("A body of two hundred characters, which is what a short remark comes to. " * 3)[:200].strip()
RATE = 1_000
LIMIT_P50_MS = 3.0
LIMIT_P99_MS = 10.0


def psql(dsn, *arguments, variables=()):
    command = [POSTGRES_BIN + "psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d", dsn]
    for name, value in variables:
        command += ["-v", f"{name}={value}"]
    return run([*command, *arguments]).strip()


def seed_authors(dsn):
    if psql(dsn, "-c", f"SELECT count(*) FROM users WHERE id = {FIRST_AUTHOR}") == "1":
        return
    psql(dsn, "-f", HERE / "pgbench" / "seed_users.sql", variables=[("first", FIRST_AUTHOR), ("users", AUTHORS)])
    psql(dsn, "-c", "VACUUM ANALYZE users")


def rival_database():
    """An equal schema in the same server, which no relay reads."""
    dsn = os.environ["TALLY_PG_DSN"]
    rival = dsn.rsplit("/", 1)[0] + "/tally_bench"
    if psql(dsn, "-c", "SELECT count(*) FROM pg_database WHERE datname = 'tally_bench'") == "0":
        psql(dsn, "-c", "CREATE DATABASE tally_bench")
    run([os.environ["TALLY_BIN_DIR"] + "/tallyctl", "migrate"], env={**os.environ, "TALLY_PG_DSN": rival})
    return rival


def pgbench(dsn, clients, seconds):
    """Transactions a second as pgbench counts them, without the time to connect; -T counts that time too."""
    seconds += 1 + clients // 32
    command = [POSTGRES_BIN + "pgbench", "-n", "-M", "prepared", "-c", clients, "-j", min(clients, 2), "-T", seconds,
               "-f", HERE / "pgbench" / "create_post.sql", "-D", f"first={FIRST_AUTHOR}", "-D", f"users={AUTHORS}",
               "-D", f"title={TITLE}", "-D", f"body={BODY}", dsn]
    figures = {}
    for line in run(command, seconds=seconds + 60).splitlines():
        name, _, value = line.partition(" = ") if " = " in line else line.partition(": ")
        figures[name] = value
    if figures.get("number of failed transactions", "0 ").split()[0] != "0":
        raise SideFailed(f"pgbench: {figures['number of failed transactions']} transactions failed")
    if "tps" not in figures:
        return Sample(0.0), 0  # connecting took all the time
    average_ms = float(figures["latency average"].split()[0])
    return (Sample(float(figures["tps"].split()[0]), average_ms),
            int(figures["number of transactions actually processed"].split("/")[0]))


def create_posts(rounds, seconds):
    dsn = os.environ["TALLY_PG_DSN"]
    rival = rival_database()
    for database in (dsn, rival):
        seed_authors(database)
    pids = server_pids()
    # What a post leaves behind for the relay, Kafka and the projector must not run on the rival's time.
    quiet = lambda: settle(pids)
    port = urlsplit(os.environ["TALLY_COMMAND_URL"]).port
    counted = {name: pids[name] for name in ("command", "postgres", "kafka", "projector", "redis") if name in pids}
    arguments = [AUTHOR_PREFIX, AUTHORS, TITLE, BODY]
    key = secrets.token_hex(8)
    sides = [
        wrk_side("POST", "create_posts.lua", port, CONNECTIONS, arguments, counted, before=quiet),
        # A key that no earlier round has used: a repeat would be answered from the stored outcome.
        Side("POST with Idempotency-Key",
             lambda length: wrk("create_posts.lua", port, CONNECTIONS,
                                [*arguments, f"{key}-{time.monotonic_ns()}"], length),
             counted, quiet),
    ]
    for clients in PGBENCH_CLIENTS:
        sides.append(Side(f"pgbench {clients}", lambda length, clients=clients: pgbench(rival, clients, length),
                          {"postgres": pids["postgres"]}, quiet))
    samples = interleave(sides, rounds, seconds)
    best = max(PGBENCH_CLIENTS, key=lambda clients: middle(samples[f"pgbench {clients}"]).rate)
    others = ", ".join(f"{clients}: {middle(samples[f'pgbench {clients}']).rate:,.0f}" for clients in PGBENCH_CLIENTS)
    figures = []
    for what, side in (("POST /v1/posts", "POST"),
                       ("POST /v1/posts with Idempotency-Key", "POST with Idempotency-Key")):
        figure = compared("S4", f"{what}, {CONNECTIONS} connections", samples, side, f"pgbench {best}",
                          f"pgbench best of 1–64 clients ({best})", 1.5)
        figure.notes.append(f"pgbench/s by clients: {others}; relay, Kafka and projector run beside the posts")
        figures.append(figure)
    return figures


def load_at_rate(seconds):
    command, query = (urlsplit(os.environ[name]).netloc for name in ("TALLY_COMMAND_URL", "TALLY_QUERY_URL"))
    out = run([os.environ["TALLY_BIN_DIR"] + "/tallyctl", "load", "--json", "--users", AUTHORS, "--distribution",
               "uniform", "--connections", CONNECTIONS, "--rate", RATE, "--duration", seconds, "--sample-visibility",
               0.25, "--seed", 8], seconds=seconds + 180,
              env={**os.environ, "TALLY_COMMAND_LISTEN": command, "TALLY_QUERY_LISTEN": query})
    report = json.loads(out)
    if report["visibility"]["latency"]["count"] == 0:
        raise SideFailed(f"no write was seen to become visible: {out[:500]}")
    return report


def visibility(rounds, seconds):
    pids = server_pids()
    reports = []

    def measure(length):
        # Long enough for a p99 of a quarter of the writes.
        reports.append(load_at_rate(max(2 * length, 4)))
        seen = reports[-1]["visibility"]["latency"]
        return Sample(reports[-1]["perSecond"], seen["p50Ms"], seen["p99Ms"]), reports[-1]["commands"]

    samples = interleave([Side("load", measure, pids, lambda: settle(pids))], rounds, seconds)
    taken = middle(samples["load"])
    p50s, p99s = ([getattr(sample, name) for sample in samples["load"]] for name in ("p50_ms", "p99_ms"))
    write = [report["latency"] for report in reports[1:]]
    notes = [
        f"by round: p50 {min(p50s):.2f}–{max(p50s):.2f} ms, p99 {min(p99s):.2f}–{max(p99s):.2f} ms ({len(p50s)} rounds);"
        f" acknowledged after p50 {median([one['p50Ms'] for one in write]):.2f} ms, "
        f"p99 {median([one['p99Ms'] for one in write]):.2f} ms",
        f"{taken.rate:,.0f} writes/s; CPU µs a write: {describe_cpu(taken)}",
        *describe_others(samples),
    ]
    stale, failed = (sum(report["visibility"][name] for report in reports) for name in ("stale", "failed"))
    if stale or failed:
        notes.append(f"reads: {stale} stale, {failed} failed")
    return [Figure("S8", f"acknowledged write to visible read, {RATE:,} writes/s",
                   f"p50 {taken.p50_ms:.2f} ms, p99 {taken.p99_ms:.2f} ms", "", None,
                   f"p50 ≤ {LIMIT_P50_MS:.0f} ms, p99 ≤ {LIMIT_P99_MS:.0f} ms",
                   taken.p50_ms <= LIMIT_P50_MS and taken.p99_ms <= LIMIT_P99_MS, list(zip(p50s, p99s)), notes,
                   {"reports": reports})]
