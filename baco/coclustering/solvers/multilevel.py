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

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.objective import relabel, volumes
from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency

BLOCK = 2**24  # links that are summed at a time, 128 MiB
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


class Links(NamedTuple):
    """Which groups interact, and how often: group x with `neighbors[indptr[x]:indptr[x + 1]]`, ascending."""

    indptr: np.ndarray  # (num_groups + 1,) int64
    neighbors: np.ndarray  # int32
    counts: np.ndarray  # int32

    @classmethod
    def of_nodes(cls, graph: Biadjacency, groups: Groups, least: float = 0.0) -> Links:
        """Between groups of nodes, users first; see `Groups` on `least`."""
        ones = np.ones(max(graph.user_degrees.max(), graph.item_degrees.max()), np.int32)
        return groups.linked(graph.joint_degrees, _sum_interactions, (*graph.by_user, *graph.by_item, ones), least)

    def between(self, groups: Groups) -> Links:
        """Links between groups of groups."""
        return groups.linked(np.diff(self.indptr), _sum_links, self, 0.0)

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both groups of each link, the lower first, and its count."""
        left = np.repeat(np.arange(len(self.indptr) - 1, dtype=np.int32), np.diff(self.indptr))
        once = left < self.neighbors
        return left[once], self.neighbors[once], self.counts[once]


class Groups(NamedTuple):
    """Who belongs together: x to group `of[x]`, and what the groups weigh.

    A link is left out where its count is below `least` times what joining its two groups adds to the balance.
    """

    of: np.ndarray  # (n,) int32 of [0, num_groups)
    user_weight: np.ndarray  # (num_groups,) int64
    item_weight: np.ndarray

    def linked(self, sizes: np.ndarray, sum_links: Callable[..., None], source: tuple, least: float) -> Links:
        """The links between groups, a block of groups at a time, so that memory is that of the links left.

        Parameters
        ----------
        sizes : (n,) int64
            How many links each member has.
        sum_links : callable
            `_sum_interactions` or `_sum_links`.
        source : tuple of arrays
            What that reads links from.
        """
        num_groups = len(self.user_weight)
        members = np.argsort(self.of, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(self.of, minlength=num_groups))])
        room = np.concatenate([[0], np.cumsum(volumes(self.of, sizes, num_groups))])  # a group has no more links
        shared = np.zeros((get_num_threads(), num_groups + 1), np.int32)
        touched = np.empty_like(shared)
        found = np.zeros(num_groups + 1, np.int64)
        neighbors, counts = np.empty(0, np.int32), np.empty(0, np.int32)
        first = total = 0
        while first < num_groups:
            last = max(first + 1, int(np.searchsorted(room, room[first] + BLOCK, side="right")) - 1)
            near, each = np.empty((2, room[last] - room[first]), np.int32)
            sum_links(*source, *self, members, ends, room, first, last, least, found, near, each, shared, touched)
            needed = total + int(found[first + 1 : last + 1].sum())
            if needed > len(neighbors):
                for array in (neighbors, counts):
                    array.resize(needed if last == num_groups else max(needed, 3 * len(array) // 2), refcheck=False)
            total = _pack(room, first, last, found, near, each, neighbors, counts, total)
            first = last
        for array in (neighbors, counts):
            array.resize(total, refcheck=False)
        return Links(np.cumsum(found), neighbors, counts)


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
def _add_links(near, counts, labels, links, touched, num_touched):
    """Add the counts of some nodes to the `links` of their labels; how many labels `touched` then begins with.

    It has room for one more than there are labels, as nothing is skipped where a label is known already.
    """
    for i in range(len(near)):
        label = labels[near[i]]
        touched[num_touched] = label
        num_touched += links[label] == 0
        links[label] += counts[i]
    return num_touched


@njit(cache=True, parallel=True)
def _sum_interactions(
    user_indptr,
    user_neighbors,
    item_indptr,
    item_neighbors,
    ones,
    groups,
    user_weight,
    item_weight,
    members,
    ends,
    room,
    first,
    last,
    least,
    found,
    near,
    each,
    shared,
    touched,
):
    """Sum the links of the members, `members[ends[c]:ends[c + 1]]`, of each group of [first, last).

    They are written to `near` and `each` from `room[c] - room[first]` on, and their number to `found[c + 1]`. Rows of
    `shared` and `touched` are the scratch of a thread; `shared` must come, and is left, all zero.
    """
    num_users = len(user_indptr) - 1
    users, items = groups[:num_users], groups[num_users:]
    for group in prange(first, last):
        links, labels = shared[get_thread_id()], touched[get_thread_id()]
        size = 0
        for x in members[ends[group] : ends[group + 1]]:
            if x < num_users:
                around = user_neighbors[user_indptr[x] : user_indptr[x + 1]]
                size = _add_links(around, ones, items, links, labels, size)
            else:
                around = item_neighbors[item_indptr[x - num_users] : item_indptr[x - num_users + 1]]
                size = _add_links(around, ones, users, links, labels, size)
        place = room[group] - room[first]
        found[group + 1] = _write_links(
            group, links, labels[:size], user_weight, item_weight, least, near[place:], each[place:]
        )


@njit(cache=True, parallel=True)
def _sum_links(
    indptr,
    neighbors,
    counts,
    groups,
    user_weight,
    item_weight,
    members,
    ends,
    room,
    first,
    last,
    least,
    found,
    near,
    each,
    shared,
    touched,
):
    """The same for links that have counts."""
    for group in prange(first, last):
        links, labels = shared[get_thread_id()], touched[get_thread_id()]
        size = 0
        for x in members[ends[group] : ends[group + 1]]:
            part = slice(indptr[x], indptr[x + 1])
            size = _add_links(neighbors[part], counts[part], groups, links, labels, size)
        place = room[group] - room[first]
        found[group + 1] = _write_links(
            group, links, labels[:size], user_weight, item_weight, least, near[place:], each[place:]
        )


@njit(cache=True)
def _write_links(group, links, labels, user_weight, item_weight, least, near, each):
    """Write the links of a group that count enough, ascending; how many these are. `links` is left all zero."""
    size = 0
    users, items = least * user_weight[group], least * item_weight[group]  # floats: products exceed an int64
    for label in labels:
        if label != group and links[label] >= users * item_weight[label] + items * user_weight[label]:
            near[size] = label
            size += 1
        else:
            links[label] = 0
    near[:size].sort()
    for i in range(size):
        each[i] = links[near[i]]
        links[near[i]] = 0
    return size


@njit(cache=True)
def _pack(room, first, last, found, near, each, neighbors, counts, total):
    """Append the links of each group of [first, last) to those that there are; how many there are then."""
    for group in range(first, last):
        place = room[group] - room[first]
        for i in range(place, place + found[group + 1]):
            neighbors[total] = near[i]
            counts[total] = each[i]
            total += 1
    return total


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
        num_touched = _add_links(neighbors[part], counts[part], joined, shared, touched, 0)
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
