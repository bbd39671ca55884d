"""Clustering by excess bipartite density."""

from __future__ import annotations

import numpy as np
from numba import njit

from baco.coclustering.objective import count_labels
from baco.compressors.budget import Budget
from baco.embedding.codes import Assignment
from baco.graph import SQUARE, Biadjacency
from baco.registry import register_method
from baselines.labels import MOST_ROUNDS
from baselines.support.clustering import Clustering

ROUNDING = 1e-9  # of gains, whose unit is an interaction: closer ones are equal


@register_method("ebmd")
class Ebmd(Clustering):
    """Excess bipartite modularity density, re-derived from the program of the published comparison.

    Maximises the sum over clusters c of

        e_c g_c - (D_U(c) D_V(c) / E) g_c^2,    g_c = e_c / (n_U(c) n_V(c)) - E / (num_users num_items),

    e_c the interactions inside c, n its numbers of users and items, D their degrees summed, g_c the excess of its
    density over that of the graph (0 for a cluster of one side); after Chen, Singh, Bassler, J. Stat. Mech. 053406,
    2018, for graphs of one mode. Nodes move to the neighbour's label of the largest gain, while there is one; then, as
    long as the budget is not met, clusters merge whose gain is the largest, or whose loss the least.
    Parameters: dim * (user clusters + item clusters).

    Deviations: gains are exact, where that program has degrees in place of members, twice the edges and a node's own
    links counted twice; a node moves for a gain only, where there it also moves at a loss, which is how it comes down
    to a budget. (Moves for a gain alone end at some 17,900 rows on Beauty, where the paper's budget has 8,267.)
    """

    label = "EBMD"

    def warm_up(self) -> None:
        excess_density(SQUARE, 0, 0)

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        seed = int(rng.integers(2**31))

        def run(most_rows: int) -> tuple[np.ndarray, dict]:
            labels, rounds, mergers = excess_density(train, seed, most_rows)
            return labels, {"rounds": rounds, "mergers": mergers}

        return self.stop_at_budget(train, budget, run)


def excess_density(graph: Biadjacency, seed: int, most_rows: int) -> tuple[np.ndarray, int, int]:
    """Local moves on the excess density, one node after the other in a fresh random order per round, then mergers.

    Parameters
    ----------
    most_rows : int
        It stops when users and items together have no more labels (one that both have counts twice), or when no two
        clusters with an interaction between them are left.

    Returns
    -------
    labels : (num_nodes,) integers, users first
    rounds : int
        Rounds of moves.
    mergers : int
        How many pairs of clusters were merged.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(graph.num_nodes)
    clusters = cluster_sums(graph, labels)
    node_degrees = graph.joint_degrees
    links = np.zeros(graph.num_nodes, np.int32)
    touched = np.empty_like(links)
    joint, rounds = graph.joint, 0
    while rounds < MOST_ROUNDS:
        rounds += 1
        go_on = _improve(
            rng.permutation(graph.num_nodes),
            *joint,
            node_degrees,
            graph.num_edges,
            expected_density(graph),
            graph.num_users,
            most_rows,
            labels,
            clusters,
            links,
            touched,
        )
        if not go_on:
            break
    labels, mergers = merge(graph, labels, most_rows)
    return labels, rounds, mergers


def cluster_sums(graph: Biadjacency, labels: np.ndarray) -> np.ndarray:
    """(num_labels, 5) int64: interactions inside, users, items, degrees of the users, degrees of the items."""
    users, items = labels[: graph.num_users], labels[graph.num_users :]
    inside = users[graph.users][users[graph.users] == items[graph.items]]
    sums = [(inside, None), (users, None), (items, None), (users, graph.user_degrees), (items, graph.item_degrees)]
    columns = [np.bincount(nodes, weights, labels.max() + 1) for nodes, weights in sums]
    return np.column_stack(columns).astype(np.int64)


def expected_density(graph: Biadjacency) -> float:
    """The part of all user-item pairs that interact."""
    return graph.num_edges / (graph.num_users * graph.num_items)


@njit(cache=True)
def quality(cluster, links, users, items, degree, num_edges, density):
    """The term of a cluster in the objective, after so many users and items of a degree joined it with their links.

    `cluster` is a row of `cluster_sums`; negative numbers are of nodes that leave.
    """
    num_users, num_items = cluster[1] + users, cluster[2] + items
    if num_users == 0 or num_items == 0:
        return 0.0
    internal = cluster[0] + links
    excess = internal / (num_users * num_items) - density
    user_degrees, item_degrees = cluster[3] + users * degree, cluster[4] + items * degree
    return excess * internal - user_degrees * item_degrees / num_edges * excess * excess


@njit(cache=True)
def _improve(
    order, indptr, neighbors, degrees, num_edges, density, num_users, most_rows, labels, clusters, links, touched
):
    """One round of moves to the label of the largest gain, the lowest among equals; whether to go on."""
    moved = False
    rows = np.count_nonzero(clusters[:, 1:3])
    for x in order:
        if rows <= most_rows:
            return False
        user = int(x < num_users)
        item, degree = 1 - user, degrees[x]
        num_touched = count_labels(neighbors[indptr[x] : indptr[x + 1]], labels, links, touched)
        own = best = labels[x]
        best_gain = 0.0
        leaving = quality(clusters[own], -links[own], -user, -item, degree, num_edges, density) - quality(
            clusters[own], 0, 0, 0, 0, num_edges, density
        )
        for label in touched[:num_touched]:
            if label == own:
                continue
            joining = quality(clusters[label], links[label], user, item, degree, num_edges, density) - quality(
                clusters[label], 0, 0, 0, 0, num_edges, density
            )
            gain = leaving + joining
            if gain > best_gain + ROUNDING or (gain > best_gain - ROUNDING and best != own and label < best):
                best_gain = gain
                best = label
        if best != own:
            rows -= np.count_nonzero(clusters[own, 1:3]) + np.count_nonzero(clusters[best, 1:3])
            for label, sign in ((own, -1), (best, 1)):
                clusters[label, 0] += sign * links[label]
                clusters[label, 2 - user] += sign
                clusters[label, 4 - user] += sign * degree
            rows += np.count_nonzero(clusters[own, 1:3]) + np.count_nonzero(clusters[best, 1:3])
            labels[x] = best
            moved = True
        for label in touched[:num_touched]:
            links[label] = 0
    return moved


def merge(graph: Biadjacency, labels: np.ndarray, most_rows: int) -> tuple[np.ndarray, int]:
    """Merge pairs of clusters, each the best partner of the other, the largest gains first, until the rows are enough.

    Returns
    -------
    labels : (num_nodes,) integers from 0 without gaps, users first
    mergers : int
    """
    mergers = 0
    while True:
        labels = np.unique(labels, return_inverse=True)[1]
        clusters = cluster_sums(graph, labels)
        too_many = np.count_nonzero(clusters[:, 1:3]) - most_rows
        one, other, links = linked_clusters(graph, labels)
        if too_many <= 0 or len(one) == 0:
            return labels, mergers
        gains = _merger_gains(clusters, one, other, links, graph.num_edges, expected_density(graph))
        # of equal gains, the pair of the lowest labels first
        ranking = np.argsort(-np.rint(gains / ROUNDING), kind="stable")
        one, other, places = one[ranking], other[ranking], np.arange(len(ranking))
        best = np.full(len(clusters), len(ranking))
        np.minimum.at(best, one, places)
        np.minimum.at(best, other, places)
        mutual = np.flatnonzero((best[one] == places) & (best[other] == places))
        both = (clusters[one[mutual], 1:3] > 0) & (clusters[other[mutual], 1:3] > 0)  # sides where a row is saved
        mutual = mutual[: 1 + np.searchsorted(np.cumsum(both.sum(1)), too_many)]
        into = np.arange(len(clusters))
        into[other[mutual]] = one[mutual]
        labels = into[labels]
        mergers += len(mutual)


def linked_clusters(graph: Biadjacency, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of different labels with interactions between them, the lower label first, and how many they have."""
    ends = np.sort(np.stack([labels[graph.users], labels[graph.num_users :][graph.items]]), axis=0)
    lower, higher = ends[:, ends[0] != ends[1]]
    size = int(labels.max()) + 1
    keys, links = np.unique(lower * size + higher, return_counts=True)
    return keys // size, keys % size, links


@njit(cache=True)
def _merger_gains(clusters, one, other, links, num_edges, density):
    """What the objective gains by merging each pair."""
    gains = np.empty(len(one))
    for i in range(len(one)):
        apart = quality(clusters[one[i]], 0, 0, 0, 0, num_edges, density)
        apart += quality(clusters[other[i]], 0, 0, 0, 0, num_edges, density)
        gains[i] = quality(clusters[one[i]] + clusters[other[i]], links[i], 0, 0, 0, num_edges, density) - apart
    return gains
