"""Popularity: a scale per item, for the long embeddings that frequent items need and shared rows cannot give them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from baco.compressors.budget import Budget
from baco.embedding.codes import Assignment

LARGEST = float(np.finfo(np.float16).max)


def popularity_scale(degrees: np.ndarray, exponent: float) -> np.ndarray | None:
    """(n,) float16: max(1, degree) ** exponent, divided by the mean of that over all ids; None for an exponent of 0.

    In a full model frequent items learn longer embeddings, since a score is a dot product and they are the likelier
    answer. The mean of rows that many items share has no such freedom. Propagation brings it back (the last layers of
    LightGCN grow with the degree), plain matrix factorisation does not. Ours; docs/baco_plus.md has what it gives.
    """
    if exponent == 0:
        return None
    powers = np.maximum(degrees, 1).astype(np.float64) ** exponent
    return np.minimum(powers / powers.mean(), LARGEST).astype(np.float16)


def remaining_budget(scale: np.ndarray | None, budget: Budget) -> Budget:
    """What a scale leaves of a budget: each of its values is a parameter, of two bytes."""
    if scale is None:
        return budget
    return replace(budget, limit=max(0, budget.limit - (scale.size if budget.unit == "parameters" else scale.nbytes)))


def scale_items(assignment: Assignment, scale: np.ndarray | None) -> Assignment:
    """The assignment with its items scaled."""
    return replace(assignment, items=replace(assignment.items, scale=scale))
