"""The asynchronous solver: one node after the other, in the order of a fresh random permutation in each round.

This is the order of updates of the paper, with exact volumes. Three rules make a run a pure function of its seed:
a node's candidates are its neighbours' labels and its own, so that no move lowers the objective; volumes are integers
(`weights.py`), so that equal scores are equal; and among equal scores the label of the lowest rank in one random
permutation wins, which favours neither users nor small ids. `reference.py` has the authors' program instead.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from baco.coclustering.objective import best_label
from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency


def asynchronous(
    graph: Biadjacency,
    weights: NodeWeights,
    resolution: float,
    num_rounds: int,
    orders: np.random.Generator,
    ranks: np.ndarray,
) -> np.ndarray:
    """Label propagation on the objective, node by node. Time O(num_rounds E), memory O(E + N).

    Parameters
    ----------
    orders : numpy.random.Generator
        Each round visits the nodes in `orders.permutation(num_nodes)`.
    ranks : (num_nodes,) integers
        Rank of each label; the lowest wins among equal scores.

    Returns
    -------
    (num_nodes,) int32 : labels, users first. A label is the number of the node that it was born at.
    """
    num_nodes = graph.num_nodes
    labels = np.arange(num_nodes, dtype=np.int32)
    joint_weights = weights.joint
    user_volume, item_volume = joint_weights.copy(), joint_weights.copy()
    user_volume[graph.num_users :] = 0
    item_volume[: graph.num_users] = 0
    links = np.zeros(num_nodes, np.int32)
    touched = np.empty(num_nodes, np.int32)
    joint = graph.joint
    for _ in range(num_rounds):
        moved = _visit(
            orders.permutation(num_nodes),
            *joint,
            graph.num_users,
            joint_weights,
            resolution / weights.normaliser,
            ranks,
            labels,
            user_volume,
            item_volume,
            links,
            touched,
        )
        if moved == 0:
            break
    return labels


@njit(cache=True)
def _visit(
    order, indptr, neighbors, num_users, weights, penalty, ranks, labels, user_volume, item_volume, links, touched
):
    """Visit the nodes in order, moving each to its best label."""
    moved = 0
    for x in order:
        mine, opposite = (user_volume, item_volume) if x < num_users else (item_volume, user_volume)
        own = labels[x]
        near = neighbors[indptr[x] : indptr[x + 1]]
        best, _ = best_label(own, near, labels, penalty * weights[x], opposite, ranks, links, touched)
        if best != own:
            mine[own] -= weights[x]
            mine[best] += weights[x]
            labels[x] = best
            moved += 1
    return moved
