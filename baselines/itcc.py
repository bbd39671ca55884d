"""Information-theoretic co-clustering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange
from scipy.sparse import csr_array
from tqdm import tqdm

from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor
from baco.embedding.codes import Assignment, Codes
from baco.graph import SQUARE, Biadjacency
from baco.numerics.kmeans import fill_empty
from baco.registry import register_method
from baco.validation import Validated, setting
from baselines.support.connected import Connected

MOST_ROUNDS = 20
LEAST_GAIN = 1e-4  # relative, of the mutual information in a round; less ends the iteration


@register_method("itcc")
class InformationTheoreticCoclustering(CodeCompressor):
    """Information-theoretic co-clustering (Dhillon, Mallela, Modha, KDD 2003).

    Reads B / E as the joint distribution of a user x and an item y, and looks for the clusters of either side that keep
    most of their mutual information. In turn, all users and all items take the cluster whose distribution over the
    other side's clusters is nearest to their own, in the sense of Kullback and Leibler. Users and items without
    interactions share one row per side. Parameters: dim * rows.

    A cluster without any link to one of a node's opposite clusters is infinitely far, which with thousands of clusters
    freezes the random start; so the distributions are smoothed, see `smoothing`. Even then nearly every interaction has
    a cell of its own, the mutual information of the start is close to the best, and the codes are close to random.
    """

    label = "ITCC"

    @dataclass(frozen=True)
    class Config(Validated):
        """smoothing : eps of q(l | k) = (1 - eps) p(l | k) + eps p(l); 0 is the published rule."""

        smoothing: float = setting(0.1, at_least=0, below=1)

    config: Config

    def warm_up(self) -> None:
        labels = np.zeros(2, np.int32)
        half_step(SQUARE.to_matrix(), labels, labels, 2, 2, self.config.smoothing)

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        connected = Connected(train)
        sizes = connected.clusters_within(budget)
        matrix = connected.graph.to_matrix()
        by_item = csr_array(matrix.T)
        users, items = (
            (rng.permutation(n) % k).astype(np.int32) for n, k in zip(matrix.shape, sizes, strict=True)
        )  # as even as can be
        information = [mutual_information(matrix, users, items)]
        for _ in tqdm(range(MOST_ROUNDS), desc="ITCC, rounds", leave=False, disable=None):
            users = half_step(matrix, users, items, *sizes, self.config.smoothing)
            items = half_step(by_item, items, users, *sizes[::-1], self.config.smoothing)
            information.append(mutual_information(matrix, users, items))
            if information[-1] - information[-2] < LEAST_GAIN * information[-2]:
                break
        labels = connected.restore(np.concatenate([users, items]))
        return Assignment(
            Codes.from_labels(labels[: train.num_users]),
            Codes.from_labels(labels[train.num_users :]),
            {"information": information[-1], "information_at_start": information[0], "rounds": len(information) - 1},
        )


def contingency(matrix: csr_array, rows: np.ndarray, columns: np.ndarray) -> csr_array:
    """Number of entries of a matrix of ones between each cluster of rows and each of columns, sparse."""
    entries = (np.repeat(rows, np.diff(matrix.indptr)), columns[matrix.indices])
    table = csr_array((np.ones(matrix.nnz), entries), shape=(rows.max() + 1, columns.max() + 1))
    table.sum_duplicates()
    return table


def mutual_information(matrix: csr_array, rows: np.ndarray, columns: np.ndarray) -> float:
    """I(row cluster; column cluster) in nats, under the uniform distribution over the entries of the matrix."""
    table = contingency(matrix, rows, columns).tocoo()
    expected = table.sum(axis=1)[table.row] * table.sum(axis=0)[table.col] / matrix.nnz
    return float(table.data @ np.log(table.data / expected) / matrix.nnz)


def half_step(
    matrix: csr_array,
    labels: np.ndarray,
    opposite: np.ndarray,
    num_clusters: int,
    num_opposite: int,
    smoothing: float,
) -> np.ndarray:
    """The best cluster of each row: argmax over k of sum over l of n(x, l) log q(l | k).

    n(x, l) is the number of entries of row x in column cluster l. Without smoothing, the mutual information does not
    fall. Time O(sum over rows x and their clusters l of the clusters k that share an entry with l).

    Parameters
    ----------
    matrix : csr_array of ones, no row empty
    labels, opposite : int32 clusters of the rows and of the columns
    num_clusters, num_opposite : int
        Their numbers. Row clusters that lose all their rows get those that fit worst where they are.

    Returns
    -------
    (n,) int32
    """
    own = np.arange(matrix.shape[0], dtype=np.int32)
    profiles = contingency(matrix, own, opposite)
    table = contingency(matrix, labels, opposite).tocsc()
    of_opposite = table.sum(axis=0)
    in_cluster = table.data / table.sum(axis=1)[table.indices]  # p(l | k) of each cell
    overall = np.repeat(of_opposite, np.diff(table.indptr)) / matrix.nnz  # p(l)
    # With smoothing, log q is measured from log(eps p(l)), its value wherever k has no entry in l: scores are then sums
    # over the cells of the sparse table alone.
    gains = np.log1p((1 / smoothing - 1) * in_cluster / overall) if smoothing else np.log(in_cluster)
    floor = np.log(smoothing * of_opposite / matrix.nnz) if smoothing else np.zeros(len(of_opposite))
    shape = (get_num_threads(), num_clusters)
    labels, scores = _best_clusters(
        profiles.indptr,
        profiles.indices,
        profiles.data,
        table.indptr,
        table.indices,
        gains,
        smoothing == 0,
        np.zeros(shape),
        np.zeros(shape),
        np.empty(shape, np.int32),
    )
    degrees = profiles.sum(axis=1)
    entropy = profiles @ floor - np.add.reduceat(profiles.data * np.log(profiles.data), profiles.indptr[:-1])
    losses = -(scores + entropy + degrees * np.log(degrees))  # n(x) KL(p(l | x) || q(l | k))
    fill_empty(labels, losses, num_clusters)
    return labels


@njit(cache=True, parallel=True)
def _best_clusters(
    indptr, opposite, counts, table_indptr, clusters, gains, must_cover, scores, covered, found
):  # scores and covered must come, and are left, all zero
    """The cluster of the highest score for each row, the lowest among equals, and that score.

    With `must_cover`, only clusters that have an entry in all of the row's opposite clusters are eligible; that which
    the row is in always is. Row t of the last three is the scratch of thread t.
    """
    n = len(indptr) - 1
    labels = np.empty(n, np.int32)
    best_scores = np.empty(n)
    for x in prange(n):
        score, cover, near = scores[get_thread_id()], covered[get_thread_id()], found[get_thread_id()]
        num_near = 0
        degree = 0.0
        for entry in range(indptr[x], indptr[x + 1]):
            degree += counts[entry]
            for cell in range(table_indptr[opposite[entry]], table_indptr[opposite[entry] + 1]):
                cluster = clusters[cell]
                if cover[cluster] == 0:
                    near[num_near] = cluster
                    num_near += 1
                cover[cluster] += counts[entry]
                score[cluster] += counts[entry] * gains[cell]
        best = np.int32(-1)
        best_score = -np.inf
        for i in range(num_near):
            cluster = near[i]
            eligible = not must_cover or cover[cluster] == degree
            if eligible and (score[cluster] > best_score or (score[cluster] == best_score and cluster < best)):
                best_score = score[cluster]
                best = cluster
            score[cluster] = 0
            cover[cluster] = 0
        labels[x] = best
        best_scores[x] = best_score
    return labels, best_scores
