"""BiMLPA: communities by propagating several labels per node."""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.compressors.budget import Budget
from baco.embedding.codes import Assignment
from baco.graph import SQUARE, Biadjacency, Neighbors
from baco.registry import register_method
from baselines.support.clustering import Clustering
from baselines.support.connected import ISOLATED

MOST_ROUNDS = 100  # of each phase
SENT = 7  # lambda: labels that a node passes on
KEPT = 0.3  # theta: least weight of a label that is kept, relative to the heaviest


@register_method("bimlpa")
class BiMLPA(Clustering):
    """Bipartite multi-label propagation (Taguchi, Murata, Liu, NetSci-X 2020), the square-root-degree variant.

    Nodes hold weighted sets of labels. At first each node of the larger side ('red') holds its own label; then the
    sides receive in turn what their neighbours send: their 7 heaviest labels, each weight divided by the root of the
    sender's degree. A node keeps the labels of at least 0.3 times the largest sum. When no set changes, the red side
    goes on with the one heaviest label each, until nothing changes again. Nodes of one side with the same set share a
    row; users and items without interactions share one row per side. Parameters: as in `Clustering`.

    It finds its own number of communities, a dozen on some real graphs; there is no knob to match a budget with.
    """

    label = "BiMLPA"
    has_budget = False

    def warm_up(self) -> None:
        bimlpa(SQUARE, np.random.default_rng(0))

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        train.check_interactions()
        labels, rounds = bimlpa(train, rng)
        return self.encode(train, labels, rounds=rounds)


def bimlpa(graph: Biadjacency, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Communities and the rounds of both phases. Time O(rounds E / threads), memory O(N threads).

    Sets of labels are compared by the sums of random 64-bit keys of their labels: two different sets among N count as
    one with a probability of N^2 / 2^65.

    Returns
    -------
    labels : (num_nodes,) int64, users first; `ISOLATED` for nodes without interactions
    rounds : [int, int]
    """
    users, items = (graph.by_user, graph.user_degrees), (graph.by_item, graph.item_degrees)
    red, blue = (users, items) if graph.num_users >= graph.num_items else (items, users)
    (red_neighbors, red_degrees), (blue_neighbors, blue_degrees) = red, blue
    num_labels = len(red_degrees)
    keys = rng.integers(2**64, size=num_labels, dtype=np.uint64)
    red_sets, blue_sets = keys, np.zeros(len(blue_degrees), np.uint64)
    sent_labels = np.full((num_labels, SENT), -1, np.int32)
    sent_labels[:, 0] = np.arange(num_labels)
    sent_weights = np.zeros((num_labels, SENT))
    sent_weights[:, 0] = 1 / np.sqrt(np.maximum(red_degrees, 1))
    rounds = []
    for single in (False, True):
        rounds.append(0)
        for _ in range(MOST_ROUNDS):
            rounds[-1] += 1
            before = blue_sets, red_sets
            nothing = np.empty(0)
            blue_sets, blue_labels, blue_weights = receive(
                blue_neighbors, blue_degrees, sent_labels, sent_weights, keys, nothing
            )
            draws = rng.random(num_labels) if single else nothing
            red_sets, sent_labels, sent_weights = receive(
                red_neighbors, red_degrees, blue_labels, blue_weights, keys, draws
            )
            if np.array_equal(before[0], blue_sets) and np.array_equal(before[1], red_sets):
                break
    sets = (red_sets, blue_sets) if red is users else (blue_sets, red_sets)
    _, labels = np.unique(np.concatenate(sets), return_inverse=True)
    labels[graph.joint_degrees == 0] = ISOLATED
    return labels, rounds


def receive(
    neighbors: Neighbors,
    degrees: np.ndarray,
    sent_labels: np.ndarray,
    sent_weights: np.ndarray,
    keys: np.ndarray,
    draws: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the nodes of one side hold, and send, after they received what the other side sent.

    Parameters
    ----------
    neighbors, degrees : of the receivers
    sent_labels, sent_weights : (opposite nodes, SENT) int32 and float64
        Empty places have the label -1, at the end.
    keys : (num_labels,) uint64
    draws : (n,) float64 in [0, 1), or empty
        Given, each receiver keeps one of its heaviest labels, chosen by its draw; else all labels of enough weight.

    Returns
    -------
    sets : (n,) uint64
        Sums of the keys of the labels that each node holds.
    sent_labels, sent_weights : (n, SENT)
        The heaviest of them and their shares divided by sqrt(degree); among equals the lowest labels.
    """
    shape = (get_num_threads(), len(keys))
    sets, labels, weights = _receive(
        *neighbors, sent_labels, sent_weights, keys, draws, np.zeros(shape), np.empty(shape, np.int32)
    )
    return sets, labels, weights / np.sqrt(np.maximum(degrees, 1))[:, None]


@njit(cache=True, parallel=True)
def _receive(indptr, neighbors, sent_labels, sent_weights, keys, draws, sums, found):
    """Row t of `sums`, which must come and is left all zero, and of `found` is the scratch of thread t."""
    n = len(indptr) - 1
    sets = np.zeros(n, np.uint64)
    labels = np.full((n, SENT), -1, np.int32)
    weights = np.zeros((n, SENT))
    for x in prange(n):
        weight, held = sums[get_thread_id()], found[get_thread_id()]
        num_held = 0
        for edge in range(indptr[x], indptr[x + 1]):
            for place in range(SENT):
                label = sent_labels[neighbors[edge], place]
                if label < 0:
                    break
                if weight[label] == 0:
                    held[num_held] = label
                    num_held += 1
                weight[label] += sent_weights[neighbors[edge], place]
        heaviest = 0.0
        for i in range(num_held):
            heaviest = max(heaviest, weight[held[i]])
        if len(draws) > 0:
            num_heaviest = 0
            for i in range(num_held):
                num_heaviest += weight[held[i]] == heaviest
            chosen = int(draws[x] * num_heaviest)
            for i in range(num_held):
                if weight[held[i]] == heaviest:
                    if chosen == 0:
                        labels[x, 0] = held[i]
                        weights[x, 0] = 1.0
                        sets[x] = keys[held[i]]
                    chosen -= 1
        else:
            total = 0.0
            for i in range(num_held):
                label, value = held[i], weight[held[i]]
                if value < KEPT * heaviest:
                    continue
                total += value
                sets[x] += keys[label]
                place = SENT  # where it belongs among the heaviest, the lowest labels first among equals
                while place > 0 and (
                    labels[x, place - 1] < 0
                    or value > weights[x, place - 1]
                    or (value == weights[x, place - 1] and label < labels[x, place - 1])
                ):
                    place -= 1
                for behind in range(SENT - 1, place, -1):
                    labels[x, behind] = labels[x, behind - 1]
                    weights[x, behind] = weights[x, behind - 1]
                if place < SENT:
                    labels[x, place] = label
                    weights[x, place] = value
            for place in range(SENT):
                if labels[x, place] >= 0:
                    weights[x, place] /= total
        for i in range(num_held):
            weight[held[i]] = 0.0
    return sets, labels, weights
