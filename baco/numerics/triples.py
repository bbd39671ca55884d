"""Scores of (user, positive item, negative item) triples: what a pairwise loss needs of the final embeddings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from torch import Tensor

from baco.numerics.sparse import Csr, even_chunks


class Batch(NamedTuple):
    """Pairs of a training step, as int32 tensors: users, items they have, and items drawn uniformly from all.

    With as many negatives as pairs they are triples.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor

    def as_nodes(self, num_users: int) -> np.ndarray:
        """(3, batch) int32: the same in numbers of nodes, items after users."""
        nodes = np.stack([part.numpy() for part in self])
        nodes[1:] += num_users
        return nodes


def differences(nodes: np.ndarray, triples: np.ndarray) -> np.ndarray:
    """(batch,) float32: z_u . (z_i - z_j) for each triple.

    Parameters
    ----------
    nodes : (n, dim) float32
    triples : (3, batch) int32, rows of `nodes`: users, positive items, negative items
    """
    out = np.empty(triples.shape[1], np.float32)
    _differences(nodes, triples, out, (0,) * nodes.shape[1])
    return out


def batch_matrix(triples: np.ndarray, gradient: np.ndarray, num_nodes: int) -> Csr:
    """The matrix W for which the gradient of `differences` with respect to its nodes Z is W Z.

    A triple (u, i, j) with gradient g has four entries: g at (u, i) and (i, u), -g at (u, j) and (j, u). Those of a
    row stand in the order of the triples, so that sums do not depend on the number of threads.

    Parameters
    ----------
    triples : (3, batch) int32
    gradient : (batch,) float32, of the loss with respect to each difference
    """
    indptr = np.zeros(num_nodes + 1, np.int64)
    indices = np.empty(4 * triples.shape[1], np.int32)
    values = np.empty(len(indices), np.float32)
    _batch_matrix(triples, gradient, indptr, indices, values)
    return Csr((num_nodes, num_nodes), indptr, indices, values, even_chunks(np.diff(indptr)))


@njit(cache=True)
def compact(triples, num_nodes):
    """Number the distinct nodes of some triples.

    Returns
    -------
    triples : (3, batch) int32, in the new numbers
    nodes : (r,) int32, the node of each number
    slots : (num_nodes,) int32, the number of each node, -1 for one that does not occur
    """
    slots = np.full(num_nodes, -1, np.int32)
    nodes = np.empty(triples.size, np.int32)
    renumbered = np.empty_like(triples)
    count = 0
    for part in range(3):
        for b in range(triples.shape[1]):
            node = triples[part, b]
            if slots[node] < 0:
                slots[node] = count
                nodes[count] = node
                count += 1
            renumbered[part, b] = slots[node]
    return renumbered, nodes[:count], slots


# The width of a row comes as the length of a tuple, which is a constant to the compiler. Sums may be reassociated into
# vector registers; the order is fixed when the code is compiled.
@njit(parallel=True, cache=True, fastmath={"reassoc"})
def _differences(nodes, triples, out, lanes):
    for b in prange(len(out)):
        user, positive, negative = triples[0, b], triples[1, b], triples[2, b]
        total = np.float32(0)
        for k in range(len(lanes)):
            total += nodes[user, k] * (nodes[positive, k] - nodes[negative, k])
        out[b] = total


@njit(cache=True)
def _batch_matrix(triples, gradient, indptr, indices, values):
    """Counting sort by row. While entries are dealt out, indptr[row + 1] is where the next one of a row goes."""
    batch = triples.shape[1]
    for part in range(3):
        entries = 2 if part == 0 else 1
        for b in range(batch):
            row = triples[part, b]
            if row + 2 < len(indptr):
                indptr[row + 2] += entries
    for row in range(2, len(indptr)):
        indptr[row] += indptr[row - 1]
    for b in range(batch):
        user, positive, negative, value = triples[0, b], triples[1, b], triples[2, b], gradient[b]
        place = indptr[user + 1]
        indptr[user + 1] += 2
        indices[place], values[place] = positive, value
        indices[place + 1], values[place + 1] = negative, -value
        place = indptr[positive + 1]
        indptr[positive + 1] += 1
        indices[place], values[place] = user, value
        place = indptr[negative + 1]
        indptr[negative + 1] += 1
        indices[place], values[place] = user, -value
