"""Whether a training was cut off: whether validation still rose when the last epoch ended. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LAST_PART = 0.25  # of the epochs trained, over which the line is fitted
MIN_POINTS = 4  # a line through three leaves one degree of freedom, whose error says nothing
CONFIDENCE = 0.975  # one-sided: the usual two standard errors where there are many points, 3.2 where there are five


@dataclass(frozen=True)
class Convergence:
    """What the end of a validation curve says.

    A linear schedule hides a part of it. As the learning rate falls to zero, the curve rises because the noise of the
    steps ends, and then flattens whatever more epochs would give. So a rise tells that the training had not settled
    before its rate was gone; no rise does not tell that a longer schedule gains nothing. results/README.md has what
    longer trainings gained with and without a rise. With a constant rate the curve is what more epochs continue.

    The error is that of the curve about its line. It does not have the chance by which users are in the validation
    split, which all points share.

    Attributes
    ----------
    points : int
        Validations in the last quarter of the epochs trained.
    slope : float or None
        Of the least-squares line through them, in recall@20 (a fraction) per epoch. None for fewer than four points.
    standard_error : float or None
        Of the slope, in the same unit.
    rising : bool or None
        Whether the slope is above 0 by Student's t-test with `points` - 2 degrees of freedom, one-sided at 2.5 %.
    cut_off : bool or None
        Whether it was rising at the most epochs that the protocol allows. False for a training that its patience
        ended, which is its own criterion.
    epochs_after_best : int
        Epochs trained after the best one; 0 where the last is the best.
    """

    points: int
    slope: float | None
    standard_error: float | None
    rising: bool | None
    cut_off: bool | None
    epochs_after_best: int


def convergence(history: Sequence[Sequence[float]], epochs: int, max_epochs: int, best_epoch: int) -> Convergence:
    """Judge a training by its history, as `FitReport` has it: (epoch, loss, validation recall@20) for each validation.

    Parameters
    ----------
    epochs, max_epochs : int
        How many were trained, and the most that were allowed.
    best_epoch : int
        Whose state was kept.
    """
    stopped, after_best = epochs < max_epochs, epochs - best_epoch
    late = [(epoch, value) for epoch, _, value in history if epoch > (1 - LAST_PART) * epochs]
    if len(late) < MIN_POINTS:
        return Convergence(len(late), None, None, None, False if stopped else None, after_best)
    x, y = np.array(late, np.float64).T
    x, y = x - x.mean(), y - y[0]  # from the first value: equal values must leave zeros, not their rounding
    spread = float(x @ x)
    slope = float(x @ y) / spread
    freedom = len(late) - 2
    residuals = y - y.mean() - slope * x
    error = float(np.sqrt(residuals @ residuals / freedom / spread))
    rising = bool(slope > stdtrit(freedom, CONFIDENCE) * error)
    slope, error = (float(f"{value:.9g}") for value in (slope, error))  # further digits are those of a processor
    return Convergence(len(late), slope, error, rising, rising and not stopped, after_best)
