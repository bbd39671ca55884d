"""Figures that must not move: the authors' program and our own, on the authors' Beauty split.

The figures of the reference profile were also compared with the authors' compiled kernels, label by label, on five
datasets, two seeds, four resolutions and 1, 5 and 8 rounds: no label and no second label differed.
"""

import hashlib

import numpy as np
import pytest

from baco.coclustering.cocluster import Settings, cocluster
from baco.coclustering.secondary import secondary_user_clusters
from baco.coclustering.solvers.asynchronous import asynchronous
from baco.coclustering.weights import node_weights
from baco.embedding.cost import code_ledger

GAMMA, SEED = 0.1308, 2025  # the authors'


def rows(graph, labels) -> tuple[int, int]:
    return len(np.unique(labels[: graph.num_users])), len(np.unique(labels[graph.num_users :]))


def fingerprint(labels) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()[:16]


def test_reference_profile_is_the_authors_program(beauty):
    graph = beauty.train
    expected = [
        (11179, 9227, "9e4918b7092b5a2a"),
        (7915, 7655, "ab55b9a4f83a8ae3"),
        (7022, 6823, "6590cdcb7a7b7192"),
        (5898, 5582, "45bf8b50131958fa"),
        (4173, 3807, "ca34bc5bc9609fb7"),
    ]
    for num_rounds, figures in enumerate(expected, start=1):
        found = cocluster(graph, GAMMA, SEED, Settings(profile="reference", num_rounds=num_rounds))
        assert (*rows(graph, found.labels), fingerprint(found.labels)) == figures
    assert np.count_nonzero(found.second != found.labels[: graph.num_users]) == 18_373
    assert found.objective == pytest.approx(81088.9, abs=0.05)
    ledger = code_ledger(found.assignment, dim=64)
    assert (ledger.parameters, ledger.extra_codes) == (529_093, 18_373)


def test_clean_profile_with_lowest_label_ties(beauty):
    graph, weights = beauty.train, node_weights(beauty.train)
    expected = [
        (10882, 9373, "c449868149f9c298"),
        (8374, 8177, "92a5a381fb288882"),
        (7170, 6975, "3dde222433dd99f7"),
        (5591, 5312, "febd9b00e0b7a205"),
        (3640, 3363, "8853c988cb0c21cf"),
    ]
    for num_rounds, figures in enumerate(expected, start=1):
        orders = np.random.default_rng(SEED)
        labels = asynchronous(graph, weights, GAMMA, num_rounds, orders, np.arange(graph.num_nodes))
        assert (*rows(graph, labels), fingerprint(labels)) == figures
    second = secondary_user_clusters(graph, labels, weights, GAMMA)
    assert np.count_nonzero(second != labels[: graph.num_users]) == 16_516


def test_clean_profile_with_seeded_ties(beauty):
    graph = beauty.train
    found = cocluster(graph, GAMMA, SEED)
    assert (*rows(graph, found.labels), fingerprint(found.labels)) == (3560, 3289, "4432a3610e8e5cd9")
    totals = [sum(rows(graph, cocluster(graph, GAMMA, seed).labels)) for seed in range(4)]
    assert totals == [7787, 7218, 7256, 9942]
