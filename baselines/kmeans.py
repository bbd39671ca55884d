"""k-means for thousands of centres in few dimensions, the same for any number of threads.

scikit-learn's sums the points of a cluster in chunks, one per thread, so that the number of threads decides roundings,
and with thousands of clusters soon also labels. Here every sum has one order.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange
from tqdm import tqdm

MOST_ITERATIONS = 300


def kmeans_seeds(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii, SODA 2007): points drawn in proportion to their squared distance to the
    nearest one drawn before.

    Parameters
    ----------
    points : (n, d) float64
    k : int
        At most n.

    Returns
    -------
    (k,) int64 : indices of points; fewer where the points have fewer than k distinct values.
    """
    return _seeds(points, int(rng.integers(len(points))), rng.random(k))


def kmeans(points: np.ndarray, seeds: np.ndarray, description: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Clusters after Lloyd's iterations from the given points as centres.

    An iteration compares a point with those centres only that have moved, unless its own has: the others are still
    where they lost. That is exact, and most centres soon stand still. Time O(n k d) for the first iterations.

    Parameters
    ----------
    points : (n, d) float64
    seeds : (k,) indices of points
    description : str or None
        Of the progress bar; None shows none.

    Returns
    -------
    labels : (n,) int32
        In [0, k); the lowest wins among equally near centres. Some may not occur.
    distances : (n,) float64
        Squared distance of each point to its centre.
    """
    k = len(seeds)
    centers = points[seeds].T.copy()  # (d, k): one dimension after the other, in long loops
    labels = np.full(len(points), -1, np.int32)
    distances = np.full(len(points), np.inf)
    moved = np.ones(k, np.bool_)
    scratch = np.empty((get_num_threads(), k))
    for _ in tqdm(range(MOST_ITERATIONS), desc=description, leave=False, disable=None if description else True):
        changed = _assign(points, centers, np.flatnonzero(moved), moved, labels, distances, scratch)
        if changed == 0:
            break
        moved = _update(points, labels, centers)
    return labels, distances


def fill_empty(labels: np.ndarray, distances: np.ndarray, k: int) -> None:
    """Give every empty cluster in [0, k) a member, in place: the farthest points leave clusters that keep others."""
    sizes = np.bincount(labels, minlength=k)
    empty = np.flatnonzero(sizes == 0)[::-1].tolist()
    for x in np.argsort(-distances, kind="stable"):
        if not empty:
            break
        if sizes[labels[x]] > 1:
            sizes[labels[x]] -= 1
            labels[x] = empty.pop()


@njit(cache=True)
def _seeds(points, first, draws):
    n, d = points.shape
    seeds = np.empty(len(draws), np.int64)
    nearest = np.full(n, np.inf)
    newest = first
    for count in range(len(draws)):
        seeds[count] = newest
        total = 0.0
        for x in range(n):
            distance = 0.0
            for j in range(d):
                distance += (points[x, j] - points[newest, j]) ** 2
            if distance < nearest[x]:
                nearest[x] = distance
            total += nearest[x]
        if total == 0:
            return seeds[: count + 1]
        rest = draws[count] * total
        for x in range(n):
            if nearest[x] > 0:
                newest = x
                rest -= nearest[x]
                if rest <= 0:
                    break
    return seeds


@njit(cache=True, parallel=True)
def _assign(points, centers, active, moved, labels, distances, scratch):
    """Give each point its nearest centre, in place; `active` are the centres that moved."""
    n, d = points.shape
    moving = centers[:, active]
    changed = 0
    for x in prange(n):
        own = labels[x]
        every = own < 0 or moved[own]
        if every:
            distance = scratch[get_thread_id()]
            candidates = centers
        else:
            distance = scratch[get_thread_id(), : len(active)]
            candidates = moving
        distance[:] = 0.0
        for j in range(d):
            value = points[x, j]
            for c in range(len(distance)):
                distance[c] += (value - candidates[j, c]) ** 2
        best = own
        best_distance = np.inf if every else distances[x]
        for c in range(len(distance)):
            label = c if every else active[c]
            if distance[c] < best_distance or (distance[c] == best_distance and label < best):
                best_distance = distance[c]
                best = label
        distances[x] = best_distance
        if best != own:
            labels[x] = best
            changed += 1
    return changed


@njit(cache=True)
def _update(points, labels, centers):
    """Move each centre to the mean of its points, in place; an empty one stays. Tells which have moved."""
    d, k = centers.shape
    sums = np.zeros((k, d))
    sizes = np.zeros(k, np.int64)
    for x in range(len(labels)):
        sizes[labels[x]] += 1
        for j in range(d):
            sums[labels[x], j] += points[x, j]
    moved = np.zeros(k, np.bool_)
    for c in range(k):
        if sizes[c] > 0:
            for j in range(d):
                mean = sums[c, j] / sizes[c]
                if mean != centers[j, c]:
                    centers[j, c] = mean
                    moved[c] = True
    return moved
