"""Seconds and memory of `baco cluster` with compiled rounds, stage by stage, as the log grows.

    python scripts/bench_scale.py 1e6 1e7 1e8 --folder /large/disk

makes a log of so many rows for each size, unless it is there, and goes from it to the codes in a process of its own.
Each stage prints its seconds, those of all its threads on a CPU, and the peak of resident memory since it began, pages
of the mapped files included, as it ends; and what part of the peak, beyond what the process had at first, falls to an
interaction (distinct pairs; in `read`, rows).

Rows of a log are drawn independently. A user has 50 rows and an item 100 on average, by power laws: the probability of
the r-th is as r^(-1/2). Of a user's rows 70 % are with items of its planted co-cluster, of which there is one for
50,000 rows, the others with any. `solve` is one solve at a resolution in proportion to the number of co-clusters: what
one costs in the objective is then the same at each size. It ends when nothing moves, after 20 rounds at most; `4
rounds` are the first of it. Then 25 % of the rows are filled, by each of the searches in `--searches`: its seconds are
also in units of `solve`, and F is that at the resolution of the first search. The codes of the last one are written.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numba import njit

from baco.coclustering.by_size import SEARCHES
from baco.coclustering.cocluster import CoClusters, Settings, label_ranks
from baco.coclustering.objective import objective
from baco.coclustering.secondary import secondary_user_clusters
from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget
from baco.embedding.cost import code_ledger
from baco.engines.cluster import assign, write_codes
from baco.engines.engine import Engine
from baco.engines.mapped import numbered_pairs, with_items
from baco.engines.on_duckdb import duckdb_engine

ROWS_PER_USER, ROWS_PER_ITEM, ROWS_PER_CLUSTER = 50, 100, 50_000
INSIDE = 0.7  # of the rows are in a planted co-cluster
RESOLUTION = 0.02  # for each planted co-cluster
IDS = 2**37  # ids are numbers below; x becomes MULTIPLIER[side] x modulo IDS, which scatters them
MULTIPLIERS = {"user": 88172645463, "item": 70368760955}  # odd, so that it can be undone
LOOKUPS = 2**23
SEED = 0


def planted_clusters(rows: int) -> int:
    return max(1, rows // ROWS_PER_CLUSTER)


def generate(rows: int, path: Path) -> None:
    """Write a log as Parquet, unless it is there. The x-th user's or item's co-cluster is x modulo their number."""
    import duckdb

    if path.exists():
        return
    users, items, clusters = rows // ROWS_PER_USER, rows // ROWS_PER_ITEM, planted_clusters(rows)

    def draw(stream: int) -> str:
        return f"hash(4 * i + {stream}) / 18446744073709551616.0"

    query = f"""
        SELECT who * {MULTIPLIERS["user"]} % {IDS} AS user, what * {MULTIPLIERS["item"]} % {IDS} AS item FROM (
            SELECT who, CASE WHEN {draw(0)} < {INSIDE}
                THEN who % {clusters} + {clusters} * floor(pow({draw(1)}, 2) * {items // clusters})::BIGINT
                ELSE floor(pow({draw(1)}, 2) * {items})::BIGINT END AS what
            FROM (SELECT i, floor(pow({draw(2)}, 2) * {users})::BIGINT AS who FROM range({rows}) AS r(i)))"""
    part = path.with_suffix(".part")
    with duckdb.connect(config={"memory_limit": "1GB", "preserve_insertion_order": False}) as connection:
        connection.execute(f"COPY ({query}) TO '{part}' (FORMAT parquet)")
    part.replace(path)


class Stages:
    """Prints what each stage took."""

    def __init__(self):
        self._before = memory("VmRSS")
        print(f"{'stage':12}{'seconds':>10}{'of CPU':>10}{'peak MiB':>10}{'bytes':>8}")
        self._begin()

    def end(self, name: str, interactions: int | None = None, note: str = "") -> float:
        """Its seconds on a CPU."""
        seconds, of_cpu, peak = time.perf_counter() - self._start, time.process_time() - self._cpu, memory("VmHWM")
        each = "" if interactions is None else f"{(peak - self._before) / interactions:.2f}"
        print(f"{name:12}{seconds:10.2f}{of_cpu:10.2f}{peak / 2**20:10,.0f}{each:>8}  {note}".rstrip(), flush=True)
        self._begin()
        return of_cpu

    def _begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self._start, self._cpu = time.perf_counter(), time.process_time()


def memory(entry: str) -> int:
    """Bytes of an entry of /proc/self/status: `VmHWM` is the peak of resident memory."""
    return int(re.search(rf"{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def measure(rows: int, path: Path, searches: list[str]) -> None:
    """From a log to its codes."""
    settings = Settings(solver="alternating")
    stages = Stages()
    with duckdb_engine() as engine, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        with numbered_pairs(engine, str(path), "user", "item") as pairs:
            stages.end("read", int(pairs.user_counts.sum()))
            by_user = pairs.by_user()
        graph = with_items(by_user, pairs.num_items)
        size = graph.num_edges
        stages.end("neighbours", size, f"{size:,} of {graph.num_users:,} users and {graph.num_items:,} items")
        resolution = RESOLUTION * planted_clusters(rows)
        weights, ranks = node_weights(graph), label_ranks(graph.num_nodes, SEED)
        each = lookup_nanoseconds(graph.num_nodes)
        stages.end("look-ups", size, f"{each:.1f} ns to look up a label at random and count it")
        alternating(graph, weights, resolution, 4, ranks)
        stages.end("4 rounds", size)
        labels = alternating(graph, weights, resolution, settings.rounds, ranks)
        value = objective(graph, labels, weights, resolution)
        solve = stages.end("solve", size, f"at resolution {resolution:g}: F {value:,.1f}")
        second = secondary_user_clusters(graph, labels, weights, resolution)
        stages.end("second", size)
        del ranks
        assignment = CoClusters(labels, second, value).assignment
        found = [labels]
        resolution = None
        budget = Budget.parse(0.25, "parameters", graph.num_users, graph.num_items, 64)
        for search in searches:
            assignment = assign(graph, budget, seed=SEED, search=search)
            found.append(assignment.labels)
            seconds = stages.end(search, size)
            resolution = resolution or assignment.details["resolution"]
            print(
                f"{'':12}{seconds / solve:.1f} solves, {assignment.details['tries']} tries, "
                f"{budget.share(code_ledger(assignment, budget.dim)):.2%} of the budget, "
                f"F {objective(graph, assignment.labels, weights, resolution):,.1f} at {resolution:.4g}",
                flush=True,
            )
        write_codes(engine, assignment, Path(folder) / "codes")
        stages.end("write", size)
        for stage, labels in zip(["solve", *searches], found, strict=True):
            print(f"{stage}: {found_again(engine, labels, planted_clusters(rows))}", flush=True)


def lookup_nanoseconds(num_nodes: int) -> float:
    """Of a CPU, for a look-up among as many labels as nodes, int32, and one more on their count: both miss caches."""
    rng = np.random.default_rng(SEED)
    nodes, labels = (rng.integers(num_nodes, size=size, dtype=np.int32) for size in (LOOKUPS, num_nodes))
    counts = np.zeros(num_nodes, np.int32)
    start = time.process_time()
    _count_labels(nodes, labels, counts)
    return (time.process_time() - start) / LOOKUPS * 1e9


@njit(cache=True)
def _count_labels(nodes, labels, counts):
    for x in nodes:
        counts[labels[x]] += 1


def found_again(engine: Engine, labels: np.ndarray, clusters: int) -> str:
    """How well labels, (num_nodes,) int32, agree with the planted co-clusters."""
    planted = np.empty(len(labels), np.int64)
    for side, multiplier in MULTIPLIERS.items():
        for nodes, ids in engine.blocks(f"SELECT node, id FROM baco_{side}s"):
            numbers = ids.astype(np.uint64) * np.uint64(pow(multiplier, -1, IDS)) % np.uint64(IDS)
            planted[nodes] = numbers % np.uint64(clusters)
    num_found = np.count_nonzero(np.bincount(labels))
    return (
        f"{num_found:,} co-clusters, {clusters:,} planted; {purity(labels, planted):.1%} of the nodes are with most of "
        f"their co-cluster, {purity(planted, labels):.1%} of the planted ones with most of theirs"
    )


def purity(groups: np.ndarray, classes: np.ndarray) -> float:
    """The share of entries whose class is the most frequent one of their group."""
    keys, counts = np.unique(groups * (np.int64(classes.max()) + 1) + classes, return_counts=True)
    most = np.zeros(groups.max() + 1, np.int64)
    np.maximum.at(most, keys // (np.int64(classes.max()) + 1), counts)
    return most.sum() / len(groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=float, nargs="+")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="of the logs")
    parser.add_argument("--searches", nargs="*", choices=SEARCHES, default=["size"], help="(default: size)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [int(rows) for rows in arguments.rows]
    paths = [arguments.folder / f"scale-{rows}.parquet" for rows in sizes]
    if arguments.measure:
        measure(sizes[0], paths[0], arguments.searches)
        return
    seconds: dict[str, list[float]] = {"4 rounds": [], "solve": []}
    for rows, path in zip([1000, *sizes], [arguments.folder / "scale-1000.parquet", *paths], strict=True):
        generation = get_context("spawn").Process(target=generate, args=(rows, path))  # its memory is not ours
        generation.start()
        generation.join()
        if generation.exitcode:
            sys.exit(1)
        command = [sys.executable, __file__, str(rows), "--folder", str(arguments.folder), "--measure", "--searches"]
        if rows == 1000:  # compiles everything
            subprocess.run([*command, *SEARCHES], check=True, stdout=subprocess.DEVNULL)
            continue
        print(f"{rows:,} rows", flush=True)
        command += arguments.searches
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            for line in run.stdout:
                print(line, end="", flush=True)
                for stage, found in seconds.items():
                    found += map(float, re.findall(rf"^{stage}\s+[\d.]+\s+([\d.]+)", line))
        if run.returncode:
            sys.exit(1)
    for stage, found in seconds.items():
        for (small, fast), (large, slow) in pairwise(zip(sizes, found, strict=True)):
            exponent = math.log(slow / fast) / math.log(large / small)
            print(f"{stage}, {small:,} to {large:,} rows: CPU seconds grow with the power {exponent:.2f} of the size")


if __name__ == "__main__":
    main()
