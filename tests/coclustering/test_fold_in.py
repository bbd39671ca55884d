"""Fold-in: users of a fixed point get their own labels again, and all others those of the plain half-round."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.coclustering import BalancedCoClustering, Settings
from baco.coclustering.cocluster import label_ranks
from baco.coclustering.fold_in import FoldIn
from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.weights import node_weights
from baco.errors import UserError
from tests.coclustering import plain
from tests.coclustering.test_solvers import SCHEMES, graphs, resolutions, seeds

ENOUGH = 1000  # rounds, for a fixed point


def folded(graph, resolution, seed, schemes):
    """The labels of a fixed point, and those of its own users by fold-in."""
    settings = Settings("alternating", "clean", ENOUGH, *schemes)
    weights, ranks = node_weights(graph, *schemes), label_ranks(graph.num_nodes, seed)
    labels = alternating(graph, weights, resolution, ENOUGH, ranks)
    return labels, FoldIn.of(graph, labels, resolution, seed, settings).labels(graph)


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_fold_in_equals_its_plain_twin_and_keeps_a_fixed_point(graph, resolution, seed, schemes):
    labels, found = folded(graph, resolution, seed, schemes)
    weights, ranks = node_weights(graph, *schemes), label_ranks(graph.num_nodes, seed)
    around, penalty = plain.neighbours(graph), resolution / weights.normaliser
    for user in range(graph.num_users):
        candidates = {labels[y] for y in around[user]} & set(labels[: graph.num_users])
        if not candidates:
            assert found[user] == -1
            continue
        scores = {c: plain.score(graph, labels, weights, penalty, around, user, c) for c in candidates}
        assert found[user] == min(candidates, key=lambda label: (-scores[label], ranks[label]))
        assert labels[user] not in candidates or found[user] == labels[user]


def test_users_of_a_larger_fixed_point_keep_their_labels(sparse_graph):
    labels, found = folded(sparse_graph, 0.5, 0, ("sqrt", "sqrt"))
    own = labels[: sparse_graph.num_users]
    linked = sparse_graph.user_degrees > 0
    alone = ~np.isin(own, labels[sparse_graph.num_users :])  # at a label without items, which nobody else is offered
    np.testing.assert_array_equal(found[linked & ~alone], own[linked & ~alone])
    assert np.count_nonzero(linked & ~alone) > 150
    assert (found[~linked] == -1).all() and not linked.all()


@pytest.mark.parametrize("method", ["baco_plus", "baco"])
def test_the_estimator_labels_rows_that_it_has_not_seen(method):
    blocks = np.kron(np.eye(3), np.ones((4, 5)))
    model = BalancedCoClustering(budget=8, method=method, settings={"resolution": 1.0}).fit(blocks)
    assert len(set(model.row_labels_)) == 3
    rows = np.zeros((5, 15))
    rows[0, 6:8] = rows[1, 12] = rows[2, 6] = 1
    rows[3, [0, 1, 14]] = 2
    found = model.transform(rows)
    assert found.dtype == np.int32
    assert found.tolist() == [*model.row_labels_[[4, 8, 4, 0]], -1]
    np.testing.assert_array_equal(model.transform(blocks), model.row_labels_)


def test_the_estimator_refuses_other_columns(planted):
    model = BalancedCoClustering(budget=0.3)
    with pytest.raises(UserError, match="call fit first"):
        model.transform(np.ones((1, 3)))
    model.fit(planted.train.to_matrix())
    with pytest.raises(UserError, match=f"the matrix has 3 columns, but that of fit had {planted.num_items}"):
        model.transform(np.ones((1, 3)))
