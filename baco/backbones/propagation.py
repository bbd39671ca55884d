"""From codebook rows to final embeddings, and back with the gradient.

With rows C, a pooling matrix S (layer 0 is S C) and the normalised adjacency A, LightGCN's final embeddings are

    Z = (I + A + ... + A^L) S C / (L + 1).

Nothing forces layer 0 into existence: by Horner's rule the first product is that of (S + A S) with C, and each further
one is that of [S | A] with C on top of the layer before. Nodes that share rows share entries of A S, and all of them
read the few rows of C instead of one row per node. A is symmetric, so that the gradient of C needs no transposed copy
of it:

    dC = S^T (G + A T) / (L + 1)   with   T = (I + A + ... + A^(L-1)) G,

again a chain of products, whose last is that of [S^T | (A S)^T] with G on top of T. MF is the chain with L = 0.

Ids with many codes turn this around: their A S has more entries than A, up to ten times. Then layer 0 is made, by one
more product with S, the chains are those of one row per node, and one with S^T ends the way back.

Where only some nodes are asked for, as by a small batch, the last product of the way forward is taken for those nodes
alone, and the first of the way back skips all the others, whose gradient is zero. Both are exact.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array, dia_array, eye_array, hstack
from torch import Tensor
from torch.nn.functional import embedding

from baco.graph import Biadjacency
from baco.numerics.sparse import Csr, multiply
from baco.numerics.triples import Batch, batch_matrix, compact, differences

DENSER = 2  # A S than A, in entries, from where layer 0 is made: below, either way may be the faster one


def bipartite_adjacency(graph: Biadjacency) -> csr_array:
    """(num_nodes, num_nodes) float32 matrix of ones, users first."""
    indptr, indices = graph.joint
    return csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(graph.num_nodes,) * 2)


def normalised(matrix: csr_array) -> csr_array:
    """D^-1/2 W D^-1/2 of a symmetric non-negative matrix W, D its row sums; a row of zeros stays one."""
    sums = np.asarray(matrix.sum(axis=1), np.float64).ravel()
    scale = np.divide(1, np.sqrt(sums), out=np.zeros(len(sums)), where=sums > 0).astype(np.float32)
    diagonal = dia_array((scale[None], [0]), shape=matrix.shape)
    return csr_array(diagonal @ matrix @ diagonal)


class Propagation:
    """The two chains of products for one graph and one pooling.

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
        identity = eye_array(adjacency.shape[0], dtype=np.float32, format="csr")
        shared = identity if pooling is None else csr_array(pooling)
        self.num_users = num_users
        self.num_nodes, self.num_rows = shared.shape
        self.factor = 1 / (num_layers + 1)
        lifted = adjacency @ shared
        self.pooling: tuple[Csr, Csr] | None = None  # S and S^T, where layer 0 is made
        if num_layers > 0 and lifted.nnz > DENSER * adjacency.nnz:
            self.pooling = Csr.from_scipy(shared), Csr.from_scipy(shared.T)
            shared, lifted = identity, adjacency
        self.head_size = shared.shape[1]  # rows that the forward chain starts from
        self.forward_chain, self.backward_chain = _chains(adjacency, shared, lifted, identity, num_layers)
        self._scratch: dict[str, np.ndarray] = {}

    def __call__(self, *tables: Tensor) -> Tensor:
        """(n, dim) float32: the final embeddings of all nodes, differentiable.

        Parameters
        ----------
        tables : float32 tensors that are, one below the other, the (K, dim) rows C
        """
        return _FinalEmbeddings.apply(self, *tables)

    def score_differences(self, batch: Batch, *tables: Tensor) -> Tensor:
        """(batch,) float32: the score of each positive item minus that of its negative, differentiable."""
        if tables[0].device.type == "cpu":
            return _ScoreDifferences.apply(self, batch, *tables)
        nodes = self(*tables)
        items = embedding(torch.cat([batch.positives, batch.negatives]) + self.num_users, nodes)
        positives, negatives = items.chunk(2)
        return (embedding(batch.users, nodes) * (positives - negatives)).sum(1)

    def scratch(self, name: str, num_rows: int, dim: int) -> np.ndarray:
        """(num_rows, dim) float32 of no particular content, the same memory for each step: fresh memory is slow."""
        kept = self._scratch.get(name)
        if kept is None or len(kept) < num_rows or kept.shape[1] != dim:
            kept = self._scratch[name] = np.empty((num_rows, dim), np.float32)
        return kept[:num_rows]


def _chains(adjacency, shared, lifted, identity, num_layers: int) -> tuple[list[Csr], list[Csr]]:
    """The matrices of the way forward and of the way back, with `lifted` = A S. The first is applied to the head (C, or
    the gradient of Z), each further one to the head on top of the result before."""
    if num_layers < 2:
        only = shared if num_layers == 0 else shared + lifted
        return [Csr.from_scipy(only)], [Csr.from_scipy(only.T)]
    first, step = Csr.from_scipy(shared + lifted), Csr.from_scipy(hstack([shared, adjacency]))
    forward = [first, *[step] * (num_layers - 1)]
    if shared is identity:  # everything is symmetric
        return forward, forward
    middle = [Csr.from_scipy(hstack([identity, adjacency]))] * (num_layers - 2)
    last = Csr.from_scipy(hstack([shared.T, lifted.T]))
    return forward, [Csr.from_scipy(identity + adjacency), *middle, last]


def _run(
    propagation: Propagation,
    chain: list[Csr],
    stack: np.ndarray,
    size: int,
    out: np.ndarray,
    rows: np.ndarray | None = None,
    slots: np.ndarray | None = None,
) -> None:
    """A chain in compiled code.

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
        spare = propagation.scratch("spare", *stack.shape) if len(chain) > 2 else stack
        for matrix in chain[1:-1]:
            spare[:size] = stack[:size]
            multiply(matrix, stack, spare[size:], slots=slots, shift=shift)
            stack, spare = spare, stack
    multiply(chain[-1], stack, out, propagation.factor, rows, slots, shift)


def _run_in_torch(propagation: Propagation, chain: list[Csr], head: Tensor) -> Tensor:
    """The same in torch operations, for GPUs."""
    result = chain[0].on(head.device) @ head
    for matrix in chain[1:]:
        result = matrix.on(head.device) @ torch.cat([head, result])
    return result.mul_(propagation.factor)


def _forward_in_torch(propagation: Propagation, rows: Tensor) -> Tensor:
    """(n, dim): Z, from C."""
    head = rows if propagation.pooling is None else propagation.pooling[0].on(rows.device) @ rows
    return _run_in_torch(propagation, propagation.forward_chain, head)


def _back_in_torch(propagation: Propagation, gradient: Tensor) -> Tensor:
    """(K, dim): the gradient of C, from that of Z."""
    head = _run_in_torch(propagation, propagation.backward_chain, gradient)
    return head if propagation.pooling is None else propagation.pooling[1].on(head.device) @ head


def _stacked(propagation: Propagation, tables: tuple[Tensor, ...]) -> np.ndarray:
    """The scratch with the rows C, or layer 0, at its head."""
    size, dim = propagation.head_size, tables[0].shape[1]
    stack = propagation.scratch("stack", size + propagation.num_nodes, dim)
    rows = stack[:size] if propagation.pooling is None else propagation.scratch("rows", propagation.num_rows, dim)
    np.concatenate([table.detach().numpy() for table in tables], out=rows)
    if propagation.pooling is not None:
        multiply(propagation.pooling[0], rows, stack[:size])
    return stack


def _back(propagation: Propagation, stack: np.ndarray, size: int, slots: np.ndarray | None = None) -> Tensor:
    """(K, dim): the gradient of C, from that of Z in the first `size` rows of a stack."""
    dim = stack.shape[1]
    out = torch.empty(propagation.num_rows, dim)
    head = out.numpy() if propagation.pooling is None else propagation.scratch("head", propagation.head_size, dim)
    _run(propagation, propagation.backward_chain, stack, size, head, slots=slots)
    if propagation.pooling is not None:
        multiply(propagation.pooling[1], head, out.numpy())
    return out


class _FinalEmbeddings(torch.autograd.Function):
    @staticmethod
    def forward(ctx, propagation: Propagation, *tables: Tensor) -> Tensor:
        ctx.propagation, ctx.sizes = propagation, [len(table) for table in tables]
        if tables[0].device.type != "cpu":
            return _forward_in_torch(propagation, torch.cat(tables))
        out = torch.empty(propagation.num_nodes, tables[0].shape[1])
        stack = _stacked(propagation, tables)
        _run(propagation, propagation.forward_chain, stack, propagation.head_size, out.numpy())
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        propagation, (num_nodes, dim) = ctx.propagation, gradient.shape
        if gradient.device.type != "cpu":
            return None, *_back_in_torch(propagation, gradient).split(ctx.sizes)
        stack = propagation.scratch("stack", 2 * num_nodes, dim)
        stack[:num_nodes] = gradient.numpy()
        return None, *_back(propagation, stack, num_nodes).split(ctx.sizes)


class _ScoreDifferences(torch.autograd.Function):
    """Score differences of a batch in compiled code; layers live in scratch memory, whose content nothing outlives."""

    @staticmethod
    def forward(ctx, propagation: Propagation, batch: Batch, *tables: Tensor) -> Tensor:
        triples, num_nodes, dim = batch.as_nodes(propagation.num_users), propagation.num_nodes, tables[0].shape[1]
        nodes = slots = None
        if triples.size <= num_nodes:
            triples, nodes, slots = compact(triples, num_nodes)
        final = np.empty((num_nodes if nodes is None else len(nodes), dim), np.float32)
        stack = _stacked(propagation, tables)
        _run(propagation, propagation.forward_chain, stack, propagation.head_size, final, nodes)
        ctx.propagation, ctx.sizes = propagation, [len(table) for table in tables]
        ctx.triples, ctx.final, ctx.slots = triples, final, slots
        return torch.from_numpy(differences(final, triples))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        propagation, (size, dim) = ctx.propagation, ctx.final.shape
        stack = propagation.scratch("stack", size + propagation.num_nodes, dim)
        multiply(batch_matrix(ctx.triples, gradient.contiguous().numpy(), size), ctx.final, stack[:size])
        return None, None, *_back(propagation, stack, size, ctx.slots).split(ctx.sizes)
