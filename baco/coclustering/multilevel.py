"""The multilevel solver: single nodes move, then whole co-clusters, in turn, until neither gains.

Single nodes alone stop early: two small co-clusters that should be one stay apart when no user and no item gains by
going over alone. So each cycle has two steps (as in Louvain: Blondel et al., J. Stat. Mech. P10008, 2008, which
maximises modularity; here any weights):

1. the alternating solver goes on from the labels so far, all items at once, then all users, until nothing moves;
2. each co-cluster becomes one node with the user weight and the item weight of its members. Co-clusters then join each
   other, one after the other in a seeded order, while that raises the objective, level by level.

No step lowers F. It ends in a labelling that no move of one node and no merger of two co-clusters with an interaction
between them improves, or after the given number of cycles.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.sparse import csr_array

from baco.coclustering.alternating import alternating
from baco.coclustering.objective import volumes
from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency

MOST_ROUNDS = 50  # of the moves of one step; they end long before on the graphs tried


def multilevel(
    graph: Biadjacency, weights: NodeWeights, resolution: float, num_cycles: int, ranks: np.ndarray
) -> np.ndarray:
    """Local moves and mergers on the objective. Time O(num_cycles rounds E), memory O(E + N threads).

    Parameters
    ----------
    num_cycles : int
        Most cycles; it stops earlier when one changes no label.
    ranks : (num_nodes,) integers
        The order in which co-clusters are visited, and of labels among equal scores.

    Returns
    -------
    (num_nodes,) int32 : labels, users first. A label is the number of the node that it was born at.
    """
    labels = np.arange(graph.num_nodes, dtype=np.int32)
    for _ in range(num_cycles):
        before = labels.copy()
        alternating(graph, weights, resolution, MOST_ROUNDS, ranks, labels)
        labels = merged(graph, weights, resolution, ranks, labels)
        if np.array_equal(labels, before):
            break
    return labels


def merged(
    graph: Biadjacency, weights: NodeWeights, resolution: float, ranks: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Labels after co-clusters have joined others, level by level; the parameters are those of `multilevel`."""
    penalty = resolution / weights.normaliser
    while True:
        born, clusters = np.unique(labels, return_inverse=True)
        users, items = clusters[: graph.num_users], clusters[graph.num_users :]
        size = len(born)
        links = csr_array((np.ones(graph.num_edges), (users[graph.users], items[graph.items])), shape=(size, size))
        links = csr_array(links + links.T)
        links.setdiag(0)
        links.eliminate_zeros()
        joined = np.arange(size, dtype=np.int32)
        user_weight, item_weight = volumes(users, weights.users, size), volumes(items, weights.items, size)
        order = np.argsort(ranks[born])
        for _ in range(MOST_ROUNDS):
            if not _join(order, links.indptr, links.indices, links.data, user_weight, item_weight, penalty, joined):
                break
        if len(np.unique(joined)) == size:
            return labels
        labels = born[joined][clusters].astype(np.int32)


@njit(cache=True)
def _join(order, indptr, neighbors, links, user_weight, item_weight, penalty, joined):
    """One round of moves of whole co-clusters, in place; how many moved."""
    size = len(joined)
    user_volume, item_volume = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for x in range(size):
        user_volume[joined[x]] += user_weight[x]
        item_volume[joined[x]] += item_weight[x]
    shared = np.zeros(size)
    moved = 0
    for x in order:
        own = joined[x]
        user_volume[own] -= user_weight[x]
        item_volume[own] -= item_weight[x]
        for edge in range(indptr[x], indptr[x + 1]):
            shared[joined[neighbors[edge]]] += links[edge]
        best = own
        best_gain = shared[own] - penalty * (user_weight[x] * item_volume[own] + item_weight[x] * user_volume[own])
        for edge in range(indptr[x], indptr[x + 1]):
            label = joined[neighbors[edge]]
            gain = shared[label] - penalty * (user_weight[x] * item_volume[label] + item_weight[x] * user_volume[label])
            if gain > best_gain:
                best, best_gain = label, gain
        for edge in range(indptr[x], indptr[x + 1]):
            shared[joined[neighbors[edge]]] = 0
        user_volume[best] += user_weight[x]
        item_volume[best] += item_weight[x]
        if best != own:
            joined[x] = best
            moved += 1
    return moved
