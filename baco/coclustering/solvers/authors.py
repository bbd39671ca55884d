"""The authors' program, bit for bit: the profile that anchors our tables to the published ones.

It differs from `asynchronous.py` and `secondary.py` in four ways, each of which moves the result:

* *phantom volumes*: both volumes of a label start with the weight of the node that it was born at, whatever its side,
  and the surplus never leaves;
* a node's candidates are its neighbours' labels only, so it may move at a loss;
* weights, volumes and scores are float32, volumes are updated by running additions and subtractions, and a score is
  worked out in float64 in the rounds (a C variable was left untyped) but in float32 for the secondary clusters;
* among equal scores the first label in the iteration order of a hash set wins: a C++ `std::unordered_set` (GNU
  standard library) in the rounds, a Python `set` for the secondary clusters. Both orders are reproduced here.

The weights are the published ones: w_u = d_u / sqrt(E) and w_v = d_v / sqrt(num_items), whatever the item scheme.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from baco.graph import Biadjacency

NONE = -1  # no element: the end of the hash set's list, an empty slot of a Python set
EMPTY = -2  # a bucket that holds no element
# Numbers of buckets that a libstdc++ unordered container takes when it grows one element at a time.
BUCKET_COUNTS = np.array([
    13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229, 172933, 351061, 712697, 1447153, 2938679,
    5967347, 12117689, 24607243, 49969847,
], np.int64)  # fmt: skip
LINEAR_PROBES = 9  # CPython looks at this many neighbouring slots of a set's table before it jumps


def reference(
    graph: Biadjacency, resolution: float, num_rounds: int, orders: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and secondary user clusters as the authors' program computes them.

    Parameters
    ----------
    orders : numpy.random.Generator
        Each round visits the nodes in `orders.permutation(num_nodes)`; `default_rng(2025)` for the published runs.

    Returns
    -------
    labels : (num_nodes,) int32, users first
    second : (num_users,) int32
        The second label of each user; its own label where it has none.
    """
    num_nodes, num_users = graph.num_nodes, graph.num_users
    weights = np.concatenate(
        [graph.user_degrees / np.sqrt(graph.num_edges), graph.item_degrees / np.sqrt(np.float32(graph.num_items))]
    ).astype(np.float32)
    scale = np.float32(resolution) * weights
    user_volume, item_volume = weights.copy(), weights.copy()  # the phantom volumes
    labels = np.arange(num_nodes, dtype=np.int32)
    links = np.zeros(num_nodes, np.float32)
    max_degree = int(graph.joint_degrees.max())
    joint = graph.joint
    for _ in range(num_rounds):
        _visit(
            orders.permutation(num_nodes),
            *joint,
            num_users,
            weights,
            scale,
            labels,
            user_volume,
            item_volume,
            links,
            max_degree,
        )
    held_by_user = np.zeros(num_nodes, np.bool_)
    held_by_user[labels[:num_users]] = True
    second = _second_labels(
        *graph.by_user, labels[:num_users], labels[num_users:], held_by_user, scale, item_volume, links, max_degree
    )
    return labels, second


@njit(cache=True)
def _visit(
    order,
    indptr,
    neighbors,
    num_users,
    weights,
    scale,
    labels,
    user_volume,
    item_volume,
    links,
    max_degree,
):
    """One round. `links` must come, and is left, all zero."""
    growth = 0
    while BUCKET_COUNTS[growth] < max_degree:
        growth += 1
    before = np.full(BUCKET_COUNTS[growth], EMPTY, np.int64)
    successor = np.empty(len(labels), np.int64)
    growth = 0  # the container keeps its buckets from node to node, but starts each round anew
    for x in order:
        first, size = NONE, 0
        for edge in range(indptr[x], indptr[x + 1]):
            label = labels[neighbors[edge]]
            if links[label] == 0:
                if size == BUCKET_COUNTS[growth]:
                    growth += 1
                    first = _rehash(first, BUCKET_COUNTS[growth], before, successor)
                first = _insert(label, first, BUCKET_COUNTS[growth], before, successor)
                size += 1
            links[label] += np.float32(1)
        is_user = x < num_users
        mine, opposite = (user_volume, item_volume) if is_user else (item_volume, user_volume)
        own = labels[x]
        best, best_score = own, np.float32(-np.inf)
        label = first
        while label != NONE:
            score = np.float32(links[label] - np.float64(scale[x]) * opposite[label])
            if score > best_score:
                best, best_score = label, score
            links[label] = 0
            before[label % BUCKET_COUNTS[growth]] = EMPTY
            label = successor[label]
        if best != own:
            mine[best] += weights[x]
            mine[own] -= weights[x]
            labels[x] = best


@njit(cache=True)
def _insert(label, first, num_buckets, before, successor):
    """Link a new label into libstdc++'s one list; returns the list's first label.

    `before[b]` is the label that stands before the first one of bucket b: NONE where that is the list's head.
    """
    bucket = label % num_buckets
    predecessor = before[bucket]
    if predecessor == EMPTY:  # to the front of the list
        if first != NONE:
            before[first % num_buckets] = label
        before[bucket] = NONE
    elif predecessor != NONE:  # to the front of its bucket
        successor[label] = successor[predecessor]
        successor[predecessor] = label
        return first
    successor[label] = first
    return label


@njit(cache=True)
def _rehash(first, num_buckets, before, successor):
    """Link all labels anew, in list order, into a larger number of buckets; returns the list's first label."""
    before[:] = EMPTY
    label, first = first, NONE
    while label != NONE:
        following = successor[label]
        first = _insert(label, first, num_buckets, before, successor)
        label = following
    return first


@njit(cache=True)
def _second_labels(indptr, neighbors, users, items, held_by_user, scale, item_volume, links, max_degree):
    second = users.copy()
    table, spare = np.full((2, 16 * max_degree + 8), NONE, np.int64)
    for x in range(len(users)):
        mask, size = 7, 0
        for edge in range(indptr[x], indptr[x + 1]):
            label = items[neighbors[edge]]
            if not held_by_user[label]:
                continue
            if links[label] == 0:
                _place(label, mask, table)
                size += 1
                if size * 5 >= mask * 3:
                    old_mask = mask
                    mask = 7
                    while mask < size * (2 if size > 50000 else 4):
                        mask = 2 * mask + 1
                    for slot in range(old_mask + 1):
                        if table[slot] != NONE:
                            _place(table[slot], mask, spare)
                            table[slot] = NONE
                    table, spare = spare, table
            links[label] += np.float32(1)
        own = users[x]
        best_score = np.float32(-np.inf)
        for slot in range(mask + 1):
            label = table[slot]
            if label != NONE:
                score = links[label] - scale[x] * (item_volume[label] - item_volume[own])
                if label != own and score > best_score:
                    second[x], best_score = label, score
                links[label] = 0
                table[slot] = NONE
    return second


@njit(cache=True)
def _place(key, mask, table):
    """Put a new key into the first free slot of CPython's probing sequence."""
    slot, perturb = key & mask, key
    while True:
        last = slot + LINEAR_PROBES if slot + LINEAR_PROBES <= mask else slot
        for probe in range(slot, last + 1):
            if table[probe] == NONE:
                table[probe] = key
                return
        perturb >>= 5
        slot = (slot * 5 + 1 + perturb) & mask
