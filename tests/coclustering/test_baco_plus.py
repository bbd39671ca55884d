"""BACO+: profiles of co-clusters, their apportionment, and the method under a budget."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.coclustering.baco_plus import BacoPlus
from baco.coclustering.objective import objective
from baco.coclustering.profiles import most_codes, profile_codes
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget
from baco.embedding.codebook import CodebookTables
from baco.embedding.cost import code_ledger
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.rng import stream

from . import plain
from .test_solvers import graphs


@given(graphs(), st.integers(0, 5), st.integers(1, 8), st.integers(1, 4), st.sampled_from(["one", "degree"]))
def test_codes_are_the_own_label_and_those_around_by_dhondts_rule(graph, seed, user_codes, item_codes, scheme):
    weights = node_weights(graph, scheme, scheme)
    labels = np.random.default_rng(seed).integers(0, graph.num_nodes, graph.num_nodes).astype(np.int32)
    ends, codes = profile_codes(graph, labels, weights, (user_codes, item_codes))
    around = plain.neighbours(graph)
    for x in range(graph.num_nodes):
        is_user = x < graph.num_users
        offset, opposite = (graph.num_users, weights.items) if is_user else (0, weights.users)
        links = Counter(labels[around[x]].tolist())
        volume = {label: sum(opposite[labels[offset : offset + len(opposite)] == label]) for label in links}
        quotients = [
            (-count / divisor, volume[c], c)
            for c, count in links.items()
            for divisor in range(1 + (c == labels[x]), count + 1)
        ]
        seats = max(1, min(len(around[x]), user_codes if is_user else item_codes))
        own, *others = codes[ends[x] : ends[x + 1]].tolist()
        assert own == labels[x]
        assert len(others) == seats - 1
        expected = [label for *_, label in sorted(quotients)][: seats - 1]
        assert others[: len(expected)] == expected


@given(graphs(), st.integers(0, 80), st.sampled_from([0.0, 0.25, 1.0]))
def test_the_most_codes_are_as_many_as_the_total_allows(graph, total, ratio):
    def needed(users, items):
        return np.clip(graph.user_degrees, 1, users).sum() + np.clip(graph.item_degrees, 1, items).sum()

    users, items = most_codes(graph, total, ratio)
    assert items == max(1, np.ceil(ratio * users))
    assert users == 1 or needed(users, items) <= total
    assert users == graph.joint_degrees.max() or needed(users + 1, max(1, np.ceil(ratio * (users + 1)))) > total


def budget_of(data, value, unit="parameters") -> Budget:
    return Budget.parse(value, unit, data.num_users, data.num_items, 64)


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_beauty_fills_the_papers_budget(beauty, unit):
    budget = budget_of(beauty, 8267, unit)
    ledger = code_ledger(BacoPlus().assign(beauty.train, budget, stream(0, "assign")), 64)
    assert 0.98 <= budget.share(ledger) <= 1
    assert ledger.extra_codes > 2 * beauty.train.num_nodes


def test_the_share_of_codes_is_kept(planted):
    budget = budget_of(planted, 0.5)
    spent = []
    for share in (0.0, 0.1, 0.2, 0.4):
        method = BacoPlus(BacoPlus.Config(code_share=share))
        ledger = code_ledger(method.assign(planted.train, budget, stream(0, "assign")), 64)
        assert ledger.extra_codes <= share * budget.limit
        spent.append(ledger.extra_codes)
    assert spent[0] == 0
    assert spent == sorted(spent)
    assert spent[1] < spent[3]


def test_the_numbers_of_codes_follow_from_degrees_and_are_charged_in_bytes_only(planted):
    assignment = BacoPlus().assign(planted.train, budget_of(planted, 0.4), stream(0, "assign"))
    ledger = code_ledger(assignment, 64)
    sides = (
        (assignment.users, planted.train.user_degrees, "user"),
        (assignment.items, planted.train.item_degrees, "item"),
    )
    for codes, degrees, side in sides:
        most = assignment.details[f"{side}_codes"]
        np.testing.assert_array_equal(codes.rule.counts, np.clip(degrees, 1, most))
    assert ledger.counts == planted.train.num_nodes
    assert ledger.parameters == 64 * (ledger.user_rows + ledger.item_rows) + ledger.extra_codes


def test_an_embedding_is_the_mean_of_rows_over_all_interactions(planted):
    """Where codes are no object, for users that have a link to their own co-cluster."""
    graph = planted.train
    method = BacoPlus(BacoPlus.Config(resolution=20.0, code_share=0.9, item_ratio=1.0))
    assignment = method.assign(graph, Budget(10**7, "parameters", 8), stream(0, "assign"))
    users, items = np.split(assignment.labels, [graph.num_users])
    links = graph.to_matrix().toarray() @ (items[:, None] == np.unique(users))
    linked = links[np.arange(graph.num_users), np.searchsorted(np.unique(users), users)] > 0
    assert linked.mean() > 0.5
    profile = graph.to_matrix().toarray() @ (items[:, None] == np.unique(items))
    pooled = CodebookTables(assignment, 8).pooling().toarray()[: graph.num_users, : assignment.users.num_rows]
    for shares, expected in zip(pooled[linked], profile[linked], strict=True):
        expected = expected[expected > 0]
        np.testing.assert_allclose(shares[shares > 0], expected / expected.sum(), rtol=1e-6)


def test_nodes_without_interactions_share_one_row():
    graph = Biadjacency.from_pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), 5, 6)
    assignment = BacoPlus().assign(graph, Budget(6 * 4, "parameters", 4), stream(0, "assign"))
    for codes in (assignment.users, assignment.items):
        assert len(np.unique(codes.first[2:])) == 1
        assert codes.first[2] not in codes.index[: codes.ends[2]]


@pytest.mark.parametrize("scheme", ["one", "sqrt"])
def test_the_objective_told_is_that_of_the_labels(scheme):
    rng = np.random.default_rng(0)
    graph = Biadjacency.from_pairs(rng.integers(30, size=200), rng.integers(30, size=200), 90, 80)
    settings = {"user_weight": scheme, "item_weight": scheme, "resolution": 50.0}
    assignment = BacoPlus(BacoPlus.Config(**settings)).assign(
        graph, Budget(10**6, "parameters", 4), stream(0, "assign")
    )
    found = objective(graph, assignment.labels, node_weights(graph, scheme, scheme), 50.0)
    assert assignment.details["objective"] == found


def test_codes_of_ids_with_many_interactions_take_no_more_room_than_they_are():
    """A matrix as wide as the most codes of an id would hold 12 million numbers here."""
    users, items = np.arange(6000), np.arange(2000)
    pairs = np.stack([np.append(users, np.zeros(2000, int)), np.append(users % 2000, items)])
    graph = Biadjacency.from_pairs(*pairs, 6000, 2000)
    method = BacoPlus(BacoPlus.Config(resolution=20.0, code_share=0.9, item_ratio=1.0))
    assignment = method.assign(graph, Budget(10**7, "parameters", 8), stream(0, "assign"))
    assert assignment.users.codes_per_id == 2000
    assert assignment.users.index.size + assignment.items.index.size == 2 * graph.num_edges
    assert CodebookTables(assignment, 8).pooling().nnz <= 2 * graph.num_edges


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"code_share": 1.0}, "^code_share=1.0 must be 0 or more and below 1"),
        ({"code_share": -0.1}, "^code_share=-0.1"),
        ({"item_ratio": 1.5}, "^item_ratio=1.5 must lie between 0 and 1"),
        ({"solver": "magic"}, "magic"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        BacoPlus(BacoPlus.Config(**settings))


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("value", [0.2, 0.4])
def test_the_search_by_size_fills_the_budget(planted, value, unit):
    budget = Budget.parse(value, unit, planted.num_users, planted.num_items, 64)
    assignment = BacoPlus(BacoPlus.Config(search="size")).assign(planted.train, budget, stream(0, "assign"))
    assert 0.98 <= budget.share(code_ledger(assignment, 64)) <= 1
    again = BacoPlus(BacoPlus.Config(search="size")).assign(planted.train, budget, stream(0, "assign"))
    np.testing.assert_array_equal(assignment.labels, again.labels)


def test_the_search_by_size_is_of_one_solver():
    with pytest.raises(UserError, match="search=size needs solver=multilevel"):
        BacoPlus.Config(search="size", solver="alternating")
