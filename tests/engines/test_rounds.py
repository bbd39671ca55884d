"""Labels of the rounds in SQL are those of the compiled solver, on DuckDB and, where it can run, on Spark."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baco.coclustering.cocluster import Settings, cocluster, of_labels
from baco.compressors.budget import Budget
from baco.engines.cluster import assign
from baco.engines.mapped import mapped_graph
from baco.engines.on_duckdb import duckdb_engine
from baco.engines.on_spark import spark_engine
from baco.engines.rounds import SqlGraph, SqlSolver
from baco.graph import Biadjacency
from tests.coclustering.test_solvers import SCHEMES, graphs, random_graph, resolutions, seeds
from tests.conftest import real_data


def log_of(graph, folder, name="log.parquet") -> str:
    """Its interactions as Parquet, the first of them twice, under ids whose order is that of the numbers."""
    users, items = np.append(graph.users, graph.users[0]), np.append(graph.items, graph.items[0])
    frame = pd.DataFrame({"who": users.astype(np.int64) * 10, "what": [f"item {item:06d}" for item in items]})
    frame.to_parquet(folder / name)
    return str(folder / name)


def assert_equal_solutions(engine, log, resolution, seed, schemes=("degree", "published"), num_rounds=20):
    """The solution in SQL and the compiled one, and both for labels that are no solution."""
    graph = SqlGraph.of_log(engine, log, "who", "what")
    method = Settings(solver="alternating", num_rounds=num_rounds, user_weight=schemes[0], item_weight=schemes[1])
    with duckdb_engine() as other:
        solver, mapped = SqlSolver.of(graph, method, seed), mapped_graph(other, log, "who", "what")
    given_labels = np.random.default_rng(seed).integers(0, 2, mapped.num_nodes).astype(np.int32)
    for found, expected in (
        (solver.solve(resolution), cocluster(mapped, resolution, seed, method)),
        (solver.complete(given_labels, resolution), of_labels(mapped, given_labels, resolution, method)),
    ):
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.second, expected.second)
        assert found.objective == expected.objective


@pytest.fixture(scope="module")
def spark():
    """Spark on this machine, as small as it gets."""
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'baco[spark]'")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("there is no Java")
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.sql.shuffle.partitions", 1)
    session = builder.config("spark.ui.enabled", False).getOrCreate()
    with spark_engine() as engine:
        yield engine
    session.stop()


@settings(max_examples=15)
@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_duckdb_has_the_labels_of_the_compiled_solver(tmp_path_factory, graph, resolution, seed, schemes):
    log = log_of(graph, tmp_path_factory.mktemp("logs"))
    with duckdb_engine() as engine:
        assert_equal_solutions(engine, log, resolution, seed, schemes)


def test_duckdb_has_the_labels_of_the_compiled_solver_on_gowalla(tmp_path):
    with duckdb_engine() as engine:
        assert_equal_solutions(engine, log_of(real_data("gowalla").train, tmp_path), 5.0, 0, num_rounds=2)


@pytest.mark.filterwarnings("ignore")  # of Spark's own
@pytest.mark.parametrize("schemes", [("degree", "published"), ("sqrt", "log")])
def test_spark_has_the_labels_of_the_compiled_solver(spark, tmp_path, schemes):
    assert_equal_solutions(spark, log_of(random_graph(60, 250), tmp_path), 1.0, 0, schemes, num_rounds=2)


@pytest.mark.parametrize("split", [False, True])
def test_a_search_in_sql_is_that_of_compiled_code(planted, tmp_path, split):
    """No resolution parts four complete blocks into 20 rows: they are split."""
    blocks = Biadjacency.from_matrix(np.kron(np.eye(4), np.ones((6, 6))))
    train, budget = (blocks, 20) if split else (planted.train, 0.3)
    log = log_of(train, tmp_path), "who", "what"
    with duckdb_engine() as engine, duckdb_engine() as other:
        graph = SqlGraph.of_log(engine, *log)
        limit = Budget.parse(budget, "parameters", graph.num_users, graph.num_items, 8)
        found, expected = (assign(one, limit, num_rounds=3) for one in (graph, mapped_graph(other, *log)))
    np.testing.assert_array_equal(found.users.index, expected.users.index)
    np.testing.assert_array_equal(found.items.index, expected.items.index)
    assert found.details == expected.details
    assert ("split" in found.details) == split
