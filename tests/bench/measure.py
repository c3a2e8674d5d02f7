"""Runs measurements against servers that tests/bench/run has started, and keeps their figures in a file.

    measure.py start RESULTS                  the machine as it is before anything is started
    measure.py run RESULTS ROUNDS SECONDS S…  measures, prints each figure, appends it
    measure.py json RESULTS FILE              writes them all
"""

import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import reads
import writes
from harness import SideFailed, machine, print_machine, say

MEASUREMENTS = {
    "S1": reads.hot_set,
    "S2": reads.all_users,
    "S3": reads.against_webdis,
    "S4": writes.create_posts,
    "S8": writes.visibility,
}


def start(results):
    facts = machine()
    print_machine(facts)
    Path(results).write_text(json.dumps(
        {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": facts, "figures": [], "failed": {}}))


def measure(results, rounds, seconds, names):
    kept = json.loads(Path(results).read_text())
    for name in names:
        say(f"== {name}")
        try:
            for figure in MEASUREMENTS[name](int(rounds), int(seconds)):
                print(figure.text(), flush=True)
                kept["figures"].append(asdict(figure))
        except (SideFailed, OSError, ValueError, KeyError) as error:
            kept["failed"][name] = str(error)
            print(f"{name}  not measured: {error}", flush=True)
        Path(results).write_text(json.dumps(kept))
    return 1 if kept["failed"] else 0


def main(arguments):
    # An interrupt ends the servers of a measurement through its context managers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.stdout.reconfigure(line_buffering=True)
    action, results, *rest = arguments
    if action == "start":
        start(results)
    elif action == "run":
        return measure(results, rest[0], rest[1], rest[2:])
    elif action == "json":
        Path(rest[0]).write_text(json.dumps(json.loads(Path(results).read_text()), indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
