"""Filters of interactions, on plain arrays and without copies of them: logs may have hundreds of millions."""

from __future__ import annotations

import numpy as np
from numba import njit


def first_occurrences(users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> np.ndarray:
    """(E,) bool, whether no interaction before this one is of the same user and item.

    Parameters
    ----------
    users, items : (E,) int32
        Below `num_users` and `num_items`.
    """
    ends = np.cumsum(np.bincount(users, minlength=num_users))
    return _first_occurrences(users, items, ends, num_items)


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """(E,) bool, the interactions in which user and item have k interactions each among those kept."""
    kept = np.ones(len(users), np.bool_)
    if k > 1 and len(users):
        _drop_outside_core(users, items, np.bincount(users), np.bincount(items), k, kept)
    return kept


@njit(cache=True)
def _first_occurrences(users: np.ndarray, items: np.ndarray, ends: np.ndarray, num_items: int) -> np.ndarray:
    """`ends`, (num_users,) int64: how many interactions are of this user or one before it. It is overwritten."""
    order = np.empty(len(users), np.int64)  # by user, then by position
    for place in range(len(users) - 1, -1, -1):
        ends[users[place]] -= 1
        order[ends[users[place]]] = place
    first = np.zeros(len(users), np.bool_)
    latest_user = np.full(num_items, -1, np.int64)  # of each item
    for position in order:
        if latest_user[items[position]] != users[position]:
            latest_user[items[position]] = users[position]
            first[position] = True
    return first


@njit(cache=True)
def _drop_outside_core(
    users: np.ndarray, items: np.ndarray, user_counts: np.ndarray, item_counts: np.ndarray, k: int, kept: np.ndarray
) -> None:
    """Takes out of `kept`, and of the counts, interactions of users and items with fewer than k, until none is left."""
    dropped = True
    while dropped:
        dropped = False
        for place in range(len(users)):
            user, item = users[place], items[place]
            if kept[place] and (user_counts[user] < k or item_counts[item] < k):
                kept[place] = False
                user_counts[user] -= 1
                item_counts[item] -= 1
                dropped = True
