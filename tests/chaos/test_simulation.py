"""The simulation (simulation.h) in full; `tests/run unit` runs 500 seeds of it and the planted mistakes."""
import os
import pathlib
import subprocess

SEEDS = 10000


def test_f20_ten_thousand_seeds_break_no_promise(figures):
    program = pathlib.Path(os.environ["TALLY_BIN_DIR"]).parent / "tests" / "simulation"
    run = subprocess.run([program, "--seeds", f"1..{SEEDS}"], stdout=subprocess.PIPE, text=True, check=False)
    print(run.stdout)
    passed, _, failed, _ = run.stdout.splitlines()[-1].split()
    figures.exactly("F20 seeds that keep every invariant", int(passed), SEEDS)
    figures.exactly("F20 seeds that break one", int(failed))
    assert run.returncode == 0
