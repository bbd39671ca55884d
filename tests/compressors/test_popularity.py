"""The popularity scale: its values, its price, and what becomes of it in a run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.coclustering import BalancedCoClustering
from baco.compressors.budget import Budget
from baco.compressors.popularity import popularity_scale, remaining_budget
from baco.embedding.cost import code_ledger
from baco.errors import UserError


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=50), st.floats(0.01, 1))
def test_the_scale_is_a_power_of_the_degree_with_mean_one(degrees, exponent):
    degrees = np.array(degrees)
    scale = popularity_scale(degrees, exponent)
    assert scale.dtype == np.float16
    np.testing.assert_allclose(scale.astype(np.float64).mean(), 1, rtol=1e-3)
    at_least_one = np.maximum(degrees, 1)
    expected = (at_least_one / at_least_one[0]) ** exponent
    np.testing.assert_allclose(scale / np.float64(scale[0]), expected, rtol=2e-3)


def test_the_scale_of_one_item_far_above_all_others_is_the_largest_there_is():
    degrees = np.ones(200_000, np.int64)
    degrees[7] = 1_000_000
    scale = popularity_scale(degrees, 1.0)
    assert scale[7] == np.finfo(np.float16).max == scale.max()


@pytest.mark.parametrize("popularity", [float("nan"), 100, -0.1])
def test_an_exponent_out_of_range_is_refused(popularity, planted):
    with pytest.raises(UserError, match=f"popularity={popularity} must lie between 0 and 1"):
        BalancedCoClustering(popularity=popularity).fit(planted.train.to_matrix())


def test_without_an_exponent_there_is_no_scale_and_it_costs_nothing():
    budget = Budget(1000, "parameters", 8)
    assert popularity_scale(np.arange(5), 0) is None
    assert remaining_budget(None, budget) == budget


@pytest.mark.parametrize(("unit", "rest"), [("parameters", 95), ("bytes", 90)])
def test_a_value_costs_a_parameter_or_two_bytes(unit, rest):
    scale = popularity_scale(np.arange(5), 0.5)
    assert remaining_budget(scale, Budget(100, unit, 8)).limit == rest
    assert remaining_budget(scale, Budget(3, unit, 8)).limit == 0


def test_the_estimators_codes_are_scaled_within_the_budget(planted):
    matrix = planted.train.to_matrix()
    ledgers = {}
    for popularity in (0.0, 0.25):
        model = BalancedCoClustering(budget=0.3, dim=16, popularity=popularity).fit(matrix)
        ledgers[popularity] = code_ledger(model.assignment_, 16)
        assert ledgers[popularity].parameters <= 0.3 * 16 * planted.train.num_nodes
    assert ledgers[0.25].user_rows + ledgers[0.25].item_rows < ledgers[0.0].user_rows + ledgers[0.0].item_rows
    scale = model.assignment_.items.scale
    order = np.argsort(planted.train.item_degrees)
    assert np.all(np.diff(scale[order]) >= 0) and scale.max() > scale.min()
    assert model.assignment_.users.scale is None
