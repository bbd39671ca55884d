"""Isolated nodes are set aside, share one row per side afterwards, and are paid for."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from baco.compressors.budget import Budget
from baco.embedding.codes import Assignment, Codes
from baco.embedding.cost import code_ledger
from baco.errors import UserError
from baco.graph import Biadjacency
from baselines.support.connected import ISOLATED, Connected
from tests.coclustering.test_solvers import graphs


@given(graphs())
def test_the_connected_part_has_all_pairs_and_no_isolated_node(graph):
    connected = Connected(graph)
    part = connected.graph
    assert part.user_degrees.min() > 0 and part.item_degrees.min() > 0
    np.testing.assert_array_equal(connected.users[part.users], graph.users)
    np.testing.assert_array_equal(connected.items[part.items], graph.items)
    labels = connected.restore(np.arange(part.num_nodes))
    degrees = np.concatenate([graph.user_degrees, graph.item_degrees])
    np.testing.assert_array_equal(labels == ISOLATED, degrees == 0)
    np.testing.assert_array_equal(labels[labels != ISOLATED], np.arange(part.num_nodes))


@given(graphs(), st.floats(0.2, 1.0), st.sampled_from(["parameters", "bytes"]))
def test_clusters_fill_the_budget_together_with_the_isolated_nodes(graph, ratio, unit):
    connected = Connected(graph)
    budget = Budget.parse(ratio, unit, graph.num_users, graph.num_items, 8)
    try:
        user_clusters, item_clusters = connected.clusters_within(budget)
    except UserError:
        assume(False)
    part = connected.graph
    assert 1 <= user_clusters <= part.num_users and 1 <= item_clusters <= part.num_items
    labels = np.concatenate([np.arange(part.num_users) % user_clusters, np.arange(part.num_items) % item_clusters])
    labels = connected.restore(labels)
    sides = Codes.from_labels(labels[: graph.num_users]), Codes.from_labels(labels[graph.num_users :])
    ledger = code_ledger(Assignment(*sides), 8)
    assert budget.amount(ledger) <= budget.limit
    everything = user_clusters == part.num_users and item_clusters == part.num_items
    assert everything or budget.limit - budget.amount(ledger) < 8 * 4 * 2, "less than two rows are left"


def test_what_cannot_be_clustered_is_refused():
    nothing = Biadjacency.from_pairs(np.empty(0, int), np.empty(0, int), 2, 2)
    with pytest.raises(UserError, match="no interactions"):
        Connected(nothing)
    pair = Biadjacency.from_pairs(np.array([0]), np.array([0]), 3, 1)
    with pytest.raises(UserError, match="buys 2 codebook rows, but 3 are needed"):
        Connected(pair).clusters_within(Budget.parse(2, "parameters", 3, 1, 4))
