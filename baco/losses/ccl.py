"""The cosine contrastive loss of SimpleX."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from baco.backbones.backbone import Backbone
from baco.embedding.tables import EmbeddingTables
from baco.losses.blocks import blocks
from baco.losses.loss import BatchRows, Loss, with_gradients
from baco.numerics.triples import Batch
from baco.registry import register_loss
from baco.validation import setting


@register_loss("ccl")
@dataclass(frozen=True)
class CosineContrastive(Loss):
    """The mean over the pairs (u, i) of a batch (Mao et al., CIKM 2021, arXiv 2109.12613, eq. 1) of

        (1 - s_ui) + weight / K * sum_j max(0, s_uj - margin),

    with K negatives, drawn uniformly, that the whole batch shares; the authors draw them for each pair.

    Attributes
    ----------
    margin : float
        Negatives below it are left alone.
    weight : float
        Of the negatives.
    negatives : int
        K.
    """

    margin: float = setting(0.8, at_least=-1, at_most=1)
    weight: float = setting(150.0, at_least=0)
    negatives: int = setting(1024, at_least=1)

    def num_negatives(self, batch_size: int) -> int:
        return self.negatives

    def __call__(self, backbone: Backbone, tables: EmbeddingTables, batch: Batch) -> Tensor:
        rows = BatchRows.of(backbone, tables, batch)
        negatives = embedding(rows.negatives, rows.items)
        weight = self.weight * rows.pairs_per_user / (len(rows.pair_user) * len(negatives))
        value, *gradients = hinge_sum(rows.users.detach(), negatives.detach(), weight, self.margin)
        return (1 - rows.pair_scores()).mean() + with_gradients(value, (rows.users, negatives), gradients)


def hinge_sum(X: Tensor, Y: Tensor, weight: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of weight_u max(0, x_u . y_j - margin) over all pairs, and its gradients with respect to X and Y."""
    value, of_x, of_y = X.new_zeros(()), torch.empty_like(X), torch.zeros_like(Y)
    for block, products in blocks(X, Y):
        mine = weight[block, None]
        value += (products.sub_(margin).clamp_(min=0).sum(1) * weight[block]).sum()
        active = products.sign_()
        torch.mm(active, Y, out=of_x[block]).mul_(mine)
        of_y.addmm_(active.T, X[block] * mine)
    return value, of_x, of_y
