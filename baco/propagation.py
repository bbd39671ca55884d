"""Propagation over the user-item graph: the one expensive product of training.

LightGCN's final embeddings are the mean of its layers, Z = (I + A + ... + A^L) E / (L + 1), with the symmetrically
normalised adjacency A. That polynomial of A is itself symmetric, so its backward pass is the forward pass on the
gradient: no transposed copy, nothing saved between the two. Horner's rule, Z = (E + A (E + A (E + ...))) / (L + 1),
makes each layer one product with a fused addition.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from baco.graph import Biadjacency


@dataclass(frozen=True, eq=False)
class Adjacency:
    """A symmetric non-negative matrix W over nodes, normalised to D^-1/2 W D^-1/2 with D its row sums.

    Attributes
    ----------
    indptr : (n + 1,) int64
    indices : (E,) int32
    values : (E,) float32 or None
        W's entries; None: all ones.
    scale : (n,) float32
        D^-1/2; 0 for a node without neighbours.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray | None
    scale: np.ndarray
    _tensors: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_graph(cls, graph: Biadjacency) -> Adjacency:
        """The bipartite graph of users and items, users first."""
        indptr, indices = graph.joint
        return cls(indptr, indices, None, _inverse_root(np.diff(indptr)))

    @classmethod
    def from_matrix(cls, matrix) -> Adjacency:
        """Any symmetric SciPy matrix with non-negative entries, for methods that extend the graph."""
        matrix = matrix.tocsr()
        sums = np.asarray(matrix.sum(axis=1)).ravel()
        return cls(
            matrix.indptr.astype(np.int64),
            matrix.indices.astype(np.int32),
            matrix.data.astype(np.float32),
            _inverse_root(sums),
        )

    def on(self, device: torch.device) -> Tensor:
        """The normalised matrix as a sparse CSR tensor on a device, built there once."""
        if device not in self._tensors:
            rows = np.repeat(np.arange(len(self.scale)), np.diff(self.indptr))
            values = self.scale[rows] * self.scale[self.indices]
            if self.values is not None:
                values *= self.values
            parts = (self.indptr, self.indices.astype(np.int64), values)
            tensors = (torch.as_tensor(part, device=device) for part in parts)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
                matrix = torch.sparse_csr_tensor(*tensors, size=(len(self.scale),) * 2, check_invariants=True)
            self._tensors[device] = matrix
        return self._tensors[device]

    def mean_of_layers(self, embeddings: Tensor, num_layers: int) -> Tensor:
        """(E + A E + ... + A^num_layers E) / (num_layers + 1), differentiable.

        Parameters
        ----------
        embeddings : (n, dim) float32
        """
        return _MeanOfLayers.apply(embeddings, self, num_layers)


class _MeanOfLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embeddings: Tensor, adjacency: Adjacency, num_layers: int) -> Tensor:
        ctx.adjacency, ctx.num_layers = adjacency, num_layers
        return _horner(adjacency, embeddings, num_layers)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _horner(ctx.adjacency, gradient, ctx.num_layers), None, None


def _horner(adjacency: Adjacency, x: Tensor, num_layers: int) -> Tensor:
    x = x.detach().contiguous()
    if num_layers == 0:
        return x.clone()
    if x.device.type == "cpu":
        return torch.from_numpy(_horner_compiled(adjacency, x.numpy(), num_layers))
    return _horner_sparse(adjacency.on(x.device), x, num_layers)


def _horner_sparse(matrix: Tensor, x: Tensor, num_layers: int) -> Tensor:
    y = x
    for _ in range(num_layers):
        y = torch.addmm(x, matrix, y)
    return y / (num_layers + 1)


def _horner_compiled(adjacency: Adjacency, x: np.ndarray, num_layers: int) -> np.ndarray:
    y, lanes = x, (0,) * x.shape[1]
    for layer in range(num_layers):
        factor = np.float32(1 / (num_layers + 1) if layer == num_layers - 1 else 1)
        out = np.empty_like(x)
        _add_product(adjacency.indptr, adjacency.indices, adjacency.values, adjacency.scale, x, y, factor, out, lanes)
        y = out
    return y


def _inverse_root(degrees: np.ndarray) -> np.ndarray:
    return np.divide(1, np.sqrt(degrees), out=np.zeros(len(degrees)), where=degrees > 0).astype(np.float32)


@njit(parallel=True, cache=True)
def _add_product(indptr, indices, values, scale, x, y, factor, out, lanes):
    """out = factor * (x + A y), row by row.

    The width comes as the length of a tuple, which is a constant to the compiler: the accumulator stays in vector
    registers. Each row is summed in one fixed order, so the number of threads does not change a bit.
    """
    dim = len(lanes)
    for row in prange(len(indptr) - 1):
        total = np.zeros(dim, np.float32)
        for edge in range(indptr[row], indptr[row + 1]):
            neighbor = indices[edge]
            weight = scale[neighbor]
            if values is not None:
                weight = weight * values[edge]
            for k in range(dim):
                total[k] += weight * y[neighbor, k]
        for k in range(dim):
            out[row, k] = factor * (x[row, k] + scale[row] * total[k])
