"""From codebook rows to final embeddings, and back with the gradient, on a CPU or a GPU."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding

from baco.backbones.chains import Chains
from baco.backbones.propagation_cpu import CpuPropagation, NodeRows, ScoreDifferences
from baco.backbones.propagation_gpu import GpuPropagation, score_differences
from baco.graph import Biadjacency, narrow
from baco.numerics.triples import Batch


def bipartite_adjacency(graph: Biadjacency) -> csr_array:
    """(num_nodes, num_nodes) float32 matrix of ones, users first."""
    indptr, indices = graph.joint
    values, indptr = np.ones(len(indices), np.float32), narrow(indptr)
    return csr_array((values, indices, indptr), shape=(graph.num_nodes,) * 2)


def normalise(matrix: csr_array) -> csr_array:
    """D^-1/2 W D^-1/2 of a symmetric non-negative float32 matrix W, D its row sums; a row of zeros stays one.

    It shares W's indices.
    """
    matrix.sum_duplicates()  # in place, which later would leave W with other indices than its values are for
    sums = np.asarray(matrix.sum(axis=1), np.float64).ravel()
    scale = np.divide(1, np.sqrt(sums), out=np.zeros(len(sums)), where=sums > 0).astype(np.float32)
    values = np.repeat(scale, np.diff(matrix.indptr))
    values *= matrix.data
    values *= scale[matrix.indices]
    return csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape)


class Propagation:
    """Propagation over one graph from the rows of one pooling, differentiable, on the device of the rows.

    Parameters
    ----------
    adjacency : (n, n) csr_array, symmetric
        Normalised; users first, then items, then whatever nodes a method added.
    num_layers : int
        L.
    num_users : int
    pooling : (n, K) csr_array, optional
        S; None: the identity, one row per node.
    """

    def __init__(self, adjacency: csr_array, num_layers: int, num_users: int, pooling: csr_array | None = None):
        self.num_users = num_users
        self.chains = Chains.build(adjacency, num_layers, pooling)
        self._on_cpu, self._on_gpu = CpuPropagation(self.chains), GpuPropagation(self.chains)

    def __call__(self, *tables: Tensor) -> Tensor:
        """(n, dim) float32: the final embeddings of all nodes, differentiable.

        Parameters
        ----------
        tables : float32 tensors that are, one below the other, the (K, dim) rows C
        """
        return _FinalEmbeddings.apply(self._on_cpu if tables[0].device.type == "cpu" else self._on_gpu, *tables)

    def rows(self, nodes: Tensor, *tables: Tensor) -> Tensor:
        """(len(nodes), dim) float32: the final embeddings of some distinct nodes, (_,) int32; differentiable."""
        if tables[0].device.type == "cpu":
            return NodeRows.apply(self._on_cpu, nodes, *tables)
        return embedding(nodes, self(*tables))

    def score_differences(self, batch: Batch, *tables: Tensor) -> Tensor:
        """(batch,) float32: the score of each positive item minus that of its negative, differentiable."""
        if tables[0].device.type == "cpu":
            return ScoreDifferences.apply(self._on_cpu, batch, self.num_users, *tables)
        return score_differences(self(*tables), batch, self.num_users)


class _FinalEmbeddings(torch.autograd.Function):
    @staticmethod
    def forward(ctx, propagation: CpuPropagation | GpuPropagation, *tables: Tensor) -> Tensor:
        ctx.propagation, ctx.sizes = propagation, [len(table) for table in tables]
        return propagation.forward(tables)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.propagation.backward(gradient).split(ctx.sizes)
