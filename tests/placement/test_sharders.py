"""Where rows go: once each, within the memory, and what the placements are worth."""

import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.embedding.codes import Assignment, Codes
from baco.embedding.cost import RowFormat
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.placement import planners
from baco.placement.cost import Devices
from baco.placement.placing import SHARDERS, place_rows
from baco.placement.rows import Rows

ROW = RowFormat(row_parameters=2, row_bytes=8, table_bytes=3)
AMPLE = 10**9
FAST = ("random", "size_greedy", "lookup_greedy", "coclusters", "metis")


def full_rows(graph: Biadjacency, labels: np.ndarray) -> Rows:
    return Rows.of(graph, Assignment.of_own_rows(graph.num_users, graph.num_items), ROW, labels)


@st.composite
def some_rows(draw, most: int = 9) -> Rows:
    """Rows of full tables, of a graph with one interaction at least, in any co-clusters."""
    num_users, num_items = draw(st.integers(1, most)), draw(st.integers(1, most))
    entries = draw(st.lists(st.booleans(), min_size=num_users * num_items, max_size=num_users * num_items))
    matrix = np.array(entries, float).reshape(num_users, num_items)
    matrix[0, 0] = 1
    nodes = num_users + num_items
    labels = draw(st.lists(st.integers(0, 4), min_size=nodes, max_size=nodes))
    return full_rows(Biadjacency.from_matrix(matrix), np.array(labels))


@given(some_rows(), st.integers(1, 5), st.integers(0, 3), st.sampled_from(FAST))
def test_every_row_is_placed_once_within_the_memory(rows, count, slack, sharder):
    capacity = -(-rows.count // count) + slack
    devices = Devices(count, capacity * 8 + 2 * 3 + 7)  # the 7 bytes are too few for another row
    device = place_rows(rows, devices, sharder, 0).device
    assert device.shape == (rows.count,) and device.dtype == np.int32
    assert device.min() >= 0 and device.max() < count and np.bincount(device).max() <= capacity
    assert devices.held(rows, device).max() <= devices.memory
    assert devices.loads(rows, device).sum() == 2 * rows.graph.num_edges * 8


@given(some_rows(most=3), st.integers(1, 3))
def test_the_longest_first_is_within_four_thirds_of_the_best(rows, count):
    loads = [np.bincount(device, rows.lookups, count).max() for device in product(range(count), repeat=rows.count)]
    devices = Devices(count, AMPLE)
    found = devices.loads(rows, place_rows(rows, devices, "lookup_greedy", 0).device).max() / 8
    assert found <= (4 / 3 - 1 / (3 * count)) * min(loads) + 1e-9


@given(some_rows(), st.integers(1, 5))
def test_coclusters_that_fit_stay_whole(rows, count):
    device = place_rows(rows, Devices(count, AMPLE), "coclusters", 0).device
    for group in np.unique(rows.groups):
        members = rows.groups == group
        if rows.lookups[members].sum() * count <= rows.lookups.sum():
            assert len(np.unique(device[members])) == 1


def test_a_cocluster_larger_than_a_device_is_split(two_bicliques):
    one = full_rows(two_bicliques, np.zeros(12, int))
    assert place_rows(one, Devices(4, AMPLE), "coclusters", 0).imbalance == 1
    two = full_rows(two_bicliques, np.tile([0, 0, 0, 1, 1, 1], 2))
    device = place_rows(two, Devices(3, 5 * 8 + 6), "coclusters", 0).device
    assert np.bincount(device).max() <= 5


@pytest.mark.parametrize("sharder", ["coclusters", "metis"])
def test_blocks_need_no_exchange(two_bicliques, sharder):
    rows = full_rows(two_bicliques, np.tile([0, 0, 0, 1, 1, 1], 2))
    placed = place_rows(rows, Devices(2, AMPLE), sharder, 0)
    assert placed.share_apart == 0 and placed.imbalance == 1 and placed.least_held == placed.most_held == 6 * 8 + 6


@pytest.mark.parametrize("shared", [False, True])
def test_rows_are_those_that_codes_name(planted, shared):
    rng, graph = np.random.default_rng(0), planted.train
    sides = [rng.integers(9, size=(size, 2), dtype=np.int32) for size in (graph.num_users, graph.num_items)]
    assignment = Assignment(*(Codes(index, 9) for index in sides), shared=shared)
    rows = Rows.of(graph, assignment, ROW, np.zeros(graph.num_nodes, int))
    assert rows.tables == ({"both": 9} if shared else {"users": 9, "items": 9})
    device = rng.integers(3, size=rows.count)
    lookups, joint, apart = np.zeros(rows.count), np.zeros((rows.count, rows.count)), 0
    for user, item in zip(graph.users, graph.items, strict=True):
        own, others = set(sides[0][user].tolist()), {one + 9 * (not shared) for one in sides[1][item].tolist()}
        for found in (own, others):
            lookups[list(found)] += 1
        for one, other in product(own, others):
            if one != other:
                joint[one, other] += 1
                joint[other, one] += 1
        apart += len({device[row] for row in own | others}) > 1
    np.testing.assert_array_equal(rows.lookups, lookups)
    np.testing.assert_array_equal(rows.joint_lookups().toarray(), joint)
    assert rows.share_apart(device) == apart / graph.num_edges


def test_a_row_is_of_the_cocluster_that_most_of_its_lookups_are_for():
    graph = Biadjacency.from_matrix(np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0]]))
    users, items = np.zeros((3, 1), np.int32), np.array([[0], [0], [2]], np.int32)
    assignment = Assignment(Codes(users, 1), Codes(items, 4))
    groups = Rows.of(graph, assignment, ROW, np.array([7, 5, 5, 5, 5, 7])).groups
    assert groups[0] == groups[3] != groups[1]  # three look-ups of label 7 against two; then 5, and 7
    assert len(set(groups)) == 4  # rows without ids are alone


@pytest.mark.parametrize("sharder", ["dreamshard", "autoshard"])
def test_planners_learn_to_balance_within_the_memory(planted, monkeypatch, sharder):
    monkeypatch.setattr(planners, "STEPS", 20)
    labels = np.arange(planted.num_users + planted.num_items) % 30
    rows = full_rows(planted.train, labels)
    devices = Devices(2, 351 * 8 + 6)
    first, second = (place_rows(rows, devices, sharder, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.device, second.device)
    assert first.imbalance < 1.1 and first.most_held <= devices.memory


@pytest.mark.parametrize("sharder", SHARDERS)
def test_rows_that_do_not_fit_are_refused(two_bicliques, sharder):
    rows = full_rows(two_bicliques, np.zeros(12, int))
    with pytest.raises(
        UserError, match=r"12 rows of 8 bytes do not fit into 5 devices of 29 bytes; each needs 30 bytes"
    ):
        place_rows(rows, Devices(5, 29), sharder, 0)


def test_without_metis_the_mend_is_told(two_bicliques, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(UserError, match=r"sharder 'metis' needs .* pip install 'pymetis>=2025.2'"):
        place_rows(full_rows(two_bicliques, np.zeros(12, int)), Devices(2, AMPLE), "metis", 0)
