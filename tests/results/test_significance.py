"""Paired tests and Holm's correction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t, ttest_rel

from baco.results.significance import compare, holm


def test_a_paired_comparison_is_the_textbooks():
    rng = np.random.default_rng(0)
    first = rng.random(50)
    second = first + 0.1 + 0.2 * rng.standard_normal(50)
    found = compare(first, second)
    differences = first - second
    statistic = differences.mean() / (differences.std(ddof=1) / np.sqrt(50))
    assert found.difference == pytest.approx(differences.mean()) and found.difference < 0
    assert found.effect == pytest.approx(statistic / np.sqrt(50))
    assert found.p == pytest.approx(2 * t.cdf(-abs(statistic), 49))
    interval = ttest_rel(first, second).confidence_interval(0.95)
    assert (found.difference - found.margin, found.difference + found.margin) == pytest.approx(tuple(interval))


def test_equal_values_differ_in_nothing():
    same = compare(np.arange(5.0), np.arange(5.0))
    assert (same.difference, same.margin, same.effect, same.p) == (0, 0, 0, 1)


@given(st.lists(st.integers(-1, 1), min_size=2, max_size=30).filter(lambda values: len(set(values)) > 1))
def test_the_interval_has_zero_in_it_where_the_test_sees_nothing(differences):
    found = compare(np.array(differences, float), np.zeros(len(differences)))
    assert (abs(found.difference) < found.margin) == (found.p > 0.05)


def test_holm_on_an_example_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.8]) == [1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_does(p_values):
    rejected, remaining = set(), len(p_values)
    for place in sorted(range(len(p_values)), key=p_values.__getitem__):
        if p_values[place] * remaining >= 0.05:
            break
        rejected.add(place)
        remaining -= 1
    adjusted = holm(p_values)
    assert {place for place, p in enumerate(adjusted) if p < 0.05} == rejected
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
