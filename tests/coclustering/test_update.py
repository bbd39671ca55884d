"""Co-clusters of a graph that has grown: who may move, and what becomes of new ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.coclustering.cocluster import Settings, label_ranks
from baco.coclustering.objective import objective
from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.update import possible_gains, update_labels
from baco.coclustering.weights import node_weights
from baco.errors import UserError
from baco.graph import Biadjacency
from tests.coclustering import plain
from tests.coclustering.test_solvers import SCHEMES, graphs, resolutions, seeds

ENOUGH = 1000  # rounds, for a fixed point
thresholds = st.sampled_from([0.0, 0.1, 0.5, np.inf])


def settings_of(schemes) -> Settings:
    return Settings("alternating", "clean", None, *schemes)


def some_labels(graph, seed, unknown):
    """Labels at random, a part of them unknown."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, graph.num_nodes, graph.num_nodes)
    return np.where(rng.random(graph.num_nodes) < unknown, -1, labels)


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES), thresholds, st.sampled_from([0, 0.3, 0.8, 1]))
def test_all_have_labels_then_and_old_ones_move_for_a_gain_only(graph, resolution, seed, schemes, threshold, unknown):
    before = some_labels(graph, seed, unknown)
    given_to = before.copy()
    labels = update_labels(graph, before, resolution, seed, settings_of(schemes), threshold)
    np.testing.assert_array_equal(before, given_to)
    assert labels.dtype == np.int32 and labels.min() >= 0 and labels.max() < graph.num_nodes
    old = before >= 0
    moved = labels[old] != before[old]
    assert threshold < np.inf or not moved.any()
    alone = labels[~old & (graph.joint_degrees == 0)]
    assert len(set(alone)) <= 1, "ids without interactions share a label"
    if old.all():
        weights = node_weights(graph, *schemes)
        gain = objective(graph, labels, weights, resolution) - objective(graph, before, weights, resolution)
        assert gain >= threshold * graph.joint_degrees[moved].max() - 1e-9 if moved.any() else gain == 0


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_nothing_moves_from_a_fixed_point(graph, resolution, seed, schemes):
    weights, ranks = node_weights(graph, *schemes), label_ranks(graph.num_nodes, seed)
    labels = alternating(graph, weights, resolution, ENOUGH, ranks)
    np.testing.assert_array_equal(update_labels(graph, labels, resolution, seed, settings_of(schemes), 0), labels)


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_nothing_moves_from_anywhere_without_new_interactions(graph, resolution, seed, schemes):
    labels = some_labels(graph, seed, 0)
    found = update_labels(graph, labels, resolution, seed, settings_of(schemes), 0, before=graph)
    np.testing.assert_array_equal(found, labels)


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_possible_gains_are_those_of_the_best_move(graph, resolution, seed, schemes):
    labels, weights = some_labels(graph, seed, 0).astype(np.int32), node_weights(graph, *schemes)
    around = plain.neighbours(graph)
    found = possible_gains(graph, labels, weights, resolution)
    for node in range(graph.num_nodes):
        values = []
        for label in {labels[node]} | {labels[y] for y in around[node]}:
            other = labels.copy()
            other[node] = label
            values.append(objective(graph, other, weights, resolution))
        gain = max(values) - objective(graph, labels, weights, resolution)
        assert found[node] == pytest.approx(gain, abs=1e-6)


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_without_any_labels_it_is_the_alternating_solver(graph, resolution, seed, schemes):
    users, items = (np.unique(side, return_inverse=True)[1] for side in (graph.users, graph.items))
    graph = Biadjacency.from_pairs(users, items, users.max() + 1, items.max() + 1)  # nobody is isolated
    nobody = np.full(graph.num_nodes, -1)
    weights, ranks = node_weights(graph, *schemes), label_ranks(graph.num_nodes, seed)
    expected = alternating(graph, weights, resolution, ENOUGH, ranks)
    found = update_labels(graph, nobody, resolution, seed, settings_of(schemes))
    np.testing.assert_array_equal(found, expected)


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_one_new_id_has_the_best_label_of_its_neighbours(graph, resolution, seed, schemes):
    before = some_labels(graph, seed, 0)
    node = seed % graph.num_nodes
    before[node] = -1
    label = update_labels(graph, before, resolution, seed, settings_of(schemes), np.inf)[node]
    weights, ranks = node_weights(graph, *schemes), label_ranks(graph.num_nodes, seed)
    around, penalty = plain.neighbours(graph), resolution / weights.normaliser
    same_side = before[: graph.num_users] if node < graph.num_users else before[graph.num_users :]
    held = {before[y] for y in around[node]} & set(same_side)

    def best(candidates):
        scores = {c: plain.score(graph, before, weights, penalty, around, node, c) for c in candidates}
        return min(candidates, key=lambda label: (-scores[label], ranks[label]))

    if held:  # then the moves of the solver, from there
        assert label == best({before[y] for y in around[node]} | {best(held)})


def test_a_grown_graph_keeps_its_co_clusters_and_new_ids_join_them():
    blocks = np.zeros((8, 9))
    blocks[:3, :3] = blocks[3:6, 3:6] = 1  # as they were
    blocks[6, [3, 4]] = blocks[:2, 6] = 1  # a user of the second co-cluster, an item of the first,
    blocks[7, 7] = 1  # and two that know each other only; the last item has nobody
    before = np.array([0, 0, 0, 1, 1, 1, -1, -1, 0, 0, 0, 1, 1, 1, -1, -1, -1])
    labels = update_labels(Biadjacency.from_matrix(blocks), before, 1.0, 0)
    np.testing.assert_array_equal(labels[before >= 0], before[before >= 0])
    assert labels[6] == 1 and labels[8 + 6] == 0
    assert labels[7] == labels[8 + 7] and len({0, 1, labels[7], labels[-1]}) == 4


@pytest.mark.parametrize("threshold", [-0.1, np.nan])
def test_a_threshold_that_is_none_is_refused(two_bicliques, threshold):
    with pytest.raises(UserError, match=r"threshold=.* must be 0 or more, or inf"):
        update_labels(two_bicliques, np.zeros(12, int), 1.0, 0, threshold=threshold)
