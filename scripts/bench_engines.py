"""Seconds and memory of BACO's rounds on an engine of `baco cluster`.

    python scripts/bench_engines.py log.parquet duckdb --resolution 5

reads a log (columns `user` and `item`), does a few rounds from the start, and prints the seconds of each step. Where
there is no such file yet, `--generate 5000000` makes it first, of so many interactions. The first rounds have the most
labels, so that they take longest in SQL. Every engine wants a process of its own; memory is that of this process, Spark
has a second one.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import pandas as pd

from baco.coclustering.cocluster import Settings, label_ranks
from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.weights import node_weights
from baco.data.synthetic import Synthetic
from baco.engines.cluster import COMPILED, ENGINES
from baco.engines.mapped import mapped_graph
from baco.engines.rounds import SqlGraph, SqlSolver
from baco.graph import SQUARE
from baco.rng import stream


def generate(path: Path, size: int) -> None:
    """A log with a user for 50 interactions, an item for 100, and a planted co-cluster for 5,000."""
    source = Synthetic(
        num_users=size // 50, num_items=size // 100, num_interactions=size, num_clusters=max(1, size // 5000)
    )
    users, items = source.draw_pairs(stream(0, "synthetic"))
    pd.DataFrame({"user": users, "item": items}).to_parquet(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--generate", type=int, metavar="INTERACTIONS")
    parser.add_argument("--resolution", type=float, default=5.0)
    parser.add_argument("--num_rounds", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.generate is not None and not chosen.log.exists():
        generate(chosen.log, chosen.generate)
    settings = Settings(solver="alternating", num_rounds=chosen.num_rounds)
    seconds = {}

    def lap(step: str) -> None:
        nonlocal start
        seconds[step] = time.perf_counter() - start
        start = time.perf_counter()

    start = time.perf_counter()
    with ENGINES[chosen.engine]() as engine:
        lap("start")
        if chosen.engine == COMPILED:
            mapped = mapped_graph(engine, str(chosen.log))
            lap("read")
            ranks = label_ranks(mapped.num_nodes, 0)
            alternating(SQUARE, node_weights(SQUARE), 1.0, 1, label_ranks(SQUARE.num_nodes, 0))  # compiles it
            start = time.perf_counter()
            labels = alternating(mapped, node_weights(mapped), chosen.resolution, chosen.num_rounds, ranks)
        else:
            graph = SqlGraph.of_log(engine, str(chosen.log))
            lap("read")
            labels = SqlSolver.of(graph, settings, 0).labels(chosen.resolution)
        lap("rounds")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(labels):,} nodes, {len(set(labels.tolist())):,} labels")
    print(", ".join(f"{step} {passed:.2f} s" for step, passed in seconds.items()))
    print(f"a half-round {seconds['rounds'] / (2 * chosen.num_rounds):.2f} s, peak {peak:.1f} GiB")


if __name__ == "__main__":
    main()
