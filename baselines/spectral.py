"""Spectral clustering of users and items: singular vectors of the normalised biadjacency, then k-means."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from baco.compressors.budget import Budget
from baco.compressors.budget_search import fill_budget
from baco.compressors.compressor import CodeCompressor
from baco.embedding.codes import SIDES, Assignment, Codes
from baco.graph import Biadjacency
from baco.numerics.kmeans import compile_kmeans, fill_empty, kmeans, kmeans_seeds
from baco.numerics.spectral import singular_vectors, spectral_factors
from baco.registry import register_method
from baselines.support.clustering import Clustering
from baselines.support.connected import Connected

ROWS_PER_CLUSTER = 1.5  # a cluster of one side only costs one row; about what real graphs come to


@register_method("scc")
class SpectralCoclustering(Clustering):
    """Spectral co-clustering (Dhillon, KDD 2001).

    Users and items are points in one space, of the coordinates d_x^(-1/2) times the singular vectors 2 to l + 1 of
    D_U^(-1/2) B D_V^(-1/2), l = ceil(log2 k), a relaxation of the normalised cut; k-means with k centres clusters
    them together. Users and items without interactions share one row per side. Parameters: as in `Clustering`.

    Deviations: k is searched to fill the budget, where the authors of the comparison set it by hand; singular vectors
    come from ARPACK instead of a randomised sketch, k-means starts once and stops when no label changes.
    """

    label = "SCC"

    def warm_up(self) -> None:
        compile_kmeans()

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        connected = Connected(train)
        graph = connected.graph
        most = max(1, min(graph.num_nodes, budget.rows()))  # a cluster costs a row at least
        left, right = _without_degrees(graph, math.ceil(math.log2(most)), rng)
        space = np.concatenate(
            [left / np.sqrt(graph.user_degrees)[:, None], right / np.sqrt(graph.item_degrees)[:, None]]
        )
        seed = int(rng.integers(2**31))

        @cache
        def with_clusters(k: int) -> Assignment:
            points = np.ascontiguousarray(space[:, : math.ceil(math.log2(k))])
            seeds = kmeans_seeds(points, k, np.random.default_rng(seed))
            labels, _ = kmeans(points, seeds, f"k-means, {k} centres")
            return self.encode(train, connected.restore(labels), num_clusters=k)

        return fill_budget(
            lambda k: with_clusters(min(max(round(k), 1), most)),
            budget,
            start=max(1.0, most / ROWS_PER_CLUSTER),
            splitting=self.splitting(train),
        )


@register_method("sbc")
class SpectralBiclustering(CodeCompressor):
    """Spectral biclustering (Kluger, Basri, Chang, Gerstein, Genome Research 13, 703, 2003).

    Users and items are clustered apart. Of the singular vectors 2 to 7 of D_U^(-1/2) B D_V^(-1/2), the three that are
    nearest to piecewise constant (by k-means in one dimension) span the space onto which the rows of B are projected,
    item vectors for users and user vectors for items; k-means in it gives the clusters. Users and items without
    interactions share one row per side. Parameters: dim * rows.

    Deviations: rows are shared between the sides in proportion to their numbers of nodes, where the authors of the
    comparison take one number of clusters for both. The scaling is done once; so does scikit-learn's for sparse input,
    although it is called bistochastic there.
    """

    label = "SBC"
    NUM_VECTORS, NUM_BEST = 6, 3

    def warm_up(self) -> None:
        compile_kmeans()

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        connected = Connected(train)
        user_clusters, item_clusters = connected.clusters_within(budget)
        matrix = connected.graph.to_matrix().astype(np.float64)
        left, right = _without_degrees(connected.graph, self.NUM_VECTORS, rng)
        users = _partition(matrix @ self._most_constant(right, item_clusters, rng), user_clusters, rng, "users")
        items = _partition(matrix.T @ self._most_constant(left, user_clusters, rng), item_clusters, rng, "items")
        labels = connected.restore(np.concatenate([users, items]))
        return Assignment(Codes.from_labels(labels[: train.num_users]), Codes.from_labels(labels[train.num_users :]))

    def _most_constant(self, vectors: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
        """The columns that k values approximate best."""
        errors = []
        for vector in vectors.T:
            points = np.ascontiguousarray(vector[:, None])
            _, distances = kmeans(points, kmeans_seeds(points, k, rng))
            errors.append(distances.sum())
        return vectors[:, np.argsort(errors, kind="stable")[: self.NUM_BEST]]


@register_method("spectral_kmeans")
class SpectralKMeans(CodeCompressor):
    """k-means of users, and of items, in the space of the largest singular vectors of D_U^(-1/2) B D_V^(-1/2), the
    matrix of GF-CF (Shen et al., CIKM 2021).

    A point is an id's `spectral_factors`, `budget.dim` of them, near which `start=spectral` begins its row: this is
    what these vectors give by themselves as clusters, a control for methods that cluster by other means and start
    there. Clusters are shared between the sides in proportion to their numbers of nodes. Users and items without
    interactions share one row per side. Parameters: dim * rows.
    """

    label = "Spectral k-means"

    def warm_up(self) -> None:
        compile_kmeans()

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        connected = Connected(train)
        points = spectral_factors(connected.graph, budget.dim, rng)
        sides = zip(points, connected.clusters_within(budget), SIDES, strict=True)
        clusters = [_partition(own.astype(np.float64), k, rng, side) for own, k, side in sides]
        labels = connected.restore(np.concatenate(clusters))
        return Assignment(Codes.from_labels(labels[: train.num_users]), Codes.from_labels(labels[train.num_users :]))


def _partition(points: np.ndarray, k: int, rng: np.random.Generator, side: str) -> np.ndarray:
    """(n,) labels in [0, k), all of which occur."""
    points = np.ascontiguousarray(points)
    labels, distances = kmeans(points, kmeans_seeds(points, k, rng), f"k-means, {k} centres of {side}")
    fill_empty(labels, distances, k)
    return labels


def _without_degrees(graph: Biadjacency, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Singular vectors 2 to `count` + 1; the first pair tells degrees only."""
    left, _, right = singular_vectors(graph, count + 1, rng)
    return left[:, 1:], right[:, 1:]
