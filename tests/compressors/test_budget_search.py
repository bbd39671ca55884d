"""Budgets are filled on graphs whose nodes are alike, where the sizes of clusterings jump."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from baco.coclustering.baco import Baco
from baco.coclustering.baco_plus import BacoPlus
from baco.compressors.budget import Budget
from baco.compressors.budget_search import Splitting, fill_budget
from baco.embedding.codes import Assignment, Codes
from baco.embedding.cost import code_ledger
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.registry import METHODS, method_class
from baco.rng import stream
from baselines.support.clustering import Clustering

DIM = 64
method_class("full")  # imports them all
RANGES = (1, 8), (1, 12), (1, 6), (1, 6), (2, 12), (0, 3)
SEARCHING = sorted(
    name
    for name, cls in METHODS.items()
    if (issubclass(cls, Clustering) and cls().has_budget) or cls in (Baco, BacoPlus) or name == "doublegraphhash"
)


@st.composite
def equal_degrees(draw) -> Biadjacency:
    """Stars of equal sizes, complete blocks and a ring: whole classes of nodes that only their numbers tell apart."""
    stars, leaves, blocks, size, ring, isolated = (draw(st.integers(*range_)) for range_ in RANGES)
    users, items, num_users, num_items = [], [], 0, 0
    for _ in range(stars):
        users += range(num_users, num_users + leaves)
        items += [num_items] * leaves
        num_users, num_items = num_users + leaves, num_items + 1
    for _ in range(blocks):
        users += [num_users + one for one in range(size) for _ in range(size)]
        items += [num_items + other for _ in range(size) for other in range(size)]
        num_users, num_items = num_users + size, num_items + size
    users += [num_users + node for node in range(ring) for _ in range(2)]
    items += [num_items + (node + step) % ring for node in range(ring) for step in range(2)]
    num_users, num_items = num_users + ring, num_items + ring
    return Biadjacency.from_pairs(np.array(users), np.array(items), num_users + isolated, num_items)


def left(assignment: Assignment, budget: Budget) -> int:
    return budget.limit - budget.amount(code_ledger(assignment, budget.dim))


@pytest.mark.parametrize("name", SEARCHING)
@settings(max_examples=12)
@given(equal_degrees(), st.floats(0.3, 1.0))
def test_clusterings_fill_their_budget_on_any_graph(name, graph, ratio):
    budget = Budget.parse(ratio, "parameters", graph.num_users, graph.num_items, DIM)
    try:
        assignment = METHODS[name]().assign(graph, budget, stream(0, "assign"))
    except UserError:
        assume(False)  # a budget below the least that the method reaches
    assert left(assignment, budget) >= 0
    sides = (assignment.users, graph.user_degrees), (assignment.items, graph.item_degrees)
    of_their_own = all(len({*codes.first[degrees > 0]}) == np.count_nonzero(degrees) for codes, degrees in sides)
    extra = graph.num_nodes  # at most so many codes after the first come and go with a row
    assert of_their_own or left(assignment, budget) < max(0.02 * budget.limit, 2 * DIM + extra)


GRAPH = Biadjacency.from_pairs(np.array([0, 0, 0, 1, 1, 2, 3]), np.array([0, 1, 2, 0, 1, 0, 0]), 6, 3)
COARSE, FINE = np.array([0, 0, 0, 0, 1, 1, 0, 0, 0]), np.array([0, 0, 2, 3, 4, 5, 0, 0, 2])


def encode(labels: np.ndarray, details: dict) -> Assignment:
    return Assignment(Codes.from_labels(labels[:6]), Codes.from_labels(labels[6:]), details, labels)


@pytest.mark.parametrize(
    ("above", "rows", "users", "items"),
    [
        (FINE, 4, [0, 0, 0, 0, 4, 4], [0, 0, 0]),  # the next part is of both sides and needs two rows
        (FINE, 5, [0, 0, 1, 0, 4, 4], [0, 0, 1]),  # the one with the most interactions stays, the second has rows first
        (FINE, 6, [0, 0, 1, 2, 4, 4], [0, 0, 1]),  # users without interactions stay together
        (COARSE, 5, [0, 1, 2, 2, 4, 4], [0, 0, 0]),  # nothing is above it: single nodes, the most frequent first
        (COARSE, 6, [0, 1, 2, 2, 4, 4], [0, 1, 0]),
        (COARSE, 9, [0, 1, 2, 3, 4, 4], [0, 1, 2]),
    ],
)
def test_clusters_are_split_along_finer_ones_or_into_nodes(above, rows, users, items):
    budget = Budget(rows * 8, "parameters", 8)

    def assign(knob: float) -> Assignment:
        return encode(above if knob > 9 else COARSE, {"knob": knob})

    found = fill_budget(assign, budget, 1.0, splitting=Splitting(GRAPH, encode))
    for codes, expected in ((found.users.first, users), (found.items.first, items)):
        assert len({*zip(codes, expected, strict=True)}) == len({*codes}) == len({*expected})
    assert found.details["knob"] == 1.0


def test_what_fills_98_percent_is_left_alone():
    labels = np.arange(200) % 99
    budget = Budget(200 * 8, "parameters", 8)

    def encode(labels, details):
        codes = Codes.from_labels(labels)
        return Assignment(codes, codes, details, np.concatenate([labels, labels]))

    ring = np.arange(200)
    splitting = Splitting(Biadjacency.from_pairs(ring, ring, 200, 200), encode)
    plain, found = (fill_budget(lambda _: encode(labels, {}), budget, 1.0, splitting=own) for own in (None, splitting))
    assert budget.share(code_ledger(plain, 8)) == 0.99
    np.testing.assert_array_equal(found.labels, plain.labels)
    assert "split" not in found.details
