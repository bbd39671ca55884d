"""Secondary user clusters (SCU): a user's second code."""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.objective import count_labels, volumes
from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency


def secondary_user_clusters(
    graph: Biadjacency, labels: np.ndarray, weights: NodeWeights, resolution: float
) -> np.ndarray:
    """The best label of each user other than its own.

    The candidates of user x are the labels of its items, its own left out, that some user holds (so that no new user
    row is needed). The one with the highest k(x, c) - gamma w_x W_V(c) is taken, however low its score is; the lowest
    label wins among equals.

    Parameters
    ----------
    labels : (num_nodes,) int32, users first
        From any co-clustering; they are not changed.

    Returns
    -------
    (num_users,) int32 : the second label of each user; its own label where there is no candidate.
    """
    users, items = labels[: graph.num_users], labels[graph.num_users :]
    num_labels = int(labels.max()) + 1
    held_by_user = np.zeros(num_labels, np.bool_)
    held_by_user[users] = True
    links = np.zeros((get_num_threads(), num_labels), np.int32)
    touched = np.empty((get_num_threads(), graph.user_degrees.max()), np.int32)
    return _second_labels(
        *graph.by_user,
        users,
        items,
        held_by_user,
        weights.users,
        volumes(items, weights.items, num_labels),
        resolution / weights.normaliser,
        links,
        touched,
    )


@njit(cache=True, parallel=True)
def _second_labels(indptr, neighbors, users, items, held_by_user, weights, item_volume, penalty, links, touched):
    """Rows of `links` and `touched` are the scratch of a thread; `links` must come, and is left, all zero."""
    second = users.copy()
    for x in prange(len(users)):
        count, found = links[get_thread_id()], touched[get_thread_id()]
        num_found = count_labels(neighbors[indptr[x] : indptr[x + 1]], items, count, found)
        own = users[x]
        scale = penalty * weights[x]
        best_score = -np.inf
        for label in found[:num_found]:
            if label != own and held_by_user[label]:
                score = count[label] - scale * item_volume[label]
                if score > best_score or (score == best_score and label < second[x]):
                    best_score = score
                    second[x] = label
            count[label] = 0
    return second
