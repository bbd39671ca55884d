"""BRIM: bipartite modularity, maximised one side at a time."""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.objective import objective, volumes
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget
from baco.compressors.budget_search import ENOUGH_SHARE, Splitting, fill_budget
from baco.embedding.codes import Assignment
from baco.embedding.cost import code_ledger
from baco.graph import SQUARE, Biadjacency, Neighbors
from baco.registry import register_method
from baselines.support.clustering import MatchedClustering
from baselines.support.connected import ISOLATED

MOST_ROUNDS = 200
LEAST_GAIN = 1e-5  # of Q in a round; less ends the iteration
MOST_STARTS = 5  # searches of r; the number of communities jumps as r grows, and where depends on the start


@register_method("brim")
class Brim(MatchedClustering):
    """Bipartite recursively induced modules (Barber, Phys. Rev. E 76, 066102, 2007).

    Maximises Q_r = sum over communities c of [e_c / E - r D_U(c) D_V(c) / E^2] by giving all users their best
    community, then all items theirs, from one community per item. Users and items without interactions share one row
    per side. Parameters: as in `Clustering`.

    Deviations: native (`matched=false`) BRIM has r = 1, Barber's modularity, and as many communities as it ends with,
    as in the published comparison; matched BRIM, the default, searches the r that fills the budget. The start from one
    community per item replaces the search of their number and, in LP-BRIM (Liu and Murata, 2010), the start from label
    propagation, which unites more communities than the budgets here allow and which no r can part again.
    """

    label = "BRIM"

    def warm_up(self) -> None:
        brim(SQUARE, 1.0, np.arange(2, dtype=np.int32))

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        weights = node_weights(train, "degree", "degree")

        def encode(labels: np.ndarray, details: dict) -> Assignment:
            modularity = objective(train, labels, weights, details["resolution"]) / train.num_edges
            return self.encode(train, labels, **details | {"modularity": modularity})

        def search(splitting: Splitting | None) -> Assignment:
            start = rng.permutation(train.num_items).astype(np.int32)

            def at(resolution: float) -> Assignment:
                labels, modularity = brim(train, resolution, start)
                return self.encode(train, labels, resolution, modularity=modularity)

            return fill_budget(at, budget, start=1.0, splitting=splitting) if self.config.matched else at(1.0)

        def share(assignment: Assignment) -> float:
            return budget.share(code_ledger(assignment, budget.dim, budget.row_format()))

        found = [search(None)]
        while self.config.matched and share(found[-1]) < ENOUGH_SHARE and len(found) < MOST_STARTS:
            last = len(found) == MOST_STARTS - 1
            found.append(search(Splitting(train, encode) if last else None))
        return max(found, key=share)


def brim(graph: Biadjacency, resolution: float, items: np.ndarray) -> tuple[np.ndarray, float]:
    """Communities of users and items. Time O(rounds E / threads), memory O(E + N threads).

    Parameters
    ----------
    resolution : float
        r, the weight of the links that degrees lead one to expect.
    items : (num_items,) int32
        Communities of the items to start from, in [0, num_nodes).

    Returns
    -------
    labels : (num_nodes,) int32, users first; `ISOLATED` for nodes without interactions
    modularity : float
        Q_r.
    """
    weights = node_weights(graph, "degree", "degree")
    penalty = resolution / graph.num_edges
    modularity = -np.inf
    for _ in range(MOST_ROUNDS):
        users = half_step(graph.by_user, graph.user_degrees, items, graph.item_degrees, penalty, graph.num_nodes)
        items = half_step(graph.by_item, graph.item_degrees, users, graph.user_degrees, penalty, graph.num_nodes)
        labels = np.concatenate([users, items])
        before, modularity = modularity, objective(graph, labels, weights, resolution) / graph.num_edges
        if modularity - before < LEAST_GAIN:
            break
    labels[graph.joint_degrees == 0] = ISOLATED
    return labels, modularity


def half_step(
    neighbors: Neighbors,
    degrees: np.ndarray,
    opposite: np.ndarray,
    opposite_degrees: np.ndarray,
    penalty: float,
    num_labels: int,
) -> np.ndarray:
    """The best community of each node of one side: that of the highest k(x, c) - penalty d_x D(c).

    k(x, c) counts the neighbours of x in c, and D(c) is the summed degree of the opposite side's members. Nodes that do
    best in an empty community are spread over all empty ones; else the lowest label wins among equal scores.

    Parameters
    ----------
    neighbors, degrees : of the side to label
    opposite, opposite_degrees : labels and degrees of the other side
    num_labels : int
        Labels run from 0 to one less.

    Returns
    -------
    (n,) int32
    """
    volume = volumes(opposite, opposite_degrees, num_labels)
    lightest = np.flatnonzero(volume == volume.min())
    links = np.zeros((get_num_threads(), num_labels), np.int32)
    return _best_labels(*neighbors, degrees, opposite, volume, lightest, penalty, links)


@njit(cache=True, parallel=True)
def _best_labels(indptr, neighbors, degrees, opposite, volume, lightest, penalty, links):
    """Of all labels that no neighbour has, those of the least volume score best: `lightest`.

    Row t of `links` is the scratch of thread t; it must come, and is left, all zero.
    """
    labels = np.empty(len(degrees), np.int32)
    for x in prange(len(degrees)):
        count = links[get_thread_id()]
        for edge in range(indptr[x], indptr[x + 1]):
            count[opposite[neighbors[edge]]] += 1
        scale = penalty * degrees[x]
        best = lightest[x % len(lightest)]
        best_score = count[best] - scale * volume[best]
        for edge in range(indptr[x], indptr[x + 1]):
            label = opposite[neighbors[edge]]
            if count[label] > 0:
                score = count[label] - scale * volume[label]
                if score > best_score or (score == best_score and label < best):
                    best_score = score
                    best = label
                count[label] = 0
        labels[x] = best
    return labels
