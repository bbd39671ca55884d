"""Spectral co-clustering and biclustering."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from baco.compressors.budget import Budget
from baco.embedding.cost import code_ledger
from baco.graph import Biadjacency
from baco.numerics.spectral import spectral_factors
from baco.rng import stream
from baselines.spectral import SpectralBiclustering, SpectralCoclustering, SpectralKMeans


def purity(codes, blocks) -> float:
    """Share of the ids that are of the most frequent block among those with their code."""
    table = np.zeros((codes.max() + 1, blocks.max() + 1))
    np.add.at(table, (codes, blocks), 1)
    return table.max(1).sum() / len(codes)


def blocks(density, num_users=300, num_items=240):
    """A graph whose pairs are drawn with a probability that the blocks of both ends decide; and those blocks."""
    rng = np.random.default_rng(3)
    users, items = rng.integers(len(density), size=num_users), rng.integers(len(density[0]), size=num_items)
    graph = Biadjacency.from_matrix(rng.random((num_users, num_items)) < np.array(density)[users][:, items])
    return graph, users, items


@pytest.mark.parametrize("method", [SpectralCoclustering, SpectralBiclustering, SpectralKMeans])
def test_threads_of_the_linear_algebra_change_nothing(method, planted):
    budget = Budget.parse(0.3, "parameters", planted.num_users, planted.num_items, 64)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            results.append(method().assign(planted.train, budget, stream(0, "assign")))
    for side in ("users", "items"):
        np.testing.assert_array_equal(*(getattr(result, side).index for result in results))


def test_planted_blocks_are_recovered_within_their_budget():
    """Three, which the two singular vectors that Dhillon's rule takes can tell apart."""
    graph, users, items = blocks(np.full((3, 3), 0.02) + 0.4 * np.eye(3))
    budget = Budget.parse(6, "parameters", 300, 240, 64)
    assignment = SpectralCoclustering().assign(graph, budget, stream(0, "assign"))
    assert purity(assignment.users.first, users) > 0.95
    assert purity(assignment.items.first, items) > 0.95
    assert assignment.users.num_rows == assignment.items.num_rows == 3


def test_a_checkerboard_is_recovered():
    graph, users, items = blocks([[0.6, 0.1, 0.3], [0.1, 0.3, 0.6], [0.3, 0.6, 0.1]])
    budget = Budget.parse(6, "parameters", 300, 240, 64)
    assignment = SpectralBiclustering().assign(graph, budget, stream(0, "assign"))
    assert assignment.users.num_rows == assignment.items.num_rows == 3
    assert purity(assignment.users.first, users) > 0.95
    assert purity(assignment.items.first, items) > 0.95


def test_nobody_is_nearer_to_another_cluster_of_its_side(planted):
    """In the space of all singular vectors that a row has room for."""
    graph = planted.train
    assert graph.user_degrees.min() > 0 and graph.item_degrees.min() > 0  # no row for those without interactions
    budget = Budget.parse(0.2, "parameters", graph.num_users, graph.num_items, 16)
    assignment = SpectralKMeans().assign(graph, budget, stream(0, "assign"))
    factors = spectral_factors(graph, 16, stream(0, "assign"))
    for points, codes in zip(factors, (assignment.users, assignment.items), strict=True):
        centers = np.stack([points[codes.first == row].mean(0) for row in range(codes.num_rows)])
        squares = ((points[:, None] - centers) ** 2).sum(2)
        own = squares[np.arange(len(points)), codes.first]
        np.testing.assert_allclose(own, squares.min(1), rtol=1e-4, atol=1e-9)
    sizes = assignment.users.num_rows, assignment.items.num_rows
    assert sum(sizes) == budget.rows() and sizes[0] / sizes[1] == pytest.approx(400 / 300, rel=0.02)


@pytest.mark.parametrize("method", [SpectralBiclustering, SpectralKMeans])
@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("value", [0.1, 0.5, 1.0])
def test_sides_clustered_apart_fill_the_budget_whatever_it_is(sparse_graph, method, value, unit):
    """Many users with equal neighbours, so that k-means alone leaves clusters empty."""
    budget = Budget.parse(value, unit, sparse_graph.num_users, sparse_graph.num_items, 64)
    ledger = code_ledger(method().assign(sparse_graph, budget, stream(0, "assign")), 64)
    isolated = [int((degrees == 0).sum()) for degrees in (sparse_graph.user_degrees, sparse_graph.item_degrees)]
    most = sparse_graph.num_nodes - sum(isolated) + sum(map(bool, isolated))
    assert budget.share(ledger) <= 1
    assert budget.share(ledger) > 0.97 or ledger.user_rows + ledger.item_rows == most
