"""Holding interactions out for validation and test."""

from __future__ import annotations

import numpy as np


def random_split(
    num_interactions: int, val_share: float, test_share: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Positions of each split, over all interactions alike: at least one for validation and test each."""
    order = rng.permutation(num_interactions)
    num_val = max(1, round(val_share * num_interactions))
    num_test = max(1, round(test_share * num_interactions))
    return {"val": order[:num_val], "test": order[num_val : num_val + num_test], "train": order[num_val + num_test :]}


def temporal_split(users: np.ndarray, times: np.ndarray, val_share: float, test_share: float) -> dict[str, np.ndarray]:
    """Positions of each split: the latest interactions of each user for the test, those before them for validation.

    Of a user with n interactions, `round(share * n)` are held out; at least one for each split is, and one is left for
    training, when n >= 3, and none is held out when n < 3. Equal times keep the order of the input.
    """
    order = np.lexsort((np.arange(len(users)), times, users))
    counts = np.bincount(users)
    starts = np.cumsum(counts) - counts
    owner = users[order]
    remaining = (starts + counts)[owner] - np.arange(len(users))  # 1 for a user's latest interaction
    enough = counts >= 3
    num_test = np.where(enough, np.clip(np.rint(test_share * counts), 1, counts - 2), 0)
    num_val = np.where(enough, np.clip(np.rint(val_share * counts), 1, counts - num_test - 1), 0)
    is_test = remaining <= num_test[owner]
    is_val = ~is_test & (remaining <= (num_test + num_val)[owner])
    return {"train": order[~is_test & ~is_val], "val": order[is_val], "test": order[is_test]}
