"""Slow, obvious versions of the compiled solvers: the oracles of the tests in this folder."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency


def neighbours(graph: Biadjacency) -> dict[int, list[int]]:
    """Neighbours of every node; items are numbered after the users."""
    found = defaultdict(list)
    for user, item in zip(graph.users.tolist(), graph.items.tolist(), strict=True):
        found[user].append(graph.num_users + item)
        found[graph.num_users + item].append(user)
    return found


def objective(graph: Biadjacency, labels: np.ndarray, weights: NodeWeights, resolution: float) -> float:
    """Sum over pairs of equal label of B_uv - gamma w_u w_v, pair by pair."""
    edges = set(zip(graph.users.tolist(), graph.items.tolist(), strict=True))
    total = 0.0
    for user in range(graph.num_users):
        for item in range(graph.num_items):
            if labels[user] == labels[graph.num_users + item]:
                product = int(weights.users[user]) * int(weights.items[item]) / weights.normaliser
                total += ((user, item) in edges) - resolution * product
    return total


def score(graph, labels, weights, penalty, around, node, label) -> float:
    """k(x, c) - gamma w_x W_opposite(c), the volume summed anew."""
    is_user = node < graph.num_users
    opposite, offset = (weights.items, graph.num_users) if is_user else (weights.users, 0)
    volume = sum(int(weight) for y, weight in enumerate(opposite) if labels[offset + y] == label)
    own = weights.users[node] if is_user else weights.items[node - graph.num_users]
    return Counter(labels[y] for y in around[node])[label] - (penalty * int(own)) * volume


def best_label(graph, labels, weights, penalty, ranks, around, node) -> int:
    """The candidate (a neighbour's label, or the own one) of the highest score, then of the lowest rank."""
    candidates = {labels[y] for y in around[node]} | {labels[node]}
    return min(
        candidates,
        key=lambda label: (-score(graph, labels, weights, penalty, around, node, label), ranks[label]),
    )


def asynchronous(graph, weights, resolution, num_rounds, orders, ranks) -> np.ndarray:
    around, labels = neighbours(graph), list(range(graph.num_nodes))
    penalty = resolution / weights.normaliser
    for _ in range(num_rounds):
        for node in orders.permutation(graph.num_nodes):
            labels[node] = best_label(graph, labels, weights, penalty, ranks, around, node)
    return np.array(labels)


def alternating(graph, weights, resolution, num_rounds, ranks) -> np.ndarray:
    around, labels = neighbours(graph), list(range(graph.num_nodes))
    penalty = resolution / weights.normaliser
    sides = (range(graph.num_users, graph.num_nodes), range(graph.num_users))
    for _ in range(num_rounds):
        for side in sides:
            chosen = [best_label(graph, labels, weights, penalty, ranks, around, node) for node in side]
            for node, label in zip(side, chosen, strict=True):
                labels[node] = label
    return np.array(labels)


def secondary(graph, labels, weights, resolution) -> np.ndarray:
    around = neighbours(graph)
    held = set(labels[: graph.num_users].tolist())
    penalty = resolution / weights.normaliser
    second = []
    for user in range(graph.num_users):
        candidates = {labels[y] for y in around[user]} & held - {labels[user]}
        second.append(
            min(
                candidates,
                key=lambda label: (-score(graph, labels, weights, penalty, around, user, label), label),
                default=labels[user],
            )
        )
    return np.array(second)
