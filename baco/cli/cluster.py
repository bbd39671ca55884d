"""`baco cluster`: the codes of the ids of a log, for models and programs of one's own."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from baco.cli.commands import add_command
from baco.errors import keys_under


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command of this module."""
    command = add_command(commands, cluster)
    command.add_argument("log", help="Parquet, a row for each interaction; with Spark a table or a path of any kind")
    command.add_argument("--out", type=Path, required=True, help="the folder of the codes, which must not be there yet")
    command.add_argument("--budget", type=float, default=0.25, help="a ratio, or a number of rows (default: 0.25)")
    command.add_argument("--dim", type=int, default=64, help="width of the embeddings (default: 64)")
    command.add_argument(
        "--engine", choices=("compiled", "duckdb", "spark"), default="compiled", help="(default: compiled)"
    )
    command.add_argument("--user", default="user", help="the column of the users (default: user)")
    command.add_argument("--item", default="item", help="the column of the items (default: item)")
    command.add_argument("--resolution", type=float, help="gamma (default: searched, to fill the budget)")
    command.add_argument(
        "--search",
        choices=("size", "solves"),
        help="how the budget is filled: size makes as many co-clusters as fit, solves tries resolutions, with the same "
        "result on every engine (default: size with compiled, solves with the others)",
    )
    command.add_argument(
        "--num_rounds", type=int, help="most rounds of a solve, or cycles with --search size (default: 20, or 3)"
    )
    command.add_argument("--seed", type=int, default=0, help="(default: 0)")


def cluster(arguments: argparse.Namespace) -> None:
    """co-cluster the users and items of a log under a budget, and write their codes as Parquet"""
    from baco.compressors.budget import Budget
    from baco.embedding.cost import code_ledger
    from baco.engines.cluster import COMPILED, ENGINES, assign, check_engine, check_out, write_codes
    from baco.engines.mapped import mapped_graph
    from baco.engines.rounds import SqlGraph

    compiled = arguments.engine == COMPILED
    search = arguments.search or ("size" if compiled else "solves")
    check_out(arguments.out)
    with keys_under("--"):
        check_engine(search, compiled)
    with ENGINES[arguments.engine]() as engine:
        start = time.perf_counter()
        graph_of_log = mapped_graph if compiled else SqlGraph.of_log
        graph = graph_of_log(engine, arguments.log, arguments.user, arguments.item)
        read = time.perf_counter()
        with keys_under("--"):
            budget = Budget.parse(arguments.budget, "parameters", graph.num_users, graph.num_items, arguments.dim)
            assignment = assign(graph, budget, arguments.resolution, arguments.num_rounds, arguments.seed, search)
        solved = time.perf_counter()
        write_codes(engine, assignment, arguments.out)
        written = time.perf_counter()
    ledger = code_ledger(assignment, arguments.dim)
    share = budget.share(ledger)
    assert assignment.labels is not None
    print(f"{graph.num_users:,} users, {graph.num_items:,} items, {graph.user_degrees.sum():,} interactions")
    print(
        f"{len(np.unique(assignment.labels)):,} co-clusters: {ledger.user_rows:,} rows of users, {ledger.item_rows:,} "
        f"of items, {ledger.extra_codes:,} second codes"
    )
    resolution = assignment.details["resolution"]
    print(f"{ledger.parameters:,} parameters, {share:.2%} of the budget; resolution {resolution:.6g}")
    print(f"seconds: {read - start:.1f} to read, {solved - read:.1f} to solve, {written - solved:.1f} to write")
