"""Rules: the codes that they work out, and what a server stores for them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.embedding.bits import packed_code_bytes
from baco.embedding.codes import Codes
from baco.embedding.rules import (
    RULES,
    AffineHash,
    HashAndLabel,
    Identity,
    ManyCodes,
    OwnRows,
    QuotientAndRemainder,
    SaltedHash,
)


@given(st.integers(1, 500), st.integers(1, 40), st.integers(0, 99))
def test_affine_hash_is_the_exact_formula_and_even(num_ids, num_rows, seed):
    rule = AffineHash.draw(2, num_ids, np.random.default_rng(seed))
    codes = Codes.from_rule(rule, num_ids, num_rows)
    for s, (a, b) in enumerate(zip(rule.multipliers.tolist(), rule.offsets.tolist(), strict=True)):
        assert codes.index[:, s].tolist() == [(a * x + b) % num_ids % num_rows for x in range(num_ids)]
        sizes = np.bincount(codes.index[:, s], minlength=num_rows)
        assert sizes.max() - sizes.min() <= 1


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 40), st.integers(0, 99))
def test_salted_hashes_are_one_hash_of_users_and_items(num_users, num_items, num_rows, seed):
    nodes = num_users + num_items
    joint = Codes.from_rule(AffineHash.draw(2, nodes, np.random.default_rng(seed)), nodes, num_rows)
    rules = SaltedHash.draw(2, num_users, num_items, np.random.default_rng(seed))
    sides = [Codes.from_rule(rule, n, num_rows) for rule, n in zip(rules, (num_users, num_items), strict=True)]
    np.testing.assert_array_equal(np.concatenate([side.index for side in sides]), joint.index)
    assert [side.packed_bytes for side in sides] == [40, 40]


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.integers(1, 3), st.integers(1, 20), st.integers(0, 99))
def test_own_rows_are_not_shared_and_shared_ones_are_even(own, num_hashes, num_shared, seed):
    own = np.array([*own, False])
    rows = own.sum() + num_shared
    codes = Codes.from_rule(OwnRows.draw(own, num_hashes, np.random.default_rng(seed)), len(own), rows)
    np.testing.assert_array_equal(codes.index[own], np.arange(num_shared, rows)[:, None].repeat(num_hashes, 1))
    for shared in codes.index[~own].T:
        sizes = np.bincount(shared, minlength=num_shared)
        assert len(sizes) == num_shared and sizes.max() - sizes.min() <= 1
    if num_hashes == 1:
        assert codes.weights is None and codes.extra_codes == 0
    else:
        np.testing.assert_array_equal(codes.weights.sum(1), np.where(own, 1, num_hashes))
        assert codes.extra_codes == (num_hashes - 1) * np.count_nonzero(~own)
    assert codes.num_stored_weights == 0
    assert codes.packed_bytes == (len(own) + 7) // 8 + 16 * num_hashes


@given(st.integers(1, 200), st.integers(1, 30), st.integers(0, 99))
def test_hash_and_label_keeps_labels_and_stores_no_hash(num_ids, num_rows, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_rows, size=num_ids)
    hashed = AffineHash.draw(1, num_ids, rng)
    codes = Codes.from_rule(HashAndLabel.of(hashed, labels, num_rows), num_ids, num_rows, np.ones(2, np.float32))
    np.testing.assert_array_equal(codes.index[:, 1], labels)
    np.testing.assert_array_equal(codes.index[:, :1], hashed.evaluate(num_ids, num_rows).index)
    assert codes.packed_bytes == 16 + packed_code_bytes(num_ids, num_rows)
    assert codes.extra_codes == num_ids


@given(st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=9), min_size=1, max_size=20))
def test_many_codes_are_stored_as_they_are_and_averaged(lists):
    ends = np.cumsum([0, *map(len, lists)])
    rule = ManyCodes.of(ends, np.concatenate(lists), 301)
    codes = Codes.from_rule(rule, len(lists), 301)
    np.testing.assert_array_equal(codes.first, [own[0] for own in lists])
    assert codes.codes_per_id == max(map(len, lists))
    for x, own in enumerate(lists):
        here = slice(ends[x], ends[x + 1])
        pooled = np.bincount(codes.index[here], codes.weights[here], 301)
        np.testing.assert_allclose(pooled, np.bincount(own, minlength=301) / len(own), rtol=1e-6)
    assert codes.extra_codes == ends[-1] - len(lists), "each stored code after the first counts, repeats too"
    assert codes.num_stored_weights == 0
    assert codes.packed_bytes == len(lists) + packed_code_bytes(int(ends[-1]), 301)


RULES_AT = {
    "identity": lambda n, rows, rng: (Identity(), n),
    "affine": lambda n, rows, rng: (AffineHash.draw(2, n, rng), rows),
    "salted": lambda n, rows, rng: (SaltedHash.draw(2, 5, n, rng)[1], rows),
    "quotient and remainder": lambda n, rows, rng: (QuotientAndRemainder.draw_own(n, rng), rows + 1),
    "own rows": lambda n, rows, rng: own_rows(n, rows, rng),
    "hash and label": lambda n, rows, rng: (
        HashAndLabel.of(AffineHash.draw(1, n, rng), rng.integers(rows, size=n), rows),
        rows,
    ),
    "many codes": lambda n, rows, rng: (many_codes(n, rows, rng), rows),
}


def own_rows(n, rows, rng):
    own = rng.random(n) < 0.4
    own[rng.integers(n)] = False
    return OwnRows.draw(own, 2, rng), int(own.sum()) + rows


def many_codes(n, rows, rng):
    ends = np.cumsum([0, *rng.integers(1, 7, n)])
    return ManyCodes.of(ends, rng.integers(rows, size=ends[-1]), rows)


@pytest.mark.parametrize("name", RULES_AT)
@given(st.integers(1, 1500), st.integers(1, 300), st.integers(0, 99))
def test_codes_of_some_ids_are_those_of_all(name, num_ids, num_rows, seed):
    rng = np.random.default_rng(seed)
    rule, num_rows = RULES_AT[name](num_ids, num_rows, rng)
    ids = rng.integers(num_ids, size=20)
    every, some = rule.evaluate(num_ids, num_rows), rule.at(ids, rule.marks(), num_ids, num_rows)
    own = ids if every.ends is None else np.concatenate([np.arange(*every.ends[x : x + 2]) for x in ids])
    np.testing.assert_array_equal(some.index, every.index[own], strict=True)
    if every.weights is None:
        assert some.weights is None
    else:
        np.testing.assert_array_equal(some.weights, every.weights[own], strict=True)
    if every.ends is None:
        assert some.ends is None
    else:
        np.testing.assert_array_equal(np.diff(some.ends), np.diff(every.ends)[ids])


def test_every_rule_has_been_asked_for_some_ids():
    assert set(RULES_AT) == set(RULES)
