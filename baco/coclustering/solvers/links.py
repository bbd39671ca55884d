"""Which groups of nodes interact, and how often: the graph of co-clusters that the multilevel solver joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.objective import volumes
from baco.graph import Biadjacency

BLOCK = 2**24  # links that are summed at a time, 128 MiB


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


@njit(cache=True)
def add_links(near, counts, labels, links, touched, num_touched):
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
                size = add_links(around, ones, items, links, labels, size)
            else:
                around = item_neighbors[item_indptr[x - num_users] : item_indptr[x - num_users + 1]]
                size = add_links(around, ones, users, links, labels, size)
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
            size = add_links(neighbors[part], counts[part], groups, links, labels, size)
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
