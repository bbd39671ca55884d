"""Time one co-clustering with each solver, side by side: `python scripts/bench_solver.py beauty gowalla`.

Prints medians over interleaved repetitions, their ratio to the default solver, and the memory of a solve beside the
graph. Louvain of scikit-network, which GraphHash uses, takes part where it is installed (`pip install scikit-network`).
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from _common import load, run_script
from scipy.sparse import csr_matrix

from baco.coclustering.cocluster import DEFAULT_ROUNDS, Settings, cocluster
from baco.graph import Biadjacency


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", default=["synthetic"])
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS["asynchronous"])
    parser.add_argument("--resolution", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.datasets:
        graph = load(name).train
        runs = contestants(graph, arguments.resolution, arguments.rounds)
        seconds: dict[str, list[float]] = {run: [] for run in runs}
        clusters = {}
        for repeat in range(arguments.repeats + 1):
            for run, solve in runs.items():
                start = time.perf_counter()
                clusters[run] = solve()
                if repeat:  # the first round compiles
                    seconds[run].append(time.perf_counter() - start)
        print(f"\n{name}: {graph.num_nodes} nodes, {graph.num_edges} interactions, T = {arguments.rounds}")
        print(f"{'':<32}{'median s':>10}{'ratio':>8}{'clusters':>10}{'peak MB':>9}")
        baseline = np.median(seconds["asynchronous"])
        for run in runs:
            median = np.median(seconds[run])
            megabytes = peak_bytes(runs[run]) / 1e6
            print(f"{run:<32}{median:>10.4f}{median / baseline:>8.2f}{clusters[run]:>10}{megabytes:>9.1f}")


if __name__ == "__main__":
    run_script(main)
