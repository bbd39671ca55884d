"""What every loss offers, and the final embeddings of a batch that most of them start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import embedding

from baco.backbones.backbone import SCORES, Backbone
from baco.embedding.tables import EmbeddingTables
from baco.numerics.triples import Batch
from baco.validation import Validated, setting


@dataclass(frozen=True)
class Loss(Validated):
    """A training loss: one subclass with `@register_loss(name)` and one conf/loss/name.yaml.

    Attributes
    ----------
    splits : bool
        Whether the loss of a batch is a mean over the parts that `part` makes of it.
    reads_all : bool
        Whether a batch needs the embeddings of all users and items.
    score : str
        How final embeddings make a score, in training, ranking and serving alike: 'dot', their dot product, or
        'cosine', the dot product of embeddings of length 1.
    """

    name: ClassVar[str]  # set by register_loss
    splits: ClassVar[bool] = True
    reads_all: ClassVar[bool] = False
    score: str = setting("cosine", one_of=SCORES)

    def num_negatives(self, batch_size: int) -> int:
        """How many items the sampler draws for a batch, uniformly from all."""
        return 0

    def part(self, batch: Batch, mine: slice) -> Batch:
        """Some pairs of a batch, with what their losses need of the rest of it: all negatives, which pairs share."""
        return Batch(batch.users[mine], batch.positives[mine], batch.negatives)

    def __call__(self, backbone: Backbone, tables: EmbeddingTables, batch: Batch) -> Tensor:
        """(): the mean loss of a batch, differentiable in the tables.

        Parameters
        ----------
        backbone : Backbone
            With this loss's `score`.
        batch : Batch
            With as many negatives as `num_negatives` says.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class BatchRows:
    """The final embeddings that a batch needs, each once, and its pairs in the order of their users.

    Attributes
    ----------
    users : (n, dim) float32
        Of the batch's distinct users.
    items : (m, dim) float32
        Of its distinct items, negatives included.
    pair_user, pair_item : (batch,) int64
        The rows of each pair; users ascend.
    pairs_per_user : (n,) int64
    negatives : (K,) int64
        The rows of the negatives.
    item_ids : (m,) int32
    """

    users: Tensor
    items: Tensor
    pair_user: Tensor
    pair_item: Tensor
    pairs_per_user: Tensor
    negatives: Tensor
    item_ids: Tensor

    @classmethod
    def of(cls, backbone: Backbone, tables: EmbeddingTables, batch: Batch) -> BatchRows:
        """Compute them, differentiable in the tables."""
        in_order, order = torch.sort(batch.users)
        users, pair_user, pairs_per_user = torch.unique_consecutive(in_order, return_inverse=True, return_counts=True)
        together = torch.cat([batch.positives[order], batch.negatives])
        item_ids, place = torch.unique(together, return_inverse=True)
        rows = backbone.rows(tables, torch.cat([users, item_ids + backbone.train.num_users]))
        of_users, of_items = rows.split([len(users), len(item_ids)])
        pair_item, negatives = place.split([len(order), len(batch.negatives)])
        return cls(of_users, of_items, pair_user, pair_item, pairs_per_user, negatives, item_ids)

    def pair_scores(self) -> Tensor:
        """(batch,): the score of each pair, differentiable."""
        return pair_scores(self.users, self.items, self.pair_user, self.pair_item)


def pair_scores(users: Tensor, items: Tensor, pair_user: Tensor, pair_item: Tensor) -> Tensor:
    """(batch,): the dot product of the rows of each pair, differentiable in both tables."""
    return (embedding(pair_user, users) * embedding(pair_item, items)).sum(1)


class _Known(torch.autograd.Function):
    """A value whose gradients are there already."""

    @staticmethod
    def forward(ctx, value: Tensor, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value

    @staticmethod
    def backward(ctx, outer: Any) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient.mul_(outer) for gradient in ctx.gradients)


def with_gradients(value: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """The value, which autograd takes for a function of the inputs with these gradients; they are used up."""
    return _Known.apply(value, gradients, *inputs)
