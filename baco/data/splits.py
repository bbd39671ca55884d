"""Holding interactions out for validation and test."""

from __future__ import annotations

import numpy as np
from numba import njit


def random_split(
    num_interactions: int, val_share: float, test_share: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Positions of each split, over all interactions alike: at least one for validation and test each."""
    order = rng.permutation(num_interactions)
    num_val = max(1, round(val_share * num_interactions))
    num_test = max(1, round(test_share * num_interactions))
    return {"val": order[:num_val], "test": order[num_val : num_val + num_test], "train": order[num_val + num_test :]}


def temporal_split(users: np.ndarray, val_share: float, test_share: float) -> dict[str, np.ndarray]:
    """Positions of each split: the latest interactions of each user for the test, those before them for validation.

    Of a user with n interactions, `round(share * n)` are held out; at least one for each split is, and one is left for
    training, when n >= 3, and none is held out when n < 3.

    Parameters
    ----------
    users : (E,) integers
        Of the interactions in the order of time; equal times keep this order.
    """
    counts = np.bincount(users)
    enough = counts >= 3
    num_test = np.where(enough, np.clip(np.rint(test_share * counts), 1, counts - 2), 0).astype(np.int64)
    num_val = np.where(enough, np.clip(np.rint(val_share * counts), 1, counts - num_test - 1), 0).astype(np.int64)
    parts = _parts_by_rank(users, counts - num_val - num_test, counts - num_test)
    return {split: np.flatnonzero(parts == part) for part, split in enumerate(("train", "val", "test"))}


def latest_of_users(users: np.ndarray, share: float) -> np.ndarray:
    """(E,) bool: the latest interactions of each user, `round(share * n)` of n; one at least is, and one is not.

    Of a user with fewer than 3 none is.

    Parameters
    ----------
    users : (E,) integers
        Of the interactions in the order of time.
    """
    counts = np.bincount(users)
    held_out = np.where(counts >= 3, np.clip(np.rint(share * counts), 1, counts - 1), 0).astype(np.int64)
    return _parts_by_rank(users, counts - held_out, counts) == 1


@njit(cache=True)
def _parts_by_rank(users: np.ndarray, first_val: np.ndarray, first_test: np.ndarray) -> np.ndarray:
    """(E,) uint8: 0, or 1 and 2 from a user's `first_val`-th and `first_test`-th interaction on."""
    ranks = np.zeros(len(first_val), np.int64)
    parts = np.zeros(len(users), np.uint8)
    for place, user in enumerate(users):
        if ranks[user] >= first_val[user]:
            parts[place] = 2 if ranks[user] >= first_test[user] else 1
        ranks[user] += 1
    return parts
