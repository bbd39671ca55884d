"""Methods without training: popularity, neighbours, a graph filter, and a linear model in closed form.

Each scores the items for a user from the user's training interactions, a row r of the binary matrix R. All reach their
scores by products of R, so that neither seed nor width has a part in them. Their settings were chosen on the validation
split of Beauty, a handful of trials each; R@20 in percent stands beside those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array

from baco.compressors.scoring import Scorer, ScoringMethod, scorer_ledger
from baco.device import check_memory
from baco.embedding.cost import FLOAT_BYTES
from baco.evaluation.evaluator import tie_order
from baco.graph import Biadjacency
from baco.numerics.spectral import normalise_interactions, singular_vectors
from baco.registry import register_method
from baco.rng import stream
from baco.validation import Validated, setting

BLOCK_ITEMS = 1024  # whose products with all items are worked out at once


@register_method("mostpop")
class MostPopular(ScoringMethod):
    """The number of an item's training interactions, for every user. Parameters: num_items."""

    label = "Most popular"

    def fit(self, train: Biadjacency) -> Scorer:
        counts = train.item_degrees.astype(np.float32)
        return Scorer(lambda users: np.tile(counts, (len(users), 1)), scorer_ledger(counts.size, counts.nbytes))


@register_method("itemknn")
class ItemKNN(ScoringMethod):
    """What is similar to the items of the user: r S (Deshpande, Karypis, TOIS 2004).

        S_ij = c_i . c_j / (|c_i| |c_j| + shrink)   for the k items j that are the most similar to i, else 0

    with c_i the column of an item in R, whose rows `normalise` scales to length 1 before, so that users with many items
    count less. The shrinkage is that of Dacrema, Cremonesi, Jannach, RecSys 2019. Of neighbours that are as similar the
    first in the order of ties are kept. Parameters: at most 2 k num_items, a similarity and an id for each neighbour.

    On Beauty: k=400 14.36, k=100 14.11; with k=400, shrink=10 14.22; with k=100, not normalised, at best 13.38
    (shrink=100), and 10.28 for the plain cosine.
    """

    label = "Item kNN"

    @dataclass(frozen=True)
    class Config(Validated):
        k: int = setting(400, at_least=1)
        shrink: float = setting(30.0, at_least=0)
        normalise: bool = True

    config: Config

    def fit(self, train: Biadjacency) -> Scorer:
        histories, similarities = train.to_matrix(), nearest_items(train, self.config)
        arrays = similarities.data, similarities.indices, similarities.indptr
        ledger = scorer_ledger(similarities.nnz, sum(array.nbytes for array in arrays), similarities.nnz)
        return Scorer(lambda users: (histories[users] @ similarities).toarray(), ledger)


@register_method("gfcf")
class GFCF(ScoringMethod):
    """A linear graph filter and an ideal low-pass one (GF-CF: Shen et al., CIKM 2021, arXiv 2108.07567):

        r (R~^T R~ + alpha D^(-1/2) V V^T D^(1/2)),   R~ = D_U^(-1/2) R D^(-1/2)

    with D_U and D the degrees of users and items, and V the first `rank` right singular vectors of R~, as in the
    authors' program. Parameters: rank * num_items; the linear filter is made of the interactions.

    Both settings are the published ones. On Beauty alpha=1 is better, 13.86 (0.3: 13.05), but not on the validation
    split of Gowalla, 19.70 (0.3: 21.08).
    """

    label = "GF-CF"

    @dataclass(frozen=True)
    class Config(Validated):
        alpha: float = setting(0.3, at_least=0)
        rank: int = setting(256, at_least=1)

    config: Config

    def fit(self, train: Biadjacency) -> Scorer:
        histories, smooth = train.to_matrix(), normalise_interactions(train).astype(np.float32)
        back = csr_array(smooth.T)
        _, _, vectors = singular_vectors(train, self.config.rank, stream(0, "spectral"), np.float32)
        roots = np.sqrt(np.maximum(train.item_degrees, 1)).astype(np.float32)[:, None]
        into, out = vectors / roots, np.float32(self.config.alpha) * (vectors * roots).T

        def scores(users: np.ndarray) -> np.ndarray:
            own = histories[users]
            return (own @ back @ smooth).toarray() + (own @ into) @ out

        return Scorer(scores, scorer_ledger(vectors.size, vectors.nbytes))


@register_method("ease")
class EASE(ScoringMethod):
    """The best linear model of items by other items: r W (EASE^R: Steck, WWW 2019, arXiv 1905.03375).

        W minimises |R - R W|^2 + l2 |W|^2 with a zero diagonal:   P = (R^T R + l2 I)^-1,   W_ij = -P_ij / P_jj

    Parameters: num_items^2, and as many floats of memory, since P takes the place of R^T R, and W that of P.

    On Beauty: l2=100 14.80, 300 14.66, 30 14.26.
    """

    label = "EASE"

    @dataclass(frozen=True)
    class Config(Validated):
        l2: float = setting(100.0, above=0)

    config: Config

    def fit(self, train: Biadjacency) -> Scorer:
        histories, weights = train.to_matrix(), item_weights(train, self.config.l2)
        return Scorer(lambda users: histories[users] @ weights, scorer_ledger(weights.size, weights.nbytes))


def nearest_items(train: Biadjacency, config: ItemKNN.Config) -> csr_array:
    """(num_items, num_items) float32 with int32 indices: S of `ItemKNN`."""
    scale = 1 / np.sqrt(np.maximum(train.user_degrees, 1)) if config.normalise else np.ones(train.num_users)
    matrix = csr_array(diags_array(scale) @ train.to_matrix())
    lengths = np.sqrt(matrix.power(2).sum(0))
    place = np.argsort(tie_order(train.num_items))
    kept = []
    for start, block in products(matrix):
        pairs = block.tocoo()
        row, item = pairs.coords
        similarity = (pairs.data / (lengths[start + row] * lengths[item] + config.shrink)).astype(np.float32)
        order = np.lexsort((place[item], -similarity, row))
        order = order[start + row[order] != item[order]]
        sizes = np.bincount(row[order])
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # among the neighbours of its row
        near = order[rank < config.k]
        kept.append((similarity[near], start + row[near], item[near]))
    data, rows, items = map(np.concatenate, zip(*kept, strict=True))
    places = rows.astype(np.int32), items.astype(np.int32)
    return csr_array((data, places), shape=(train.num_items, train.num_items))


def item_weights(train: Biadjacency, l2: float) -> np.ndarray:
    """(num_items, num_items) float32: W of `EASE`, worked out in one array.

    Raises
    ------
    UserError
        When that array is larger than the memory that is free.
    """
    size = train.num_items
    what, mend = f"method=ease, of {size:,} x {size:,} items,", "take method=itemknn, or run it where there is more"
    check_memory(FLOAT_BYTES * size * size, what, mend)
    weights = np.empty((size, size), np.float32)
    for start, block in products(train.to_matrix()):
        block.toarray(out=weights[start : start + block.shape[0]])
    weights[np.diag_indices(size)] += np.float32(l2)
    columns = torch.from_numpy(weights).T  # the same numbers in the order of LAPACK, which then needs no copy
    torch.linalg.cholesky(columns, out=columns)
    torch.cholesky_inverse(columns, out=columns)
    weights /= -weights.diagonal()
    np.fill_diagonal(weights, 0)
    return weights


def products(matrix: csr_array) -> Iterator[tuple[int, csr_array]]:
    """The rows of matrix^T matrix, a block at a time, each with the number of its first row."""
    columns = csr_array(matrix.T)
    for start in range(0, columns.shape[0], BLOCK_ITEMS):
        yield start, columns[start : start + BLOCK_ITEMS] @ matrix
