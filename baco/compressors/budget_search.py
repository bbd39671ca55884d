"""Filling a budget: the search that every method with a resolution (or a number of clusters) shares."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from tqdm import tqdm

from baco.compressors.budget import Budget
from baco.embedding.codes import Assignment
from baco.embedding.cost import code_ledger
from baco.errors import UserError

STEP = 4.0  # factor between two tries while the budget is being bracketed
MOST_STEPS = 20  # tries in one direction: twelve orders of magnitude
BISECTIONS = 20
GOOD_SHARE = 0.998  # of the budget: good enough to stop, unless the caller says otherwise
AIM = 0.999  # of the budget: what interpolation aims at
ENOUGH_SHARE = 0.98  # of the budget: less makes the search look around once more, and then split clusters
EXTRA_TRIES = 8


class Nodes(Protocol):
    """What is to be known of a graph here, wherever its interactions are."""

    @property
    def joint_degrees(self) -> np.ndarray:
        """(num_nodes,) int64, users first."""


@dataclass(frozen=True, eq=False)
class Splitting:
    """What it takes to split clusters where the sizes of a method jump over the budget.

    Attributes
    ----------
    graph : Biadjacency, or its degrees
    encode : callable
        From labels, (num_nodes,) int32 in [0, num_nodes), users first, and the details of the assignment whose clusters
        were split, to an assignment.
    """

    graph: Nodes
    encode: Callable[[np.ndarray, dict], Assignment]


def fill_budget(
    assign: Callable[[float], Assignment],
    budget: Budget,
    start: float,
    mend: str = "raise the budget",
    smooth: bool = False,
    splitting: Splitting | None = None,
    good_share: float = GOOD_SHARE,
) -> Assignment:
    """The assignment that comes closest to the budget from below.

    The cost is expected to grow with the knob, but need not do so everywhere: the best assignment that fits is kept
    whatever the search makes of the others, and nothing over the budget is ever returned.

    Where many ids are alike, no value of the knob may come close: on a graph with many ids of one interaction, Louvain
    clusters jumped from two thirds of the budget to more than all of it. With `splitting`, an assignment that leaves
    more than 2 % of the budget is split until less than two rows more would fit, or every id with interactions has a
    row of its own: see `_split`.

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
    splitting : Splitting or None
        None: what the best value of the knob gives is left as it is.
    good_share : float
        The part of the budget that is good enough to stop.

    Returns
    -------
    Assignment : with the number of tries added to its details as `tries`, and that of parts which were split off, where
        some were, as `split`.

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

        below, above = _search(watched, budget, start, mend, smooth, good_share)
    if splitting is None or _cost(below, budget) >= ENOUGH_SHARE * budget.limit:
        return below
    return _split(below, above, budget, splitting)


def _cost(assignment: Assignment, budget: Budget) -> int:
    return budget.amount(code_ledger(assignment, budget.dim, budget.row_format()))


def _search(
    assign: Callable[[float], Assignment], budget: Budget, start: float, mend: str, smooth: bool, good_share: float
) -> tuple[Assignment, Assignment | None]:
    """The dearest assignment found that fits, and the cheapest that does not."""
    costs: dict[float, int] = {}
    best: Assignment | None = None
    above: Assignment | None = None
    best_cost, above_cost = -1, math.inf

    def fits(knob: float) -> bool:
        nonlocal best, best_cost, above, above_cost
        assignment = assign(knob)
        costs[knob] = cost = _cost(assignment, budget)
        if best_cost < cost <= budget.limit:
            best, best_cost = assignment, cost
        elif budget.limit < cost < above_cost:
            above, above_cost = assignment, cost
        return cost <= budget.limit

    def good(share: float) -> bool:
        return best_cost >= share * budget.limit

    low = high = start
    upwards = fits(start)
    bracketed = False
    while len(costs) < MOST_STEPS and not bracketed and not good(good_share):
        low, high = (high, high * STEP) if upwards else (low / STEP, low)
        bracketed = fits(high if upwards else low) != upwards
    if best is None:
        raise UserError(
            f"the budget of {budget.limit:,} {budget.unit} is below the least that this method reaches on this graph, "
            f"{min(costs.values()):,}; {mend}"
        )
    slow, narrow = False, 1e-3 if smooth else 1e-9  # within a thousandth what is smooth at large is not
    for _ in range(BISECTIONS if bracketed else 0):
        if good(good_share) or high / low < 1 + narrow:
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
    return replace(best, details=best.details | {"tries": len(costs)}), above


def _split(below: Assignment, above: Assignment | None, budget: Budget, splitting: Splitting) -> Assignment:
    """Split clusters of the assignment below the budget until it is filled.

    They are split along the clusters of the one above it, see `parting`. If all parts have rows and budget is left, or
    nothing was above it, they are split into single nodes. A part gets up to one row for each side.
    """
    degrees = splitting.graph.joint_degrees
    best, labels, split = below, _labels(below), 0
    for finer in ([] if above is None else [_labels(above)]) + [np.arange(len(degrees))]:
        most, with_parts = parting(labels, finer, degrees)

        def parted(parts: int, with_parts=with_parts) -> np.ndarray:
            return np.unique(with_parts(parts), return_inverse=True)[1].astype(np.int32)

        def over_budget(parts: int, parted=parted) -> bool:
            return _cost(splitting.encode(parted(parts), below.details), budget) > budget.limit

        parts = bisect_left(range(1, most + 1), True, key=over_budget)
        if parts > 0:
            labels, split = parted(parts), split + parts
            best = splitting.encode(labels, below.details)
        if parts < most:
            break
    return replace(best, details=below.details | best.details | {"split": split}) if split else best


def parting(labels: np.ndarray, finer: np.ndarray, interactions: np.ndarray) -> tuple[int, Callable[[int], np.ndarray]]:
    """The most parts that can leave their clusters, and the labels in which so many of them have.

    What two nodes have in common in both labellings is a part. The one with the most interactions stays in its cluster;
    of the others those with the most leave first, and those without never.

    Parameters
    ----------
    labels, finer : (num_nodes,) integers
    interactions : (num_nodes,) integers
        Of each node.

    Returns
    -------
    most : int
    with_parts : callable
        From a number of parts, `most` at most, to (num_nodes,) int64 labels of [0, num_nodes).
    """
    clusters, cluster_of = np.unique(labels, return_inverse=True)
    finest, finer = np.unique(finer, return_inverse=True)
    pairs, part_of = np.unique(cluster_of * len(finest) + finer, return_inverse=True)
    inside = np.bincount(part_of, interactions)
    order = np.argsort(-inside, kind="stable")
    _, stay = np.unique(pairs[order] // len(finest), return_index=True)
    order = np.delete(order, stay)
    order = order[inside[order] > 0]
    turn = np.full(len(inside), len(order))
    turn[order] = np.arange(len(order))
    turn = turn[part_of]
    return len(order), lambda parts: np.where(turn < parts, len(clusters) + turn, cluster_of)


def _labels(assignment: Assignment) -> np.ndarray:
    """(num_nodes,) integers: the joint clusters, or the first codes of either side where there are none."""
    if assignment.labels is not None:
        return assignment.labels
    return np.concatenate([assignment.users.first, assignment.users.num_rows + assignment.items.first])
