"""Filling a budget: the search that every method with a resolution (or a number of clusters) shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from baco.compressors.budget import Budget
from baco.embedding.codes import Assignment
from baco.embedding.cost import code_ledger
from baco.errors import UserError

STEP = 4.0  # factor between two tries while the budget is being bracketed
MOST_STEPS = 20  # tries in one direction: twelve orders of magnitude
BISECTIONS = 20
GOOD_SHARE = 0.998  # of the budget: good enough to stop
AIM = 0.999  # of the budget: what interpolation aims at
ENOUGH_SHARE = 0.98  # of the budget: less makes the search look around once more
EXTRA_TRIES = 8


def fill_budget(
    assign: Callable[[float], Assignment],
    budget: Budget,
    start: float,
    mend: str = "raise the budget",
    smooth: bool = False,
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
    smooth : bool
        Whether the cost grows about like a power of the knob, so that interpolation needs fewer tries than bisection.

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

        return _search(watched, budget, start, mend, smooth)


def _search(assign: Callable[[float], Assignment], budget: Budget, start: float, mend: str, smooth: bool) -> Assignment:
    costs: dict[float, int] = {}
    best: Assignment | None = None
    best_cost = -1

    def fits(knob: float) -> bool:
        nonlocal best, best_cost
        assignment = assign(knob)
        costs[knob] = cost = budget.amount(code_ledger(assignment, budget.dim, budget.row_format()))
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
    slow, narrow = False, 1e-3 if smooth else 1e-9  # within a thousandth what is smooth at large is not
    for _ in range(BISECTIONS if bracketed else 0):
        if good(GOOD_SHARE) or high / low < 1 + narrow:
            break
        middle = math.sqrt(low * high)
        if smooth and not slow:
            part = math.log(AIM * budget.limit / costs[low]) / math.log(costs[high] / costs[low])
            middle = low * (high / low) ** min(max(part, 0.05), 0.95)
        before = high / low
        low, high = (middle, high) if fits(middle) else (low, middle)
        slow = not slow and (high / low) ** 2 > before  # bisection would have done better: the next try bisects
    if not good(ENOUGH_SHARE):
        nearest = max(knob for knob, cost in costs.items() if cost == best_cost)
        for knob in np.geomspace(nearest / STEP, nearest * STEP, EXTRA_TRIES):
            if knob not in costs:
                fits(float(knob))
    return replace(best, details=best.details | {"tries": len(costs)})
