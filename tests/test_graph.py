import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array, csr_array

from baco.errors import UserError
from baco.graph import Biadjacency

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=0, max_size=40)


@given(pairs)
def test_both_directions_hold_the_same_pairs(given_pairs):
    users, items = np.array(given_pairs, int).reshape(-1, 2).T
    graph = Biadjacency.from_pairs(users, items, 7, 5)
    expected = {(int(u), int(v)) for u, v in given_pairs}
    from_users = {(u, int(v)) for u in range(7) for v in graph.by_user.indices[slice(*graph.by_user.indptr[u : u + 2])]}
    from_items = {(int(u), v) for v in range(5) for u in graph.by_item.indices[slice(*graph.by_item.indptr[v : v + 2])]}
    assert expected == from_users == from_items
    assert graph.num_edges == len(expected)
    assert graph.user_degrees.sum() == graph.item_degrees.sum() == len(expected)


@given(pairs)
def test_joint_graph_is_the_block_matrix(given_pairs):
    users, items = np.array(given_pairs, int).reshape(-1, 2).T
    graph = Biadjacency.from_pairs(users, items, 7, 5)
    indptr, indices = graph.joint
    joint = csr_array((np.ones(len(indices)), indices, indptr), shape=(12, 12)).toarray()
    block = graph.to_matrix().toarray()
    np.testing.assert_array_equal(joint, np.block([[np.zeros((7, 7)), block], [block.T, np.zeros((5, 5))]]))


def test_neighbours_ascend_whatever_the_order_of_the_input():
    graph = Biadjacency.from_pairs(np.array([1, 0, 1, 0]), np.array([2, 1, 0, 0]), 2, 3)
    np.testing.assert_array_equal(graph.by_user.indices, [0, 1, 0, 2])
    np.testing.assert_array_equal(graph.by_item.indices, [0, 1, 0, 1])


def test_fingerprint_depends_on_pairs_and_sizes_only():
    first = Biadjacency.from_pairs(np.array([0, 1]), np.array([1, 0]), 2, 2)
    same = Biadjacency.from_pairs(np.array([1, 0, 1]), np.array([0, 1, 0], np.int16), 2, 2)
    assert first.fingerprint == same.fingerprint
    assert first.fingerprint != Biadjacency.from_pairs(np.array([0, 1]), np.array([1, 0]), 2, 3).fingerprint
    assert first.fingerprint != Biadjacency.from_pairs(np.array([0, 1]), np.array([0, 1]), 2, 2).fingerprint


@pytest.mark.parametrize(
    "matrix", [np.eye(3, dtype=bool), np.eye(3), csr_array(np.eye(3)), csr_array(np.eye(3)).tocoo(), -2.5 * np.eye(3)]
)
def test_any_nonzero_entry_is_an_interaction(matrix):
    np.testing.assert_array_equal(Biadjacency.from_matrix(matrix).to_matrix().toarray(), np.eye(3))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.bool_])
def test_pairs_repeated_so_often_that_their_type_overflows_are_interactions(dtype):
    times = 2**16
    events = coo_array((np.ones(times, dtype), (np.zeros(times, int), np.ones(times, int))), shape=(2, 3))
    assert Biadjacency.from_matrix(events).to_matrix().toarray().tolist() == [[0, 1, 0], [0, 0, 0]]


def test_a_sparse_matrix_is_left_alone():
    """One with an explicit zero, a duplicate and unsorted columns, all of which have to be mended in the copy."""
    parts = np.array([1.0, 0.0, 2.0, 3.0]), np.array([2, 0, 1, 1]), np.array([0, 2, 4])
    matrix = csr_array(tuple(part.copy() for part in parts), shape=(2, 3))
    for array in (matrix.data, matrix.indices, matrix.indptr):
        array.flags.writeable = False
    assert Biadjacency.from_matrix(matrix).to_matrix().toarray().tolist() == [[0, 0, 1], [0, 1, 0]]
    for before, after in zip(parts, (matrix.data, matrix.indices, matrix.indptr), strict=True):
        np.testing.assert_array_equal(before, after)


def test_read_only_input_is_accepted_and_left_alone():
    users, items = np.array([1, 0, 0]), np.array([0, 1, 1])
    users.flags.writeable = items.flags.writeable = False
    assert Biadjacency.from_pairs(users, items, 2, 2).num_edges == 2
    np.testing.assert_array_equal(users, [1, 0, 0])


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([0.0], [0], "user ids must be integers, not float64"),
        ([0], [3], r"item id 3 of pair 0 lies outside 0\.\.1"),
        ([0, -1], [0, 0], r"user id -1 of pair 1 lies outside 0\.\.1"),
        ([0, 1], [0], r"arrays of one length; got \(2,\) and \(1,\)"),
    ],
)
def test_bad_pairs_are_named(users, items, message):
    with pytest.raises(UserError, match=message):
        Biadjacency.from_pairs(np.array(users), np.array(items), 2, 2)


def test_an_empty_side_and_nan_are_refused():
    with pytest.raises(UserError, match="got 0 x 2"):
        Biadjacency.from_pairs(np.empty(0, int), np.empty(0, int), 0, 2)
    with pytest.raises(UserError, match="NaN"):
        Biadjacency.from_matrix(np.array([[1.0, np.nan]]))


def test_matrices_of_half_precision_are_read_and_of_objects_refused():
    np.testing.assert_array_equal(Biadjacency.from_matrix(np.eye(3, dtype=np.float16)).items, [0, 1, 2])
    with pytest.raises(UserError, match="must hold numbers, not object"):
        Biadjacency.from_matrix(np.array([[1, None]], object))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_pairs_of_the_largest_sides_stay_apart(dtype):
    """Where the number of a pair exceeds what int32 and float64 hold."""
    num_users, num_items = 2**23, 2**31 - 1 - 2**23
    user, item = num_users - 1, num_items - 1
    users, items = np.array([user, user, 0, user], dtype), np.array([item, item - 1, item, item], dtype)
    graph = Biadjacency.from_pairs(users, items, num_users, num_items)
    assert graph.users.tolist() == [0, user, user]
    assert graph.items.tolist() == [item, item - 1, item]
    assert graph.keys().tolist() == [item, user * num_items + item - 1, user * num_items + item]


@pytest.mark.parametrize("sizes", [(2**31, 1), (2**30, 2**30), (1, 2**40)])
def test_more_nodes_than_int32_numbers_are_refused(sizes):
    with pytest.raises(UserError, match="may be 2147483647 together"):
        Biadjacency.from_pairs(np.array([0]), np.array([0]), *sizes)
