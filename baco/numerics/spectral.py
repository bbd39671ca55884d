"""Singular vectors of the normalised interactions."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from baco.graph import Biadjacency

# Entries of matrices that are decomposed densely. ARPACK needs some size, and at a low rank, as toy data have, it goes
# on from random vectors that SciPy does not let us seed.
DENSE = 2**20


def spectral_factors(graph: Biadjacency, dim: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings whose dot products approximate D_U^(-1/2) B D_V^(-1/2) best: its singular vectors by sqrt(values).

    Nodes without interactions have zeros, and so have columns that a small matrix lacks.

    Returns
    -------
    (num_users, dim) and (num_items, dim) float32
    """
    left, values, right = singular_vectors(graph, dim, rng, np.float32)
    left[graph.user_degrees == 0], right[graph.item_degrees == 0] = 0, 0  # but for rounding, they are
    missing = ((0, 0), (0, dim - len(values)))
    return np.pad(left * np.sqrt(values), missing), np.pad(right * np.sqrt(values), missing)


def singular_vectors(
    graph: Biadjacency, count: int, rng: np.random.Generator, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left singular vectors, values and right singular vectors of D_U^(-1/2) B D_V^(-1/2), largest values first.

    Parameters
    ----------
    count : int
        Most of them; a small matrix has fewer.
    dtype : float32 or float64

    Returns
    -------
    (num_users, c), (c,) and (num_items, c) of the dtype, c at most `count`
    """
    matrix = normalise_interactions(graph).astype(dtype)
    smaller = min(matrix.shape)
    with threadpool_limits(1, "blas"):  # with more threads, sums of another order
        if smaller <= 2 * count or graph.num_users * graph.num_items <= DENSE:
            left, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
        else:
            left, values, right = svds(matrix, count, v0=rng.standard_normal(smaller).astype(dtype))
    order = np.argsort(-values, kind="stable")[:count]
    return left[:, order], values[order], right[order].T


def normalise_interactions(graph: Biadjacency) -> csr_array:
    """D_U^(-1/2) B D_V^(-1/2), float64; rows and columns of nodes without interactions are zero."""
    user_scale, item_scale = (
        diags_array(1 / np.sqrt(np.maximum(degrees, 1))) for degrees in (graph.user_degrees, graph.item_degrees)
    )
    return csr_array(user_scale @ graph.to_matrix().astype(np.float64) @ item_scale)
