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

from typing import NamedTuple

import numpy as np
from numba import njit

from baco.coclustering.objective import relabel, volumes
from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.solvers.links import Groups, Links, add_links
from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency

WEAK = 8.0  # times what a link brings; resolutions that are tried may be lower by a part of it
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
    return cycles(graph, weights, resolution, num_cycles, ranks, np.arange(graph.num_nodes, dtype=np.int32))


def cycles(
    graph: Biadjacency,
    weights: NodeWeights,
    resolution: float,
    num_cycles: int,
    ranks: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    """`multilevel` from given labels, which change in place."""
    for _ in range(num_cycles):
        before = labels.copy()
        alternating(graph, weights, resolution, MOST_ROUNDS, ranks, labels)
        labels = merged(graph, weights, resolution, ranks, labels)
        if np.array_equal(labels, before):
            break
    return labels


class Coarse(NamedTuple):
    """The graph whose nodes are co-clusters, numbered in ascending order of their labels."""

    born: np.ndarray  # (num_clusters,) labels
    clusters: np.ndarray  # (num_nodes,) the co-cluster of each node
    user_weight: np.ndarray  # (num_clusters,) int64: of the members, summed
    item_weight: np.ndarray
    links: Links

    @classmethod
    def of(cls, graph: Biadjacency, weights: NodeWeights, labels: np.ndarray, resolution: float = 0.0) -> Coarse:
        """Of labels of [0, num_nodes), users first, without links that are weak at a resolution.

        A link is weak where joining its two co-clusters costs more than `WEAK` times what it brings.
        """
        born, clusters = relabel(labels, graph.num_nodes)
        user_weight = volumes(clusters[: graph.num_users], weights.users, len(born))
        item_weight = volumes(clusters[graph.num_users :], weights.items, len(born))
        groups = Groups(clusters, user_weight, item_weight)
        links = Links.of_nodes(graph, groups, resolution / weights.normaliser / WEAK)
        return cls(born, clusters, user_weight, item_weight, links)

    @property
    def labels(self) -> np.ndarray:
        """(num_nodes,) int32, users first."""
        return self.born[self.clusters].astype(np.int32)

    def joined(self, penalty: float, ranks: np.ndarray) -> Coarse:
        """What is left after co-clusters have joined others, level by level.

        Parameters
        ----------
        penalty : float
            The resolution as a part of the weights' normaliser.
        ranks : (num_nodes,) integers
            The order in which co-clusters are visited.
        """
        born, clusters, user_weight, item_weight, links = self
        while True:
            size = len(born)
            joined = np.arange(size, dtype=np.int32)
            user_volume, item_volume = user_weight.copy(), item_weight.copy()
            order = np.argsort(ranks[born])
            for _ in range(MOST_ROUNDS):
                if not _join(order, *links, user_weight, item_weight, penalty, joined, user_volume, item_volume):
                    break
            kept, joined = relabel(joined, size)
            if len(kept) == size:
                return Coarse(born, clusters, user_weight, item_weight, links)
            born, clusters = born[kept], joined[clusters]
            user_weight, item_weight = user_volume[kept], item_volume[kept]
            links = links.between(Groups(joined, user_weight, item_weight))


def merged(
    graph: Biadjacency, weights: NodeWeights, resolution: float, ranks: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Labels after co-clusters have joined others, level by level; the parameters are those of `multilevel`."""
    return Coarse.of(graph, weights, labels).joined(resolution / weights.normaliser, ranks).labels


@njit(cache=True)
def _join(order, indptr, neighbors, counts, user_weight, item_weight, penalty, joined, user_volume, item_volume):
    """One round of moves of whole co-clusters; how many moved. It changes `joined` and the volumes of its labels."""
    shared, touched = np.zeros((2, len(joined) + 1), np.int32)
    moved = 0
    for x in order:
        own = joined[x]
        user_volume[own] -= user_weight[x]
        item_volume[own] -= item_weight[x]
        part = slice(indptr[x], indptr[x + 1])
        num_touched = add_links(neighbors[part], counts[part], joined, shared, touched, 0)
        user_scale, item_scale = penalty * user_weight[x], penalty * item_weight[x]  # floats: products exceed an int64
        best = own
        best_gain = shared[own] - (user_scale * item_volume[own] + item_scale * user_volume[own])
        for i in range(num_touched):
            label = touched[i]
            gain = shared[label] - (user_scale * item_volume[label] + item_scale * user_volume[label])
            shared[label] = 0
            if gain > best_gain:
                best, best_gain = label, gain
        user_volume[best] += user_weight[x]
        item_volume[best] += item_weight[x]
        if best != own:
            joined[x] = best
            moved += 1
    return moved
