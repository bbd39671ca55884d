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
    born, clusters = np.unique(labels, return_inverse=True)  # of node x: born[clusters[x]] is the label
    size = len(born)
    users, items = clusters[: graph.num_users], clusters[graph.num_users :]
    user_weight, item_weight = volumes(users, weights.users, size), volumes(items, weights.items, size)
    one_way = _links(users[graph.users], items[graph.items], np.ones(graph.num_edges), size)
    links = csr_array(one_way + one_way.T)
    while True:
        joined = np.arange(size, dtype=np.int32)
        user_volume, item_volume = user_weight.copy(), item_weight.copy()
        order = np.argsort(ranks[born])
        for _ in range(MOST_ROUNDS):
            if not _join(
                order,
                links.indptr,
                links.indices,
                links.data,
                user_weight,
                item_weight,
                penalty,
                joined,
                user_volume,
                item_volume,
            ):
                break
        kept, joined = np.unique(joined, return_inverse=True)
        if len(kept) == size:
            return born[clusters].astype(np.int32)
        size, born, clusters = len(kept), born[kept], joined[clusters]
        user_weight, item_weight = user_volume[kept], item_volume[kept]
        pairs = links.tocoo()
        links = _links(joined[pairs.row], joined[pairs.col], pairs.data, size)


def _links(ones: np.ndarray, others: np.ndarray, counts: np.ndarray, size: int) -> csr_array:
    """(size, size) float64: the counts of pairs of co-clusters, summed, but for pairs of one with itself."""
    apart = ones != others
    return csr_array((counts[apart], (ones[apart], others[apart])), shape=(size, size))


@njit(cache=True)
def _join(order, indptr, neighbors, links, user_weight, item_weight, penalty, joined, user_volume, item_volume):
    """One round of moves of whole co-clusters; how many moved. It changes `joined` and the volumes of its labels."""
    shared = np.zeros(len(joined))
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
