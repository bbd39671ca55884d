import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.compressors.budget import Budget, split_rows
from baco.embedding.cost import Ledger
from baco.errors import UserError

BEAUTY = {"num_users": 22_363, "num_items": 12_101, "dim": 64}


def test_the_papers_budget_on_beauty():
    budget = Budget.parse(8267, "parameters", **BEAUTY)
    assert budget.limit == 529_088
    assert budget.share(Ledger(parameters=529_088, bytes=0, training_floats=0)) == 1
    with pytest.raises(UserError, match="method 'baco' needs 529,093 parameters, over the budget of 529,088"):
        budget.check(Ledger(parameters=529_093, bytes=0, training_floats=0), "baco")


@pytest.mark.parametrize(
    ("value", "unit", "limit"),
    [
        (None, "parameters", 34_464 * 64),
        (1, "parameters", 34_464 * 64),
        (1.0, "bytes", 34_464 * 256),
        (0.25, "parameters", 34_464 * 16),
        (0.25, "bytes", 34_464 * 64),
        (12_000, "parameters", 768_000),
        (12_000.0, "parameters", 768_000),
        # 12,000 float32 rows; 7787 + 4213 of them in proportion, so that both sides' codes have 13 bits
        (12_000, "bytes", 12_000 * 256 + (22_363 * 13 + 7) // 8 + (12_101 * 13 + 7) // 8),
    ],
)
def test_what_a_value_means(value, unit, limit):
    assert Budget.parse(value, unit, **BEAUTY).limit == limit


@pytest.mark.parametrize(
    ("value", "unit", "message"),
    [
        (0, "parameters", r"budget=0 must be a ratio in \(0, 1\]"),
        (-0.5, "parameters", r"budget=-0.5 must be a ratio"),
        (float("nan"), "parameters", "budget=nan must be a ratio"),
        (1.5, "parameters", "budget=1.5 is no ratio .* no whole number of rows"),
        (40_000, "parameters", "more than the 34464 rows of the full model"),
        (0.5, "rows", "budget_unit=rows must be parameters or bytes"),
    ],
)
def test_impossible_values_are_named(value, unit, message):
    with pytest.raises(UserError, match=message):
        Budget.parse(value, unit, **BEAUTY)


def test_rows_that_a_budget_buys():
    budget = Budget(1000, "parameters", 8)
    assert budget.rows() == 125
    assert budget.rows(extra_parameters=17) == 122
    assert budget.rows(extra_parameters=5000) == 0
    assert Budget(1000, "bytes", 8).rows(extra_bytes=16, extra_parameters=999) == 30


@given(st.integers(2, 10_000), st.integers(1, 10_000), st.integers(1, 10_000))
def test_rows_are_shared_in_proportion(rows, num_users, num_items):
    user_rows, item_rows = split_rows(rows, num_users, num_items)
    assert user_rows + item_rows == rows and min(user_rows, item_rows) >= 1
    exact = rows * num_users / (num_users + num_items)
    assert abs(user_rows - exact) <= 1 or 1 in (user_rows, item_rows)


def test_one_row_is_too_few():
    with pytest.raises(UserError, match="buys 1 codebook rows, but users and items need one each"):
        split_rows(1, 5, 5)
