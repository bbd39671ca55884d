"""Clustering by modularity: Louvain (GraphHash) and Leiden.

Both maximise Barber's bipartite modularity (Phys. Rev. E 76, 066102, 2007) with a resolution gamma,

    Q = sum over clusters c of  e_c / E - gamma D_U(c) D_V(c) / E^2,

e_c the interactions inside c, D_U(c) and D_V(c) the summed degrees of its users and items. That is the objective of
BACO with degree weights on both sides, found by merging clusters into nodes of a smaller graph, level by level.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from baco.compressors.budget import Budget
from baco.compressors.budget_search import Splitting, fill_budget
from baco.embedding.codes import Assignment, Codes
from baco.embedding.rules import AffineHash, HashAndLabel
from baco.graph import SQUARE, Biadjacency
from baco.optional import optional_package
from baco.registry import register_method
from baco.validation import setting
from baselines.support.clustering import Clustering
from baselines.support.sums import SumCompressor

START = 200.0  # where the search of the resolution begins: the published one

Solver = Callable[[float], np.ndarray]  # from a resolution to labels, (num_nodes,), users first


@register_method("graphhash")
class GraphHash(Clustering):
    """Louvain clusters as codes (Wu et al., WWW 2025, arXiv 2412.17245; Blondel et al., J. Stat. Mech. P10008, 2008).

    Parameters: dim * (user clusters + item clusters).

    Deviations: the resolution is searched to fill the budget, where the authors fix it at 200 and let it decide the
    size; nodes are visited in a seeded order, theirs is that of the ids. `resolution=200 shuffle=false` is published.
    """

    label = "GraphHash"

    @dataclass(frozen=True)
    class Config(Clustering.Config):
        """Beside those of every clustering:

        resolution : gamma; None searches the value that fills the budget.
        shuffle : whether nodes are visited in an order drawn from the seed; otherwise the seed decides nothing.
        """

        resolution: float | None = setting(None, at_least=0)
        shuffle: bool = True

    config: Config

    def warm_up(self) -> None:
        louvain(SQUARE, 0, shuffle=True)(1.0)

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        solve = louvain(train, int(rng.integers(2**31)), self.config.shuffle)
        return at_resolution(
            lambda gamma: self.encode(train, solve(gamma), gamma),
            budget,
            self.config.resolution,
            self.splitting(train),
        )


@register_method("doublegraphhash")
class DoubleGraphHash(SumCompressor):
    """The row of an id's Louvain cluster plus the row of a hash of the id, in one codebook per side (Wu et al., 2025).

    Parameters: dim * (user clusters + item clusters) + num_users + num_items.

    Deviations: those of `graphhash`; the second codes are paid from the budget, where the authors count them on top;
    the hash is an affine permutation, which uses all rows evenly, in place of a universal one; first values are scaled
    (`scaled=false` is published).
    """

    label = "DoubleGraphHash"

    @dataclass(frozen=True)
    class Config(SumCompressor.Config):
        """Beside that of every sum, as `GraphHash.Config` without `secondary`: the hash is the second code."""

        resolution: float | None = setting(None, at_least=0)
        shuffle: bool = True

    config: Config

    def warm_up(self) -> None:
        louvain(SQUARE, 0, shuffle=True)(1.0)

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        solve = louvain(train, int(rng.integers(2**31)), self.config.shuffle)
        user_hash, item_hash = (AffineHash.draw(1, size, rng) for size in (train.num_users, train.num_items))

        def encode(labels: np.ndarray, details: dict) -> Assignment:
            users, items = labels[: train.num_users], labels[train.num_users :]
            return Assignment(with_hash(users, user_hash), with_hash(items, item_hash), details, labels)

        return at_resolution(
            lambda gamma: encode(solve(gamma), {"resolution": gamma}),
            budget,
            self.config.resolution,
            Splitting(train, encode),
        )


@register_method("leiden")
class Leiden(Clustering):
    """Leiden clusters as codes (Traag, Waltman, van Eck, Sci. Rep. 9, 5233, 2019), by igraph, which is under the GPL.

    Parameters: dim * (user clusters + item clusters).

    Deviations: the resolution is searched to fill the budget, and nodes are visited in a seeded order. The published
    comparison has scikit-network's Leiden, whose refinement compares rounded gains for zero and may never end: on
    Beauty it did not, for one of three seeds.
    """

    label = "Leiden"

    @dataclass(frozen=True)
    class Config(Clustering.Config):
        """Beside those of every clustering:

        resolution : gamma; None searches the value that fills the budget.
        """

        resolution: float | None = setting(None, at_least=0)

    config: Config

    def warm_up(self) -> None:
        leiden(SQUARE, 0)(1.0)

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        solve = leiden(train, int(rng.integers(2**31)))
        return at_resolution(
            lambda gamma: self.encode(train, solve(gamma), gamma),
            budget,
            self.config.resolution,
            self.splitting(train),
        )


def at_resolution(
    assign: Callable[[float], Assignment], budget: Budget, resolution: float | None, splitting: Splitting
) -> Assignment:
    """The assignment of a given resolution, or that of the one that fills the budget."""
    if resolution is None:
        return fill_budget(assign, budget, START, splitting=splitting)
    return assign(resolution)


def with_hash(labels: np.ndarray, hashed: AffineHash) -> Codes:
    """Two codes per id, its hash and its label, whose rows are summed."""
    clusters = Codes.from_labels(labels)
    rule = HashAndLabel.of(hashed, clusters.first, clusters.num_rows)
    return Codes.from_rule(rule, len(labels), clusters.num_rows, np.ones(2, np.float32))


def louvain(train: Biadjacency, seed: int, shuffle: bool) -> Solver:
    """scikit-network's Louvain; without `shuffle` nodes are visited in the order of their ids."""
    from sknetwork.clustering import Louvain

    train.check_interactions()
    matrix = csr_matrix(train.to_matrix())  # scikit-network does not take SciPy's sparse arrays

    def solve(resolution: float) -> np.ndarray:
        model = Louvain(
            resolution, shuffle_nodes=shuffle, random_state=seed, return_probs=False, return_aggregate=False
        ).fit(matrix, force_bipartite=True)
        return np.concatenate([model.labels_row_, model.labels_col_])

    return solve


def leiden(train: Biadjacency, seed: int) -> Solver:
    """igraph's Leiden, two iterations, on the graph whose edges point from users to items.

    Its constant Potts model sums e_c - r S_out(c) S_in(c). With the degrees of users as weights going out, those of
    items coming in, and r = gamma / E, that is E times the modularity.
    """
    igraph = optional_package("igraph", "the method 'leiden'", "igraph>=1.0", licence="GPL")
    train.check_interactions()
    edges = np.column_stack([train.users, train.items + train.num_users])
    graph = igraph.Graph(n=train.num_nodes, edges=edges, directed=True)
    weights = {
        "node_weights": [*train.user_degrees.tolist(), *[0] * train.num_items],
        "node_in_weights": [*[0] * train.num_users, *train.item_degrees.tolist()],
    }

    def solve(resolution: float) -> np.ndarray:
        igraph.set_random_number_generator(random.Random(seed))
        try:
            clusters = graph.community_leiden("CPM", resolution=resolution / train.num_edges, **weights)
        finally:
            igraph.set_random_number_generator(random)  # igraph's default
        return np.array(clusters.membership)

    return solve
