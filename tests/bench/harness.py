"""What every measurement shares: processes and their CPU time, interleaved rounds, figures and how they are printed."""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))


class SideFailed(Exception):
    """A side could not be measured at all."""


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- processes ------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            raise SideFailed(f"{process.args[0]} ended with {process.returncode}")
        time.sleep(0.05)
    raise SideFailed(f"{process.args[0]} did not listen within {seconds} s")


def wait_until_ready(url, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise SideFailed(f"{url}: {error}") from error
        time.sleep(0.1)


def run(command, seconds=120, **options):
    """Runs a program to its end and returns its standard output."""
    try:
        done = subprocess.run(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=seconds, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SideFailed(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise SideFailed(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


class Children:
    """Servers of one scenario, stopped with it."""

    def __init__(self, log_folder):
        self.log_folder = Path(log_folder)
        self.running = {}

    def start(self, name, command, port, environment=None):
        log = (self.log_folder / f"bench-{name}.log").open("w")
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **(environment or {})})
        log.close()
        self.running[name] = process
        wait_for_port(port, process)
        return process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def server_pids():
    """The pids of the servers and services that deploy/local/up started, by name."""
    pids = {}
    for file in Path(os.environ["TALLY_LOCAL_DIR"], "run").glob("*.pid"):
        pids[file.stem] = int(file.read_text().split()[0])
    return pids


def cpu_table():
    """pid -> (parent, CPU seconds of itself, of its ended children)"""
    table = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text()
        except OSError:
            continue
        # The command name stands in brackets and may hold blanks and brackets.
        fields = stat[stat.rindex(")") + 2:].split()
        own = (int(fields[11]) + int(fields[12])) / TICKS
        table[int(entry.name)] = (int(fields[1]), own, (int(fields[13]) + int(fields[14])) / TICKS)
    return table


def cpu_seconds(pids):
    """CPU seconds used so far by each named process with all that it started, the ended ones included."""
    table = cpu_table()
    children = {}
    for pid, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(pid)

    def total(pid):
        if pid not in table:
            return 0.0
        return table[pid][1] + table[pid][2] + sum(total(child) for child in children.get(pid, []))

    return {name: total(pid) for name, pid in pids.items()}


def settle(pids, seconds=60, share=0.25):
    """Waits until these processes have finished what the last side left them, so that it is not charged to the next."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = cpu_seconds(pids)
        time.sleep(0.5)
        after = cpu_seconds(pids)
        if sum(after[name] - before[name] for name in pids) < share * 0.5:
            return
    say(f"    still busy after {seconds} s: {', '.join(pids)}")


# --- rounds ---------------------------------------------------------------------------------------


@dataclass
class Sample:
    """One side in one round. `cpu_us`: microseconds of CPU for one operation, by process; `others`: the part of the
    machine that went to processes which are none of ours."""

    rate: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_us: dict = field(default_factory=dict)
    others: float = 0.0


@dataclass
class Side:
    name: str
    measure: Callable  # (seconds) -> (Sample, operations in it)
    pids: dict = field(default_factory=dict)  # whose CPU time is counted
    before: Callable = None  # called before each round of this side


def busy_seconds():
    """CPU seconds that the whole machine has spent on anything."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS  # but for idle and iowait


def measured(side, seconds):
    if side.before:
        side.before()
    everything_of_ours = {**server_pids(), "measurement": os.getpid()}
    began, busy_before = time.monotonic(), busy_seconds()
    cpu_before, ours_before = cpu_seconds(side.pids), cpu_seconds(everything_of_ours)
    sample, operations = side.measure(seconds)
    cpu_after, ours_after = cpu_seconds(side.pids), cpu_seconds(everything_of_ours)
    busy, elapsed = busy_seconds() - busy_before, time.monotonic() - began
    sample.cpu_us = {name: (cpu_after[name] - cpu_before[name]) * 1e6 / max(operations, 1) for name in side.pids}
    ours = sum(ours_after[name] - ours_before[name] for name in everything_of_ours)
    sample.others = max(0.0, busy - ours) / (elapsed * CORES)
    return sample


def interleave(sides, rounds, seconds):
    """Runs the sides in turn (AB, BA, AB…: neither always comes first), after a warm-up of each; returns a list of
    samples for each side."""
    for side in sides:
        measured(side, 2)
    samples = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            samples[side.name].append(measured(side, seconds))
        say(f"    round {number + 1} of {rounds}: "
            + ", ".join(f"{side.name} {samples[side.name][-1].rate:,.0f}/s" for side in sides))
    return samples


def median(values):
    return statistics.median(values)


def middle(samples):
    """The medians of a side's rounds."""
    names = samples[0].cpu_us
    return Sample(
        rate=median([sample.rate for sample in samples]),
        p50_ms=median([sample.p50_ms for sample in samples]),
        p99_ms=median([sample.p99_ms for sample in samples]),
        cpu_us={name: median([sample.cpu_us[name] for sample in samples]) for name in names},
        others=median([sample.others for sample in samples]))


# --- load generators ------------------------------------------------------------------------------


def wrk(script, port, connections, arguments, seconds, threads=2):
    out = run(["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "-s", HERE / "wrk" / script,
               f"http://127.0.0.1:{port}", "--", *arguments])
    result = json.loads(out[out.index("RESULT ") + 7:].splitlines()[0])
    failed = result["refused"] + result["socket_errors"]
    if result["requests"] == 0 or failed > result["requests"] / 1000:
        raise SideFailed(f"wrk {script}: {failed} of {result['requests']} requests failed")
    rate = result["requests"] * 1e6 / result["duration_us"]
    return Sample(rate, result["p50_us"] / 1000, result["p99_us"] / 1000), result["requests"]


def wrk_side(name, script, port, connections, arguments, pids, before=None):
    return Side(name, lambda seconds: wrk(script, port, connections, arguments, seconds), pids, before)


# --- figures --------------------------------------------------------------------------------------


@dataclass
class Figure:
    id: str
    what: str
    value: str
    limit: str
    ratio: float  # of the figure to its limit; None where there is no limit to divide by
    goal: str
    met: bool
    rounds: list  # the ratio, or the figure, of each round
    notes: list = field(default_factory=list)
    data: dict = field(default_factory=dict)

    def line(self):
        parts = [f"{self.id:<3} {self.what}: {self.value}"]
        if self.limit:
            parts.append(f"limit {self.limit}")
        if self.ratio is not None:
            parts.append(f"ratio {self.ratio:.2f}")
        parts.append(f"goal {self.goal}")
        parts.append("met" if self.met else "NOT MET")
        return "   ".join(parts)

    def text(self):
        return "\n".join([self.line(), *("      " + note for note in self.notes)])


def describe_cpu(sample):
    return ", ".join(f"{name} {cpu:.1f}" for name, cpu in sample.cpu_us.items())


def describe_others(samples):
    share = median([sample.others for taken in samples.values() for sample in taken])
    return [f"other processes took {share:.0%} of the machine's CPU meanwhile"] if share > 0.05 else []


def compared(identity, what, samples, side, limit_name, limit_text, goal):
    """A figure from two sides of one run: the ratio is the median of the rounds' ratios."""
    ours, limit = middle(samples[side]), middle(samples[limit_name])
    if min(sample.rate for sample in samples[limit_name]) <= 0:
        raise SideFailed(f"{limit_name} did nothing in one of its rounds")
    ratios = [a.rate / b.rate for a, b in zip(samples[side], samples[limit_name])]
    ratio = median(ratios)
    cpu_ratio = sum(ours.cpu_us.values()) / max(sum(limit.cpu_us.values()), 1e-9)
    notes = [f"ratio by round: {min(ratios):.2f}–{max(ratios):.2f} ({len(ratios)} rounds); "
             f"latency p50 {ours.p50_ms:.2f} ms, p99 {ours.p99_ms:.2f} ms",
             f"CPU µs an operation: {describe_cpu(ours)}; limit: {describe_cpu(limit)}; together {cpu_ratio:.2f} of the limit's",
             *describe_others(samples)]
    return Figure(identity, what, f"{ours.rate:,.0f}/s", f"{limit_text}: {limit.rate:,.0f}/s", ratio,
                  f"≥ {goal}", ratio >= goal, ratios, notes,
                  {name: [asdict(sample) for sample in taken] for name, taken in samples.items()})


# --- the machine ----------------------------------------------------------------------------------


def first_line(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        return lines[0].strip() if lines else "?"
    except (OSError, subprocess.TimeoutExpired):
        return "absent"


def machine():
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    memory_kb = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text()).group(1))
    load = os.getloadavg()[0]
    return {
        "cores": CORES,
        "model": model.group(1) if model else "?",
        "memory_gib": round(memory_kb / 2**20, 1),
        "kernel": os.uname().release,
        "load_at_start": round(load, 2),
        "postgresql": first_line(["/usr/lib/postgresql/15/bin/postgres", "--version"]),
        "redis": first_line(["redis-server", "--version"]),
        "java": first_line(["java", "-version"]),
        "wrk": first_line(["wrk", "--version"]),
    }


def print_machine(facts):
    print(f"Machine: {facts['cores']} cores ({facts['model']}), {facts['memory_gib']} GiB, Linux {facts['kernel']}")
    print(f"         {facts['postgresql']}; {facts['redis'].split(' sha=')[0]}; {facts['java']}; "
          f"{facts['wrk'].split(' Copy')[0]}")
    if facts["load_at_start"] > 0.25 * facts["cores"]:
        print(f"Warning: the load average is {facts['load_at_start']} on {facts['cores']} cores before anything "
              "was started: others use this machine, and the figures are lower and noisier for it.")
