"""Time a training beside other work: `python scripts/bench_sharing.py beauty`.

A training of the full model with one thread for each core runs alone, and beside processes that keep some cores busy,
with several times that a waiting thread of libgomp holds its core (`GOMP_SPINCOUNT`): libgomp's own, ours (which
`import baco` sets), and none at all. All take turns. Prints the least seconds
of the training, and their ratios to ours at the first of `--busy`, which is no core unless it is given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

OURS = "ours"
WAITING = {
    "libgomp's": {"GOMP_SPINCOUNT": "300000"},
    OURS: {},
    "none": {"OMP_WAIT_POLICY": "passive"},
}
RUN = Path(__file__).parents[1] / "run.py"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many cores busy meanwhile, by processes in sessions of their own, bound to them where the system can."""
    bound = "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])]) if hasattr(os, 'sched_setaffinity') else None"
    work = [sys.executable, "-c", f"{bound}\nwhile True: pass"]
    running = [subprocess.Popen([*work, str(core)], start_new_session=True) for core in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds(arguments: list[str], variables: dict[str, str]) -> float:
    """The seconds that a training took, as its record has them."""
    unset = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if key not in unset} | variables
    with TemporaryDirectory() as folder:
        folders = [f"results_dir={folder}/records", f"runs_dir={folder}/runs"]
        subprocess.run([sys.executable, RUN, *arguments, *folders], env=environment, check=True, capture_output=True)
        (record,) = Path(folder, "records").glob("*.json")
        return json.loads(record.read_text())["seconds"]["training"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--backbone", default="lightgcn")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="how many cores have other work")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    arguments = [f"dataset={options.dataset}", f"backbone={options.backbone}", "method=full", "device=cpu"]
    arguments.append(f"protocol.max_epochs={options.epochs}")
    seconds(arguments, {})  # which compiles what there is to compile
    least: dict[tuple[int, str], float] = {}
    for _ in range(options.repeats):
        for cores in options.busy:
            for name, variables in WAITING.items():
                with busy(cores):
                    took = seconds(arguments, variables)
                least[cores, name] = min(took, least.get((cores, name), took))
    ours = least[options.busy[0], OURS]
    print(f"{'busy cores':12}{'waiting':12}{'seconds':>10}{'ratio':>8}")
    for (cores, name), took in least.items():
        print(f"{cores:<12}{name:12}{took:10.1f}{took / ours:8.2f}")


if __name__ == "__main__":
    main()
