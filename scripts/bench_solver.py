"""Time one co-clustering with each solver, side by side: `python scripts/bench_solver.py beauty gowalla`.

Prints medians over interleaved repetitions, their ratio to the default solver, and the memory a solve takes. Louvain of
scikit-network, which GraphHash uses, takes part where it is installed (`pip install scikit-network`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from _common import load

from baco.coclustering.cocluster import DEFAULT_ROUNDS, Settings, cocluster
from baco.graph import Biadjacency
from baco.machine import peak_memory, reset_peak_memory

CPU = torch.device("cpu")


def contestants(graph: Biadjacency, resolution: float, rounds: int) -> dict[str, Callable[[], int]]:
    """What to time, by name; each returns its number of clusters."""

    def ours(**settings) -> Callable[[], int]:
        chosen = Settings(num_rounds=rounds, **settings)
        return lambda: len(np.unique(cocluster(graph, resolution, 0, chosen).labels))

    found = {
        "asynchronous": ours(),
        "asynchronous, no second codes": ours(secondary=False),
        "alternating": ours(solver="alternating"),
        "reference": ours(profile="reference"),
    }
    try:
        from sknetwork.clustering import Louvain
    except ImportError:
        return found
    matrix = graph.to_matrix()

    def louvain() -> int:
        model = Louvain(resolution=1.0, modularity="newman", random_state=0)
        model.fit(matrix, force_bipartite=True)
        return len(np.unique(np.concatenate([model.labels_row_, model.labels_col_])))

    return found | {"Louvain (scikit-network)": louvain}


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
        clusters, memory = {}, {}
        for repeat in range(arguments.repeats + 1):
            for run, solve in runs.items():
                reset_peak_memory(CPU)
                before = peak_memory(CPU)["host_peak_bytes"]
                start = time.perf_counter()
                clusters[run] = solve()
                if repeat:  # the first round compiles
                    seconds[run].append(time.perf_counter() - start)
                    memory[run] = peak_memory(CPU)["host_peak_bytes"] - before
        print(f"\n{name}: {graph.num_nodes} nodes, {graph.num_edges} interactions, T = {arguments.rounds}")
        print(f"{'':<32}{'median s':>10}{'ratio':>8}{'clusters':>10}{'MB':>8}")
        baseline = np.median(seconds["asynchronous"])
        for run in runs:
            median = np.median(seconds[run])
            print(f"{run:<32}{median:>10.4f}{median / baseline:>8.2f}{clusters[run]:>10}{memory[run] / 1e6:>8.1f}")


if __name__ == "__main__":
    main()
