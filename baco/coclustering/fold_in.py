"""Fold-in: the co-clusters of users, or items, that were not there when co-clusters were found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.cocluster import Settings, label_ranks
from baco.coclustering.objective import best_label, relabel, volumes
from baco.coclustering.weights import integer_weights, node_weights
from baco.embedding.codes import SIDES
from baco.graph import Biadjacency

NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class FoldIn:
    """One side of a co-clustering, say items, which is all that a user's score of a label reads (`objective.py`).

    One half-round of the alternating solver, with items as they are, gives each user the label that maximises

        k(x, c) - gamma w_x W_V(c).

    W_V sums weights of items only, so that it is the same whether the user was among those co-clustered or not, and a
    user of a fixed point of the solver gets its own label again. The one difference: a user who is not in the training
    matrix has no label to stay at. Candidates are the labels of its items that some user holds, so that there is a row
    of the users' codebook for each, and the best one is taken, however low its score is, as for second labels.

    All of this holds for items with the sides swapped.

    Attributes
    ----------
    side : str
        Whose labels are found, 'users' or 'items'.
    names : (L,) int64
        The labels, as the co-clustering has them; below they are 0..L-1.
    fixed : (n,) int32
        Those of the other side; -1 for a node without one.
    volume : (L,) int64
        Of the other side.
    ranks : (L,) int64
        The lowest wins among equal scores.
    offered : (n,) bool
        Of the other side: whether its label is held by a node of this side.
    weight : str
        The scheme of this side's weights.
    penalty : float
        gamma, in the units of the integer weights.
    """

    side: str
    names: np.ndarray
    fixed: np.ndarray
    volume: np.ndarray
    ranks: np.ndarray
    offered: np.ndarray
    weight: str
    penalty: float

    @classmethod
    def of(
        cls,
        graph: Biadjacency,
        labels: np.ndarray,
        resolution: float,
        seed: int,
        settings: Settings,
        side: str = "users",
    ) -> FoldIn:
        """From what `cocluster` was given, and labels, (num_nodes,) int32 in [0, num_nodes), users first.

        -1 is a node without a label: it is no candidate, and in no volume.
        """
        weights = node_weights(graph, settings.user_weight, settings.item_weight)
        labelled = labels != NO_LABEL
        names, numbers = relabel(labels[labelled], graph.num_nodes)
        joint = np.full(graph.num_nodes, NO_LABEL, np.int32)
        joint[labelled] = numbers
        own, fixed = np.split(joint, [graph.num_users])
        heavy, scheme = weights.items, settings.user_weight
        if side == "items":
            own, fixed, heavy, scheme = fixed, own, weights.users, settings.item_weight
        held = np.zeros(len(names) + 1, np.bool_)  # the last one is that of -1
        held[own] = True
        held[NO_LABEL] = False
        there = fixed != NO_LABEL
        return cls(
            side,
            names,
            fixed,
            volumes(fixed[there], heavy[there], len(names)),
            label_ranks(graph.num_nodes, seed)[names],
            held[fixed],
            scheme,
            resolution / weights.normaliser,
        )

    def labels(self, graph: Biadjacency) -> np.ndarray:
        """(n,) int32: the label of each node of this side, -1 where there is no candidate. Time O(E / threads).

        Parameters
        ----------
        graph : Biadjacency
            Of any nodes of this side, and those of the other side that were co-clustered.
        """
        near = graph.by_user if self.side == SIDES[0] else graph.by_item
        scales = self.penalty * integer_weights(self.weight, np.diff(near.indptr))
        links = np.zeros((get_num_threads(), len(self.names)), np.int32)
        touched = np.empty((get_num_threads(), len(self.fixed)), np.int32)
        offered = self.offered[near.indices]
        indptr = np.concatenate([[0], np.cumsum(offered)])[near.indptr]
        found = _best_labels(indptr, near.indices[offered], self.fixed, scales, self.volume, self.ranks, links, touched)
        names = np.append(self.names, NO_LABEL)
        return names[found].astype(np.int32)


@njit(cache=True, parallel=True)
def _best_labels(indptr, neighbors, fixed, scales, volume, ranks, links, touched):
    """Rows of `links` and `touched` are the scratch of a thread; `links` must come, and is left, all zero."""
    found = np.full(len(scales), NO_LABEL, np.int32)
    for x in prange(len(scales)):
        near = neighbors[indptr[x] : indptr[x + 1]]
        if len(near) > 0:
            first, thread = fixed[near[0]], get_thread_id()
            found[x] = best_label(first, near, fixed, scales[x], volume, ranks, links[thread], touched[thread])[0]
    return found
