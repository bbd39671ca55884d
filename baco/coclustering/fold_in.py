"""Fold-in: the co-clusters of users who were not there when co-clusters were found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.cocluster import Settings, label_ranks
from baco.coclustering.objective import best_label, relabel, volumes
from baco.coclustering.weights import integer_weights, node_weights
from baco.graph import Biadjacency

NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class FoldIn:
    """The item side of a co-clustering, which is all that a user's score of a label reads (`objective.py`).

    One half-round of the alternating solver, with items as they are, gives each user the label that maximises

        k(x, c) - gamma w_x W_V(c).

    W_V sums weights of items only, so that it is the same whether the user was among those co-clustered or not, and a
    user of a fixed point of the solver gets its own label again. The one difference: a user who is not in the training
    matrix has no label to stay at. Candidates are the labels of its items that some user holds, so that there is a row
    of the users' codebook for each, and the best one is taken, however low its score is, as for second labels.

    Attributes
    ----------
    names : (L,) int64
        The labels, as the co-clustering has them; below they are 0..L-1.
    item_labels : (num_items,) int32
    item_volume : (L,) int64
    ranks : (L,) int64
        The lowest wins among equal scores.
    offered : (num_items,) bool
        Whether a user holds the item's label.
    user_weight : str
        The scheme of users' weights.
    penalty : float
        gamma, in the units of the integer weights.
    """

    names: np.ndarray
    item_labels: np.ndarray
    item_volume: np.ndarray
    ranks: np.ndarray
    offered: np.ndarray
    user_weight: str
    penalty: float

    @classmethod
    def of(cls, graph: Biadjacency, labels: np.ndarray, resolution: float, seed: int, settings: Settings) -> FoldIn:
        """From labels, (num_nodes,) int32 in [0, num_nodes), users first, and what `cocluster` was given."""
        weights = node_weights(graph, settings.user_weight, settings.item_weight)
        names, labels = relabel(labels, graph.num_nodes)
        users, items = np.split(labels, [graph.num_users])
        held = np.bincount(users, minlength=len(names)) > 0
        return cls(
            names,
            items,
            volumes(items, weights.items, len(names)),
            label_ranks(graph.num_nodes, seed)[names],
            held[items],
            settings.user_weight,
            resolution / weights.normaliser,
        )

    def labels(self, users: Biadjacency) -> np.ndarray:
        """(num_users,) int32: the label of each user, -1 where there is no candidate. Time O(E / threads).

        Parameters
        ----------
        users : Biadjacency
            Of any users, and the items that were co-clustered.
        """
        scales = self.penalty * integer_weights(self.user_weight, users.user_degrees)
        links = np.zeros((get_num_threads(), len(self.names)), np.int32)
        offered = self.offered[users.items]
        indptr = np.concatenate([[0], np.cumsum(offered)])[users.by_user.indptr]
        scratch = links, np.empty_like(links)
        found = _best_labels(
            indptr, users.items[offered], self.item_labels, scales, self.item_volume, self.ranks, *scratch
        )
        return np.where(found == NO_LABEL, NO_LABEL, self.names[found]).astype(np.int32)


@njit(cache=True, parallel=True)
def _best_labels(indptr, neighbors, item_labels, scales, item_volume, ranks, links, touched):
    """Rows of `links` and `touched` are the scratch of a thread; `links` must come, and is left, all zero."""
    found = np.full(len(scales), NO_LABEL, np.int32)
    for x in prange(len(scales)):
        near = neighbors[indptr[x] : indptr[x + 1]]
        if len(near) > 0:
            first, thread = item_labels[near[0]], get_thread_id()
            found[x] = best_label(
                first, near, item_labels, scales[x], item_volume, ranks, links[thread], touched[thread]
            )[0]
    return found
