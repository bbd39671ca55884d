"""Louvain and Leiden: the published clusters, the modularity they maximise, budgets, and second codes."""

import sys

import numpy as np
import pytest

from baco.coclustering.objective import objective
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget
from baco.embedding.codebook import CodebookTables
from baco.embedding.cost import code_ledger
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.rng import stream
from baselines.modularity import DoubleGraphHash, GraphHash, Leiden, leiden, louvain

pytest.importorskip("igraph", reason="needs igraph, as in pip install 'baco[gpl]'")

METHODS = (GraphHash, DoubleGraphHash, Leiden)


def budget_of(data, value, unit="parameters") -> Budget:
    return Budget.parse(value, unit, data.num_users, data.num_items, 64)


def modularity(graph, labels, resolution) -> float:
    _, labels = np.unique(labels, return_inverse=True)
    return objective(graph, labels, node_weights(graph, "degree", "degree"), resolution) / graph.num_edges


SOLVERS = [  # each from a graph and a seed to a solver
    pytest.param(lambda graph, seed: louvain(graph, seed, shuffle=True), id="louvain"),
    pytest.param(leiden, id="leiden"),
]


def test_the_published_clusters_of_beauty(beauty):
    config = GraphHash.Config(resolution=200, shuffle=False)
    assignment = GraphHash(config).assign(beauty.train, budget_of(beauty, 8267), stream(0, "assign"))
    assert (assignment.users.num_rows, assignment.items.num_rows) == (4154, 4113)
    assert modularity(beauty.train, assignment.labels, 200) == pytest.approx(0.1757, abs=5e-5)
    sizes = [np.bincount(codes.first).max() for codes in (assignment.users, assignment.items)]
    assert sizes == [30, 18]


def test_louvain_at_resolution_one_on_beauty(beauty):
    labels = louvain(beauty.train, 0, shuffle=False)(1.0)
    users, items = labels[: beauty.num_users], labels[beauty.num_users :]
    assert (len(np.unique(users)), len(np.unique(items))) == (45, 43)
    assert modularity(beauty.train, labels, 1.0) == pytest.approx(0.5189, abs=5e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_beauty_reaches_the_modularity_of_independent_programs(solver, beauty):
    assert modularity(beauty.train, solver(beauty.train, 0)(200.0), 200) > 0.174


@pytest.mark.parametrize(
    ("method", "unit"),
    [(GraphHash(), "bytes"), (DoubleGraphHash(), "parameters"), (Leiden(Leiden.Config(secondary=True)), "bytes")],
)
def test_beauty_fills_the_papers_budget(method, unit, beauty):
    budget = budget_of(beauty, 8267, unit)
    ledger = code_ledger(method.assign(beauty.train, budget, stream(0, "assign")), 64)
    assert 0.98 <= budget.share(ledger) <= 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_bicliques_are_two_clusters(solver, two_bicliques):
    labels = solver(two_bicliques, 0)(1.0)
    users, items = labels[:6], labels[6:]
    np.testing.assert_array_equal(users, items)
    assert len({*users[:3]}) == len({*users[3:]}) == 1 and users[0] != users[3]


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_single_move_raises_the_modularity_by_much(solver, planted):
    """Local moves stop when a pass gains no more than 1e-3; what is left for any one node must be less."""
    graph, resolution = planted.train, 5.0
    labels = np.unique(solver(graph, 0)(resolution), return_inverse=True)[1]
    reached = modularity(graph, labels, resolution)
    rng = np.random.default_rng(0)
    for node in rng.choice(graph.num_nodes, 40, replace=False):
        for label in np.unique(labels):
            other = labels.copy()
            other[node] = label
            assert modularity(graph, other, resolution) <= reached + 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_seed_gives_one_clustering(solver, planted):
    first = solver(planted.train, 5)(20.0)
    again, other = solver(planted.train, 5), solver(planted.train, 6)
    again(3.0)  # what was asked before does not matter
    np.testing.assert_array_equal(again(20.0), first)
    assert not np.array_equal(other(20.0), first)


def test_without_shuffling_the_seed_decides_nothing(planted):
    codes = [
        GraphHash(GraphHash.Config(shuffle=False)).assign(
            planted.train, budget_of(planted, 0.5), stream(seed, "assign")
        )
        for seed in (0, 1)
    ]
    np.testing.assert_array_equal(codes[0].labels, codes[1].labels)


def test_double_adds_the_row_of_a_hash_to_that_of_the_cluster(planted):
    config = DoubleGraphHash.Config(resolution=20.0)
    double = DoubleGraphHash(config).assign(planted.train, budget_of(planted, 1.0), stream(0, "assign"))
    single = GraphHash(GraphHash.Config(resolution=20.0)).assign(
        planted.train, budget_of(planted, 1.0), stream(0, "assign")
    )
    np.testing.assert_array_equal(double.users.index[:, 1:], single.users.index)
    np.testing.assert_array_equal(double.items.index[:, 1:], single.items.index)
    sizes = np.bincount(double.users.first, minlength=double.users.num_rows)
    assert sizes.max() - sizes.min() <= 1
    tables = CodebookTables(double, 8)
    rows = tables.users.rows.detach().numpy()
    np.testing.assert_allclose(tables()[0].detach().numpy(), rows[double.users.index].sum(1))
    assert code_ledger(double, 8).extra_codes == planted.train.num_nodes


@pytest.mark.parametrize("method", [GraphHash, Leiden])
@pytest.mark.parametrize("value", [0.3, 0.6])
def test_second_codes_are_paid_from_the_budget(method, value, planted):
    budget = budget_of(planted, value)
    assignment = method(method.Config(secondary=True)).assign(planted.train, budget, stream(0, "assign"))
    ledger = code_ledger(assignment, 64)
    assert 0.95 <= budget.share(ledger) <= 1
    assert ledger.extra_codes > planted.num_users / 2 and assignment.items.codes_per_id == 1


@pytest.mark.parametrize("method", METHODS)
def test_impossible_resolutions_and_graphs_are_named(method):
    with pytest.raises(UserError, match=r"^resolution=-1.0 must be 0 or more"):
        method.Config(resolution=-1.0)
    empty = Biadjacency.from_pairs(np.array([], int), np.array([], int), 3, 3)
    with pytest.raises(UserError, match="no interactions"):
        method().assign(empty, Budget(100, "parameters", 8), stream(0, "assign"))


def test_a_missing_igraph_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(UserError, match=r"the method 'leiden' needs the package igraph"):
        Leiden().warm_up()
