"""k-means for thousands of centres in few dimensions, the same for any number of threads.

scikit-learn's sums the points of a cluster in chunks, one per thread, so that the number of threads decides roundings,
and with thousands of clusters soon also labels. Here every sum has one order.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange
from tqdm import tqdm

MOST_ITERATIONS = 300
ROUNDING = 1e-9  # more than norms and distances can be off by, relatively


def compile_kmeans() -> None:
    """Compile what follows."""
    kmeans(np.eye(3), kmeans_seeds(np.eye(3), 2, np.random.default_rng(0)))


def kmeans_seeds(points: np.ndarray, k: int, rng: np.random.Generator, weights: np.ndarray | None = None) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii, SODA 2007): the first point is drawn uniformly, the others in proportion to
    their squared distance to the nearest one drawn before, times their weight.

    Parameters
    ----------
    points : (n, d) float64
    k : int
        At most n.
    weights : (n,) float64, positive; None: all the same

    Returns
    -------
    (k,) int64 : indices of points; fewer where the points have fewer than k distinct values.
    """
    return _seeds(points, _weights(points, weights), int(rng.integers(len(points))), rng.random(k))


def kmeans(
    points: np.ndarray,
    seeds: np.ndarray,
    description: str | None = None,
    weights: np.ndarray | None = None,
    most_iterations: int = MOST_ITERATIONS,
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters after Lloyd's iterations from the given points as centres.

    Two short cuts, both exact, take most of the O(n k d) time of an iteration away. A point whose own centre stands
    still is compared only with centres that have moved: the others are where they lost before. And centres whose norm
    differs from the point's by more than the distance to its own centre are farther than that.

    Parameters
    ----------
    points : (n, d) float64
    seeds : (k,) indices of points
    description : str or None
        Of the progress bar; None shows none.
    weights : (n,) float64, positive; None: all the same
        A centre is the weighted mean of its points.
    most_iterations : int

    Returns
    -------
    labels : (n,) int32
        In [0, k); the lowest wins among equally near centres. Some may not occur.
    distances : (n,) float64
        Squared distance of each point to its centre.
    """
    centers = points[seeds].T.copy()  # (d, k): one dimension after the other, in long loops
    norms = np.linalg.norm(points, axis=1)
    labels = np.full(len(points), -1, np.int32)
    distances = np.full(len(points), np.inf)
    moved = np.ones(len(seeds), np.bool_)
    scratch = np.empty((get_num_threads(), len(seeds)))
    weights = _weights(points, weights)
    for _ in tqdm(range(most_iterations), desc=description, leave=False, disable=None if description else True):
        center_norms = np.linalg.norm(centers, axis=0)
        order = np.argsort(center_norms, kind="stable")
        if _assign(points, norms, centers, center_norms, order, moved, labels, distances, scratch) == 0:
            break
        moved = _update(points, weights, labels, centers)
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


def _weights(points: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return np.ones(len(points)) if weights is None else weights


@njit(cache=True)
def _seeds(points, weights, first, draws):
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
            distance *= weights[x]
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
def _assign(points, norms, centers, center_norms, order, moved, labels, distances, scratch):
    """Give each point its nearest centre, in place; tells how many changed. `order` sorts the centres by norm."""
    n, d = points.shape
    moving = order[moved[order]]
    all_norms, moving_norms = center_norms[order], center_norms[moving]
    all_centers, moving_centers = centers[:, order], centers[:, moving]
    changed = 0
    for x in prange(n):
        own = labels[x]
        if own >= 0 and not moved[own]:
            ids, near_norms, near_centers = moving, moving_norms, moving_centers
        else:
            ids, near_norms, near_centers = order, all_norms, all_centers
            if own >= 0:
                distances[x] = 0.0
                for j in range(d):
                    distances[x] += (points[x, j] - centers[j, own]) ** 2
        reach = np.sqrt(distances[x]) + ROUNDING * (norms[x] + np.sqrt(distances[x]))
        first = np.searchsorted(near_norms, norms[x] - reach)
        last = np.searchsorted(near_norms, norms[x] + reach, side="right")
        distance = scratch[get_thread_id(), : last - first]
        distance[:] = 0.0
        for j in range(d):
            value = points[x, j]
            for c in range(last - first):
                distance[c] += (value - near_centers[j, first + c]) ** 2
        best = own
        for c in range(last - first):
            label = ids[first + c]
            if distance[c] < distances[x] or (distance[c] == distances[x] and label < best):
                distances[x] = distance[c]
                best = label
        if best != own:
            labels[x] = best
            changed += 1
    return changed


@njit(cache=True)
def _update(points, weights, labels, centers):
    """Move each centre to the weighted mean of its points, in place; an empty one stays. Tells which have moved."""
    d, k = centers.shape
    sums = np.zeros((k, d))
    sizes = np.zeros(k)
    for x in range(len(labels)):
        sizes[labels[x]] += weights[x]
        for j in range(d):
            sums[labels[x], j] += weights[x] * points[x, j]
    moved = np.zeros(k, np.bool_)
    for c in range(k):
        if sizes[c] > 0:
            for j in range(d):
                mean = sums[c, j] / sizes[c]
                if mean != centers[j, c]:
                    centers[j, c] = mean
                    moved[c] = True
    return moved
