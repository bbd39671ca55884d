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
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.objective import relabel, volumes
from baco.coclustering.solvers.alternating import alternating
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


class Links(NamedTuple):
    """Which groups interact, and how often: group x with `neighbors[starts[x]:ends[x]]`, ascending, `counts` times."""

    starts: np.ndarray  # (num_groups,) int64
    ends: np.ndarray  # (num_groups,) int64
    neighbors: np.ndarray  # int32
    counts: np.ndarray  # int32

    @classmethod
    def of_nodes(cls, graph: Biadjacency) -> Links:
        """Each node a group, users first."""
        indptr, neighbors = graph.joint
        return cls(indptr[:-1], indptr[1:], neighbors, np.ones(len(neighbors), np.int32))

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both groups of each link, the lower first, and its count."""
        sizes = self.ends - self.starts
        ends = np.cumsum(sizes)
        left = np.repeat(np.arange(len(sizes)), sizes)
        places = np.arange(len(left)) + np.repeat(self.starts - ends + sizes, sizes)
        right = self.neighbors[places]
        once = left < right
        return left[once], right[once], self.counts[places[once]]

    def between(self, groups: np.ndarray, num_groups: int) -> Links:
        """Links between groups of groups; x belongs to `groups[x]`, an int32 of [0, num_groups)."""
        members = np.argsort(groups, kind="stable")
        last = np.cumsum(np.bincount(groups, minlength=num_groups))
        room = np.cumsum(volumes(groups, self.ends - self.starts, num_groups))  # a group has no more than its members
        starts = np.concatenate([[0], room[:-1]])
        neighbors, counts = np.empty((2, room[-1]), np.int32)
        links = np.zeros((get_num_threads(), num_groups), np.int32)
        found = _sum_links(*self, groups, members, last, starts, neighbors, counts, links, np.empty_like(links))
        return Links(starts, starts + found, neighbors, counts)


class Coarse(NamedTuple):
    """The graph whose nodes are co-clusters, numbered in ascending order of their labels."""

    born: np.ndarray  # (num_clusters,) labels
    clusters: np.ndarray  # (num_nodes,) the co-cluster of each node
    user_weight: np.ndarray  # (num_clusters,) int64: of the members, summed
    item_weight: np.ndarray
    links: Links

    @classmethod
    def of(cls, graph: Biadjacency, weights: NodeWeights, labels: np.ndarray) -> Coarse:
        """Of labels of [0, num_nodes), users first."""
        born, clusters = relabel(labels, graph.num_nodes)
        user_weight = volumes(clusters[: graph.num_users], weights.users, len(born))
        item_weight = volumes(clusters[graph.num_users :], weights.items, len(born))
        return cls(born, clusters, user_weight, item_weight, Links.of_nodes(graph).between(clusters, len(born)))

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
            links = links.between(joined, len(kept))


def merged(
    graph: Biadjacency, weights: NodeWeights, resolution: float, ranks: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Labels after co-clusters have joined others, level by level; the parameters are those of `multilevel`."""
    return Coarse.of(graph, weights, labels).joined(resolution / weights.normaliser, ranks).labels


@njit(cache=True)
def _add_links(near, counts, labels, links, touched, num_touched):
    """Add the counts of some nodes to the `links` of their labels; how many labels `touched` then begins with."""
    for i in range(len(near)):
        label = labels[near[i]]
        if links[label] == 0:
            touched[num_touched] = label
            num_touched += 1
        links[label] += counts[i]
    return num_touched


@njit(cache=True, parallel=True)
def _sum_links(
    starts, ends, neighbors, counts, groups, members, last, room, found_neighbors, found_counts, links, touched
):
    """Sum the links of the members of each group, `members[last[c - 1]:last[c]]`; how many groups it links to.

    Rows of `links` and `touched` are the scratch of a thread; `links` must come, and is left, all zero.
    """
    found = np.empty(len(last), np.int64)
    for group in prange(len(last)):
        shared, near = links[get_thread_id()], touched[get_thread_id()]
        size = 0
        for x in members[last[group - 1] if group else 0 : last[group]]:
            size = _add_links(neighbors[starts[x] : ends[x]], counts[starts[x] : ends[x]], groups, shared, near, size)
        near[:size].sort()
        place = room[group]
        for other in near[:size]:
            if other != group:
                found_neighbors[place] = other
                found_counts[place] = shared[other]
                place += 1
            shared[other] = 0
        found[group] = place - room[group]
    return found


@njit(cache=True)
def _join(order, starts, ends, neighbors, counts, user_weight, item_weight, penalty, joined, user_volume, item_volume):
    """One round of moves of whole co-clusters; how many moved. It changes `joined` and the volumes of its labels."""
    shared, touched = np.zeros((2, len(joined)), np.int32)
    moved = 0
    for x in order:
        own = joined[x]
        user_volume[own] -= user_weight[x]
        item_volume[own] -= item_weight[x]
        num_touched = _add_links(
            neighbors[starts[x] : ends[x]], counts[starts[x] : ends[x]], joined, shared, touched, 0
        )
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
