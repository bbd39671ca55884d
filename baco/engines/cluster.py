"""From a log to the codes of its ids, under a budget, on an engine of choice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from baco.coclustering.baco import Baco
from baco.compressors.budget import Budget
from baco.embedding.codes import Assignment
from baco.engines.engine import Engine
from baco.engines.on_duckdb import duckdb_engine
from baco.engines.on_spark import spark_engine
from baco.engines.rounds import SqlGraph, SqlSolver
from baco.errors import SettingError, UserError
from baco.files import check_folder, temporary_beside
from baco.graph import Biadjacency

COMPILED = "compiled"
ENGINES: dict[str, Callable[[], AbstractContextManager[Engine]]] = {
    "duckdb": duckdb_engine,
    "spark": spark_engine,
    COMPILED: duckdb_engine,  # which reads and writes; rounds are those of compiled code
}


def assign(
    graph: SqlGraph | Biadjacency,
    budget: Budget,
    resolution: float | None = None,
    num_rounds: int | None = None,
    seed: int = 0,
    search: str = "solves",
) -> Assignment:
    """The codes of `Baco`: with the multilevel solver where the search is by size, otherwise the alternating one.

    Parameters
    ----------
    graph : SqlGraph or Biadjacency
        Says where rounds run: in the engine, or in compiled code.
    resolution : float or None
        None: searched so that the budget is filled. A resolution leaves nothing to search.
    num_rounds : int or None
        None: the solver's default.
    seed : int
        Of the solver: equal seeds give equal codes, whatever the engine.
    search : 'solves' or 'size'
        See `Baco.Config`. 'size' is for compiled code only.

    Raises
    ------
    UserError
        When the budget cannot be met, or a setting is out of its range or is not for the engine (a `SettingError`).
    """
    if resolution is not None:
        search = "solves"
    solver = "multilevel" if search == "size" else "alternating"
    method = Baco(Baco.Config(solver=solver, resolution=resolution, num_rounds=num_rounds, seed=seed, search=search))
    check_engine(search, isinstance(graph, Biadjacency))
    if isinstance(graph, Biadjacency):
        return method.assign(graph, budget, np.random.default_rng(seed))
    sql = SqlSolver.of(graph, method.settings, seed)
    return method.fill(graph, budget, seed, sql.solve, sql.complete)


def check_engine(search: str, compiled: bool) -> None:
    """Refuse the search by size where rounds do not run in compiled code (`SettingError`)."""
    if search == "size" and not compiled:
        raise SettingError("search", search, "needs the engine 'compiled'")


def check_out(folder: Path) -> None:
    """Refuse a folder that `write_codes` could not write (`UserError`)."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"--out: {folder} is there already; remove it, or give another folder")
    if ":/" in str(folder):
        raise UserError(f"--out: {folder} is no folder of a file system; write to one, and copy it")
    check_folder(folder.absolute().parent, "--out")


def write_codes(engine: Engine, assignment: Assignment, folder: Path) -> None:
    """Write `side=user` and `side=item`, Parquet of `id` and `codes`, a list of rows; the folder is whole or not there.

    The engine has the log that the graph of the assignment was read from.
    Ids have the type of the log, but are text where the types of both sides differ: both are one column `id`.
    """
    alike = engine.value("SELECT CAST(typeof(user_id) = typeof(item_id) AS INTEGER) AS alike FROM baco_log LIMIT 1")
    name = "id" if alike else "CAST(id AS STRING) AS id"
    temporary = temporary_beside(folder)
    try:
        for side, codes, shift in (("user", assignment.users, 0), ("item", assignment.items, assignment.users.num_ids)):
            nodes = np.arange(shift, shift + codes.num_ids, dtype=np.int32)
            first, last = codes.index[:, 0], codes.index[:, -1]
            engine.upload("baco_codes", {"node": nodes, "first_code": first, "last_code": last})
            engine.write(
                f"SELECT {name}, CASE WHEN first_code = last_code THEN {engine.array}(first_code) "
                f"ELSE {engine.array}(first_code, last_code) END AS codes "
                f"FROM baco_{side}s AS ids JOIN baco_codes ON baco_codes.node = ids.node",
                temporary / f"side={side}",
            )
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
