"""Co-cluster profiles: several codes per id, in proportion to where its interactions lead."""

from __future__ import annotations

import math

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.objective import count_labels, volumes
from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency


def most_codes(graph: Biadjacency, num_codes: int, item_ratio: float) -> tuple[int, int]:
    """The most codes of a user and of an item for which `profile_codes` gives no more than `num_codes` in all.

    Parameters
    ----------
    item_ratio : float
        The second is this part of the first, rounded up.
    """

    def total(most: int) -> int:
        return sum(
            int(np.clip(degrees, 1, cap).sum())
            for degrees, cap in zip((graph.user_degrees, graph.item_degrees), caps(most), strict=True)
        )

    def caps(most: int) -> tuple[int, int]:
        return most, max(1, math.ceil(item_ratio * most))

    low, high = 1, max(1, int(graph.joint_degrees.max()))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if total(middle) <= num_codes else (low, middle - 1)
    return caps(low)


def profile_codes(
    graph: Biadjacency, labels: np.ndarray, weights: NodeWeights, most: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Several codes per id: its own label, and those of the ids it interacts with.

    An id with d interactions has as many codes as `most` allows, d at most and 1 at least. The first is its own label.
    The others are apportioned by d'Hondt's rule: each next code is the label c of the largest k_c / (a_c + 1), k_c the
    id's links to c and a_c how often c is among its codes already. Codes repeat, therefore, and the mean of their rows
    comes close to the mean of rows over all that the id interacts with. Among equals, most often labels with one link,
    the one with the smallest volume on the opposite side wins, as in the objective.

    Parameters
    ----------
    labels : (num_nodes,) int32 in [0, num_nodes), users first
    weights : NodeWeights
        What volumes are sums of.
    most : (int, int)
        Codes of a user, and of an item.

    Returns
    -------
    ends : (num_nodes + 1,) int64
        The codes of node x are `codes[ends[x]:ends[x + 1]]`.
    codes : (ends[-1],) int32
    """
    ends = np.zeros(graph.num_nodes + 1, np.int64)
    caps = np.repeat(most, (graph.num_users, graph.num_items))
    np.cumsum(np.clip(graph.joint_degrees, 1, caps), out=ends[1:])
    codes = np.empty(ends[-1], np.int32)
    links = np.zeros((get_num_threads(), graph.num_nodes), np.int32)
    touched = np.empty_like(links)
    user_volume = volumes(labels[: graph.num_users], weights.users, graph.num_nodes)
    item_volume = volumes(labels[graph.num_users :], weights.items, graph.num_nodes)
    _fill(*graph.joint, graph.num_users, labels, user_volume, item_volume, ends, codes, links, touched)
    return ends, codes


@njit(cache=True, parallel=True)
def _fill(indptr, neighbors, num_users, labels, user_volume, item_volume, ends, codes, links, touched):
    """Rows of `links` and `touched` are the scratch of a thread; `links` must come, and is left, all zero."""
    for x in prange(len(ends) - 1):
        near = neighbors[indptr[x] : indptr[x + 1]]
        seats = codes[ends[x] : ends[x + 1]]
        opposite = item_volume if x < num_users else user_volume
        thread = get_thread_id()
        _apportion(labels[x], near, labels, opposite, seats, links[thread], touched[thread])


@njit(cache=True)
def _apportion(own, near, labels, opposite_volume, seats, links, touched):
    """Fill the seats with a node's own label and those of its neighbours; no more seats than neighbours, or one."""
    found = np.sort(touched[: count_labels(near, labels, links, touched)])
    found = found[np.argsort(opposite_volume[found], kind="mergesort")]
    given = (found == own).astype(np.int32)
    seats[0] = own
    for seat in range(1, len(seats)):
        best = 0
        for i in range(1, len(found)):  # k_i / (a_i + 1) > k_best / (a_best + 1), in integers
            if links[found[i]] * (given[best] + 1) > links[found[best]] * (given[i] + 1):
                best = i
        seats[seat] = found[best]
        given[best] += 1
    links[found] = 0
