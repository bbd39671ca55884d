"""Which differences are more than chance: intervals and tests paired over users, with Holm's correction for many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same users.

    Attributes
    ----------
    difference : float
        Mean over users of the first minus the second.
    margin : float
        Half of the 95 % interval of the difference, by Student's t: what other users could have given. What other seeds
        could have given is not in it, nor a correction for several intervals.
    effect : float
        The same in standard deviations of the users' differences (Cohen's d for pairs); 0 where nobody differs.
    p : float
        Of the two-sided paired t-test.
    """

    difference: float
    margin: float
    effect: float
    p: float


def compare(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Compare (m,) values of the same users in the same order."""
    differences = first - second
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if deviation == 0:
        return Comparison(mean, 0.0, 0.0, 1.0 if mean == 0 else 0.0)
    effect, users = mean / deviation, len(differences)
    margin = float(stdtrit(users - 1, 0.975)) * deviation / users**0.5
    return Comparison(mean, margin, effect, float(2 * stdtr(users - 1, -abs(effect) * users**0.5)))


def holm(p_values: list[float]) -> list[float]:
    """Adjusted p-values of several tests (Holm, 1979): those below alpha are significant together at alpha."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted
