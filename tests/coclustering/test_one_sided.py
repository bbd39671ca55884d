"""One-sided tables: rows of the smaller side, and the other side in terms of them."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.coclustering.one_sided import OneSided, finest_rows, herd, largest_cap
from baco.compressors.budget import Budget
from baco.embedding.bits import packed_code_bytes
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment, Codes
from baco.embedding.cost import code_ledger
from baco.embedding.product_codes import ProductQuantizer, RefinedQuantizer, finest_within
from baco.embedding.quantized import QuantizedTables
from baco.embedding.rounding import UniformQuantizer
from baco.embedding.rules import Identity
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.rng import stream

WIDE = Biadjacency.from_matrix(np.random.default_rng(0).random((60, 90)) < 0.1)
TALL = Biadjacency.from_matrix(np.random.default_rng(1).random((90, 60)) < 0.1)


def fitted(graph: Biadjacency, value: float = 0.9, **settings):
    budget = Budget.parse(value, "parameters", graph.num_users, graph.num_items, 16)
    return OneSided(OneSided.Config(**settings)).fit(graph, budget, stream(0, "assign")).assignment


@pytest.mark.parametrize(("graph", "side"), [(WIDE, "users"), (TALL, "items")])
def test_the_smaller_side_has_rows_of_its_own(graph, side):
    assignment = fitted(graph)
    assert assignment.details["rows"] == side
    own, shared = (assignment.users, assignment.items) if side == "users" else (assignment.items, assignment.users)
    np.testing.assert_array_equal(own.index[:, 0], np.arange(own.num_ids))
    assert shared.index.min() == own.num_ids  # the rows after those are co-clusters
    assert len(np.unique(shared.index)) == shared.num_rows - own.num_ids < shared.num_ids


def test_either_side_may_have_the_rows():
    assert fitted(WIDE, rows="items").details["rows"] == "items"


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("share", [None, 0.3])
def test_the_search_by_size_fills_the_budget_in_one_try(planted, unit, share):
    budget = Budget.parse(0.3, unit, planted.num_users, planted.num_items, 64)
    method = OneSided(OneSided.Config(code_share=share, search="size"))
    tables, again = (method.fit(planted.train, budget, stream(0, "assign")) for _ in range(2))
    assert tables.assignment.details["tries"] == 1
    assert 0.998 <= budget.share(tables.ledger()) <= 1
    np.testing.assert_array_equal(tables.assignment.labels, again.assignment.labels)


def test_codes_are_the_own_cluster_and_then_neighbours():
    assignment = fitted(TALL, code_share=0.4)
    users, num_items = assignment.users, TALL.num_items
    assert assignment.details["most_codes"] > 1
    for user in range(TALL.num_users):
        first, *others = users.index[users.ends[user] : users.ends[user + 1]]
        near = TALL.by_user.indices[TALL.by_user.indptr[user] : TALL.by_user.indptr[user + 1]]
        assert first >= num_items
        assert set(others) <= set(near)
        assert len(others) == len(set(others)) == min(len(near), assignment.details["most_codes"] - 1)
    extra = np.minimum(TALL.user_degrees, assignment.details["most_codes"] - 1).sum()
    assert users.extra_codes == extra <= 0.4 * 0.9 * TALL.num_nodes * 16


@pytest.mark.parametrize("code_share", [None, 0.4])
def test_ids_with_many_interactions_have_rows_of_their_own_and_no_codes(code_share):
    users, num_items = fitted(TALL, code_share=code_share, own_from=8).users, TALL.num_items
    many = np.flatnonzero(TALL.user_degrees >= 8)
    assert 0 < len(many) < TALL.num_users
    rows = [users.index.ravel()[begin:end].tolist() for begin, end in pairwise(users.bounds)]
    assert [rows[user] for user in many] == [[num_items + k] for k in range(len(many))]
    others = [rows[user] for user in np.setdiff1d(np.arange(TALL.num_users), many)]
    assert min(row[0] for row in others) >= num_items + len(many)
    most = max(map(len, others)) - 1
    assert (most > 0) == (code_share is not None)
    assert [len(row) - 1 for row in others] == np.minimum(TALL.user_degrees[TALL.user_degrees < 8], most).tolist()


def test_rows_of_both_sides_may_have_finer_codes():
    budget = Budget.parse(0.3, "bytes", TALL.num_users, TALL.num_items, 16)
    tables = OneSided(OneSided.Config(own_from=8)).fit(TALL, budget, stream(0, "assign"))
    many = TALL.user_degrees[TALL.user_degrees >= 8]
    assert tables.quantizer.among == TALL.num_items + len(many)
    (weights,) = tables.weights.values()
    np.testing.assert_array_equal(weights, [*TALL.item_degrees, *many])


@pytest.mark.parametrize(
    ("unit", "quantizer"), [("parameters", None), ("bytes", None), ("bytes", UniformQuantizer(4, symmetric=False))]
)
def test_without_product_codes_rows_are_as_wide_as_the_budget_allows(unit, quantizer):
    budget = Budget.parse(0.06 if quantizer else 0.3, unit, TALL.num_users, TALL.num_items, 16, quantizer)
    tables = OneSided(OneSided.Config(product_codes=False)).fit(TALL, budget, stream(0, "assign"))
    assert isinstance(tables, CodebookTables)  # a run packs them
    users, items = tables()
    width = users.shape[1]
    assert items.shape[1] == width and 1 < width < 16

    def cost(width: int, num_rows: int) -> int:
        codes = packed_code_bytes(TALL.num_users, num_rows) if unit == "bytes" else 0
        row = budget.row_format(width)
        return (row.parameters if unit == "parameters" else row.bytes)(num_rows) + codes

    least = TALL.num_items + 1
    assert cost(width, least) <= 0.95 * budget.limit < cost(width + 1, least)
    num_rows = tables.assignment.users.num_rows
    assert cost(width, num_rows) <= budget.limit < cost(width, num_rows + 2)
    packed = tables if quantizer is None else QuantizedTables(tables, quantizer, 0)
    assert budget.amount(packed.ledger()) == cost(width, num_rows)


def test_a_budget_that_buys_nothing_is_refused():
    for product_codes in (True, False):
        with pytest.raises(UserError, match=r"needs .* at least, over the budget of .*; raise the budget"):
            fitted(TALL, value=0.005, product_codes=product_codes)


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_the_finest_rows_are_those_of_the_least_expected_error(unit):
    """Against all pairs of product codes, and all numbers of refined rows."""
    budget, weights, rows = Budget(3000, unit, 4), np.array([1, 50, 3, 900, 7, 2]), 40
    least = Assignment(Codes.from_rule(Identity(), rows, rows), Codes.from_rule(Identity(), rows, rows), shared=True)

    def cost(quantizer) -> int:
        return budget.amount(code_ledger(least, budget.dim, quantizer.format(budget.dim)))

    sizes, by_weight, errors = list(product(range(1, 5), range(2, 9))), np.sort(weights)[::-1], {}
    for (blocks, bits), (fine_blocks, fine_bits), refined in product(sizes, sizes, range(1, 7)):
        quantizer = RefinedQuantizer(blocks, bits, fine_blocks, fine_bits, refined, 6)
        if cost(quantizer) <= 1000:
            shares = np.where(np.arange(6) < refined, 2 ** (-fine_blocks * fine_bits / 2), 1)
            errors[quantizer] = 2 ** (-blocks * bits / 2) * (by_weight @ shares)
    found = finest_rows(budget, cost, 1000, weights, least_bits=2)
    assert errors[found] == pytest.approx(min(errors.values()), rel=1e-12)


def test_codes_have_six_bits_unless_the_budget_allows_fewer_only():
    graph = Biadjacency.from_matrix(np.random.default_rng(1).random((300, 200)) < 0.05)
    found = []
    for value in (0.5, 0.25, 0.03):
        budget = Budget.parse(value, "bytes", 300, 200, 16)
        quantizer = OneSided().fit(graph, budget, stream(0, "assign")).quantizer
        found.append((quantizer.bits, getattr(quantizer, "fine_bits", 6)))
    assert min(found[0]) >= 6 and min(found[1]) >= 6 and found[2][0] < 6


def test_without_refining_all_rows_have_the_most_codes():
    tables = OneSided(OneSided.Config(refine=False)).fit(
        TALL, Budget.parse(0.9, "parameters", 90, 60, 16), stream(0, "assign")
    )
    assert isinstance(tables.quantizer, ProductQuantizer)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 100))
def test_the_largest_cap_is_the_largest_that_fits(degrees, num_codes):
    degrees = np.array(degrees)
    most = largest_cap(degrees, num_codes)
    assert np.minimum(degrees, most).sum() <= num_codes
    assert most >= degrees.max() or np.minimum(degrees, most + 1).sum() > num_codes


def test_herding_takes_what_a_plain_program_takes():
    factors = np.random.default_rng(2).normal(size=(TALL.num_items, 5)).astype(np.float32)
    ends, picked = herd(TALL.by_user, factors, 4)
    for user in range(TALL.num_users):
        near = list(TALL.by_user.indices[TALL.by_user.indptr[user] : TALL.by_user.indptr[user + 1]])
        found = picked[ends[user] : ends[user + 1]]
        if len(near) <= 4:
            assert sorted(found) == near
            continue
        mean, taken = factors[near].mean(0), []
        for _ in range(4):
            rest = [item for item in near if item not in taken]
            taken.append(min(rest, key=lambda item: np.linalg.norm(factors[[*taken, item]].mean(0) - mean)))
        assert list(found) == taken


def test_the_finest_quantizer_has_the_most_bits_a_row_and_then_the_longest_codes():
    choices = [ProductQuantizer(blocks, bits) for blocks in (1, 2, 4) for bits in (2, 4, 8)]
    assert finest_within(choices, lambda choice: choice.num_codes, 2) == ProductQuantizer(2, 8)
    assert finest_within(choices, lambda choice: choice.bits, 4) == ProductQuantizer(4, 4)
    assert finest_within(choices, lambda choice: choice.num_codes * choice.bits, 8) == ProductQuantizer(1, 8)
    assert finest_within(choices, lambda choice: choice.bits, 1) is None
