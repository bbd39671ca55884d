"""Clustering by label propagation."""

from __future__ import annotations

import numpy as np
from numba import njit

from baco.coclustering.objective import count_labels
from baco.compressors.budget import Budget
from baco.embedding.codes import Assignment
from baco.graph import SQUARE, Biadjacency
from baco.registry import register_method
from baselines.support.clustering import MatchedClustering

MOST_ROUNDS = 100


@register_method("lp")
class LabelPropagation(MatchedClustering):
    """Each node takes the label that most of its neighbours have (Raghavan, Albert, Kumara, Phys. Rev. E 76, 2007).

    Parameters: dim * (user labels + item labels).

    Deviation: it stops as soon as the labels fit the budget, where the authors of the published comparison do five
    rounds in which a node is visited with a probability that they tune. `matched=false` runs to the end instead, until
    every node has a label that none is more frequent among its neighbours than.
    """

    label = "LP"

    def warm_up(self) -> None:
        propagate(SQUARE, 0, 0)

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        seed = int(rng.integers(2**31))

        def run(most_rows: int) -> tuple[np.ndarray, dict]:
            labels, rounds = propagate(train, seed, most_rows)
            return labels, {"rounds": rounds}

        if self.config.matched:
            return self.stop_at_budget(train, budget, run)
        labels, details = run(0)
        return self.encode(train, labels, **details)


def propagate(graph: Biadjacency, seed: int, most_rows: int) -> tuple[np.ndarray, int]:
    """Label propagation, one node after the other in a fresh random order per round, ties drawn at random.

    Parameters
    ----------
    most_rows : int
        It stops when users and items together have no more labels (one that both have counts twice), or at the end of a
        round after which each node's label is among the most frequent ones of its neighbours.

    Returns
    -------
    labels : (num_nodes,) integers, users first
    rounds : int
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(graph.num_nodes)
    members = np.zeros((graph.num_nodes, 2), np.int64)  # users and items with each label
    members[: graph.num_users, 0] = 1
    members[graph.num_users :, 1] = 1
    links = np.zeros(graph.num_nodes, np.int32)
    touched = np.empty_like(links)
    joint, rounds = graph.joint, 0
    while rounds < MOST_ROUNDS:
        rounds += 1
        order, draws = rng.permutation(graph.num_nodes), rng.random(graph.num_nodes)
        enough = _propagate(order, draws, *joint, graph.num_users, most_rows, labels, members, links, touched)
        if enough or _settled(*joint, labels, links, touched):
            break
    return labels, rounds


@njit(cache=True)
def _propagate(order, draws, indptr, neighbors, num_users, most_rows, labels, members, links, touched):
    """One round; whether it ended because no more rows are left than wanted."""
    rows = np.count_nonzero(members)
    for x in order:
        if rows <= most_rows:
            return True
        near = neighbors[indptr[x] : indptr[x + 1]]
        if len(near) == 0:
            continue
        ties = _most_frequent(near, labels, links, touched)
        own, best = labels[x], touched[int(draws[x] * ties)]
        if best != own:
            side = 0 if x < num_users else 1
            members[own, side] -= 1
            rows += int(members[best, side] == 0) - int(members[own, side] == 0)
            members[best, side] += 1
            labels[x] = best
    return rows <= most_rows


@njit(cache=True)
def _settled(indptr, neighbors, labels, links, touched):
    """Whether each node's label is among the most frequent ones of its neighbours."""
    for x in range(len(labels)):
        near = neighbors[indptr[x] : indptr[x + 1]]
        ties = _most_frequent(near, labels, links, touched)
        if ties > 0 and not np.any(touched[:ties] == labels[x]):
            return False
    return True


@njit(cache=True)
def _most_frequent(near, labels, links, touched):
    """The number of labels that are the most frequent among some nodes; `touched` begins with them.

    `links` must come, and is left, all zero.
    """
    num_touched = count_labels(near, labels, links, touched)
    most = 0
    for label in touched[:num_touched]:
        most = max(most, links[label])
    ties = 0
    for label in touched[:num_touched]:
        if links[label] == most:
            touched[ties] = label
            ties += 1
        links[label] = 0
    return ties
