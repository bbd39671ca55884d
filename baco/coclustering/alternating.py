"""The alternating solver: all items at once, then all users at once, until nothing changes.

Why this is exact. A user's score reads item labels and item volumes only (`objective.py`), so while item labels stand
still the objective is a sum over users of terms that do not touch each other:

    F = sum over users x of  k(x, l_x) - gamma w_x W_V(l_x),

and likewise for items. Giving every user the label that maximises its own term therefore maximises F over all user
labels that are on offer, in whatever order or however many threads: a half-round is deterministic. A node's own label
is among its candidates, so no term falls, and F never falls.

Why it ends. A node leaves its label only for a higher score or, at an equal score, for a label of lower rank. With
exact scores the pair (F, minus the sum of the ranks of all labels) grows lexicographically with every move, and there
are finitely many labellings. (Scores are float64 values of exact integers; equal volumes give equal scores.)
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.objective import best_label, volumes
from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency


def alternating(
    graph: Biadjacency,
    weights: NodeWeights,
    resolution: float,
    num_rounds: int,
    ranks: np.ndarray,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """Label propagation on the objective, one side at a time. Time O(num_rounds E / threads), memory O(E + N threads).

    Parameters
    ----------
    num_rounds : int
        Most rounds (all items, then all users); it stops earlier when a round changes no label.
    ranks : (num_nodes,) integers
        Rank of each label; the lowest wins among equal scores.
    labels : (num_nodes,) int32, optional
        Where to start from, changed in place; None: every node has a label of its own.

    Returns
    -------
    (num_nodes,) int32 : labels, users first. A label is the number of the node that it was born at.
    """
    num_nodes = graph.num_nodes
    penalty = resolution / weights.normaliser
    labels = np.arange(num_nodes, dtype=np.int32) if labels is None else labels
    users, items = labels[: graph.num_users], labels[graph.num_users :]  # views
    links = np.zeros((get_num_threads(), num_nodes), np.int32)
    touched = np.empty_like(links)
    for _ in range(num_rounds):
        user_volume = volumes(users, weights.users, num_nodes)
        moved = _assign(*graph.by_item, users, weights.items, user_volume, penalty, ranks, items, links, touched)
        item_volume = volumes(items, weights.items, num_nodes)
        moved += _assign(*graph.by_user, items, weights.users, item_volume, penalty, ranks, users, links, touched)
        if moved == 0:
            break
    return labels


@njit(cache=True, parallel=True)
def _assign(indptr, neighbors, opposite_labels, weights, opposite_volume, penalty, ranks, labels, links, touched):
    """Give each node of one side its best label, in place. `links` and `touched` have a row per thread."""
    moved = 0
    for x in prange(len(labels)):
        own = labels[x]
        near = neighbors[indptr[x] : indptr[x + 1]]
        thread = get_thread_id()
        best = best_label(
            own, near, opposite_labels, penalty * weights[x], opposite_volume, ranks, links[thread], touched[thread]
        )
        if best != own:
            labels[x] = best
            moved += 1
    return moved
