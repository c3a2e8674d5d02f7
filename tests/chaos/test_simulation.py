"""The simulation (simulation.h) in full; `tests/run unit` runs 500 seeds of it and the planted mistakes."""
import os
import pathlib
import subprocess

SEEDS = 10000


def test_ten_thousand_seeds_break_no_promise():
    program = pathlib.Path(os.environ["TALLY_BIN_DIR"]).parent / "tests" / "simulation"
    run = subprocess.run([program, "--seeds", f"1..{SEEDS}"], stdout=subprocess.PIPE, text=True, check=False)
    print(run.stdout)
    assert run.stdout.splitlines()[-1] == f"{SEEDS} passed, 0 failed", run.stdout
    assert run.returncode == 0
