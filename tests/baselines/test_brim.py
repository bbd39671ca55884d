"""BRIM against dense modularity matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.compressors.budget import Budget
from baco.embedding.cost import code_ledger
from baco.rng import stream
from baselines.brim import Brim, brim, half_step
from baselines.support.connected import ISOLATED
from tests.coclustering.test_solvers import graphs

resolutions = st.sampled_from([0.3, 1.0, 4.0, 60.0])


def dense_matrix(graph, resolution):
    B = graph.to_matrix().toarray().astype(float)
    return B - resolution * np.outer(B.sum(1), B.sum(0)) / B.sum()


def dense_modularity(graph, users, items, resolution):
    return (dense_matrix(graph, resolution) * (users[:, None] == items[None, :])).sum() / graph.num_edges


@given(graphs(), resolutions, st.integers(0, 5))
def test_half_steps_take_the_best_community_and_never_lower_modularity(graph, resolution, seed):
    rng = np.random.default_rng(seed)
    slots = np.arange(rng.integers(1, graph.num_nodes + 1))
    users = rng.integers(len(slots), size=graph.num_users)
    items = rng.integers(len(slots), size=graph.num_items).astype(np.int32)
    penalty = resolution / graph.num_edges
    values = [dense_modularity(graph, users, items, resolution)]
    for _ in range(3):
        users = half_step(graph.by_user, graph.user_degrees, items, graph.item_degrees, penalty, len(slots))
        scores = dense_matrix(graph, resolution) @ (items[:, None] == slots)
        np.testing.assert_allclose(scores[np.arange(graph.num_users), users], scores.max(1), atol=1e-9)
        values.append(dense_modularity(graph, users, items, resolution))
        items = half_step(graph.by_item, graph.item_degrees, users, graph.user_degrees, penalty, len(slots))
        scores = dense_matrix(graph, resolution).T @ (users[:, None] == slots)
        np.testing.assert_allclose(scores[np.arange(graph.num_items), items], scores.max(1), atol=1e-9)
        values.append(dense_modularity(graph, users, items, resolution))
    assert (np.diff(values) >= -1e-9).all()


@pytest.mark.parametrize("resolution", [0.5, 1.0, 5.0])
def test_the_reported_modularity_is_that_of_the_labels(sparse_graph, resolution):
    start = np.random.default_rng(0).permutation(sparse_graph.num_items).astype(np.int32)
    labels, modularity = brim(sparse_graph, resolution, start)
    users, items = labels[: sparse_graph.num_users], labels[sparse_graph.num_users :]
    assert ((users == ISOLATED) == (sparse_graph.user_degrees == 0)).all()
    assert modularity == pytest.approx(dense_modularity(sparse_graph, users, items, resolution), abs=1e-6)
    assert modularity > dense_modularity(sparse_graph, np.full(len(users), -2), start, resolution)


def test_bicliques_are_two_communities(two_bicliques):
    labels, modularity = brim(two_bicliques, 1.0, np.random.default_rng(0).permutation(6).astype(np.int32))
    users, items = labels[:6].reshape(2, 3), labels[6:].reshape(2, 3)
    np.testing.assert_array_equal(users, items)
    assert (users == users[:, :1]).all() and users[0, 0] != users[1, 0]
    assert modularity == pytest.approx(0.5)


def test_native_brim_is_barbers_and_matched_brim_fills_the_budget(planted):
    budget = Budget.parse(0.4, "parameters", planted.num_users, planted.num_items, 64)
    native, matched = Brim(Brim.Config(matched=False)), Brim()
    assert matched.has_budget and not native.has_budget
    start = stream(0, "assign").permutation(planted.num_items).astype(np.int32)
    _, modularity = brim(planted.train, 1.0, start)
    assert native.assign(planted.train, budget, stream(0, "assign")).details["modularity"] == modularity
    assert 0.9 < budget.share(code_ledger(matched.assign(planted.train, budget, stream(0, "assign")), 64)) <= 1
