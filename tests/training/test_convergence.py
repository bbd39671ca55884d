"""Whether a training was cut off, from made-up histories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress, t

from baco.training.convergence import Convergence, convergence


def judged(values, epochs=16, max_epochs=16, best_epoch=16) -> Convergence:
    """Of a training that was validated after each of its last epochs."""
    first = epochs - len(values) + 1
    return convergence([(first + n, 0.5, value) for n, value in enumerate(values)], epochs, max_epochs, best_epoch)


def test_a_straight_rise_is_cut_off():
    found = judged(np.linspace(0.1, 0.25, 16))
    assert found.points == 4, "epochs 13 to 16"
    assert found.slope == pytest.approx(0.01) and found.standard_error == pytest.approx(0, abs=1e-9)
    assert found.rising and found.cut_off and found.epochs_after_best == 0


def test_slope_and_error_are_those_of_a_linear_regression():
    epochs = [1, *range(9, 122, 8), 128]  # the last interval is shorter
    values = 0.1 + 0.0002 * np.arange(17) + 0.001 * np.random.default_rng(0).standard_normal(17)
    found = convergence([(epoch, 0.5, value) for epoch, value in zip(epochs, values, strict=True)], 128, 128, 121)
    expected = linregress(epochs[-5:], values[-5:])
    assert (found.points, found.epochs_after_best) == (5, 7)
    assert (found.slope, found.standard_error) == pytest.approx((expected.slope, expected.stderr))


@pytest.mark.parametrize(("errors", "rising"), [(1.01, True), (0.99, False)])
def test_a_rise_counts_from_students_quantile_on(errors, rising):
    noise = np.array([1.0, -2.0, 0.0, 2.0, -1.0])  # has no slope, so all of it is error: sqrt(10 / 3 / 10) an epoch
    slope = errors * t.ppf(0.975, 3) * np.sqrt(1 / 3)
    assert judged(slope * np.arange(5) + noise, epochs=20, max_epochs=20).rising is rising


def test_a_plateau_is_not_cut_off():
    noise = 0.001 * np.random.default_rng(0).standard_normal((1000, 6))
    found = [judged(0.2 + values, epochs=24, max_epochs=24) for values in noise]
    assert np.mean([one.cut_off for one in found]) == pytest.approx(0.025, abs=0.01), "that often by chance"


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_equal_values_have_no_slope(value):
    found = judged([value] * 16)
    assert (found.slope, found.standard_error, found.rising) == (0, 0, False)


def test_a_fall_is_no_rise():
    assert judged(np.linspace(0.25, 0.1, 16)).rising is False


def test_patience_is_a_criterion_of_its_own():
    found = judged(np.linspace(0.1, 0.25, 16), max_epochs=17)
    assert found.rising and not found.cut_off


@pytest.mark.parametrize(("max_epochs", "cut_off"), [(12, None), (13, False)])
def test_three_validations_are_too_few(max_epochs, cut_off):
    found = judged(np.linspace(0.1, 0.25, 12), 12, max_epochs, best_epoch=10)
    assert found == Convergence(3, None, None, None, cut_off, 2)


curves = st.lists(st.integers(0, 1000), min_size=16, max_size=16).map(lambda counts: np.array(counts) / 1000)


@given(curves, st.floats(-1, 1))
def test_a_constant_changes_nothing(values, constant):
    found, moved = judged(values), judged(values + constant)
    assert (moved.slope, moved.standard_error) == pytest.approx((found.slope, found.standard_error), abs=1e-9)


@given(curves, st.floats(0.01, 100))
def test_slope_and_error_have_one_scale(values, factor):
    found, scaled = judged(values), judged(factor * values)
    assert scaled.slope == pytest.approx(factor * found.slope, rel=1e-8, abs=1e-12)
    assert scaled.standard_error == pytest.approx(factor * found.standard_error, rel=1e-8, abs=1e-12)
