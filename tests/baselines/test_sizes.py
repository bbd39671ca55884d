"""Sizes sum to the budget exactly, follow their shares, and are all that is trained."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from baco.backbones.backbone import MF, LightGCN
from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.numerics.triples import Batch
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.full import Full
from baselines.sizes import EqualSizes, PowerSizes, RandomSizes, SizedTables, affordable_size, allocate, assign_by_rank
from tests.conftest import QUICK

METHODS = [EqualSizes(), RandomSizes(), PowerSizes()]


def budget_of(data, value, unit="parameters", dim=16) -> Budget:
    return Budget.parse(value, unit, data.num_users, data.num_items, dim)


def fitted(method, data, budget, seed=0) -> SizedTables:
    tables = method.fit(data.train, budget, stream(seed, "assign"))
    tables.reset_parameters(0.1, torch_stream(seed, "init"))
    return tables


@st.composite
def allocations(draw) -> tuple[np.ndarray, int, int]:
    shares = draw(st.lists(st.floats(1e-150, 1e6), min_size=1, max_size=30))
    largest = draw(st.integers(1, 64))
    return np.array(shares), draw(st.integers(len(shares), len(shares) * largest)), largest


@given(allocations())
def test_sizes_are_exact_in_range_and_ordered(allocation):
    shares, total, largest = allocation
    sizes = allocate(shares, total, largest)
    assert sizes.sum() == total
    assert sizes.min() >= 1 and sizes.max() <= largest
    assert (np.diff(sizes) <= 0).all()


@given(allocations())
def test_sizes_are_the_shares_times_one_factor_clipped_and_rounded(allocation):
    """The factor from a root finder on the logarithm of the factor, over shares of a moderate spread."""
    shares, total, largest = allocation
    shares = np.sort(np.maximum(shares, 1e-6))[::-1]

    def at(exponent: float) -> np.ndarray:
        return np.clip(np.exp(exponent) * shares, 1, largest)

    low, high = -np.log(shares[0]), np.log(largest / shares[-1])
    missing = [at(end).sum() - total for end in (low, high)]
    exponent = low if missing[0] >= 0 else high if missing[1] <= 0 else brentq(lambda x: at(x).sum() - total, low, high)
    assert np.abs(allocate(shares, total, largest) - at(exponent)).max() < 1 + 1e-6


@pytest.mark.parametrize("total", [4, 21])
def test_sums_that_no_sizes_have_are_refused(total):
    with pytest.raises(ValueError, match=r"5 sizes of 1\.\.4 cannot sum to"):
        allocate(np.ones(5), total, 4)


def test_allocation_by_hand():
    assert allocate(np.array([1.0, 8, 2, 1]), 12, 6).tolist() == [6, 3, 2, 1]  # 8 is cut to 6; 1.5 goes up once


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_more_frequent_ids_have_no_smaller_sizes(degrees):
    degrees = np.array(degrees)
    sizes = assign_by_rank(np.arange(len(degrees), 0, -1), degrees)
    for x in range(len(degrees)):
        for y in range(x):
            assert (sizes[x] > sizes[y]) == (degrees[x] > degrees[y])


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("value", [0.08, 0.25, 0.7, 1.0])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_budgets_are_spent_to_the_float(method, value, unit, planted):
    budget = budget_of(planted, value, unit, dim=64)
    unused = budget.limit - budget.amount(fitted(method, planted, budget).ledger())
    assert 0 <= unused < (1 if unit == "parameters" else 4)


@pytest.mark.parametrize(("unit", "least"), [("parameters", 700), ("bytes", 3500)])
def test_budgets_below_one_float_per_id_are_refused(unit, least):
    assert affordable_size(Budget(least, unit, 16), 700) == 700
    with pytest.raises(UserError, match=f"budget of {least - 1:,} {unit} is below one float per id, {least:,}"):
        affordable_size(Budget(least - 1, unit, 16), 700)


def test_sizes_fit_a_byte():
    assert affordable_size(Budget(10**6, "parameters", 256), 3) == 3 * 256
    with pytest.raises(UserError, match="dim=257 is more than 256"):
        affordable_size(Budget(10**6, "parameters", 257), 3)
    tables = SizedTables(np.array([256, 1]), np.array([7]), 256)
    np.testing.assert_array_equal(SizedTables.from_export(tables.export()).sizes, [256, 1, 7])


def test_equal_sizes_differ_by_one_float_for_the_most_frequent(planted):
    tables = fitted(EqualSizes(), planted, budget_of(planted, 0.2))
    degrees = np.concatenate([planted.train.user_degrees, planted.train.item_degrees])
    assert set(tables.sizes) == {3, 4}  # 0.2 * 16 = 3.2
    assert degrees[tables.sizes == 4].min() >= degrees[tables.sizes == 3].max()


def test_random_sizes_are_uniform_and_blind(planted):
    sizes = fitted(RandomSizes(), planted, budget_of(planted, 0.2, dim=64)).sizes  # 12.8 on average
    counts = np.bincount(sizes, minlength=30)[2:25]
    assert counts.min() > 10 and counts.max() < 60  # 700 / 25 = 28 of each
    assert abs(np.corrcoef(sizes[:400], planted.train.user_degrees)[0, 1]) < 0.15


def test_power_sizes_are_powers(planted):
    budget = budget_of(planted, 0.25, dim=64)
    degrees = np.concatenate([planted.train.user_degrees, planted.train.item_degrees])
    sizes = fitted(PowerSizes(PowerSizes.Config(exponent=0.5)), planted, budget).sizes
    free = (sizes > 1) & (sizes < 64)
    ratios = sizes[free] / np.sqrt(degrees[free])
    assert free.mean() > 0.9 and np.abs(ratios - np.median(ratios)).max() * np.sqrt(degrees[free].min()) < 1.1
    equal = fitted(EqualSizes(), planted, budget).sizes
    np.testing.assert_array_equal(fitted(PowerSizes(PowerSizes.Config(exponent=0)), planted, budget).sizes, equal)


@pytest.mark.parametrize("exponent", [-0.1, 11.0, float("nan")])
def test_impossible_exponents_are_named(exponent):
    with pytest.raises(UserError, match=r"^exponent="):
        PowerSizes.Config(exponent=exponent)


def test_embeddings_are_prefixes_and_their_gradient_goes_back():
    tables = SizedTables(np.array([2, 3]), np.array([1]), 3)
    tables.reset_parameters(1.0, torch.Generator().manual_seed(0))
    a, b, c, d, e, f = tables.values.tolist()
    users, items = tables()
    torch.testing.assert_close(users, torch.tensor([[a, b, 0], [c, d, e]]))
    torch.testing.assert_close(items, torch.tensor([[f, 0, 0]]))
    torch.testing.assert_close(tables.lookup("users", torch.tensor([1, 1])), users[[1, 1]])
    (users * torch.arange(6.0).view(2, 3)).sum().backward()
    assert tables.values.grad.tolist() == [0, 1, 3, 4, 5, 0]


@pytest.mark.parametrize("backbone", [MF, LightGCN])
def test_scores_are_those_of_the_padded_tables(backbone, planted):
    tables = fitted(PowerSizes(), planted, budget_of(planted, 0.3))
    padded = Full().fit(planted.train, budget_of(planted, None), stream(0, "assign"))
    with torch.no_grad():
        for side, rows in zip((padded.users, padded.items), tables(), strict=True):
            side.rows.copy_(rows)
    batch = Batch(*(torch.tensor(ids, dtype=torch.int32) for ids in ([0, 5, 9], [1, 2, 3], [4, 1, 0])))
    model = backbone(planted.train, backbone.Config())
    differences = [model.score_differences(one, batch) for one in (tables, padded)]
    torch.testing.assert_close(*differences)
    for difference in differences:
        difference.square().sum().backward()
    dense = torch.cat([padded.users.rows.grad, padded.items.rows.grad]).flatten()
    torch.testing.assert_close(tables.values.grad, dense[tables.positions])


def test_training_moves_the_sizes_floats_and_no_others(planted):
    tables = fitted(RandomSizes(), planted, budget_of(planted, 0.3))
    before, sizes = tables.values.detach().clone(), tables.sizes
    trainer = Trainer(
        LightGCN(planted.train, LightGCN.Config()), Evaluator(planted), QUICK, 0, torch.device("cpu"), progress=False
    )
    trainer.fit(tables)
    assert sum(parameter.numel() for parameter in tables.parameters()) == sizes.sum() == tables.ledger().training_floats
    assert (tables.values != before).float().mean() > 0.99
    widths = torch.cat(tables()).ne(0) * torch.arange(1, 17)
    assert (widths.amax(1).numpy() <= sizes).all()


def test_ids_start_near_the_first_entries_of_their_embeddings():
    tables = SizedTables(np.array([3, 1]), np.array([2]), 4)
    users = np.array([[1.0, 2.0, 3.0, 9.0], [4.0, 9.0, 9.0, 9.0]], np.float32)
    items = np.array([[5.0, 6.0, 9.0, 9.0]], np.float32)
    tables.start_near(lambda dim: (users[:, :dim], items[:, :dim]), 2.0)
    own = [np.array([1.0, 2, 3, 4]), np.array([5.0, 6])]
    expected = np.concatenate([side * 2 / np.sqrt(np.mean(side**2)) for side in own])
    np.testing.assert_allclose(tables.values.detach(), expected, rtol=1e-6)
