"""The methods without training against their formulas on dense matrices."""

import numpy as np
import pytest

from baco import device
from baco.errors import UserError
from baco.evaluation.evaluator import tie_order
from baco.graph import Biadjacency
from baselines import untrained
from baselines.untrained import EASE, GFCF, ItemKNN, MostPopular


@pytest.fixture(params=range(3))
def graph(request) -> Biadjacency:
    """50 users, 30 items; a user and an item have nothing."""
    rng = np.random.default_rng(request.param)
    return Biadjacency.from_pairs(rng.integers(49, size=300), rng.integers(29, size=300), 50, 30)


def scores_of(method, graph: Biadjacency) -> np.ndarray:
    return method.fit(graph).scores(np.arange(graph.num_users))


def dense(graph: Biadjacency) -> np.ndarray:
    return graph.to_matrix().toarray().astype(np.float64)


def test_the_most_popular_items_are_those_with_the_most_interactions(graph):
    np.testing.assert_array_equal(scores_of(MostPopular(), graph), np.tile(dense(graph).sum(0), (50, 1)))


@pytest.mark.parametrize("block", [1024, 7])
@pytest.mark.parametrize("normalise", [False, True])
def test_neighbours_are_the_items_of_the_highest_cosine(graph, normalise, block, monkeypatch):
    monkeypatch.setattr(untrained, "BLOCK_ITEMS", block)
    k, shrink, R = 4, 2.0, dense(graph)
    scaled = R / np.sqrt(np.maximum(R.sum(1, keepdims=True), 1)) if normalise else R
    common, length = scaled.T @ scaled, np.linalg.norm(scaled, axis=0)
    cosine = common / (np.outer(length, length) + shrink)
    np.fill_diagonal(cosine, 0)
    place, nearest = np.argsort(tie_order(30)), np.zeros_like(cosine)
    for i, row in enumerate(cosine):
        for j in sorted(range(30), key=lambda j: (-np.float32(row[j]), place[j]))[:k]:
            nearest[i, j] = row[j]
    method = ItemKNN(ItemKNN.Config(k, shrink, normalise))
    np.testing.assert_allclose(scores_of(method, graph), R @ nearest, rtol=1e-5, atol=1e-6)
    ledger = method.fit(graph).ledger
    assert ledger.parameters == 2 * np.count_nonzero(nearest)
    assert ledger.bytes == 8 * np.count_nonzero(nearest) + 4 * 31


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_graph_filter_is_the_papers(graph, alpha):
    R = dense(graph)
    users, items = (np.where(degree > 0, degree, 1) ** -0.5 for degree in (R.sum(1), R.sum(0)))
    smooth = users[:, None] * R * items
    V = np.linalg.svd(smooth)[2][:5].T
    wanted = R @ (smooth.T @ smooth + alpha * np.diag(items) @ V @ V.T @ np.diag(1 / items))
    found = scores_of(GFCF(GFCF.Config(alpha, 5)), graph)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [1024, 7])
def test_the_linear_model_is_the_least_penalised_error_with_a_zero_diagonal(graph, block, monkeypatch):
    """Item by item, the ridge regression on the other items."""
    monkeypatch.setattr(untrained, "BLOCK_ITEMS", block)
    R, W = dense(graph), np.zeros((30, 30))
    for j in range(30):
        others = np.arange(30) != j
        X = R[:, others]
        W[others, j] = np.linalg.solve(X.T @ X + 10 * np.eye(29), X.T @ R[:, j])
    method = EASE(EASE.Config(l2=10.0))
    np.testing.assert_allclose(scores_of(method, graph), R @ W, rtol=1e-3, atol=1e-5)
    assert method.fit(graph).ledger.bytes == 4 * 30 * 30


def test_a_matrix_that_does_not_fit_is_refused_with_its_size(graph, monkeypatch):
    monkeypatch.setattr(device, "available_memory", lambda device: 1000)
    with pytest.raises(UserError, match=r"ease, of 30 x 30 items, needs at least 0\.0 GB of memory"):
        EASE().fit(graph)
