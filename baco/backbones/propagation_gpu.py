"""Propagation on a GPU: the chains in torch operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from baco.backbones.chains import Chains
from baco.numerics.sparse import Csr
from baco.numerics.triples import Batch


class GpuPropagation:
    """The chains of one graph and one pooling, in torch operations on the device of what they are applied to."""

    def __init__(self, chains: Chains):
        self.chains = chains

    def forward(self, tables: tuple[Tensor, ...]) -> Tensor:
        """(n, dim): Z, from the tensors that are C, one below the other."""
        rows, pooling = torch.cat(tables), self.chains.pooling
        head = rows if pooling is None else pooling[0].on(rows.device) @ rows
        return self._run(self.chains.forward, head)

    def backward(self, gradient: Tensor) -> Tensor:
        """(K, dim): the gradient of C, from that of Z."""
        head, pooling = self._run(self.chains.backward, gradient), self.chains.pooling
        return head if pooling is None else pooling[1].on(head.device) @ head

    def _run(self, chain: list[Csr], head: Tensor) -> Tensor:
        result = chain[0].on(head.device) @ head
        for matrix in chain[1:]:
            result = matrix.on(head.device) @ torch.cat([head, result])
        return result.mul_(self.chains.factor)


def score_differences(nodes: Tensor, batch: Batch, num_users: int) -> Tensor:
    """(batch,): the score of each positive item minus that of its negative, from the (n, dim) final embeddings."""
    items = embedding(torch.cat([batch.positives, batch.negatives]) + num_users, nodes)
    positives, negatives = items.chunk(2)
    return (embedding(batch.users, nodes) * (positives - negatives)).sum(1)
