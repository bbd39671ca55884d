from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.embedding.codes import Assignment, Codes
from baco.embedding.rules import AffineHash, HashAndLabel, Identity, OwnRows
from baco.errors import UserError


@given(st.lists(st.lists(st.integers(-5, 40), min_size=2, max_size=2), min_size=1, max_size=30))
def test_labels_become_compact_codes_that_keep_equality_and_order(labels):
    stacked = np.array(labels)
    codes = Codes.from_labels(*stacked.T)
    assert sorted(set(codes.index.ravel().tolist())) == list(range(codes.num_rows))
    np.testing.assert_array_equal(np.unique(stacked)[codes.index], stacked)


def test_extra_codes_count_distinct_ones_under_the_mean():
    index = np.array([[3, 3, 3], [0, 1, 0], [2, 1, 0]], np.int32)
    assert Codes(index, 4).extra_codes == 0 + 1 + 2
    assert Codes(index, 4, np.ones(3, np.float32)).extra_codes == 6, "a sum reads every code"
    weights = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]], np.float32)
    per_id = Codes(index, 4, weights)
    assert per_id.extra_codes == 0 + 1 + 2
    assert per_id.num_stored_weights == 9
    assert replace(per_id, scale=np.ones(3, np.float16)).num_stored_weights == 9 + 3


@pytest.mark.parametrize(
    "codes",
    [
        Codes(np.array([[0, 2], [1, 1]], np.int32), 3),
        Codes(np.array([[0, 2], [1, 1]], np.int32), 3, np.ones(2, np.float32)),
        Codes(np.array([[0, 2], [1, 1]], np.int32), 3, np.array([[0.5, 2], [1, 0]], np.float32)),
        Codes(np.array([[0], [0]], np.int32), 1),
        Codes.from_rule(Identity(), 5, 5),
        Codes.from_rule(AffineHash.draw(2, 9, np.random.default_rng(0)), 9, 4, np.ones(2, np.float32)),
        Codes.from_rule(OwnRows.draw(np.arange(9) % 4 == 0, 1, np.random.default_rng(0)), 9, 5),
        Codes.from_rule(OwnRows.draw(np.arange(9) % 4 == 0, 2, np.random.default_rng(0)), 9, 5),
        Codes.from_rule(
            HashAndLabel.of(AffineHash.draw(1, 9, np.random.default_rng(0)), np.arange(9) // 2, 5),
            9,
            5,
            np.ones(2, np.float32),
        ),
        Codes(np.array([[0, 2], [1, 1]], np.int32), 3, scale=np.array([0.5, 2], np.float16)),
        replace(Codes.from_rule(Identity(), 2, 2), scale=np.array([0.5, 2], np.float16)),
        Codes(np.array([[0], [1]], np.int32), 2, np.ones((2, 1), np.float32), scale=np.array([0.5, 2], np.float16)),
    ],
)
def test_pack_and_unpack(codes):
    arrays = codes.pack()
    assert sum(array.nbytes for array in arrays.values()) == codes.packed_bytes
    back = Codes.unpack(codes.header(), arrays)
    np.testing.assert_array_equal(back.index, codes.index)
    assert back.num_rows == codes.num_rows
    assert (back.weights is None) == (codes.weights is None)
    if codes.weights is not None:
        np.testing.assert_array_equal(back.weights, codes.weights)
    np.testing.assert_array_equal(back.scale, codes.scale)
    pair = Assignment(codes, Codes.from_rule(Identity(), 2, 2), {"resolution": 0.5})
    again = Assignment.unpack(*pair.pack())
    np.testing.assert_array_equal(again.users.index, codes.index)
    assert again.items.num_rows == 2 and again.details == {"resolution": 0.5}


def test_one_codebook_has_one_number_of_rows():
    with pytest.raises(ValueError, match="one codebook cannot have 2 rows and 3"):
        Assignment(Codes.from_rule(Identity(), 2, 2), Codes.from_rule(Identity(), 3, 3), shared=True)


def test_computed_codes_cost_no_bytes_beyond_their_rule():
    assert Codes.from_rule(Identity(), 1000, 1000).packed_bytes == 0
    assert Codes.from_rule(AffineHash.draw(1, 1000, np.random.default_rng(0)), 1000, 10).packed_bytes == 16


@pytest.mark.parametrize(
    ("index", "num_rows", "weights"),
    [
        (np.array([[0], [3]], np.int32), 3, None),
        (np.array([[-1]], np.int32), 3, None),
        (np.array([[0]], np.int64), 3, None),
        (np.array([0], np.int32), 3, None),
        (np.empty((0, 1), np.int32), 3, None),
        (np.array([[0]], np.int32), 3, np.ones(2, np.float32)),
    ],
)
def test_impossible_codes_are_refused(index, num_rows, weights):
    with pytest.raises(ValueError, match=r"codes|weights"):
        Codes(index, num_rows, weights)


@pytest.mark.parametrize("ends", [[0, 2], [1, 2, 3], [0, 0, 3], [0, 2, 1, 3]])
def test_ends_that_do_not_divide_the_codes_are_refused(ends):
    index, weights = np.zeros(3, np.int32), np.ones(3, np.float32)
    with pytest.raises(ValueError, match="ends"):
        Codes(index, 1, weights, Identity(), ends=np.array(ends))


def test_a_scale_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="scale"):
        Codes(np.array([[0], [1]], np.int32), 2, scale=np.ones(3, np.float16))


def test_an_unknown_rule_is_named():
    header = {"shape": [2, 1], "num_rows": 2, "weights": None, "rule": "cuckoo"}
    with pytest.raises(UserError, match="'cuckoo'"):
        Codes.unpack(header, {})
