"""Time every method that assigns codes, side by side: `python scripts/bench_clustering.py beauty gowalla`.

Each fills the dataset's own budget with its default settings. Prints medians over interleaved repetitions: all seconds
of the assignment, those of one try where a method searches (seconds / tries), and how many times faster BACO is, in
all and per try. What a method refuses is shown instead.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _common import configuration, run_script
from tqdm import tqdm

from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor
from baco.embedding.codes import Assignment
from baco.embedding.cost import code_ledger
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.registry import METHODS, method_class
from baco.rng import stream

BASELINE = "baco"


def timed(method: CodeCompressor, train: Biadjacency, budget: Budget, seed: int) -> tuple[Assignment, float]:
    start = time.perf_counter()
    assignment = method.assign(train, budget, stream(seed, "assign"))
    return assignment, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", default=["synthetic"])
    parser.add_argument("--methods", nargs="+", help="only these (default: all that have a budget)")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    method_class(BASELINE)  # registers all of them
    names = arguments.methods or [
        name for name, method in METHODS.items() if issubclass(method, CodeCompressor) and method.has_budget
    ]
    names = [BASELINE, *(name for name in names if name != BASELINE)]
    for dataset in arguments.datasets:
        config = configuration([f"dataset={dataset}"])
        data = config.load_dataset()
        budget = config.budget_on(data)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        assignments: dict[str, Assignment] = {}
        refused: dict[str, str] = {}
        methods = {name: method_class(name)() for name in names}
        with tqdm(total=len(names) * arguments.repeats, desc=dataset, leave=False, disable=None) as bar:
            for _ in range(arguments.repeats):
                for name, method in methods.items():
                    bar.set_postfix_str(name)
                    try:
                        method.warm_up()
                        assignments[name], taken = timed(method, data.train, budget, arguments.seed)
                        seconds[name].append(taken)
                    except UserError as error:
                        refused[name] = str(error)
                    bar.update()
        report(dataset, data.train, budget, seconds, assignments, refused)


def report(
    dataset: str,
    train: Biadjacency,
    budget: Budget,
    seconds: dict[str, list[float]],
    assignments: dict[str, Assignment],
    refused: dict[str, str],
) -> None:
    """Print the table of one dataset, the fastest method first."""
    print(f"\n{dataset}: {train.num_nodes} nodes, {train.num_edges} interactions, {budget.limit:,} {budget.unit}")
    print(f"{'':<18}{'rows':>8}{'budget':>9}{'seconds':>10}{'tries':>7}{'a try':>9}{'BACO x':>9}{'a try':>9}")
    medians = {name: float(np.median(taken)) for name, taken in seconds.items() if taken}
    tries = {name: assignment.details.get("tries", 1) for name, assignment in assignments.items()}
    baseline = medians.get(BASELINE, np.nan)
    for name in sorted(medians, key=medians.get):
        ledger = code_ledger(assignments[name], budget.dim)
        ratio, ratio_of_tries = (
            medians[name] / baseline,
            medians[name] / baseline * tries.get(BASELINE, 1) / tries[name],
        )
        print(
            f"{name:<18}{ledger.user_rows + ledger.item_rows:>8}{budget.share(ledger):>9.2%}{medians[name]:>10.3f}"
            f"{tries[name]:>7}{medians[name] / tries[name]:>9.3f}{ratio:>9.2f}{ratio_of_tries:>9.2f}"
        )
    for name, reason in refused.items():
        print(f"{name:<18}refused: {reason}")


if __name__ == "__main__":
    run_script(main)
