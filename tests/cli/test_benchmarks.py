"""The benchmarks are not run here, but what they say of a wrong command line is."""

import subprocess
import sys

from tests.cli.workplace import ROOT


def test_a_dataset_that_does_not_exist_is_one_line():
    command = [sys.executable, "scripts/bench_solver.py", "gowala"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: dataset 'gowala' is unknown; did you mean 'gowalla'?"), done.stderr
