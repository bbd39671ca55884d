"""Quotient and remainder: embeddings entry by entry, and budgets to the last row."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baco.compressors.budget import Budget
from baco.embedding.rules import AffineHash
from baco.errors import UserError
from baco.rng import stream, torch_stream
from baselines.qr import QuotientRemainder, QuotientRemainderSide

IN_ORDER = AffineHash(np.array([1]), np.array([0]))


def budget_of(data, value, unit="parameters", dim=16) -> Budget:
    return Budget.parse(value, unit, data.num_users, data.num_items, dim)


def filled(side, std=0.1):
    with torch.no_grad():
        side.reset_parameters(std, torch.Generator().manual_seed(0))
    return side


@given(st.integers(1, 400), st.data())
def test_no_two_ids_share_group_and_place(num_ids, data):
    num_groups = data.draw(st.integers(1, num_ids))
    order = AffineHash.draw(1, num_ids, np.random.default_rng(num_ids))
    side = QuotientRemainderSide(order, num_ids, num_groups, "sum", 4)
    groups, places = side.codes.numpy()
    assert len({*zip(groups, places, strict=True)}) == num_ids
    sizes = np.bincount(groups, minlength=num_groups)
    assert sizes.max() - sizes.min() <= 1
    assert len(side.factors[1]) == places.max() + 1 == -(-num_ids // num_groups), "rows that nobody uses"


def test_groups_of_equal_size_are_the_published_quotients_and_remainders():
    groups, places = QuotientRemainderSide(IN_ORDER, 60, 12, "sum", 4).codes.numpy()
    np.testing.assert_array_equal(groups, np.arange(60) // 5)
    np.testing.assert_array_equal(places, np.arange(60) % 5)


@pytest.mark.parametrize("operation", ["product", "sum", "concat"])
def test_embeddings_are_composed_of_two_rows(operation):
    side = filled(QuotientRemainderSide(AffineHash.draw(1, 50, np.random.default_rng(0)), 50, 11, operation, 8))
    first, second = (rows.detach().numpy() for rows in side.factors)
    for (group, place), embedding in zip(side.codes.numpy().T, side().detach().numpy(), strict=True):
        a, b = first[group], second[place]
        expected = {"product": a * b, "sum": a + b, "concat": np.concatenate([a, b])}[operation]
        np.testing.assert_array_equal(embedding, expected)


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("operation", ["product", "sum", "concat"])
def test_quotients_fill_the_budget(planted, operation, unit):
    budget = budget_of(planted, 0.4, unit)
    method = QuotientRemainder(QuotientRemainder.Config(operation=operation))
    ledger = method.fit(planted.train, budget, stream(0, "assign")).ledger()
    assert budget.limit - 3 * 16 * (1 if unit == "parameters" else 4) < budget.amount(ledger) <= budget.limit
    assert ledger.extra_codes == 700


@pytest.mark.parametrize(
    "config", [QuotientRemainder.Config(operation=o) for o in ("product", "sum", "concat")], ids=lambda c: c.operation
)
def test_quotients_start_with_the_wanted_deviation(planted, config):
    tables = QuotientRemainder(config).fit(planted.train, budget_of(planted, 0.5, dim=64), stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    assert torch.cat(tables()).std().item() == pytest.approx(0.1, rel=0.05)


def test_a_budget_that_second_codes_use_up_buys_no_quotients(planted):
    with pytest.raises(UserError, match="buys qr, beside second codes, 0 rows for 400 ids"):
        QuotientRemainder().fit(planted.train, budget_of(planted, 0.05), stream(0, "assign"))
