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

Why most nodes need no look. A node's choice can change only when a neighbour's label has, or when its label's lead over
all others is used up: by the rise of its own label's volume and the fall of another's. In a half-round no volume falls
by more than the one that falls the most. So a node notes the limit, in units of volume, that its label's volume plus
the sum of those greatest falls would have to reach (as in Hamerly's k-means, SDM 2010), and is visited only then, or
when a neighbour has moved. Late in a solve a few volumes fall, by more than most leads. So where the labels that fell
have few interactions, the nodes that see them are visited, and the fall counts for no other. Labels are those of visits
to all.

A node may have a margin, by which a label has to score more than its own before it moves. All of this holds with it:
F rises by the margin at least, and a lead that the margin was part of when the node moved is too small, never too
large, for the label where it is now.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.objective import best_label, volumes
from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency, Neighbors

FEW = 1 / 8  # of the interactions: those of labels that fell, if the nodes that see them are to be visited
CAUTION = 1e-9  # what rounding may add up to, as a part of a score; it costs a visit, never a label


def alternating(
    graph: Biadjacency,
    weights: NodeWeights,
    resolution: float,
    num_rounds: int,
    ranks: np.ndarray,
    labels: np.ndarray | None = None,
    margins: np.ndarray | None = None,
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
    margins : (num_nodes,) float64, optional
        What the objective must gain for a node to move, infinite for one that stays; None: nothing.

    Returns
    -------
    (num_nodes,) int32 : labels, users first. A label is the number of the node that it was born at.
    """
    num_nodes = graph.num_nodes
    penalty = resolution / weights.normaliser
    labels = np.arange(num_nodes, dtype=np.int32) if labels is None else labels
    margins = np.zeros(num_nodes) if margins is None else margins
    user_margins, item_margins = margins[: graph.num_users], margins[graph.num_users :]
    users, items = labels[: graph.num_users], labels[graph.num_users :]  # views
    user_volume, item_volume = volumes(users, weights.users, num_nodes), volumes(items, weights.items, num_nodes)
    user_limits, item_limits = np.full(graph.num_users, -np.inf), np.full(graph.num_items, -np.inf)
    user_falls = item_falls = 0
    links = np.zeros((get_num_threads(), num_nodes), np.int32)
    most = max(graph.user_degrees.max(), graph.item_degrees.max())
    touched = np.empty((get_num_threads(), most), np.int32)
    scratch = penalty, ranks, links, touched
    for _ in range(num_rounds):
        moved = _assign(
            *graph.by_item,
            weights.items,
            item_margins,
            items,
            item_limits,
            users,
            user_limits,
            user_volume,
            user_falls,
            *scratch,
        )
        before, item_volume = item_volume, volumes(items, weights.items, num_nodes)
        item_falls += _fall(graph.by_item, graph.item_degrees, items, before - item_volume, user_limits)
        moved += _assign(
            *graph.by_user,
            weights.users,
            user_margins,
            users,
            user_limits,
            items,
            item_limits,
            item_volume,
            item_falls,
            *scratch,
        )
        before, user_volume = user_volume, volumes(users, weights.users, num_nodes)
        user_falls += _fall(graph.by_user, graph.user_degrees, users, before - user_volume, item_limits)
        if moved == 0:
            break
    return labels


def _fall(near: Neighbors, degrees: np.ndarray, labels: np.ndarray, falls: np.ndarray, other_limits: np.ndarray) -> int:
    """The greatest fall that all nodes of the opposite side have to reckon with.

    Parameters
    ----------
    near, degrees, labels
        Of the nodes of one side.
    falls : (num_labels,) int64
        Of the volumes of labels on this side.
    other_limits : (n,) float64
        Of the opposite side. Those of nodes that see a label which fell are lifted, if these are few; then the rest
        have nothing to reckon with.
    """
    fell = (falls > 0)[labels]
    if degrees[fell].sum() > FEW * degrees.sum():
        return int(falls.max())
    _lift(*near, np.flatnonzero(fell), other_limits)
    return 0


@njit(cache=True)
def _lift(indptr, neighbors, nodes, other_limits):
    for x in nodes:
        other_limits[neighbors[indptr[x] : indptr[x + 1]]] = -np.inf


@njit(cache=True, parallel=True)
def _assign(
    indptr,
    neighbors,
    weights,
    margins,
    labels,
    limits,
    other_labels,
    other_limits,
    other_volume,
    falls,
    penalty,
    ranks,
    links,
    touched,
):
    """Give each node of one side its best label, in place; how many moved.

    What begins with `other` is of the opposite side; `falls` sums the greatest falls of its volumes so far. `limits`
    are those of the module's text. `links` and `touched` have a row per thread.
    """
    moved = 0
    for x in prange(len(labels)):
        own = labels[x]
        if other_volume[own] + falls < limits[x]:
            continue
        near = neighbors[indptr[x] : indptr[x + 1]]
        scale = penalty * weights[x]
        thread = get_thread_id()
        best, lead = best_label(
            own, near, other_labels, scale, other_volume, ranks, links[thread], touched[thread], margins[x]
        )
        limits[x] = np.inf
        if scale > 0:
            lead = (lead - CAUTION * len(near)) / scale
            limits[x] = (1 - CAUTION) * (lead + other_volume[best] + falls)
        if best != own:
            labels[x] = best
            other_limits[near] = -np.inf
            moved += 1
    return moved
