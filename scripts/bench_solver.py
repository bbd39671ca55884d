"""Time one co-clustering with each solver, side by side: `python scripts/bench_solver.py beauty gowalla`.

Prints medians over interleaved repetitions, their ratio to the default solver, and the memory of a solve beside the
graph. Then it fills the dataset's budget with BACO+ and one-sided tables by each search, and prints the seconds, codes
included, in units of one solve at the resolution found, the part of the budget filled, and the objective at the
resolution of the first search. `--set dataset.num_interactions=2000000 ...` makes `synthetic` larger, and
`--searches-only` leaves the first table out.

Louvain of scikit-network, which GraphHash uses, takes part where it is installed (`pip install scikit-network`).
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from _common import configuration, run_script
from scipy.sparse import csr_matrix

from baco.coclustering.baco_plus import SEARCHES, BacoPlus
from baco.coclustering.cocluster import DEFAULT_ROUNDS, Settings, cocluster
from baco.coclustering.objective import objective
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget
from baco.embedding.codebook import CodebookTables
from baco.graph import Biadjacency
from baco.registry import method_class
from baco.rng import stream


def contestants(graph: Biadjacency, resolution: float, rounds: int) -> dict[str, Callable[[], int]]:
    """What to time, by name; each returns its number of clusters."""

    def ours(**settings) -> Callable[[], int]:
        chosen = Settings(**{"num_rounds": rounds} | settings)
        return lambda: len(np.unique(cocluster(graph, resolution, 0, chosen).labels))

    found = {
        "asynchronous": ours(),
        "asynchronous, no second codes": ours(secondary=False),
        "alternating": ours(solver="alternating"),
        "multilevel, to its end": ours(solver="multilevel", num_rounds=None),
        "reference": ours(profile="reference"),
    }
    try:
        from sknetwork.clustering import Louvain
    except ImportError:
        return found
    matrix = csr_matrix(graph.to_matrix())  # scikit-network does not take SciPy's sparse arrays

    def louvain() -> int:
        model = Louvain(resolution=1.0, modularity="newman", random_state=0)
        model.fit(matrix, force_bipartite=True)
        return len(np.unique(np.concatenate([model.labels_row_, model.labels_col_])))

    return found | {"Louvain (scikit-network)": louvain}


def peak_bytes(solve: Callable[[], int]) -> int:
    """The most that a solve holds in NumPy arrays, beside the graph."""
    tracemalloc.start()
    solve()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def solvers(runs: dict[str, Callable[[], int]], repeats: int) -> None:
    """Print the seconds, clusters and memory of one solve each."""
    seconds: dict[str, list[float]] = {run: [] for run in runs}
    clusters = {}
    for repeat in range(repeats + 1):
        for run, solve in runs.items():
            start = time.perf_counter()
            clusters[run] = solve()
            if repeat:  # the first round compiles
                seconds[run].append(time.perf_counter() - start)
    print(f"{'':<32}{'median s':>10}{'ratio':>8}{'clusters':>10}{'peak MB':>9}")
    baseline = np.median(seconds["asynchronous"])
    for run in runs:
        median = np.median(seconds[run])
        megabytes = peak_bytes(runs[run]) / 1e6
        print(f"{run:<32}{median:>10.4f}{median / baseline:>8.2f}{clusters[run]:>10}{megabytes:>9.1f}")


def searches(graph: Biadjacency, budget: Budget, repeats: int) -> None:
    """Print the seconds that methods with the multilevel solver take to fill the budget, by their search."""
    print(f"{'search':<32}{'median s':>10}{'solves':>8}{'tries':>7}{'budget':>9}{'objective':>13}")
    weights = node_weights(graph, "sqrt", "sqrt")
    for name in ("baco_plus", "one_sided"):
        kind = method_class(name)
        methods = {search: kind(kind.Config(search=search)) for search in SEARCHES}
        seconds: dict[str, list[float]] = {search: [] for search in SEARCHES}
        found: dict[str, CodebookTables] = {}
        solves = []
        for repeat in range(repeats + 1):
            for search, method in methods.items():
                start = time.perf_counter()
                found[search] = method.fit(graph, budget, stream(0, "assign"))
                seconds[search].append(time.perf_counter() - start)
            details = found[SEARCHES[0]].assignment.details
            start = time.perf_counter()
            cocluster(graph, details["resolution"], details["solver_seed"], BacoPlus().settings)
            solves.append(time.perf_counter() - start)
            if repeat == 0 and repeats > 0:  # it compiled
                solves.clear()
                for taken in seconds.values():
                    taken.clear()
        for search, tables in found.items():
            median = np.median(seconds[search])
            value = objective(graph, tables.assignment.labels, weights, details["resolution"])
            print(
                f"{f'{name}, {search}':<32}{median:>10.3f}{median / np.median(solves):>8.1f}"
                f"{tables.assignment.details['tries']:>7}{budget.share(tables.ledger()):>9.2%}{value:>13.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", default=["synthetic"])
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS["asynchronous"])
    parser.add_argument("--resolution", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", nargs="+", default=[], help="overrides, as of `baco run`")
    parser.add_argument("--searches-only", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.datasets:
        config = configuration([f"dataset={name}", *arguments.set])
        data = config.load_dataset()
        graph = data.train
        print(f"\n{name}: {graph.num_nodes} nodes, {graph.num_edges} interactions, T = {arguments.rounds}")
        if not arguments.searches_only:
            solvers(contestants(graph, arguments.resolution, arguments.rounds), arguments.repeats)
        budget = config.budget_on(data)
        searches(graph, budget, arguments.repeats)


if __name__ == "__main__":
    run_script(main)
