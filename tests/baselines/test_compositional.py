"""Quotient and remainder, and tensor trains: embeddings entry by entry, and budgets to the last row or rank."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baco.compressors.budget import Budget
from baco.embedding.rules import AffineHash
from baco.errors import UserError
from baco.rng import stream, torch_stream
from baselines.compositional import (
    QuotientRemainder,
    QuotientRemainderSide,
    TensorTrain,
    TensorTrainSide,
    ranks_within,
    three_digits,
    three_factors,
)

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


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("method", [QuotientRemainder(), TensorTrain()], ids=lambda m: m.name)
def test_beauty_fills_the_papers_budget(beauty, method, unit):
    budget = budget_of(beauty, 8267, unit, dim=64)
    tables = method.fit(beauty.train, budget, stream(0, "assign"))
    assert 0.995 < budget.share(tables.ledger()) <= 1
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    for embeddings in tables():
        assert embeddings.std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    "config", [QuotientRemainder.Config(operation=o) for o in ("product", "sum", "concat")], ids=lambda c: c.operation
)
def test_quotients_start_with_the_wanted_deviation(planted, config):
    tables = QuotientRemainder(config).fit(planted.train, budget_of(planted, 0.5, dim=64), stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    assert torch.cat(tables()).std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(("num_ids", "dim", "ranks"), [(100, 16, (3, 5)), (1, 7, (1, 1)), (57, 12, (4, 2))])
def test_tensor_trains_entry_by_entry(num_ids, dim, ranks):
    side = filled(TensorTrainSide(IN_ORDER, num_ids, ranks, dim))
    (p1, p2, p3), (q1, q2, q3), (r1, r2) = three_digits(num_ids), three_factors(dim), ranks
    first, second, third = (core.detach().double().numpy() for core in side.factors)
    first, second, third = (first.reshape(p1, q1, r1), second.reshape(p2, r1, q2, r2), third.reshape(p3, r2, q3))
    found = side().detach().numpy()
    for x in range(num_ids):
        i1, i2, i3 = x // (p2 * p3), x // p3 % p2, x % p3
        for j1 in range(q1):
            for j2 in range(q2):
                for j3 in range(q3):
                    expected = first[i1, j1] @ second[i2, :, j2] @ third[i3, :, j3]
                    assert found[x, (j1 * q2 + j2) * q3 + j3] == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("tables", [QuotientRemainder(), TensorTrain()], ids=lambda m: m.name)
def test_order_permutes_the_embeddings(planted, tables):
    method = type(tables)
    permuted, plain = (
        method(method.Config(order=order)).fit(planted.train, budget_of(planted, 0.5), stream(0, "assign"))
        for order in ("permuted", "id")
    )
    for tables in (permuted, plain):
        tables.reset_parameters(0.1, torch_stream(0, "init"))
    positions = permuted.users.positions()
    assert not np.array_equal(positions, np.arange(400)) and np.array_equal(np.sort(positions), np.arange(400))
    torch.testing.assert_close(permuted()[0], plain()[0][positions], rtol=0, atol=0)


@given(st.integers(1, 200_000))
def test_digits_reach_all_ids_with_little_waste(count):
    p = three_digits(count)
    assert count <= math.prod(p) <= 1.2 * count + 12
    assert max(p) <= min(p) + 2 + 0.1 * max(p)


@given(st.integers(1, 256))
def test_factors_multiply_to_the_width(dim):
    q = three_factors(dim)
    assert math.prod(q) == dim
    assert three_factors(64) == (4, 4, 4)


@given(st.integers(1, 10_000), st.floats(0.02, 1))
def test_ranks_fill_what_they_may(num_ids, ratio):
    p, q, floats = three_digits(num_ids), three_factors(64), int(ratio * 64 * num_ids)

    def cost(first, second):
        return p[0] * q[0] * first + p[1] * q[1] * first * second + p[2] * q[2] * second

    ranks = ranks_within(floats, p, q)
    if ranks is None:
        assert cost(1, 1) > floats
        return
    assert cost(*ranks) <= floats
    assert ranks[0] <= p[0] * q[0] and ranks[1] <= p[2] * q[2]
    if num_ids > 2000 and ratio < 0.9:
        assert cost(*ranks) > 0.97 * floats


@pytest.mark.parametrize("method", [QuotientRemainder(), TensorTrain()], ids=lambda m: m.name)
def test_a_small_budget_is_refused(planted, method):
    with pytest.raises(UserError, match=f"budget of 56 parameters .* method={method.name}"):
        method.fit(planted.train, budget_of(planted, 0.005), stream(0, "assign"))


def test_a_budget_that_second_codes_use_up_buys_no_quotients(planted):
    with pytest.raises(UserError, match="buys method=qr, beside second codes, 0 rows for 400 ids"):
        QuotientRemainder().fit(planted.train, budget_of(planted, 0.05), stream(0, "assign"))


def test_impossible_settings_are_named(planted):
    with pytest.raises(UserError, match="concat"):
        QuotientRemainder.Config(operation="concatenate")
    with pytest.raises(UserError, match="permuted"):
        TensorTrain.Config(order="permute")
    with pytest.raises(UserError, match=r"method\.operation=concat needs an even dim, not dim=9"):
        QuotientRemainder(QuotientRemainder.Config(operation="concat")).fit(
            planted.train, budget_of(planted, 0.5, dim=9), stream(0, "assign")
        )
