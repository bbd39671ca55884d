"""Propagation on a CPU: the chains in compiled code, on scratch memory.

Where only some nodes are asked for, as by a small batch, the last product of the way forward is taken for those nodes
alone, and the first of the way back skips all the others, whose gradient is zero. Both are exact.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from baco.backbones.chains import Chains
from baco.numerics.sparse import Csr, multiply
from baco.numerics.triples import Batch, batch_matrix, compact, differences


class CpuPropagation:
    """The chains of one graph and one pooling, in compiled code.

    Layers live in scratch memory: what a call leaves there, the next one overwrites.
    """

    def __init__(self, chains: Chains):
        self.chains = chains
        self._scratch: dict[str, np.ndarray] = {}

    def forward(self, tables: tuple[Tensor, ...]) -> Tensor:
        """(n, dim): Z, from the tensors that are C, one below the other."""
        out = torch.empty(self.chains.num_nodes, tables[0].shape[1])
        self.forward_rows(tables, out.numpy())
        return out

    def forward_rows(self, tables: tuple[Tensor, ...], out: np.ndarray, nodes: np.ndarray | None = None) -> None:
        """Write to `out` the rows of Z of some nodes (r,) int32, or of all."""
        chains, dim = self.chains, tables[0].shape[1]
        stack = self._stack(chains.head_size, dim)
        head = stack[: chains.head_size]
        rows = head if chains.pooling is None else self._room("rows", chains.num_rows, dim)
        np.concatenate([table.detach().numpy() for table in tables], out=rows)
        if chains.pooling is not None:
            multiply(chains.pooling[0], rows, head)
        self._run(chains.forward, stack, chains.head_size, out, nodes)

    def backward(self, gradient: Tensor, nodes: np.ndarray | None = None) -> Tensor:
        """(K, dim): the gradient of C, from that of Z, or of its rows of some distinct nodes (r,) int32."""
        size, dim = gradient.shape
        stack, slots = self._stack(size, dim), None
        stack[:size] = gradient.numpy()
        if nodes is not None:
            slots = np.full(self.chains.num_nodes, -1, np.int32)
            slots[nodes] = np.arange(size, dtype=np.int32)
        return self._back(stack, size, slots)

    def backward_product(self, matrix: Csr, final: np.ndarray, slots: np.ndarray | None) -> Tensor:
        """(K, dim): the gradient of C, from that of Z, which is the product of a matrix with some or all rows of Z.

        Parameters
        ----------
        matrix : (size, size) Csr
        final : (size, dim) float32
        slots : (n,) int32, optional
            Where the gradient has the row of a node, -1 for a row of zeros.
        """
        size, dim = final.shape
        stack = self._stack(size, dim)
        multiply(matrix, final, stack[:size])
        return self._back(stack, size, slots)

    def _back(self, stack: np.ndarray, size: int, slots: np.ndarray | None = None) -> Tensor:
        """(K, dim): the gradient of C, from that of Z in the first `size` rows of a stack."""
        chains, dim = self.chains, stack.shape[1]
        out = torch.empty(chains.num_rows, dim)
        head = out.numpy() if chains.pooling is None else self._room("head", chains.head_size, dim)
        self._run(chains.backward, stack, size, head, slots=slots)
        if chains.pooling is not None:
            multiply(chains.pooling[1], head, out.numpy())
        return out

    def _run(
        self,
        chain: list[Csr],
        stack: np.ndarray,
        size: int,
        out: np.ndarray,
        rows: np.ndarray | None = None,
        slots: np.ndarray | None = None,
    ) -> None:
        """Apply a chain.

        Parameters
        ----------
        stack : (size + n, dim) float32
            The head in its first `size` rows, and room for a result below.
        out, rows : where the last product goes, and the rows of it that are wanted, see `multiply`
        slots : where the head has the row of a node, -1 for a row of zeros
        """
        shift = 0 if slots is None else len(slots) - size
        if len(chain) > 1:
            multiply(chain[0], stack, stack[size:], slots=slots)
            spare = self._room("spare", *stack.shape) if len(chain) > 2 else stack
            for matrix in chain[1:-1]:
                spare[:size] = stack[:size]
                multiply(matrix, stack, spare[size:], slots=slots, shift=shift)
                stack, spare = spare, stack
        multiply(chain[-1], stack, out, self.chains.factor, rows, slots, shift)

    def _stack(self, size: int, dim: int) -> np.ndarray:
        """(size + n, dim): room for a head, and for a layer below it."""
        return self._room("stack", size + self.chains.num_nodes, dim)

    def _room(self, name: str, num_rows: int, dim: int) -> np.ndarray:
        """(num_rows, dim) float32 of no particular content, the same memory for each step: fresh memory is slow."""
        kept = self._scratch.get(name)
        if kept is None or len(kept) < num_rows or kept.shape[1] != dim:
            kept = self._scratch[name] = np.empty((num_rows, dim), np.float32)
        return kept[:num_rows]


class NodeRows(torch.autograd.Function):
    """The final embeddings of some nodes."""

    @staticmethod
    def forward(ctx, propagation: CpuPropagation, nodes: Tensor, *tables: Tensor) -> Tensor:
        ctx.propagation, ctx.nodes, ctx.sizes = propagation, nodes.numpy(), [len(table) for table in tables]
        out = torch.empty(len(nodes), tables[0].shape[1])
        propagation.forward_rows(tables, out.numpy(), ctx.nodes)
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.propagation.backward(gradient, ctx.nodes).split(ctx.sizes)


class ScoreDifferences(torch.autograd.Function):
    """Score differences of a batch in compiled code; what the way back needs is kept outside of scratch memory."""

    @staticmethod
    def forward(ctx, propagation: CpuPropagation, batch: Batch, num_users: int, *tables: Tensor) -> Tensor:
        triples, num_nodes = batch.as_nodes(num_users), propagation.chains.num_nodes
        nodes = slots = None
        if triples.size <= num_nodes:
            triples, nodes, slots = compact(triples, num_nodes)
        final = np.empty((num_nodes if nodes is None else len(nodes), tables[0].shape[1]), np.float32)
        propagation.forward_rows(tables, final, nodes)
        ctx.propagation, ctx.sizes = propagation, [len(table) for table in tables]
        ctx.triples, ctx.final, ctx.slots = triples, final, slots
        return torch.from_numpy(differences(final, triples))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        matrix = batch_matrix(ctx.triples, gradient.contiguous().numpy(), len(ctx.final))
        return None, None, None, *ctx.propagation.backward_product(matrix, ctx.final, ctx.slots).split(ctx.sizes)
