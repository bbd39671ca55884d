"""Filling a budget: the search that every method with a resolution (or a number of clusters) shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from baco.budget import Budget
from baco.codes import Assignment
from baco.errors import UserError
from baco.tables import code_ledger

STEP = 4.0  # factor between two tries while the budget is being bracketed
MOST_STEPS = 20  # tries in one direction: twelve orders of magnitude
BISECTIONS = 20
GOOD_SHARE = 0.998  # of the budget: good enough to stop
ENOUGH_SHARE = 0.98  # of the budget: less makes the search look around once more
EXTRA_TRIES = 8


def fill_budget(
    assign: Callable[[float], Assignment], budget: Budget, start: float, mend: str = "raise budget="
) -> Assignment:
    """The assignment that comes closest to the budget from below.

    The cost is expected to grow with the knob, but need not do so everywhere: the best assignment that fits is kept
    whatever the search makes of the others, and nothing over the budget is ever returned.

    Parameters
    ----------
    assign : callable
        From a positive value of the knob to an assignment.
    start : float
        Where to begin; the search goes up or down by factors of 4 from there, then bisects the logarithm.
    mend : str
        What the error tells the user to do when nothing fits.

    Returns
    -------
    Assignment : with the number of tries added to its details as `tries`.

    Raises
    ------
    UserError
        When not even the cheapest assignment fits.
    """
    with tqdm(desc="filling the budget", unit="try", delay=5, disable=None, leave=False) as progress:

        def watched(knob: float) -> Assignment:
            assignment = assign(knob)
            progress.update()
            return assignment

        return _search(watched, budget, start, mend)


def _search(assign: Callable[[float], Assignment], budget: Budget, start: float, mend: str) -> Assignment:
    costs: dict[float, int] = {}
    best: Assignment | None = None
    best_cost = -1

    def fits(knob: float) -> bool:
        nonlocal best, best_cost
        assignment = assign(knob)
        costs[knob] = cost = budget.amount(code_ledger(assignment, budget.dim, budget.row))
        if best_cost < cost <= budget.limit:
            best, best_cost = assignment, cost
        return cost <= budget.limit

    def good(share: float) -> bool:
        return best_cost >= share * budget.limit

    low = high = start
    upwards = fits(start)
    bracketed = False
    while len(costs) < MOST_STEPS and not bracketed and not good(GOOD_SHARE):
        low, high = (high, high * STEP) if upwards else (low / STEP, low)
        bracketed = fits(high if upwards else low) != upwards
    if best is None:
        raise UserError(
            f"the budget of {budget.limit:,} {budget.unit} is below the least that this method reaches on this graph, "
            f"{min(costs.values()):,}; {mend}"
        )
    for _ in range(BISECTIONS if bracketed else 0):
        if good(GOOD_SHARE) or high / low < 1 + 1e-9:
            break
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    if not good(ENOUGH_SHARE):
        nearest = max(knob for knob, cost in costs.items() if cost == best_cost)
        for knob in np.geomspace(nearest / STEP, nearest * STEP, EXTRA_TRIES):
            fits(float(knob))
    return replace(best, details=best.details | {"tries": len(costs)})
