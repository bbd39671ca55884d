"""Final embeddings of a batch where nothing propagates, at the cost of the rows that it touches, on a CPU.

The gradients of the tables are sparse tensors, for an optimiser that leaves the other rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from baco.numerics.sparse import Csr, multiply
from baco.numerics.triples import batch_matrix, differences

Refresh = Callable[[Tensor, np.ndarray], None]  # a table, and (q,) rows of it that are about to be read


class Lookup:
    """Layer 0 of some nodes, from one or two tables.

    Parameters
    ----------
    pooling : (n, K) csr_array, optional
        S; None: the identity.
    refresh : function
        Called before rows are read; it may change them.
    """

    def __init__(self, pooling: csr_array | None, refresh: Refresh):
        self.pooling = pooling
        self.refresh = refresh

    def rows(self, nodes: Tensor, *tables: Tensor) -> Tensor:
        """(len(nodes), dim): of distinct nodes, (_,) int32, in ascending order; differentiable."""
        return _Layer0.apply(self, nodes, *tables)

    def touched(self, nodes: np.ndarray) -> tuple[np.ndarray, csr_array | None]:
        """The distinct rows of C that nodes need, table after table, and their weights in each node; None: identity."""
        if self.pooling is None:
            return nodes, None
        chosen = self.pooling[nodes]
        rows, places = np.unique(chosen.indices, return_inverse=True)
        return rows, csr_array((chosen.data, places.astype(np.int32), chosen.indptr), shape=(len(nodes), len(rows)))


class _Layer0(torch.autograd.Function):
    @staticmethod
    def forward(ctx, lookup: Lookup, nodes: Tensor, *tables: Tensor) -> Tensor:
        rows, ctx.weights = lookup.touched(nodes.numpy())
        ctx.parts, ctx.shapes = _by_table(rows, tables), [table.shape for table in tables]
        read = torch.empty(len(rows), tables[0].shape[1])
        rooms = read.split([len(part) for part in ctx.parts])
        for table, part, room in zip(tables, ctx.parts, rooms, strict=True):
            lookup.refresh(table, part)
            torch.index_select(table, 0, torch.as_tensor(part), out=room)
        return read if ctx.weights is None else _product(ctx.weights, read)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.weights is not None:
            gradient = _product(ctx.weights.T, gradient)
        ends = np.cumsum([len(part) for part in ctx.parts])[:-1]
        values = gradient.contiguous().tensor_split(ends.tolist())
        return None, None, *map(_sparse, ctx.parts, values, ctx.shapes)


def _by_table(rows: np.ndarray, tables: Sequence[Tensor]) -> list[np.ndarray]:
    """Rows of tables that stand one below the other, in numbers of each table."""
    starts = np.cumsum([0, *map(len, tables)])[:-1]
    ends = [int(np.count_nonzero(rows < start)) for start in starts[1:]]
    return [part - start for part, start in zip(np.split(rows, ends), starts, strict=True)]


def _sparse(rows: np.ndarray, values: Tensor, shape: torch.Size) -> Tensor:
    places = torch.as_tensor(rows, dtype=torch.int64)[None]
    return torch.sparse_coo_tensor(places, values, shape, is_coalesced=True, check_invariants=False)


def _product(weights: csr_array, rows: Tensor) -> Tensor:
    out = torch.empty(weights.shape[0], rows.shape[1])
    multiply(Csr.from_scipy(weights), rows.contiguous().numpy(), out.numpy())
    return out


class Differences(torch.autograd.Function):
    """(batch,): score differences of triples, (3, batch) int32 rows of (r, dim) final embeddings."""

    @staticmethod
    def forward(ctx, final: Tensor, triples: np.ndarray) -> Tensor:
        ctx.final, ctx.triples = final.numpy(), triples
        return torch.from_numpy(differences(ctx.final, triples))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        out = torch.empty(ctx.final.shape)
        matrix = batch_matrix(ctx.triples, gradient.contiguous().numpy(), len(ctx.final))
        multiply(matrix, ctx.final, out.numpy())
        return out, None
