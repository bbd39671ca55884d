"""The balanced co-clustering objective.

For a labelling of all nodes, with e_c the number of interactions inside co-cluster c and W_U(c), W_V(c) the volumes
(summed weights) of its users and items,

    F = sum over c of  e_c - gamma W_U(c) W_V(c).

The first term rewards interactions kept inside co-clusters; the second, for given totals, is smallest when no
co-cluster is heavy on both sides. Moving user x from label a to b changes F by

    [k(x, b) - k(x, a)] - gamma w_x [W_V(b) - W_V(a)],

k(x, c) the number of x's neighbours labelled c; for an item the sides swap. A user's gain reads only item labels and
item volumes, and the other way round. (Barber and Clark, Phys. Rev. E 80, 026129, 2009, for label propagation under a
modularity constraint; BACO, arXiv 2604.18351, for general weights and the resolution gamma.)
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency


def volumes(labels: np.ndarray, weights: np.ndarray, num_labels: int) -> np.ndarray:
    """(num_labels,) int64: the summed integer weights of the nodes that carry each label."""
    total = np.zeros(num_labels, np.int64)
    np.add.at(total, labels, weights)
    return total


def relabel(labels: np.ndarray, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct labels in ascending order, and for each entry the place of its label among them (int32).

    `numpy.unique` with its inverse, for labels of [0, num_labels): linear, without a sort.
    """
    held = np.zeros(num_labels, np.bool_)
    held[labels] = True
    return np.flatnonzero(held), (np.cumsum(held, dtype=np.int32) - 1)[labels]


def internal_edges(graph: Biadjacency, labels: np.ndarray) -> int:
    """Number of interactions whose user and item share a label."""
    return _count_shared(*graph.by_user, labels[: graph.num_users], labels[graph.num_users :])


@njit(cache=True, parallel=True)
def _count_shared(indptr, neighbors, labels, other_labels):
    shared = 0
    for x in prange(len(labels)):
        for edge in range(indptr[x], indptr[x + 1]):
            shared += other_labels[neighbors[edge]] == labels[x]
    return shared


def objective(graph: Biadjacency, labels: np.ndarray, weights: NodeWeights, resolution: float) -> float:
    """F of a labelling.

    Parameters
    ----------
    labels : (num_nodes,) integers in [0, num_nodes)
        Users first, then items; a user and an item with the same label are in one co-cluster.
    resolution : float
        gamma, the weight of the balance term.
    """
    return internal_edges(graph, labels) - resolution / weights.normaliser * balance(labels, weights)


def balance(labels: np.ndarray, weights: NodeWeights) -> float:
    """The sum over c of W_U(c) W_V(c), in integer units; the labels are those of `objective`."""
    num_nodes, num_users = len(labels), len(weights.users)
    user_volume = volumes(labels[:num_users], weights.users, num_nodes)
    item_volume = volumes(labels[num_users:], weights.items, num_nodes)
    return float(user_volume.astype(np.float64) @ item_volume.astype(np.float64))


@njit(cache=True)
def count_labels(near, labels, links, touched):
    """Count the labels of some nodes into `links`; the number of distinct ones, with which `touched` then begins.

    `links` must come all zero, and `touched` have an entry for each of the nodes. All labels are read before one is
    counted, and nothing is skipped where a label is known already: so the processor waits for neither.
    """
    for i in range(len(near)):
        touched[i] = labels[near[i]]
    num_touched = 0
    for i in range(len(near)):
        label = touched[i]
        touched[num_touched] = label
        num_touched += links[label] == 0
        links[label] += 1
    return num_touched


@njit(cache=True)
def best_label(own, neighbors, labels, scale, opposite_volume, ranks, links, touched, margin=0.0):
    """The label, among a node's own and those of its neighbours, that gives the objective the most; and its lead.

    A label scores its links to the node minus `scale` (gamma times the node's weight) times its volume on the opposite
    side; the own one scores `margin` more. Among equal scores the lowest rank wins. The lead is the distance of its
    score to the next best one, infinite without another candidate. `links` and `touched` are scratch, as in
    `count_labels`; `links` is left all zero.
    """
    num_touched = count_labels(neighbors, labels, links, touched)
    best = own
    best_score = links[own] - scale * opposite_volume[own] + margin
    next_score = -np.inf
    for i in range(num_touched):
        label = touched[i]
        score = links[label] - scale * opposite_volume[label]
        links[label] = 0
        if label == best:
            continue
        if score > best_score or (score == best_score and ranks[label] < ranks[best]):
            best, best_score, next_score = label, score, best_score
        else:
            next_score = max(next_score, score)
    return best, best_score - next_score
